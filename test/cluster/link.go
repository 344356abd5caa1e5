package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Direction is one of the two ways of a link.
type Direction int

// Up is from whoever connects to whom it connects, Down is back.
const (
	Up Direction = iota
	Down
)

// Link is a TCP proxy in front of an address, for one process alone: what lies
// between the two, to be broken. Its methods may be called from several
// goroutines. The owner calls Close.
type Link struct {
	target   string
	listener net.Listener
	wg       sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed and made anew when what follows changes
	cut     bool
	closed  bool
	held    [2]bool
	delay   time.Duration
	trap    *Trap
	pairs   map[*pair]bool
}

// Trap waits for a pattern in what passes.
type Trap struct {
	Way     Direction
	Pattern []byte
	// Before has Then called before the data passes that holds the pattern, and
	// the data dropped with its connection; otherwise it passes first, and what
	// comes back after it does not.
	Before bool
	// Then is called once, by the goroutine that carries the data. Its connection
	// is closed when it returns.
	Then func()
}

// NewLink listens on a port of the loopback address, and passes on to target
// what connects to it.
func NewLink(target string) (*Link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open a link to %s: %w", target, err)
	}
	l := &Link{target: target, listener: listener, changed: make(chan struct{}), pairs: map[*pair]bool{}}
	l.wg.Go(l.accept)
	return l, nil
}

// Addr is where to connect to.
func (l *Link) Addr() string { return l.listener.Addr().String() }

// Cut closes what is connected and refuses what comes, until Heal.
func (l *Link) Cut() {
	l.change(func() { l.cut = true })
	l.Drop()
}

// Drop closes what is connected; it may connect again at once.
func (l *Link) Drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.pairs {
		p.close()
	}
}

// Hold lets nothing pass in the given ways, and tells nobody, until Heal: then
// what was held passes, as the network's own retransmission would have it.
func (l *Link) Hold(ways ...Direction) {
	l.change(func() {
		for _, w := range ways {
			l.held[w] = true
		}
	})
}

// Slow delays whatever passes, in both ways, until Heal.
func (l *Link) Slow(delay time.Duration) { l.change(func() { l.delay = delay }) }

// Set lays a trap, in place of the one before; nil takes it away.
func (l *Link) Set(t *Trap) { l.change(func() { l.trap = t }) }

// Heal ends all of the above.
func (l *Link) Heal() {
	l.change(func() { l.cut, l.held, l.delay, l.trap = false, [2]bool{}, 0, nil })
}

// Close ends the link and waits for its goroutines.
func (l *Link) Close() {
	l.change(func() { l.closed = true })
	_ = l.listener.Close() // nothing is left to be done about it
	l.Drop()
	l.wg.Wait()
}

func (l *Link) change(do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	do()
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Link) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		p := &pair{link: l, near: near, done: make(chan struct{})}
		l.mu.Lock()
		refuse := l.cut || l.closed
		if !refuse {
			l.pairs[p] = true
			l.wg.Go(p.run)
		}
		l.mu.Unlock()
		if refuse {
			_ = near.Close()
		}
	}
}

// spring returns the trap that data runs into, and takes it away.
func (l *Link) spring(way Direction, data []byte) *Trap {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.trap
	if t == nil || t.Way != way || !bytes.Contains(data, t.Pattern) {
		return nil
	}
	l.trap = nil
	return t
}

// pair is a connection to the link and that of the link to its target.
type pair struct {
	link *Link
	near net.Conn
	once sync.Once
	done chan struct{}

	mu  sync.Mutex
	far net.Conn // nil until dialled
}

var errPairClosed = errors.New("link closed")

func (p *pair) close() {
	p.once.Do(func() { close(p.done) })
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.near.Close()
	if p.far != nil {
		_ = p.far.Close()
	}
}

// run dials and carries until either end closes.
func (p *pair) run() {
	defer func() {
		p.close()
		p.link.mu.Lock()
		delete(p.link.pairs, p)
		p.link.mu.Unlock()
	}()
	if p.await(Up) != nil {
		return
	}
	far, err := net.DialTimeout("tcp", p.link.target, time.Second)
	if err != nil {
		return
	}
	p.mu.Lock()
	p.far = far
	p.mu.Unlock()
	select {
	case <-p.done: // closed while far was not there to be closed
		return
	default:
	}
	mute := make(chan struct{})
	var carrying sync.WaitGroup
	carrying.Go(func() { p.carry(Up, p.near, far, mute) })
	carrying.Go(func() { p.carry(Down, far, p.near, mute) })
	carrying.Wait()
}

// await returns when the way is free, after its delay.
func (p *pair) await(way Direction) error {
	for {
		p.link.mu.Lock()
		held, delay, changed := p.link.held[way], p.link.delay, p.link.changed
		p.link.mu.Unlock()
		var over <-chan time.Time
		switch {
		case held:
		case delay > 0:
			t := time.NewTimer(delay)
			defer t.Stop()
			over, changed = t.C, nil
		default:
			return nil
		}
		select {
		case <-changed:
		case <-over:
			return nil
		case <-p.done:
			return errPairClosed
		}
	}
}

// carry passes on what from says. The end of from passes like data: who is cut
// off without a word does not hear of it.
func (p *pair) carry(way Direction, from, to net.Conn, mute chan struct{}) {
	defer p.close()
	for buf := make([]byte, 64<<10); ; {
		n, err := from.Read(buf)
		if p.await(way) != nil || err != nil {
			return
		}
		if way == Down && isClosed(mute) {
			continue // an answer that is lost
		}
		t := p.link.spring(way, buf[:n])
		if t != nil && t.Before {
			t.Then()
			return
		}
		if t != nil && way == Up {
			close(mute) // before the target can answer
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
		if t != nil {
			t.Then()
			return
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
