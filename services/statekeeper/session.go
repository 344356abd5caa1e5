package statekeeper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

const (
	// maxFlights bounds the writes under way.
	maxFlights = 512
	// maxUnconfirmed bounds the events that were folded and wait for their write.
	maxUnconfirmed = 16 << 10
	// quietWindow is the window of events that leave the status as it is: an
	// agent's own, heartbeats, checkpoints. A run that streams text would cost
	// fifty writes a second otherwise.
	quietWindow = time.Second
)

// session is one turn of the projector: from the start of consuming to its end
// or the first error. It starts with nothing, which is always right: what was
// not acknowledged is delivered again. All of it belongs to the goroutine of
// loop, but for flights and results, which writer works on.
type session struct {
	*projector
	cache *cache
	// next is the stream sequence that is expected now; 0 before the first.
	next uint64
	// unconfirmed are the events in the order of the log; the front ones are
	// acknowledged as soon as their records are stored.
	unconfirmed fifo[folded]
	acked       uint64        // the last stream sequence that may be acknowledged
	toAck       jetstream.Msg // its delivery, until it is acknowledged; may be nil
	ackedAt     time.Time
	seenPin     string
	// soon and quiet are the times at which entries fall due. An item counts
	// only if its entry is dirty and due at that very time.
	soon, quiet fifo[appointment]
	ready       fifo[*entry] // due, waiting for room in flight
	aloft       int          // writes under way

	flights chan flight
	results chan landing
	done    chan struct{} // closed when nobody takes results any more
	ended   chan struct{} // closed when writer has ended
}

type folded struct {
	sequence uint64
	entry    *entry        // nil if the event was skipped
	msg      jetstream.Msg // nil if it was read, not delivered
}

type appointment struct {
	entry *entry
	at    time.Time
}

type flight struct {
	entry  *entry
	future jetstream.PubAckFuture
}

type landing struct {
	entry    *entry
	revision uint64
	err      error
}

func newSession(p *projector) *session {
	s := &session{
		projector: p, cache: newCache(p.live),
		flights: make(chan flight, maxFlights), results: make(chan landing, maxFlights),
		done: make(chan struct{}), ended: make(chan struct{}),
	}
	go s.writer()
	return s
}

// close ends the writer and waits for it.
func (s *session) close() {
	close(s.done)
	close(s.flights)
	<-s.ended
}

// writer waits for the broker's answers, in the order of the writes.
func (s *session) writer() {
	defer close(s.ended)
	for f := range s.flights {
		l := landing{entry: f.entry}
		select {
		case ack := <-f.future.Ok():
			l.revision = ack.Sequence
		case err := <-f.future.Err():
			l.err = jsutil.Translate(err)
		case <-s.done:
			return
		}
		s.results <- l // has room for every flight
	}
}

// loop folds and writes until something ends it. On the end of ctx it still
// writes and acknowledges what it has folded.
func (s *session) loop(ctx context.Context, deliveries <-chan jetstream.Msg, renewed <-chan nats.Status, failed <-chan error) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := time.Now()
		next, err := s.write(now)
		if err != nil {
			return err
		}
		s.confirm()
		timer.Reset(min(next, s.acknowledge(now)))
		in := deliveries
		if s.unconfirmed.len() >= maxUnconfirmed {
			in = nil
		}
		select {
		case m := <-in:
			err = s.receive(ctx, m)
		case l := <-s.results:
			err = s.landed(ctx, l)
		case <-timer.C:
		case <-renewed:
			err = errReconnected
		case err = <-failed:
		case <-ctx.Done():
			return s.finish(context.WithoutCancel(ctx))
		}
		if err != nil {
			return err
		}
	}
}

// finish writes what is folded and waits for it.
func (s *session) finish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, finishWait)
	defer cancel()
	for {
		if _, err := s.write(time.Now().Add(2 * quietWindow)); err != nil {
			return err
		}
		s.confirm()
		if s.aloft == 0 && s.ready.len() == 0 {
			s.acknowledge(time.Now().Add(time.Hour))
			return nil
		}
		select {
		case l := <-s.results:
			if err := s.landed(ctx, l); err != nil {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("write the last status records: %w", context.Cause(ctx))
		}
	}
}

// receive takes one delivery, and first whatever the stream holds between it
// and the one before: that was delivered to an instance which may be dead, and
// acknowledging this one would acknowledge those too.
func (s *session) receive(ctx context.Context, m jetstream.Msg) error {
	meta, err := m.Metadata()
	if err != nil {
		return fmt.Errorf("read a delivery of %s: %w", s.consumer, err)
	}
	if pin := m.Headers().Get("Nats-Pin-Id"); pin != s.seenPin {
		s.seenPin = pin
		s.pin.Store(pin)
	}
	sequence := meta.Sequence.Stream
	if s.next != 0 && sequence < s.next { // again
		if sequence <= s.acked && s.toAck == nil { // the acknowledgement was lost
			s.toAck = m
		}
		return nil
	}
	if sequence != s.next {
		if err := s.fill(ctx, sequence); err != nil {
			return err
		}
	}
	s.next = sequence + 1
	return s.fold(ctx, m.Subject(), m.Data(), folded{sequence: sequence, msg: m})
}

// fill folds the stored events before sequence that the consumer still waits
// for an acknowledgement of.
func (s *session) fill(ctx context.Context, sequence uint64) error {
	info, err := s.cons.Info(ctx)
	if err != nil {
		return fmt.Errorf("ask for the ack floor of %s: %w", s.consumer, jsutil.Translate(err))
	}
	for from := max(s.next, info.AckFloor.Stream+1); from < sequence; {
		got, _, err := getBatch(ctx, s.js.Conn(), contracts.StreamLog,
			getRequest{Seq: from, NextFor: contracts.SubjectAllEvents, Batch: min(256, int(sequence-from)), MaxBytes: 1 << 20})
		if err != nil {
			return fmt.Errorf("read the log from sequence %d: %w", from, err)
		}
		if len(got) == 0 {
			return nil
		}
		for _, m := range got {
			if m.sequence >= sequence {
				return nil
			}
			if err := s.fold(ctx, m.subject, m.data, folded{sequence: m.sequence}); err != nil {
				return err
			}
			from = m.sequence + 1
		}
	}
	return nil
}

// fold folds one event into its run's record, and sees to it that this is written.
func (s *session) fold(ctx context.Context, subject string, data []byte, f folded) error {
	runID, err := contracts.RunIDOfSubject(subject)
	var e contracts.Event
	if err == nil {
		e, err = contracts.DecodeEvent(data)
	}
	if err == nil && e.RunID != runID {
		err = fmt.Errorf("event of run %q on subject %s", e.RunID, subject)
	}
	if err == nil && e.Seq == 0 {
		err = errors.New("event with seq 0")
	}
	if err != nil {
		s.counters.Poison.Add(1)
		s.logger.Error("skipping an event that cannot be decoded", "subject", subject, "log_sequence", f.sequence, "error", err)
		s.unconfirmed.push(f)
		return nil
	}
	if f.entry, err = s.prior(ctx, e, f.sequence); err != nil {
		return err
	}
	s.unconfirmed.push(f)
	if f.entry.rec.Seq >= e.Seq { // the stored record, or the one about to be, has it
		if !f.entry.dirty && f.entry.flight == 0 {
			s.cache.rest(f.entry)
		}
		return nil
	}
	before := f.entry.rec.Status
	f.entry.rec = s.project(f.entry.rec, e, f.sequence)
	s.counters.Events.Add(1)
	s.changed(f.entry, e.Type, before, time.Now())
	return nil
}

// changed makes an entry due after an event of the given type.
func (s *session) changed(e *entry, t contracts.EventType, before contracts.Status, now time.Time) {
	s.cache.busy(e)
	quiet := before == e.rec.Status && (!t.Reserved() || t == contracts.TypeHeartbeat || t == contracts.TypeCheckpoint)
	switch due := now.Add(s.window); {
	case t.Terminal():
		e.dirty, e.due = true, now
		if e.flight == 0 {
			s.ready.push(e)
		}
	case !quiet && (!e.dirty || due.Before(e.due)):
		s.appoint(e, due, &s.soon)
	case !e.dirty:
		s.appoint(e, now.Add(quietWindow), &s.quiet)
	}
}

func (s *session) appoint(e *entry, at time.Time, queue *fifo[appointment]) {
	e.dirty, e.due = true, at
	queue.push(appointment{e, at})
}
