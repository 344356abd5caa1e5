package runlog

import (
	"errors"
	"testing"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

// Both sides of an append whose answer never came: refused, and stored. The
// connection is cut for real, between the publish and its ack.
func TestLostAck(t *testing.T) {
	// stored waits until the log's last event is seq.
	stored := func(t *testing.T, l *Log, runID string, seq uint64) {
		t.Helper()
		waitFor(t, "the append to be stored", func() bool {
			e, err := l.LastFromLeader(t.Context(), runID)
			return err == nil && e.Seq == seq
		})
	}
	for _, c := range []struct {
		name   string
		before bool // the publish itself is lost
		then   func(t *testing.T, other *run)
		want   error
		events uint64
	}{
		{name: "stored", events: 3, then: func(t *testing.T, other *run) {
			stored(t, other.log, other.id, 3)
		}},
		{name: "stored and the log has moved on", events: 5, then: func(t *testing.T, other *run) {
			stored(t, other.log, other.id, 3)
			last, err := other.log.LastFromLeader(t.Context(), other.id)
			if err != nil {
				t.Error(err)
			}
			other.head = last.Head()
			other.mustDelta(t, 2)
		}},
		{name: "never arrived", before: true, events: 3, then: func(*testing.T, *run) {}},
		{name: "never arrived and another came first", before: true, events: 3, want: jsutil.ErrConflict, then: func(t *testing.T, other *run) {
			other.mustDelta(t, 1)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := jstest.Start(t)
			p := newProxy(t, b.URL())
			r := newRun(newLogOn(t, p.connect(t))).mustStart(t)
			other := &run{log: newLog(t, b), id: r.id, head: r.head}
			trap := p.set(trap{subject: contracts.LogSubject(r.id), before: c.before, then: func() { c.then(t, other) }})
			head, err := r.log.Append(t.Context(), r.head, r.event(t, contracts.TypeMessage))
			<-trap.sprung
			if !errors.Is(err, c.want) {
				t.Fatalf("the append ended with %v, want %v", err, c.want)
			}
			got := mustRead(t, other.log, r.id, 1)
			checkInOrder(t, got, 1, c.events)
			if mine := got[2].Type == contracts.TypeMessage; mine != (c.want == nil) || mine && got[2].Head() != head {
				t.Errorf("event 3 is %s with head %+v, the append was told %+v, %v", got[2].Type, got[2].Head(), head, err)
			}
		})
	}
}

// The broker refuses, and the refusal is what gets lost.
func TestLostRefusal(t *testing.T) {
	b := jstest.Start(t)
	p := newProxy(t, b.URL())
	r := newRun(newLogOn(t, p.connect(t))).mustStart(t)
	mine := r.event(t, contracts.TypeMessage)
	other := &run{log: newLog(t, b), id: r.id, head: r.head}
	other.mustDelta(t, 1)
	seen, err := other.log.nc.SubscribeSync(contracts.LogSubject(r.id))
	if err != nil {
		t.Fatal(err)
	}
	if err := other.log.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	trap := p.set(trap{subject: contracts.LogSubject(r.id), then: func() {
		if _, err := seen.NextMsg(waitLimit); err != nil {
			t.Errorf("the publish did not reach the broker: %v", err)
		}
		other.mustDelta(t, 1) // is answered after the refusal was
	}})
	_, err = r.log.Append(t.Context(), r.head, mine)
	<-trap.sprung
	if !errors.Is(err, jsutil.ErrConflict) {
		t.Errorf("the append ended with %v", err)
	}
	for _, e := range mustRead(t, other.log, r.id, 1) {
		if e.Type == contracts.TypeMessage {
			t.Errorf("the refused event is in the log as %d", e.Seq)
		}
	}
}
