package statekeeper

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// A conversation is forgotten with the last run that is left of it, whichever that is. What
// was said is kept while a run waits that is to begin with it.
func TestConversationsAreForgotten(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	p := newPlayer(t, b)
	k := startKeeper(t, b, Config{}, idle)
	k.ready(t)
	const age = 9 * 24 * time.Hour
	key := contracts.ConversationKey("c1")
	left := func() string {
		m, err := jsutil.GetFromLeader(t.Context(), b.NC, contracts.StreamRuns, jsutil.GetRequest{LastFor: contracts.KVSubject(contracts.BucketRuns, key)})
		if errors.Is(err, jsutil.ErrNotFound) {
			return "none"
		}
		return string(m.Data)
	}
	play := func(drafts ...contracts.Draft) (at runlog.Head) {
		t.Helper()
		id := contracts.NewRunID()
		at = p.past(at, id, age, queued(contracts.Submission{RunID: id, ConversationID: "c1"}))
		for _, d := range drafts {
			at = p.past(at, id, age, d)
		}
		p.record(at)
		return at
	}
	remove := func(id, want string) {
		t.Helper()
		if err := k.removeNow(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if left() != want {
			t.Fatalf("the conversation became %q, want %q", left(), want)
		}
	}
	remove(play(started("w-1", ""), succeeded()).RunID, "none") // of one that is forgotten
	first, second, third := play(started("w-1", ""), succeeded()), play(contracts.Draft{Type: contracts.TypeCancelled}), play()
	a, c, all := first.RunID, third.RunID, first.RunID+" "+second.RunID+" "+third.RunID
	p.kv(key, all)
	remove(a, all)
	remove(second.RunID, all)
	for _, at := range []runlog.Head{first, second} {
		if last, err := p.log.Last(t.Context(), at.RunID); err != nil || last.Seq != at.Seq {
			t.Fatalf("run %s was removed, and another one waits to begin with what it said: %v", at.RunID, err)
		}
	}
	third = p.past(third, c, age, started("w-1", ""))
	p.record(third)
	remove(second.RunID, a+" "+c)
	remove(a, c)
	if traces := strings.Join(p.traces(a, ""), " "); strings.Contains(traces, ".events") {
		t.Errorf("of the first run %s is left", traces)
	}
	remove(c, c) // it is live
	p.record(p.past(third, c, age, contracts.Draft{Type: contracts.TypeFailed}))
	remove(c, "none")
}

// Who stays for those that wait behind him does not keep others from being removed, however many they are.
func TestRetentionPassesWhoStays(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	p := newPlayer(t, b)
	const age = 9 * 24 * time.Hour
	var turns []string
	for range 2 {
		id := contracts.NewRunID()
		at := p.past(runlog.Head{}, id, age, queued(contracts.Submission{RunID: id, ConversationID: "c1"}))
		p.past(at, id, age, contracts.Draft{Type: contracts.TypeCancelled})
		turns = append(turns, id)
	}
	_, waits := p.submit(contracts.Submission{ConversationID: "c1"})
	p.putWork(waits)
	p.kv(contracts.ConversationKey("c1"), strings.Join(append(turns, waits), " "))
	_, later := p.old(age-time.Hour, "later")
	k := startKeeper(t, b, Config{}, func(s *Statekeeper) { eager(s); s.retirer.most = 1 })
	waitFor(t, "the other one to be removed", func() (bool, string) { return k.Stats().Expired > 0, "" })
	if _, err := p.log.Last(t.Context(), later); !errors.Is(err, jsutil.ErrNotFound) {
		t.Errorf("it is there: %v", err)
	}
	for _, id := range turns {
		if _, err := p.log.Last(t.Context(), id); err != nil {
			t.Errorf("run %s: %v", id, err)
		}
	}
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

	k := startKeeper(t, b, Config{}, idle)
	k.ready(t)
	p.record(head)
	waitFor(t, "all runs to be indexed", func() (bool, string) {
		n := k.feed.current().stats().Total
		return n == 6, fmt.Sprint(n)
	})
	if err := p.log.Purge(t.Context(), head); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the redrive to be projected", func() (bool, string) { return len(k.feed.current().quiet(0, liveRun{}, 3)) == 2, "" })
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

// Many runs whose time is over go about as fast as they once came, for what is
// slower would fill the disk: a thousand in a round, and rounds half of the time.
func TestRetentionKeepsPace(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	p := newPlayer(t, b)
	const runs = maxExpire + 200
	for range runs {
		p.past(runlog.Head{}, contracts.NewRunID(), 8*24*time.Hour, contracts.Draft{Type: contracts.TypeRejected, Payload: contracts.Rejected{}})
	}
	k := startKeeper(t, b, Config{}, idle)
	k.ready(t)
	waitForUpTo(t, time.Minute, "all runs to be indexed", func() (bool, string) {
		n := k.feed.current().stats().Total
		return n == runs, fmt.Sprint(n)
	})
	for _, left := range []int{runs - maxExpire, 0} {
		if _, err := k.retirer.round(t.Context(), false, k.retirer.task); err != nil {
			t.Fatal(err)
		}
		if logs, err := subjectsOf(t.Context(), p.records.js, contracts.StreamLog, ">"); err != nil || len(logs) != left {
			t.Fatalf("a round leaves %d runs, want %d, %v", len(logs), left, err)
		}
		waitForUpTo(t, time.Minute, "the index to forget them", func() (bool, string) {
			n := k.feed.current().stats().Total
			return n == left, fmt.Sprint(n)
		})
	}
	if k.retirer.share != 1 {
		t.Errorf("a round is followed by a rest of %d times its length", k.retirer.share)
	}
}

// redrive begins a new round as a dispatcher does; false if it may not.
func (p *player) redrive(at runlog.Head) (runlog.Head, bool) {
	p.t.Helper()
	subject := contracts.KVSubject(contracts.BucketRuns, contracts.RoundKey(at.RunID, at.Sequence))
	holder, err := jsutil.Claim(p.t.Context(), p.records.js, contracts.StreamRuns, subject, contracts.RoundRedrive)
	if errors.Is(err, jsutil.ErrNotFound) {
		return at, false // a removal held the key, and is over; a dispatcher looks again, and finds no log
	}
	if err != nil {
		p.t.Fatal(err)
	}
	if holder == contracts.RoundRemoval {
		return at, false
	}
	e := p.make(at, at.RunID, contracts.Draft{Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueRedrive}})
	head, err := p.log.Append(p.t.Context(), at, e)
	if err != nil && !errors.Is(err, jsutil.ErrConflict) {
		p.t.Fatal(err)
	}
	return head, err == nil
}

// whole checks that a run has its log from the first event on, its checkpoint and its status.
func (p *player) whole(at runlog.Head, key string) {
	p.t.Helper()
	seq := uint64(0)
	for e, err := range p.log.Read(p.t.Context(), at.RunID, 1) {
		if err != nil {
			p.t.Fatal(err)
		}
		seq = e.Seq
	}
	left := strings.Join(p.traces(at.RunID, key), " ")
	if seq != at.Seq || !strings.Contains(left, "checkpoint.") || !strings.Contains(left, "status.") || !strings.Contains(left, contracts.IdempotencyKey(key)) {
		p.t.Fatalf("run %s has only its log up to %d of %d, and %s", key, seq, at.Seq, left)
	}
}

// removeNow removes a run if it ended more than a week ago.
func (k *keeper) removeNow(ctx context.Context, runID string) error {
	k.sweeper.mu.Lock()
	defer k.sweeper.mu.Unlock()
	before := make(map[contracts.Status]time.Time)
	for _, s := range contracts.Statuses()[4:] { // the terminal ones
		before[s] = time.Now().Add(-7 * 24 * time.Hour)
	}
	return k.sweeper.remove(ctx, runID, before)
}

// A redrive that comes at any moment of a removal is either refused, with all
// gone, or begins a round of a run that has all it had.
func TestRedriveDuringRemoval(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	p := newPlayer(t, b)
	k := startKeeper(t, b, Config{}, idle)
	k.ready(t)
	won := 0
	for range 60 {
		head, id := p.old(9*24*time.Hour, "k")
		p.record(head)
		removed := make(chan error, 1)
		go func() { removed <- k.removeNow(t.Context(), id) }()
		next, ok := p.redrive(head)
		if err := <-removed; err != nil {
			t.Fatal(err)
		}
		if ok {
			won++
			p.whole(next, "k")
		} else if left := strings.Join(p.traces(id, "k"), " "); strings.Contains(left, "checkpoint.") || strings.Contains(left, ".events") {
			t.Fatalf("of a removed run %s is left", left)
		}
	}
	t.Logf("%d of 60 redrives came first", won)
	// What a redrive left that came too late is an audit's, also if the run's marker has gone.
	late := contracts.NewRunID()
	p.kv(contracts.RoundKey(late, 7), contracts.RoundRedrive)
	if _, err := ask[contracts.SweepResponse](t, b.NC, contracts.EndpointSweep, contracts.SweepRequest{}); err != nil {
		t.Fatal(err)
	}
	if left := p.traces(late, ""); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

// A redrive that was settled on keeps its run.
func TestSettledRound(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	p := newPlayer(t, b)
	k := startKeeper(t, b, Config{}, idle)
	k.ready(t)
	for value, stays := range map[string]bool{contracts.RoundRedrive: true, contracts.RoundRemoval: false} {
		head, id := p.old(9*24*time.Hour, value)
		p.record(head)
		p.kv(contracts.RoundKey(id, head.Sequence), value)
		if err := k.removeNow(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if stays {
			p.whole(head, value)
		} else if left := p.traces(id, value); len(left) != 1 {
			t.Errorf("with %q %v is left", value, left)
		}
	}
	if n := k.Stats().Expired; n != 1 {
		t.Errorf("%d runs were counted, want 1", n)
	}
}

var errCut = errors.New("cut off")

// A keeper that is killed between any two steps of a removal leaves what the
// next one finishes; whatever lives stays whole, a redrive at that moment included.
func TestRemovalCutOff(t *testing.T) {
	t.Parallel()
	const age = 9 * 24 * time.Hour
	for n := range 8 {
		t.Run(fmt.Sprintf("after step %d", n), func(t *testing.T) {
			t.Parallel()
			b := jstest.Start(t)
			p := newPlayer(t, b)
			gone, goneID := p.old(age, "gone")
			tried, triedID := p.old(age, "tried") // and redriven meanwhile
			head, liveID := p.old(age, "live")
			live, ok := p.redrive(head)
			if !ok {
				t.Fatal("the redrive was refused")
			}
			p.putWork(liveID)
			one := startKeeper(t, b, Config{}, idle)
			one.ready(t)
			for _, at := range []runlog.Head{gone, tried, live} {
				p.record(at)
			}
			one.sweeper.mu.Lock()
			one.sweeper.steps = append(slices.Clone(one.sweeper.steps[:min(n, len(one.sweeper.steps))]), func(context.Context, removal) error { return errCut })
			one.sweeper.mu.Unlock()
			for _, id := range []string{goneID, triedID, liveID} {
				if err := one.removeNow(t.Context(), id); (id == liveID) != (err == nil) || err != nil && !errors.Is(err, errCut) {
					t.Fatalf("removal of %s: %v", id, err)
				}
			}
			one.nc.Close()
			<-one.ended
			again, ok := p.redrive(tried)
			if ok != (n <= 1) {
				t.Errorf("the redrive began a round: %t", ok)
			}
			two := startKeeper(t, b, Config{}, eager)
			if ok {
				p.putWork(triedID)
			}
			waitFor(t, "the next one to finish", func() (bool, string) {
				left := p.traces(goneID, "gone")
				if !ok {
					left = append(left, p.traces(triedID, "tried")...)
				}
				for _, l := range left { // the marker is an audit's, and what a redrive left that came too late
					if !strings.Contains(l, "status.") && !strings.Contains(l, "round.") {
						return false, fmt.Sprint(left)
					}
				}
				return true, ""
			})
			waitFor(t, "the index to forget them", func() (bool, string) {
				x := two.feed.current()
				if x == nil {
					return false, "no index"
				}
				want := 1
				if ok {
					want = 2
				}
				return x.stats().Total == want, fmt.Sprint(x.stats())
			})
			if _, err := ask[contracts.SweepResponse](t, b.NC, contracts.EndpointSweep, contracts.SweepRequest{}); err != nil {
				t.Fatal(err)
			}
			if left := p.traces(goneID, "gone"); len(left) > 0 {
				t.Errorf("%v is left", left)
			}
			p.whole(live, "live")
			if ok {
				p.whole(again, "tried")
			} else if left := p.traces(triedID, "tried"); len(left) > 0 {
				t.Errorf("%v is left", left)
			}
		})
	}
}

// How long a run is kept may hang on how it ended; what has not ended is kept.
func TestRetentionFor(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	p := newPlayer(t, b)
	const day = 24 * time.Hour
	succeed := func(age time.Duration) (runlog.Head, string) {
		id := contracts.NewRunID()
		head := p.past(runlog.Head{}, id, age, queued(contracts.Submission{RunID: id}))
		head = p.past(head, id, age, started("w-1", ""))
		return p.past(head, id, age, succeeded()), id
	}
	_, failed := p.old(20*day, "failed")
	_, failedLong := p.old(31*day, "failed long")
	_, well := succeed(12 * time.Hour)
	_, wellLong := succeed(2 * day)
	rejected := contracts.NewRunID()
	p.past(runlog.Head{}, rejected, 8*day, contracts.Draft{Type: contracts.TypeRejected, Payload: contracts.Rejected{}})
	// Both live for longer than anything is kept: one works, the other waits.
	works, waits := contracts.NewRunID(), contracts.NewRunID()
	head := p.past(runlog.Head{}, works, 90*day, queued(contracts.Submission{RunID: works}))
	p.past(head, works, 89*day, started("w-1", ""))
	p.putWork(works)
	p.past(runlog.Head{}, waits, 90*day, scheduled(time.Now().Add(day)))
	if _, err := b.JS.Publish(t.Context(), contracts.ScheduleAtSubject(waits), nil); err != nil {
		t.Fatal(err)
	}
	k := startKeeper(t, b, Config{RetentionFor: map[contracts.Status]time.Duration{contracts.StatusFailed: 30 * day, contracts.StatusSucceeded: day}}, eager)
	k.ready(t)
	waitFor(t, "three runs to be removed", func() (bool, string) { s := k.Stats(); return s.Expired == 3, fmt.Sprintf("%+v", s) })
	k.sweeper.mu.Lock()   // a whole sweep more
	k.sweeper.mu.Unlock() //nolint:staticcheck // nothing to guard
	for name, id := range map[string]string{"failed long": failedLong, "succeeded long": wellLong, "rejected": rejected} {
		for _, left := range p.traces(id, name) {
			if !strings.Contains(left, "status.") {
				t.Errorf("of run %s %s is left", name, left)
			}
		}
	}
	for name, id := range map[string]string{"failed": failed, "succeeded": well, "works": works, "waits": waits} {
		if left := strings.Join(p.traces(id, name), " "); !strings.Contains(left, ".events") || !strings.Contains(left, "status.") {
			t.Errorf("of run %s only %s is left", name, left)
		}
		p.check(id)
	}
	if n := k.Stats().Expired; n != 3 {
		t.Errorf("%d runs were removed", n)
	}
}

func TestAudit(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	p := newPlayer(t, b)
	const age = time.Hour
	deletedHead, deleted := p.old(age, "deleted")
	garbledHead, garbled := p.old(age, "garbled")
	wrongHead, wrong := p.old(age, "wrong")
	purgedHead, purged := p.old(age, "purged")
	// Two epochs: the first one's named checkpoint stays, its orphan goes.
	head, id := p.old(age, "orphans")
	head = p.past(head, id, age, contracts.Draft{Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueRedrive}})
	head = p.past(head, id, age, started("w-2", ""))
	p.putWork(id)
	p.kv(contracts.CheckpointKey(id, 1, 2), "{}")
	p.kv(contracts.CheckpointKey(id, 2, 2), "{}")      // it may yet be named
	p.kv(contracts.CheckpointKey(garbled, 1, 2), "{}") // its only epoch, but that has ended
	stray := contracts.NewRunID()
	p.kv(contracts.CheckpointKey(stray, 1, 1), "{}")
	k := startKeeper(t, b, Config{}, idle)
	k.ready(t)
	for _, h := range []runlog.Head{deletedHead, garbledHead, wrongHead, purgedHead, head} {
		p.record(h)
	}
	// Markers of runs that have gone must not stand in for the record that has.
	for _, id := range []string{deleted, contracts.NewRunID(), contracts.NewRunID(), contracts.NewRunID()} {
		if _, err := b.JS.PublishMsg(t.Context(), &nats.Msg{Subject: statusSubject(id), Header: nats.Header{kvOperation: {"DEL"}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.sweeper.purge(t.Context(), statusSubject(purged)); err != nil { // not even a marker is left
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
	if err != nil || len(did.Statuses) != 4 || len(did.Checkpoints) != 3 || len(did.Requeued)+len(did.Expired) != 0 {
		t.Fatalf("the sweep did %+v, %v", did, err)
	}
	for _, id := range []string{deleted, garbled, wrong, purged, id} {
		p.check(id)
	}
	keys, err := subjectsOf(t.Context(), b.JS, contracts.StreamRuns, contracts.KVSubject(contracts.BucketRuns, "checkpoint.*.*.*"))
	if err != nil || len(keys) != 6 || keys[contracts.KVSubject(contracts.BucketRuns, contracts.CheckpointKey(id, 1, 1))] == 0 {
		t.Errorf("the checkpoints are %v, %v", keys, err)
	}
	if did, err = ask[contracts.SweepResponse](t, b.NC, contracts.EndpointSweep, []byte{}); err != nil || len(did.Statuses)+len(did.Checkpoints) > 0 {
		t.Errorf("the second sweep did %+v, %v", did, err)
	}
}
