package client_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/runlog"
)

// end is what a wait in another goroutine came to.
type end struct {
	outcome client.Outcome
	err     error
}

func TestWait(t *testing.T) {
	c, b := newClient(t)
	ctx := soon(t)
	id := contracts.NewRunID()
	s := newScript(t, b, id)

	ended := make(chan end, 1)
	go func() {
		o, err := c.Wait(ctx, id) // before the run exists
		ended <- end{o, err}
	}()
	s.append(queued(), started(), succeeded(`{"count":3}`))
	got := <-ended
	if got.err != nil {
		t.Fatal(got.err)
	}
	var out struct{ Count int }
	if err := got.outcome.Output(&out); err != nil || out.Count != 3 {
		t.Errorf("output %+v, %v", out, err)
	}
	again, err := c.Wait(ctx, id) // after its end
	if err != nil || again.Seq != 3 || again.Status != contracts.StatusSucceeded {
		t.Errorf("waited for %+v, %v", again, err)
	}
}

func TestWaitFromNextRound(t *testing.T) {
	c, b := newClient(t)
	ctx := soon(t)
	id := contracts.NewRunID()
	s := newScript(t, b, id)
	s.append(queued(), started(), contracts.Draft{Type: contracts.TypeFailed,
		Payload: contracts.Failed{ErrorInfo: contracts.ErrorInfo{Type: "E", Message: "no"}, Attempts: 1}})

	first, err := c.Wait(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	var failed *client.RunError
	if err := first.Err(); !errors.As(err, &failed) || failed.Info.Type != "E" || failed.Attempts != 1 ||
		failed.Error() != "run "+id+" failed: no" {
		t.Errorf("the first round ended with %v", err)
	}
	if err := first.Output(nil); !errors.As(err, &failed) {
		t.Errorf("output of a failed run: %v", err)
	}
	ended := make(chan end, 1)
	go func() {
		o, err := c.WaitFrom(ctx, id, first.Seq+1) // while the log may still end with the first round
		ended <- end{o, err}
	}()
	s.append(contracts.Draft{Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueRedrive}},
		started(), succeeded(`"ok"`))
	if second := <-ended; second.err != nil || second.outcome.Seq != 6 || second.outcome.Err() != nil {
		t.Errorf("the second round ended with %+v, %v", second.outcome, second.err)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	c, b := newClient(t)
	id := contracts.NewRunID()
	newScript(t, b, id).append(queued())
	cause := errors.New("told to")
	ctx, cancel := context.WithCancelCause(soon(t))
	cancel(cause)
	if _, err := c.Wait(ctx, id); err == nil || errors.Is(err, client.ErrNotFound) {
		t.Errorf("error %v", err)
	}
}

func TestOutcomes(t *testing.T) {
	faults := contracts.Faults{{Field: "agent_key", Message: "is required"}}
	for _, tc := range []struct {
		name   string
		drafts []contracts.Draft
		want   string
		status contracts.Status
	}{
		{"timed out", []contracts.Draft{queued(), started(), {Type: contracts.TypeTimedOut, Payload: contracts.TimedOut{TimeoutSeconds: 5}}},
			"timed out: an attempt took longer than 5 s", contracts.StatusTimedOut},
		{"not begun in time", []contracts.Draft{queued(), {Type: contracts.TypeTimedOut, Payload: contracts.TimedOut{TimeoutSeconds: 5, StartTimeoutSeconds: 7}}},
			"timed out: no attempt was begun within 7 s", contracts.StatusTimedOut},
		{"cancelled", []contracts.Draft{queued(), {Type: contracts.TypeCancelled, Payload: contracts.Cancelled{Reason: "enough"}}},
			"was cancelled: enough", contracts.StatusCancelled},
		{"cancelled for no reason", []contracts.Draft{queued(), {Type: contracts.TypeCancelled}}, "was cancelled", contracts.StatusCancelled},
		{"rejected", []contracts.Draft{{Type: contracts.TypeRejected, Payload: contracts.Rejected{Errors: faults}}},
			"was rejected: agent_key: is required", contracts.StatusRejected},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, b := newClient(t)
			id := contracts.NewRunID()
			newScript(t, b, id).append(tc.drafts...)
			o, err := c.Wait(soon(t), id)
			if err != nil {
				t.Fatal(err)
			}
			var e *client.RunError
			if err := o.Err(); !errors.As(err, &e) || e.Error() != "run "+id+" "+tc.want || e.Status != tc.status {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

func TestFollowAndHistory(t *testing.T) {
	c, b := newClient(t)
	ctx := soon(t)
	id := contracts.NewRunID()
	newScript(t, b, id).append(queued(), started(), contracts.Draft{Type: contracts.TypeDelta, Payload: contracts.Delta{Text: "hi"}}, succeeded(`1`))

	collect := func(events func(func(runlog.Entry, error) bool)) (seqs []uint64) {
		t.Helper()
		for e, err := range events {
			if err != nil {
				t.Fatal(err)
			}
			seqs = append(seqs, e.Seq)
		}
		return seqs
	}
	if got := collect(c.Follow(ctx, id, runlog.FollowOptions{UntilEnd: true})); !slices.Equal(got, []uint64{1, 2, 3, 4}) {
		t.Errorf("followed %v", got)
	}
	if got := collect(c.Follow(ctx, id, runlog.FollowOptions{From: 3, UntilEnd: true})); !slices.Equal(got, []uint64{3, 4}) {
		t.Errorf("followed from 3: %v", got)
	}
	if got := collect(c.History(ctx, id, 2)); !slices.Equal(got, []uint64{2, 3, 4}) {
		t.Errorf("history from 2: %v", got)
	}
}

func TestBadNamesAreRefused(t *testing.T) {
	c, _ := newClient(t)
	ctx := soon(t)
	for name, events := range map[string]func(func(runlog.Entry, error) bool){
		"follow":     c.Follow(ctx, ">", runlog.FollowOptions{}),
		"follow all": c.FollowAll(ctx, "*"),
		"history":    c.History(ctx, "", 1),
	} {
		n := 0
		for _, err := range events {
			if n++; err == nil {
				t.Errorf("%s: no error", name)
			}
		}
		if n != 1 {
			t.Errorf("%s: %d yields", name, n)
		}
	}
	if _, err := c.Head(ctx, "x"); err == nil {
		t.Error("head: no error")
	}
	if _, err := c.Wait(ctx, "x"); err == nil {
		t.Error("wait: no error")
	}
}
