package runlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

func mustRead(t testing.TB, l *Log, runID string, from uint64) []Entry {
	t.Helper()
	var got []Entry
	for e, err := range l.Read(t.Context(), runID, from) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e)
	}
	return got
}

func TestRead(t *testing.T) {
	b := jstest.Start(t)
	l := newLog(t, b)
	if got := mustRead(t, l, contracts.NewRunID(), 1); len(got) != 0 {
		t.Errorf("an empty log has %d events", len(got))
	}
	r, other := newRun(l).mustStart(t), newRun(l).mustStart(t)
	n := uint64(2*batchMessages + 50)
	for r.head.Seq < n {
		r.mustDelta(t, 1)
		other.mustDelta(t, 1)
	}
	for _, from := range []uint64{0, 1, 2, batchMessages, batchMessages + 1, n} {
		checkInOrder(t, mustRead(t, l, r.id, from), max(from, 1), n)
	}
	if got := mustRead(t, l, r.id, n+1); len(got) != 0 {
		t.Errorf("%d events after the last", len(got))
	}
	for e, err := range l.Read(t.Context(), r.id, 1) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Seq == 3 {
			break
		}
	}
}

// Events that together are larger than a batch's bytes.
func TestReadLarge(t *testing.T) {
	b := jstest.Start(t)
	r := newRun(newLog(t, b)).mustStart(t)
	for range 20 {
		e := r.event(t, contracts.TypeDelta)
		e.Payload = json.RawMessage(`"` + strings.Repeat("x", 300<<10) + `"`)
		head, err := r.log.Append(t.Context(), r.head, e)
		if err != nil {
			t.Fatal(err)
		}
		r.head = head
	}
	checkInOrder(t, mustRead(t, r.log, r.id, 1), 1, 22)
}

func TestReadOverRestart(t *testing.T) {
	b := jstest.StartFile(t)
	r := newRun(newLog(t, b)).mustStart(t).mustDelta(t, 2*batchMessages)
	var got []Entry
	for e, err := range r.log.Read(t.Context(), r.id, 1) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, e); len(got) == 10 {
			b.Restart(t)
		}
	}
	checkInOrder(t, got, 1, r.head.Seq)
}

func TestReadEndsWithContext(t *testing.T) {
	b := jstest.StartFile(t)
	r := newRun(newLog(t, b)).mustStart(t)
	b.Stop(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("why")
	cancel(why)
	var last error
	for _, err := range r.log.Read(ctx, r.id, 1) {
		last = err
	}
	if !errors.Is(last, why) {
		t.Errorf("ended with %v", last)
	}
}

// What is missing and what is no event is told, and what is left is read.
func TestReadDamagedLog(t *testing.T) {
	b := jstest.Start(t)
	r := newRun(newLog(t, b)).mustStart(t).mustDelta(t, 8)
	stream, err := b.JS.Stream(t.Context(), contracts.StreamLog)
	if err != nil {
		t.Fatal(err)
	}
	// Events 1 to 3 expire, 6 is removed by hand, and something follows that is no event.
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject(contracts.EventsSubject(r.id)), jetstream.WithPurgeKeep(7)); err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(t.Context(), 6); err != nil {
		t.Fatal(err)
	}
	if _, err := b.JS.Publish(t.Context(), contracts.LogSubject(r.id), []byte("no event")); err != nil {
		t.Fatal(err)
	}
	collect := func(from uint64) (story []string) {
		for e, err := range r.log.Read(t.Context(), r.id, from) {
			switch {
			case errors.Is(err, ErrGap):
				story = append(story, "gap")
			case errors.Is(err, ErrMalformed) && strings.Contains(err.Error(), "sequence 11"):
				story = append(story, "malformed")
			case err != nil:
				t.Fatal(err)
			default:
				story = append(story, fmt.Sprint(e.Seq))
			}
		}
		return story
	}
	for from, want := range map[uint64]string{
		1: "gap 4 5 gap 7 8 9 10 malformed",
		4: "4 5 gap 7 8 9 10 malformed",
		7: "7 8 9 10 malformed",
	} {
		if got := strings.Join(collect(from), " "); got != want {
			t.Errorf("from %d: %s, want %s", from, got, want)
		}
	}
	if _, err := r.log.Last(t.Context(), r.id); !errors.Is(err, ErrMalformed) {
		t.Errorf("Last: %v", err)
	}
}

func TestReadWithoutTopology(t *testing.T) {
	b := jstest.Start(t)
	l := newLog(t, b)
	if err := b.JS.DeleteStream(t.Context(), contracts.StreamLog); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), minPause)
	defer cancel()
	if _, err := l.LastFromLeader(t.Context(), contracts.NewRunID()); !errors.Is(err, jsutil.ErrNoTopology) {
		t.Errorf("LastFromLeader: %v", err)
	}
	if _, err := l.Last(ctx, contracts.NewRunID()); !errors.Is(err, jsutil.ErrUnavailable) {
		t.Errorf("Last: %v", err)
	}
}
