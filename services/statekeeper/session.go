package statekeeper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

const (
	// maxFlights bounds the writes under way.
	maxFlights = 1000
	// maxPending bounds the events that were delivered and wait to be acknowledged.
	maxPending = 16 << 10
	// quietWindow is the window of events that leave the status as it is: an
	// agent's own, heartbeats, checkpoints. A run that streams text would cost
	// fifty writes a second otherwise.
	quietWindow = time.Second
)

// session is one turn of the projector: from the start of consuming to its end
// or the first error. It starts with nothing, which is always right: what was
// not acknowledged is delivered again. All of it belongs to one goroutine, that
// of loop, which by turns folds what comes and writes what is due.
type session struct {
	*projector
	entries map[string]*entry // by run, of unfinished runs
	unsaved []*entry          // those that are not stored as they are
	pending []delivery        // not acknowledged, in the order they came
	next    uint64            // the stream sequence that is expected now; 0 before the first
	ahead   map[string]stored // records that were read for the deliveries at hand
}

// entry is what the session knows of one run.
type entry struct {
	rec contracts.StatusRecord
	// revision is that of the stored record, which the next write is compared with.
	revision uint64
	// first is the log sequence of the first event in rec that is not stored; 0
	// if rec is stored as it is.
	first uint64
	// due is when an entry that is not stored shall be.
	due time.Time
}

// delivery is the part of a delivered message that is kept: events may be large.
type delivery struct {
	sequence uint64
	ack      string
}

// loop folds and writes until ctx ends or something fails. When the service is
// stopped it still writes and acknowledges what it has folded.
func (s *session) loop(ctx context.Context, deliveries <-chan jetstream.Msg) error {
	var beat <-chan time.Time
	for {
		if beat == nil && len(s.unsaved)+len(s.pending) > 0 {
			beat = time.After(s.window / 3)
		}
		in := deliveries
		if len(s.pending) >= maxPending {
			in = nil
		}
		var err error
		select {
		case m := <-in:
			err = s.receive(ctx, m, in)
		case <-beat:
			beat = nil
			err = s.settle(ctx, time.Now())
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		switch {
		case err == nil:
		case stopped(ctx):
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishWait)
			defer cancel()
			return s.settle(ctx, time.Now().Add(quietWindow))
		default:
			return err
		}
	}
}

// receive takes a delivery and those that wait behind it. The records of runs
// that are not at hand, and that the index does not tell, are read by one
// request. Should the index be behind the bucket, the write is refused, and shows it.
func (s *session) receive(ctx context.Context, m jetstream.Msg, behind <-chan jetstream.Msg) (err error) {
	all := []jetstream.Msg{m}
	for range len(behind) {
		all = append(all, <-behind)
	}
	var unknown []string
	for _, m := range all {
		id, err := contracts.RunIDOfSubject(m.Subject())
		if first := m.Headers().Get(jetstream.ExpectedLastSubjSeqHeader) == "0"; err == nil && !first && s.entries[id] == nil {
			if s.ahead[id] = s.feed.current().fresh(id); s.ahead[id].revision == 0 {
				unknown = append(unknown, id)
			}
		}
	}
	defer clear(s.ahead)
	if len(unknown) > 1 {
		var found map[string]stored
		found, err = s.records.page(ctx, unknown)
		maps.Copy(s.ahead, found)
	}
	for i := 0; err == nil && i < len(all); i++ {
		err = s.take(ctx, all[i])
	}
	return err
}

// take takes one delivery, and first whatever the stream holds between it
// and the one before: that was delivered to an instance which may be dead, and
// acknowledging this one would acknowledge those too.
func (s *session) take(ctx context.Context, m jetstream.Msg) error {
	meta, err := m.Metadata()
	if err != nil {
		return fmt.Errorf("read a delivery of %s: %w", s.consumer, err)
	}
	if pin := m.Headers().Get("Nats-Pin-Id"); pin != s.lastPin() {
		s.pin.Store(pin)
	}
	sequence := meta.Sequence.Stream
	if s.next == 0 || sequence >= s.next { // else it comes again, for want of an acknowledgement
		if s.next != sequence {
			if err := s.fill(ctx, sequence); err != nil {
				return err
			}
		}
		e, err := runlog.Decode(m.Subject(), sequence, m.Data())
		if err := s.fold(ctx, e, err); err != nil {
			return err
		}
		s.next = sequence + 1
	}
	s.pending = append(s.pending, delivery{sequence, m.Reply()})
	return nil
}

// fill folds the stored events before sequence that the consumer still waits
// for an acknowledgement of.
func (s *session) fill(ctx context.Context, sequence uint64) error {
	info, err := s.cons.Info(ctx)
	if err != nil {
		return fmt.Errorf("ask for the ack floor of %s: %w", s.consumer, jsutil.Translate(err))
	}
	from := max(s.next, info.AckFloor.Stream+1)
	if from >= sequence {
		return nil
	}
	for e, err := range s.log.Scan(ctx, "", from) {
		if e.Sequence >= sequence {
			return nil
		}
		if err := s.fold(ctx, e, err); err != nil {
			return err
		}
	}
	// What was delivered is in the stream: a replica answered that lags.
	return fmt.Errorf("%w: the log does not show what was delivered, sequence %d", jsutil.ErrUnavailable, sequence)
}

// fold folds an event into its run's record, and sees to it that this is
// written. err is what came of reading the event.
func (s *session) fold(ctx context.Context, e runlog.Entry, err error) error {
	if errors.Is(err, runlog.ErrMalformed) {
		s.counters.add(&s.counters.Poison, 1)
		s.logger.Error("skipping an event that cannot be decoded", "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	if e.Checkpoint != nil && e.Type == contracts.TypeCheckpoint && e.Checkpoint.N > uint64(s.keep) {
		s.due.Store(e.RunID, true)
	}
	ent, err := s.entry(ctx, e)
	if err != nil || ent.rec.Seq >= e.Seq { // the stored record, or the one about to be, has it
		return err
	}
	before := ent.rec.Status
	ent.rec = s.project(ent.rec, e)
	s.counters.add(&s.counters.Events, 1)
	due := time.Now()
	switch quiet := !e.Type.Reserved() || e.Type == contracts.TypeHeartbeat || e.Type == contracts.TypeCheckpoint || e.Type == contracts.TypeStepCompleted; {
	case e.Type.Terminal(): // at once, for nothing is likely to follow
	case quiet && before == ent.rec.Status:
		due = due.Add(quietWindow)
	default:
		due = due.Add(s.window)
	}
	if ent.first == 0 {
		ent.first, ent.due = e.Sequence, due
		s.unsaved = append(s.unsaved, ent)
	} else if due.Before(ent.due) {
		ent.due = due
	}
	return nil
}

// entry returns what e is to be folded into: its record ends just before e, or
// holds e already.
func (s *session) entry(ctx context.Context, e runlog.Entry) (*entry, error) {
	ent := s.entries[e.RunID]
	if ent == nil {
		ent = &entry{}
		if e.Seq > 1 { // if there is a record before the first event, the write will show it
			there, err := s.credible(ctx, e.RunID, e.Sequence)
			if err != nil {
				return nil, err
			}
			ent.rec, ent.revision = there.rec, there.revision
		}
		s.forget()
		s.entries[e.RunID] = ent
	}
	rec, anew, err := s.carry(ctx, ent.rec, e)
	if err != nil {
		return nil, err
	}
	if anew && e.Seq > 1 {
		s.counters.add(&s.counters.Rebuilt, 1)
		s.logger.Info("rebuilt a status record from the log", "run_id", e.RunID, "seq", e.Seq)
	}
	ent.rec = rec
	return ent, nil
}

// forget makes room for an entry: any that is stored may go, and be read again.
func (s *session) forget() {
	if len(s.entries) < s.live {
		return
	}
	for id, ent := range s.entries {
		if ent.first == 0 {
			delete(s.entries, id)
			return
		}
	}
}

// credible reads the stored record of a run, and takes one that claims to be
// further than the log for what it is: written by hand. known is a sequence
// that the log has.
func (s *session) credible(ctx context.Context, runID string, known uint64) (stored, error) {
	there, err := s.ahead[runID], error(nil)
	if there.revision == 0 {
		there, err = s.records.get(ctx, runID)
	}
	if err != nil || there.rec.LogSequence <= known {
		return there, err
	}
	last, err := s.log.LastFromLeader(ctx, runID)
	if err != nil && !errors.Is(err, jsutil.ErrNotFound) {
		return there, fmt.Errorf("check the status record of run %s: %w", runID, err)
	}
	if beyond(there.rec, last) {
		s.logger.Warn("status record is ahead of the log, making it anew", "run_id", runID,
			"record_log_sequence", there.rec.LogSequence, "log_sequence", last.Sequence)
		there.rec = contracts.StatusRecord{}
	}
	return there, nil
}

// settle writes the records that are due by now, all of them if too much waits
// for its acknowledgement, and acknowledges what is stored.
func (s *session) settle(ctx context.Context, now time.Time) error {
	if len(s.pending) >= maxPending {
		now = now.Add(quietWindow)
	}
	due := slices.DeleteFunc(slices.Clone(s.unsaved), func(ent *entry) bool { return ent.first == 0 || ent.due.After(now) })
	for some := range slices.Chunk(due, maxFlights) {
		if err := s.write(ctx, some); err != nil {
			return err
		}
	}
	s.unsaved = slices.DeleteFunc(s.unsaved, func(ent *entry) bool { return ent.first == 0 })
	s.acknowledge()
	return nil
}

// write stores the records of some entries, all at the same time.
func (s *session) write(ctx context.Context, some []*entry) error {
	futures := make([]jetstream.PubAckFuture, len(some))
	for i, ent := range some {
		var err error
		if futures[i], err = s.records.putAsync(ent.rec, ent.revision); err != nil {
			return err
		}
		s.counters.add(&s.counters.Writes, 1)
	}
	for i, ent := range some {
		select {
		case ack := <-futures[i].Ok():
			ent.revision, ent.first = ack.Sequence, 0
		case err := <-futures[i].Err():
			if err = s.refused(ctx, ent, jsutil.Translate(err)); err != nil {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("write status records: %w", context.Cause(ctx))
		}
		if ent.first == 0 && ent.rec.Status.Terminal() { // hardly anything follows
			delete(s.entries, ent.rec.RunID)
		}
	}
	return nil
}

// refused settles a conflict: whoever folded further has the last word.
func (s *session) refused(ctx context.Context, ent *entry, err error) error {
	if !errors.Is(err, jsutil.ErrConflict) {
		return fmt.Errorf("write the status record of run %s: %w", ent.rec.RunID, err)
	}
	s.counters.add(&s.counters.Conflicts, 1)
	there, err := s.credible(ctx, ent.rec.RunID, ent.rec.LogSequence)
	if err != nil {
		return err
	}
	ent.revision = there.revision
	if there.rec.LogSequence >= ent.rec.LogSequence {
		ent.rec, ent.first = there.rec, 0
		return nil
	}
	// Missing, garbage or older: write over it. Not at once, for a replica that
	// lags may have answered, and two that race should not spin.
	ent.due = time.Now().Add(s.window)
	return nil
}

// acknowledge acknowledges the deliveries before the first event that is not
// stored. One acknowledgement stands for all before it.
func (s *session) acknowledge() {
	floor := s.next
	for _, ent := range s.unsaved {
		floor = min(floor, ent.first)
	}
	var last delivery
	n := 0
	for ; n < len(s.pending) && s.pending[n].sequence < floor; n++ {
		if s.pending[n].sequence >= last.sequence { // one that came again may be older
			last = s.pending[n]
		}
	}
	if n == 0 {
		return
	}
	s.pending = slices.Delete(s.pending, 0, n)
	if err := s.js.Conn().Publish(last.ack, []byte("+ACK")); err != nil {
		s.logger.Warn("cannot acknowledge, the events will come again", "error", jsutil.Translate(err))
	}
}
