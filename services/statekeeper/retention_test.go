package statekeeper

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
	"longhaul/pkg/runlog"
)

// past appends one event as if it had been written some time ago.
func (p *player) past(at runlog.Head, runID string, age time.Duration, d contracts.Draft) runlog.Head {
	p.t.Helper()
	e, err := contracts.Next(at.Head, runID, d, time.Now().Add(-age))
	if err != nil {
		p.t.Fatal(err)
	}
	head, err := p.log.Append(p.t.Context(), at, e)
	if err != nil {
		p.t.Fatal(err)
	}
	return head
}

// kv stores a value in bucket runs.
func (p *player) kv(key, value string) uint64 {
	p.t.Helper()
	ack, err := p.records.js.Publish(p.t.Context(), contracts.KVSubject(contracts.BucketRuns, key), []byte(value))
	if err != nil {
		p.t.Fatal(err)
	}
	return ack.Sequence
}

// traces are the subjects in log and bucket that belong to a run or its key.
func (p *player) traces(runID, idempotencyKey string) (found []string) {
	p.t.Helper()
	for _, stream := range []string{contracts.StreamLog, contracts.StreamRuns} {
		subjects, err := subjectsOf(p.t.Context(), p.records.js, stream, ">")
		if err != nil {
			p.t.Fatal(err)
		}
		for s := range subjects {
			if strings.Contains(s, runID) || idempotencyKey != "" && strings.HasSuffix(s, contracts.IdempotencyKey(idempotencyKey)) {
				found = append(found, s)
			}
		}
	}
	return found
}

// old plays a run that failed long ago, with a checkpoint and a key.
func (p *player) old(age time.Duration, key string) (runlog.Head, string) {
	p.t.Helper()
	id := contracts.NewRunID()
	p.kv(contracts.IdempotencyKey(key), id)
	head := p.past(runlog.Head{}, id, age, queued(contracts.Submission{RunID: id, AgentKey: "echo", IdempotencyKey: key}))
	head = p.past(head, id, age, started("w-1", ""))
	revision := p.kv(contracts.CheckpointKey(id, 1, 1), `{"n":1}`)
	head = p.past(head, id, age, contracts.Draft{Type: contracts.TypeCheckpoint,
		Checkpoint: &contracts.CheckpointRef{N: 1, Epoch: 1, Revision: revision}, Payload: contracts.Checkpointed{N: 1, Size: 7}})
	return p.past(head, id, age, contracts.Draft{Type: contracts.TypeFailed, Payload: contracts.Failed{Attempts: 1}}), id
}

func TestRetention(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	p := newPlayer(t, b)
	const day = 24 * time.Hour
	_, gone := p.old(8*day, "gone")
	_, young := p.old(6*day, "young")
	head, redriven := p.old(9*day, "redriven")
	p.next(head, redriven, contracts.Draft{Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueRedrive}})
	p.putWork(redriven)
	head, half := p.old(8*day, "half") // a sweep was killed when it had removed the log
	long := contracts.NewRunID()
	at := p.past(runlog.Head{}, long, 30*day, queued(contracts.Submission{RunID: long, AgentKey: "echo"}))
	p.past(at, long, 29*day, started("w-1", ""))
	p.putWork(long)
	// Its key is another run's.
	rejected := contracts.NewRunID()
	p.past(runlog.Head{}, rejected, 8*day, contracts.Draft{Type: contracts.TypeRejected, Payload: contracts.Rejected{}})

	k := startKeeper(t, b, Config{}, func(s *Statekeeper) { s.sweeper.interval = time.Hour })
	k.ready(t)
	p.record(head)
	waitFor(t, "all runs to be indexed", func() (bool, string) {
		n := k.feed.current().stats().Total
		return n == 6, fmt.Sprint(n)
	})
	if err := p.log.Purge(t.Context(), head); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the redrive to be projected", func() (bool, string) { return len(k.feed.current().quiet(0)) == 2, "" })
	dry, err := ask[contracts.SweepResponse](t, b.NC, contracts.EndpointSweep, contracts.SweepRequest{DryRun: true})
	if err != nil || len(dry.Expired) != 3 || len(p.traces(gone, "gone")) != 4 {
		t.Fatalf("a dry sweep says %+v, %v, and leaves %v", dry, err, p.traces(gone, "gone"))
	}
	for range 2 { // the markers go with the second
		if _, err := ask[contracts.SweepResponse](t, b.NC, contracts.EndpointSweep, contracts.SweepRequest{}); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the index to forget them", func() (bool, string) {
			n := k.feed.current().stats().Total
			return n == 3, fmt.Sprint(n)
		})
	}
	for id, key := range map[string]string{gone: "gone", half: "half", rejected: ""} {
		if left := p.traces(id, key); len(left) > 0 {
			t.Errorf("of run %s %v is left", key, left)
		}
	}
	for id, key := range map[string]string{young: "young", redriven: "redriven"} {
		if left := p.traces(id, key); len(left) != 4 {
			t.Errorf("of run %s only %v is left", key, left)
		}
		p.check(id)
	}
	p.check(long)
	// The id is free again.
	p.record(p.next(runlog.Head{}, gone, queued(contracts.Submission{RunID: gone, AgentKey: "echo"})))
	p.check(gone)
}

// A redrive that comes at any moment of a removal is either refused, with all
// gone, or begins a round whose checkpoint and status stay.
func TestRedriveDuringRemoval(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	p := newPlayer(t, b)
	k := startKeeper(t, b, Config{}, func(s *Statekeeper) { s.sweeper.interval = time.Hour })
	k.ready(t)
	won := 0
	for range 40 {
		head, id := p.old(9*24*time.Hour, "k")
		p.record(head)
		e := p.make(head, id, contracts.Draft{Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueRedrive}})
		redrive := make(chan error, 1)
		go func() {
			_, err := p.log.Append(t.Context(), head, e)
			redrive <- err
		}()
		k.sweeper.mu.Lock()
		err := k.sweeper.remove(t.Context(), id, time.Now().Add(-7*24*time.Hour))
		k.sweeper.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		left := strings.Join(p.traces(id, ""), " ")
		switch err := <-redrive; {
		case err == nil:
			won++
			if !strings.Contains(left, "checkpoint.") || !strings.Contains(left, "status.") || !strings.Contains(left, ".events") {
				t.Fatalf("a redriven run has only %s", left)
			}
		case !errors.Is(err, jsutil.ErrConflict):
			t.Fatal(err)
		case strings.Contains(left, "checkpoint.") || strings.Contains(left, ".events"):
			t.Fatalf("of a removed run %s is left", left)
		}
	}
	t.Logf("%d of 40 redrives came first", won)
}

func TestAudit(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	p := newPlayer(t, b)
	const age = time.Hour
	deletedHead, deleted := p.old(age, "deleted")
	garbledHead, garbled := p.old(age, "garbled")
	wrongHead, wrong := p.old(age, "wrong")
	// Two epochs: the first one's named checkpoint stays, its orphan goes.
	head, id := p.old(age, "orphans")
	head = p.past(head, id, age, contracts.Draft{Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueRedrive}})
	head = p.past(head, id, age, started("w-2", ""))
	p.putWork(id)
	p.kv(contracts.CheckpointKey(id, 1, 2), "{}")
	p.kv(contracts.CheckpointKey(id, 2, 2), "{}") // it may yet be named
	stray := contracts.NewRunID()
	p.kv(contracts.CheckpointKey(stray, 1, 1), "{}")
	k := startKeeper(t, b, Config{}, func(s *Statekeeper) { s.sweeper.interval = time.Hour })
	k.ready(t)
	for _, h := range []runlog.Head{deletedHead, garbledHead, wrongHead, head} {
		p.record(h)
	}
	if _, err := b.JS.PublishMsg(t.Context(), &nats.Msg{Subject: statusSubject(deleted), Header: nats.Header{kvOperation: {"DEL"}}}); err != nil {
		t.Fatal(err)
	}
	p.kv(contracts.StatusKey(garbled), "garbage")
	there, err := p.records.get(t.Context(), wrong)
	if err != nil {
		t.Fatal(err)
	}
	there.rec.Status = contracts.StatusRunning
	data, err := contracts.Encode(there.rec)
	if err != nil {
		t.Fatal(err)
	}
	p.kv(contracts.StatusKey(wrong), string(data))
	did, err := ask[contracts.SweepResponse](t, b.NC, contracts.EndpointSweep, contracts.SweepRequest{})
	if err != nil || len(did.Statuses) != 3 || len(did.Checkpoints) != 2 || len(did.Requeued)+len(did.Expired) != 0 {
		t.Fatalf("the sweep did %+v, %v", did, err)
	}
	for _, id := range []string{deleted, garbled, wrong, id} {
		p.check(id)
	}
	keys, err := subjectsOf(t.Context(), b.JS, contracts.StreamRuns, contracts.KVSubject(contracts.BucketRuns, "checkpoint.*.*.*"))
	if err != nil || len(keys) != 5 || keys[contracts.KVSubject(contracts.BucketRuns, contracts.CheckpointKey(id, 1, 1))] == 0 {
		t.Errorf("the checkpoints are %v, %v", keys, err)
	}
	if did, err = ask[contracts.SweepResponse](t, b.NC, contracts.EndpointSweep, []byte{}); err != nil || len(did.Statuses)+len(did.Checkpoints) > 0 {
		t.Errorf("the second sweep did %+v, %v", did, err)
	}
}
