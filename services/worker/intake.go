package worker

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// Shares of the free slots when several priorities have a backlog. The lower
// ones are never starved: each gets its part, however long the queue above it.
var shares = map[contracts.Priority]int{contracts.PriorityHigh: 16, contracts.PriorityNormal: 4, contracts.PriorityLow: 1}

// maxStanding bounds the request that stands at a queue without a backlog.
const maxStanding = 8

// How long requests stand. That to a queue with a backlog is short: others may
// have emptied it meanwhile, and until it ends its slots are promised. The
// other one is missed only when it has ended, if a change of leader loses it:
// until then nobody asks.
const (
	standsIdle    = 2 * time.Second
	standsBacklog = 100 * time.Millisecond
)

// intake asks for work: as much as there are free slots, the more urgent first.
// One goroutine, that of run, owns all its fields but the channels.
//
// A queue with a backlog gets requests that together never exceed the free
// slots. A queue without one has a small standing request, so that work which
// comes to an idle worker starts without a round trip; these are not counted,
// and a message that finds every slot taken is given back at once. An agent with a
// concurrency of its own has no more slots than that.
type intake struct {
	worker   *Worker
	sources  []*source // the more urgent first
	slots    int
	running  int
	arrivals chan arrival
	freed    chan *source
	wake     chan struct{} // the connection is back: requests of before are void
	remake   chan struct{} // a consumer is missing
}

// source is one queue: an agent and a priority.
type source struct {
	agentKey string
	*hosted
	priority contracts.Priority
	puller   *jsutil.Puller
	backlog  uint64 // what the newest message said is still waiting there
	credit   int    // of the weighted round robin
}

// hosted is what the queues of an agent have in common.
type hosted struct{ limit, running, room int }

// arrival is a message, or, without one, the news that a queue is empty.
type arrival struct {
	from     *source
	delivery *jsutil.Delivery
}

// sourcesOf lists the queues of the worker's agents, the more urgent first.
func (w *Worker) sourcesOf() []*source {
	var all []*source
	shared := make([]hosted, len(w.cfg.Agents))
	for _, p := range contracts.Priorities() {
		for i, a := range w.cfg.Agents {
			shared[i].limit = cmp.Or(a.Concurrency, w.cfg.Concurrency)
			all = append(all, &source{agentKey: a.Key, hosted: &shared[i], priority: p})
		}
	}
	return all
}

// openIntake subscribes for all of the worker's queues.
func (w *Worker) openIntake() (*intake, error) {
	in := &intake{
		worker: w, slots: w.cfg.Concurrency, sources: w.sourcesOf(),
		freed: make(chan *source, w.cfg.Concurrency), wake: make(chan struct{}, 1), remake: make(chan struct{}, 1),
	}
	in.arrivals = make(chan arrival, in.slots+maxStanding*len(in.sources))
	for _, s := range in.sources {
		var err error
		s.puller, err = jsutil.NewPuller(w.nc, jsutil.PullerConfig{
			Stream: contracts.StreamWork, Consumer: contracts.WorkConsumer(s.agentKey, s.priority),
			Deliver:   func(d *jsutil.Delivery) { in.arrivals <- arrival{s, d} },
			Unfilled:  func() { in.arrivals <- arrival{from: s} },
			Missing:   func() { signal(in.remake) },
			Malformed: func(err error) { w.log.Error("delivery could not be read", "error", err) },
		})
		if err != nil {
			return nil, errors.Join(err, in.close())
		}
	}
	return in, nil
}

// signal tells a channel of one place, which need not be told twice.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run takes work until ctx ends, then gives back what still comes in and
// returns when every run has ended; ended is called at ctx's end, to see to that.
func (in *intake) run(ctx context.Context, ended func()) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var runs sync.WaitGroup
	defer in.worker.counts.Intake.Stop()
	for ctx.Err() == nil {
		in.worker.counts.Intake.Turn()
		in.replenish()
		select {
		case <-ctx.Done():
		case a := <-in.arrivals:
			in.accept(a, &runs)
		case s := <-in.freed:
			in.count(s, -1)
		case <-in.wake:
			for _, s := range in.sources {
				s.puller.Reset()
			}
		case <-in.remake:
			in.restore(ctx)
		case now := <-tick.C:
			for _, s := range in.sources {
				s.puller.Expire(now)
			}
		}
		in.takeWaiting(&runs)
	}
	return in.drain(&runs, ended)
}

// takeWaiting handles everything that is there already, before new requests
// are made for slots that may be taken in a moment.
func (in *intake) takeWaiting(runs *sync.WaitGroup) {
	for {
		select {
		case a := <-in.arrivals:
			in.accept(a, runs)
		case s := <-in.freed:
			in.count(s, -1)
		default:
			return
		}
	}
}

// accept gives a message a slot, or gives it back.
func (in *intake) accept(a arrival, runs *sync.WaitGroup) {
	if a.delivery == nil {
		a.from.backlog = 0
		return
	}
	a.from.backlog = a.delivery.Pending
	if in.running >= in.slots || a.from.running >= a.from.limit {
		a.from.backlog++
		in.worker.answer(a.delivery.Nak(0)) // for whoever has a slot
		return
	}
	in.count(a.from, 1)
	runs.Add(1)
	go func() {
		// An abandoned agent keeps its slot: what it uses is still in use. It is not waited for.
		defer func() { in.freed <- a.from }() // has room: one place per slot
		in.worker.take(a.delivery, runs.Done)
	}()
}

// count counts runs of s in.
func (in *intake) count(s *source, n int) {
	in.running += n
	s.running += n
}

// replenish sends the requests that are due.
func (in *intake) replenish() {
	free := in.slots - in.running
	if free <= 0 {
		return
	}
	for _, s := range in.sources {
		s.room = s.limit - s.running
	}
	room := free
	var waiting []*source
	for _, s := range in.sources {
		if s.backlog == 0 {
			continue
		}
		waiting = append(waiting, s)
		room -= s.puller.Outstanding()
		s.room -= s.puller.Outstanding()
	}
	// A request for every single slot that becomes free would double the
	// messages; a quarter of the slots at a time keeps the rest busy meanwhile.
	if room >= max(1, in.slots/4) || room > 0 && room == free {
		for s, n := range share(room, waiting) {
			in.pull(s, n, standsBacklog)
		}
	}
	standing := min(maxStanding, max(1, free/8))
	for _, s := range in.sources {
		if n := min(standing, s.limit-s.running); n > 0 && s.backlog == 0 && s.puller.Outstanding() == 0 {
			in.pull(s, n, standsIdle)
		}
	}
}

// share divides room among the queues that have a backlog, by smooth weighted
// round robin: no queue's share depends on how the slots happen to become free.
// Waiting is used up.
func share(room int, waiting []*source) map[*source]int {
	want := make(map[*source]int, len(waiting))
	for ; room > 0; room-- {
		waiting = slices.DeleteFunc(waiting, func(s *source) bool { return s.room <= 0 || uint64(want[s]) >= s.backlog })
		if len(waiting) == 0 {
			break
		}
		total, best := 0, 0
		for i, s := range waiting {
			s.credit += shares[s.priority]
			total += shares[s.priority]
			if s.credit > waiting[best].credit {
				best = i
			}
		}
		s := waiting[best]
		s.credit -= total
		s.room--
		want[s]++
	}
	return want
}

// pull asks one queue for n messages. A failure shows again when the
// connection is back, and then everything is asked for anew.
func (in *intake) pull(s *source, n int, stands time.Duration) {
	if err := s.puller.Pull(n, stands); err != nil {
		in.worker.log.Warn("work could not be asked for", "agent_key", s.agentKey, "priority", s.priority, "error", err)
	}
}

// restore makes a consumer that somebody has deleted, and waits a moment: a
// missing leader looks the same and comes back by itself.
func (in *intake) restore(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := in.worker.ensureQueues(ctx); err != nil {
		in.worker.log.Warn("work queues are not ready", "error", err)
		jsutil.Sleep(ctx, pauseUnavailable)
	}
}

// drain closes the queues, gives back what arrived too late, and waits for the runs.
func (in *intake) drain(runs *sync.WaitGroup, ended func()) error {
	var closing sync.WaitGroup
	var closed error
	closing.Go(func() { closed = in.close() })
	over := make(chan struct{})
	go func() {
		defer close(over)
		closing.Wait()
		ended()
		runs.Wait()
	}()
	for {
		select {
		case a := <-in.arrivals:
			if a.delivery != nil {
				// With a delay, which the broker stores: it may be stopped next.
				in.worker.answer(a.delivery.Nak(time.Millisecond))
			}
		case <-in.freed:
		case <-over:
			return closed
		}
	}
}

// close ends the subscriptions, all at once: without a broker each takes its time.
func (in *intake) close() error {
	errs := make([]error, len(in.sources))
	var closing sync.WaitGroup
	for i, s := range in.sources {
		if s.puller != nil {
			closing.Go(func() { errs[i] = s.puller.Close() })
		}
	}
	closing.Wait()
	return errors.Join(errs...)
}
