package runlog

import (
	"bytes"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/jsutil"
)

// proxy stands between a client and the broker and cuts their connection at
// the moment that a test asks for.
type proxy struct {
	listener net.Listener
	upstream string
	wg       sync.WaitGroup

	mu       sync.Mutex // guards what follows
	conns    map[net.Conn]bool
	refusing bool
	trap     *trap
}

// trap waits for a publish and cuts the connection around it.
type trap struct {
	subject string
	before  bool   // cut before the publish reaches the broker, else before its answer reaches the client
	then    func() // is called between the two
	sprung  chan struct{}
}

func newProxy(t testing.TB, brokerURL string) *proxy {
	t.Helper()
	u, err := url.Parse(brokerURL)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, upstream: u.Host, conns: map[net.Conn]bool{}}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.refuse(true)
		p.wg.Wait()
	})
	return p
}

// connect returns a client of the broker whose traffic passes here.
func (p *proxy) connect(t testing.TB) *nats.Conn {
	t.Helper()
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: "nats://" + p.listener.Addr().String(), Name: t.Name(), Retry: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if err := jsutil.WaitConnected(t.Context(), nc); err != nil {
		t.Fatal(err)
	}
	return nc
}

// refuse cuts all connections, and new ones until it is called with false.
func (p *proxy) refuse(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusing = yes
	if yes {
		for c := range p.conns {
			_ = c.Close()
		}
	}
}

// set lays a trap for the next publish on subject.
func (p *proxy) set(tr trap) *trap {
	tr.sprung = make(chan struct{})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trap = &tr
	return &tr
}

// spring returns the trap that data runs into.
func (p *proxy) spring(data []byte) *trap {
	p.mu.Lock()
	defer p.mu.Unlock()
	tr := p.trap
	if tr == nil || !bytes.Contains(data, []byte("PUB "+tr.subject+" ")) {
		return nil
	}
	p.trap = nil
	return tr
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		broker, err := net.DialTimeout("tcp", p.upstream, time.Second)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns[client], p.conns[broker] = true, true
		refusing := p.refusing
		p.mu.Unlock()
		if refusing {
			_, _ = client.Close(), broker.Close()
			continue
		}
		mute := make(chan struct{})
		p.wg.Go(func() { p.up(client, broker, mute) })
		p.wg.Go(func() { p.down(client, broker, mute) })
	}
}

// up passes what the client says, and springs the trap.
func (p *proxy) up(client, broker net.Conn, mute chan struct{}) {
	defer func() { _, _ = client.Close(), broker.Close() }()
	for buf := make([]byte, 64<<10); ; {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		tr := p.spring(buf[:n])
		if tr != nil {
			close(mute) // before the broker can answer
			if tr.before {
				tr.then()
				close(tr.sprung)
				return
			}
		}
		if _, err := broker.Write(buf[:n]); err != nil {
			return
		}
		if tr != nil {
			tr.then()
			close(tr.sprung)
			return
		}
	}
}

// down passes what the broker says, until mute.
func (p *proxy) down(client, broker net.Conn, mute chan struct{}) {
	defer func() { _, _ = client.Close(), broker.Close() }()
	for buf := make([]byte, 64<<10); ; {
		n, err := broker.Read(buf)
		if err != nil {
			return
		}
		select {
		case <-mute:
			continue
		default:
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}
