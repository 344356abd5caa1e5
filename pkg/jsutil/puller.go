package jsutil

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// lostAfter is how long past its end a request's answer is waited for.
const lostAfter = time.Second

// Puller asks one pull consumer for messages, exactly as many as it is told
// to. (The client library's own Consume keeps a buffer of messages that nobody
// has a slot for; their leases would run out unseen.)
//
// Its methods may be called from several goroutines. The callbacks come from
// one goroutine, in the order of delivery, and may block.
type Puller struct {
	cfg   PullerConfig
	nc    *nats.Conn
	inbox string
	sub   *nats.Subscription

	mu      sync.Mutex
	open    []request // not filled nor given up by the broker, the oldest first
	lastEnd time.Time // when the last of the requests ends
}

// request is what a pull has asked for and not got yet.
type request struct {
	n    int
	sent time.Time
}

// PullerConfig says whom to ask and what to do with the answers.
type PullerConfig struct {
	Stream, Consumer string
	// Deliver takes each message.
	Deliver func(*Delivery)
	// Unfilled is called when a request has ended and there were not enough messages for it.
	Unfilled func()
	// Missing is called when the broker says that the consumer, or its leader, is not there.
	Missing func()
	// Malformed takes the error of a message that is no delivery; it is dropped.
	Malformed func(error)
}

// NewPuller subscribes for the answers; nothing comes before Pull.
func NewPuller(nc *nats.Conn, cfg PullerConfig) (*Puller, error) {
	// Not NewRespInbox: that one lies under the connection's own subscription for
	// replies, which would take a message for the answer to somebody's request.
	p := &Puller{cfg: cfg, nc: nc, inbox: nc.NewInbox()}
	var err error
	if p.sub, err = nc.Subscribe(p.inbox, p.receive); err != nil {
		return nil, fmt.Errorf("subscribe for messages of consumer %s: %w", cfg.Consumer, Translate(err))
	}
	// What can arrive is bounded by what was asked for.
	if err := p.sub.SetPendingLimits(-1, -1); err != nil {
		return nil, fmt.Errorf("lift the subscription's limits for consumer %s: %w", cfg.Consumer, err)
	}
	return p, nil
}

// Pull asks for n more messages; the request stands for the given time. It
// should be short: a request can get lost unnoticed (a consumer made a moment
// ago on three replicas, a leader change: JETSTREAM.md), and is missed only then.
func (p *Puller) Pull(n int, stands time.Duration) error {
	p.mu.Lock() // until it is noted: its messages may come at once
	defer p.mu.Unlock()
	now := time.Now()
	subject := jetstream.DefaultAPIPrefix + "CONSUMER.MSG.NEXT." + p.cfg.Stream + "." + p.cfg.Consumer
	body := fmt.Appendf(nil, `{"expires":%d,"batch":%d}`, stands, n) // expires is in nanoseconds
	if err := p.nc.PublishRequest(subject, p.inbox, body); err != nil {
		return fmt.Errorf("pull %d: %w", n, Translate(err))
	}
	p.open = append(p.open, request{n, now})
	if end := now.Add(stands); end.After(p.lastEnd) {
		p.lastEnd = end
	}
	return nil
}

// Outstanding is how many messages are asked for and may still come.
func (p *Puller) Outstanding() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.open {
		n += r.n
	}
	return n
}

// Expire forgets requests that should have ended a while ago: their answers
// were lost. To be called every second or so.
func (p *Puller) Expire(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.lastEnd) > lostAfter {
		p.open = nil
	}
}

// Reset forgets every request, after a reconnect. Should the broker answer one
// after all, the message is delivered as any other.
func (p *Puller) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = nil
}

// closeWait bounds Close; a broker that does not answer by then has other worries.
const closeWait = 2 * time.Second

// Close stops listening and returns when all that the broker had sent by then
// has been delivered: a message that nobody answers would wait for its whole
// lease. Deliver must therefore still take messages while Close runs.
func (p *Puller) Close() error {
	closed := make(chan struct{})
	p.sub.SetClosedHandler(func(string) { close(closed) })
	if err := p.sub.Drain(); err != nil {
		if errors.Is(err, nats.ErrBadSubscription) || errors.Is(err, nats.ErrConnectionClosed) {
			return nil
		}
		return fmt.Errorf("end the subscription: %w", Translate(err))
	}
	select {
	case <-closed:
	case <-time.After(closeWait):
	}
	return nil
}

func (p *Puller) receive(m *nats.Msg) {
	if m.Reply == "" {
		p.status(m)
		return
	}
	since := p.settle(1)
	d, err := newDelivery(p.nc, m)
	if err != nil {
		p.cfg.Malformed(err)
		return
	}
	d.Since = since
	p.cfg.Deliver(d)
}

// status reads what the broker says instead of a message (NATS ADR-9, ADR-13).
func (p *Puller) status(m *nats.Msg) {
	switch code := m.Header.Get("Status"); code {
	case "100": // idle heartbeat: not asked for, harmless
	case "404", "408", "409":
		// The request has ended; the header says how much of it was not filled.
		unfilled, err := strconv.Atoi(m.Header.Get("Nats-Pending-Messages"))
		if err != nil {
			p.Reset()
			break
		}
		p.settle(unfilled)
		if code == "409" {
			p.cfg.Missing()
		} else {
			p.cfg.Unfilled()
		}
	default: // 503: nobody listens for pulls, so there is no consumer or no leader
		p.Reset()
		p.cfg.Missing()
	}
}

// settle takes n off what is asked for, the oldest first, and returns when that
// was sent; zero if nothing was. The broker fills requests in turns, not one
// after the other; but what it handed out before a request was sent is no more
// than was asked for before it, so that this is never too late a time.
func (p *Puller) settle(n int) (sent time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.open) > 0 {
		sent = p.open[0].sent
	}
	for n > 0 && len(p.open) > 0 {
		took := min(n, p.open[0].n)
		n -= took
		if p.open[0].n -= took; p.open[0].n == 0 {
			p.open = p.open[1:]
		}
	}
	return sent
}
