package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
	"longhaul/test/cluster"
)

// mix is a load of short runs and long ones that comes at an even pace whatever
// becomes of it: a submission that waits holds up no other. Each long run is
// followed by somebody, from before it exists to its end.
type mix struct {
	s         *stage
	perSecond int

	conns   []*nats.Conn
	clients []*client.Client
	under   sync.WaitGroup     // submissions
	readers sync.WaitGroup     // followers
	leave   context.CancelFunc // ends those who follow still

	mu       sync.Mutex
	all      []*sent
	waiting  int
	followed map[string]int // by run, the events that its follower was shown
	faults   []string
}

// sent is one submission; mix.mu is held to look at what changes.
type sent struct {
	id       string
	long     bool
	first    time.Time // the first try
	acked    time.Time // zero as long as it is not
	refusals int       // calls of Submit that returned an error
}

const (
	// submitters are as many connections, spread over the brokers by the library.
	submitters = 6
	// longEvery: of so many runs one is long.
	longEvery = 20
	// longSteps is how many steps it takes.
	longSteps = 15
	// allTries bounds a submission: Submit, called again under one id until it
	// returns no error.
	allTries = time.Minute
	// farewell is how long a follower may be behind who follows all runs.
	farewell = 10 * time.Second
	// mostWaiting bounds the submissions without an answer.
	mostWaiting = 20_000
)

// newMix connects. Even with an error the caller has to close it.
func (s *stage) newMix(ctx context.Context, perSecond int) (*mix, error) {
	m := &mix{s: s, perSecond: perSecond, followed: map[string]int{}}
	for i := range submitters {
		nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: s.url, Name: fmt.Sprintf("submitter-%d", i+1), Retry: true})
		if err != nil {
			return m, err
		}
		m.conns = append(m.conns, nc)
		if err := jsutil.WaitConnected(ctx, nc); err != nil {
			return m, err
		}
		c, err := client.New(nc)
		if err != nil {
			return m, err
		}
		m.clients = append(m.clients, c)
	}
	return m, nil
}

// close hangs up; nothing is under way any more.
func (m *mix) close() {
	for _, nc := range m.conns {
		nc.Close()
	}
}

// run submits until enough ends; ctx is what submissions and followers live by.
func (m *mix) run(ctx, enough context.Context) {
	following, leave := context.WithCancel(ctx)
	m.leave = leave // by depart, when run has returned
	begun := time.Now()
	for n := 0; ; n++ {
		if cluster.Sleep(enough, time.Until(begun.Add(time.Duration(n)*time.Second/time.Duration(m.perSecond)))) != nil {
			return
		}
		s := &sent{id: contracts.NewRunID(), long: n%longEvery == 0, first: time.Now()}
		if !m.begin(s) {
			return
		}
		mine, other := m.clients[n%submitters], m.clients[(n+1)%submitters]
		if s.long {
			m.readers.Go(func() { m.follow(following, other, s.id) })
		}
		m.under.Go(func() { m.submit(ctx, mine, s) })
	}
}

func (m *mix) begin(s *sent) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waiting++; m.waiting > mostWaiting {
		m.fault("more than %d submissions wait for an answer", mostWaiting)
		return false
	}
	m.all = append(m.all, s)
	return true
}

// submit submits a run, again and again until it is acknowledged.
func (m *mix) submit(ctx context.Context, c *client.Client, s *sent) {
	kind := contracts.Submission{RunID: s.id, AgentKey: agentShort}
	if s.long {
		kind.AgentKey, kind.Input.Params = agentLong, fmt.Appendf(nil, `{"steps": %d}`, longSteps)
	}
	ctx, cancel := context.WithTimeout(ctx, allTries)
	defer cancel()
	for {
		_, err := c.Submit(ctx, kind)
		m.mu.Lock()
		if err == nil {
			s.acked = time.Now()
		} else {
			s.refusals++
		}
		if err == nil || ctx.Err() != nil {
			m.waiting--
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
	}
}

// depart has the followers leave who have not seen an end by now, and a moment
// later: what they were shown is to be all of a log.
func (m *mix) depart() {
	late := time.AfterFunc(farewell, m.leave)
	m.readers.Wait()
	late.Stop()
	m.leave()
}

// follow counts the events of a run that somebody is shown who follows it: in
// order and without a gap, or it is a fault.
func (m *mix) follow(ctx context.Context, c *client.Client, id string) {
	var seq uint64
	for e, err := range c.Follow(ctx, id, runlog.FollowOptions{UntilEnd: true}) {
		m.mu.Lock()
		switch {
		case ctx.Err() != nil: // told to leave; the judge sees what it has missed
		case err != nil:
			m.fault("following run %s behind event %d: %v", id, seq, err)
		case e.Seq != seq+1:
			m.fault("who follows run %s is shown event %d after %d", id, e.Seq, seq)
		}
		if err == nil {
			seq = e.Seq
			m.followed[id] = int(seq) //nolint:gosec // a count
		}
		m.mu.Unlock()
	}
}

// fault notes one, with mu held.
func (m *mix) fault(format string, args ...any) {
	if len(m.faults) < maxFaults {
		m.faults = append(m.faults, fmt.Sprintf(format, args...))
	}
}

// acknowledged lists the runs that are, and how many submissions never were.
func (m *mix) acknowledged() (ids []string, without int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.all {
		if s.acked.IsZero() {
			without++
			continue
		}
		ids = append(ids, s.id)
	}
	return ids, without
}
