package statekeeper

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
	"longhaul/pkg/runlog"
)

// newTestSession is a session on a consumer of its own, that nobody delivers to.
func newTestSession(t *testing.T, b *jstest.Broker) *session {
	t.Helper()
	s := &session{projector: racer(t, b, "by-hand"), entries: make(map[string]*entry)}
	if err := s.lookup(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestLaggingReplica: what was delivered is in the log. A replica that does not
// show it yet must not let the events before it be acknowledged unseen, or a
// record be made without them.
func TestLaggingReplica(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	p := newPlayer(t, b)
	head, id := p.submit(contracts.Submission{})
	s := newTestSession(t, b)
	if err := s.fill(t.Context(), head.Sequence+2); !errors.Is(err, jsutil.ErrUnavailable) {
		t.Errorf("fill up to an event that the log does not show: %v, want unavailable", err)
	}
	unseen := p.make(head, id, started("w-1", ""))
	after := runlog.Head{Head: unseen.Head(), Sequence: head.Sequence + 1}
	e := runlog.Entry{Event: p.make(after, id, succeeded()), Sequence: head.Sequence + 2}
	if rec, _, err := s.carry(t.Context(), contracts.StatusRecord{}, e); !errors.Is(err, jsutil.ErrUnavailable) {
		t.Errorf("carry up to an event that the log does not show: %+v, %v, want unavailable", rec, err)
	}
}

// TestAcknowledges: never at or beyond an event that is not stored, and the
// furthest one that may be, whatever order they came in.
func TestAcknowledges(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	s := newTestSession(t, b)
	acks, err := b.NC.SubscribeSync("ack.*")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.NC.Flush(); err != nil {
		t.Fatal(err)
	}
	waiting := &entry{first: 7}
	for _, c := range []struct {
		unsaved []*entry
		pending []delivery
		want    string // "" is none
		left    int
	}{
		{nil, []delivery{{5, "ack.5"}, {6, "ack.6"}}, "ack.6", 0},
		{nil, []delivery{{6, "ack.6"}, {5, "ack.5again"}}, "ack.6", 0},
		{nil, []delivery{{5, "ack.5again"}}, "ack.5again", 0},
		{[]*entry{waiting}, []delivery{{6, "ack.6"}, {7, "ack.7"}, {8, "ack.8"}}, "ack.6", 2},
		{[]*entry{waiting}, []delivery{{7, "ack.7"}}, "", 1},
		{[]*entry{{first: 9}, waiting}, []delivery{{6, "ack.6"}, {8, "ack.8"}}, "ack.6", 1},
	} {
		s.next, s.unsaved, s.pending = 9, c.unsaved, c.pending
		s.acknowledge()
		got := ""
		if c.want != "" {
			m, err := acks.NextMsg(5 * time.Second)
			if err != nil {
				t.Fatalf("%+v: %v", c, err)
			}
			got = m.Subject
		} else if m, err := acks.NextMsg(50 * time.Millisecond); err == nil {
			got = m.Subject
		}
		if got != c.want || len(s.pending) != c.left {
			t.Errorf("%v with %d unsaved: acknowledged %q, %d left, want %q, %d", c.pending, len(c.unsaved), got, len(s.pending), c.want, c.left)
		}
	}
}

// TestForgets: what is kept of live runs is bounded, and what is not stored is kept.
func TestForgets(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	p := newPlayer(t, b)
	s := newTestSession(t, b)
	s.live = 10
	fold := func(head runlog.Head) {
		t.Helper()
		e, err := s.log.Last(t.Context(), head.RunID)
		if err == nil {
			err = s.fold(t.Context(), e, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		s.next = max(s.next, e.Sequence+1)
	}
	heads := make(map[string]runlog.Head)
	for range 30 {
		head, id := p.submit(contracts.Submission{})
		heads[id] = head
		fold(head)
	}
	if len(s.entries) != 30 {
		t.Errorf("%d entries, want all 30 that are not stored", len(s.entries))
	}
	if err := s.settle(t.Context(), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	for id, head := range heads {
		heads[id] = p.next(head, id, started("w-1", ""))
		fold(heads[id])
		if err := s.settle(t.Context(), time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.entries) > 30 {
		t.Errorf("%d entries, want no more than there were", len(s.entries))
	}
	for id := range heads {
		p.check(id)
	}
	if n := s.counters.stats().Rebuilt; n != 0 {
		t.Errorf("%d records were rebuilt, none needed it", n)
	}
}

// TestIndexBehind: a record that was made of an index which lags gives way to what
// is stored.
func TestIndexBehind(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	p := newPlayer(t, b)
	s := newTestSession(t, b)
	head, id := p.submit(contracts.Submission{Metadata: map[string]string{"a": "b"}})
	x := newIndex()
	for _, step := range []*contracts.Draft{nil, new(started("w-1", "")), new(succeeded())} {
		if step != nil {
			head = p.next(head, id, *step)
		}
		if there := x.fresh(id); head.Seq == 3 {
			if there.rec.Seq != 1 {
				t.Fatalf("the index has %+v, want what it was told first", there)
			}
			delete(s.entries, id) // to make room
			s.ahead = map[string]stored{id: there}
		}
		e, err := s.log.Last(t.Context(), id)
		if err == nil {
			err = s.fold(t.Context(), e, nil)
		}
		clear(s.ahead)
		for range 2 { // the first write may be refused
			if err == nil {
				err = s.settle(t.Context(), time.Now().Add(time.Minute))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if there, err := p.records.get(t.Context(), id); err != nil {
			t.Fatal(err)
		} else if head.Seq == 1 {
			x.set(uuid.MustParse(id), there.rec, there.revision)
		}
	}
	p.check(id)
	if n := s.counters.stats().Conflicts; n != 1 {
		t.Errorf("%d writes were refused, want 1", n)
	}
}

// TestReadsAhead: what is not kept of live runs is made of the index, or read, when
// they go on, many at once, and it is what stands there: no write is refused.
func TestReadsAhead(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	p := newPlayer(t, b)
	k := startKeeper(t, b, Config{}, func(s *Statekeeper) { idle(s); s.projector.live = 10 })
	heads := make(map[string]runlog.Head)
	for i := range 40 {
		sub := contracts.Submission{ConversationID: fmt.Sprintf("c-%d", i%3), Metadata: map[string]string{"n": fmt.Sprint(i)}}
		if i%4 == 0 {
			sub.IdempotencyKey = fmt.Sprintf("key-%d", i)
		}
		head, id := p.submit(sub)
		p.record(head) // one after the other: what is not stored is kept
		heads[id] = head
	}
	for _, step := range []contracts.Draft{started("w-1", ""), succeeded()} {
		for _, head := range heads {
			p.record(head)
		}
		pending := make(map[string]*runlog.Pending)
		for id, head := range heads { // all at once
			var err error
			if pending[id], err = p.log.AppendAsync(head, p.make(head, id, step)); err != nil {
				t.Fatal(err)
			}
		}
		for id := range heads {
			var err error
			if heads[id], err = pending[id].Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for id, head := range heads {
		p.record(head)
		p.check(id)
	}
	if n := k.Stats().Conflicts; n != 0 {
		t.Errorf("%d writes were refused", n)
	}
}
