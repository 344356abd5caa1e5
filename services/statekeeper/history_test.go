package statekeeper

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
	"longhaul/pkg/runlog"
)

// save plays a checkpoint whole: the state, and the event that names it.
func (p *player) save(head runlog.Head, n uint64) runlog.Head {
	p.t.Helper()
	ref := contracts.CheckpointRef{N: n, Epoch: head.Epoch, Revision: p.kv(contracts.CheckpointKey(head.RunID, head.Epoch, n), fmt.Sprint(n))}
	return p.next(head, head.RunID, contracts.Draft{Type: contracts.TypeCheckpoint, Checkpoint: &ref, Payload: contracts.Checkpointed{N: n, Size: 1}})
}

// begin plays a run up to its first start.
func (p *player) begin() runlog.Head {
	p.t.Helper()
	id := contracts.NewRunID()
	head := p.next(runlog.Head{}, id, queued(contracts.Submission{RunID: id}))
	p.putWork(id)
	return p.next(head, id, started("w-1", ""))
}

// stored lists what bucket runs holds of a run's checkpoints, as epoch.n in order.
func (p *player) stored(runID string) string {
	p.t.Helper()
	subjects, err := subjectsOf(p.t.Context(), p.records.js, contracts.StreamRuns, checkpointSubjects(runID))
	if err != nil {
		p.t.Fatal(err)
	}
	var refs []contracts.CheckpointRef
	for s := range subjects {
		_, epoch, n, err := contracts.ParseCheckpointKey(strings.TrimPrefix(s, contracts.KVSubject(contracts.BucketRuns, "")))
		if err != nil {
			p.t.Fatal(err)
		}
		refs = append(refs, contracts.CheckpointRef{Epoch: epoch, N: n})
	}
	slices.SortFunc(refs, earlier)
	var list []string
	for _, r := range refs {
		list = append(list, fmt.Sprintf("%d.%d", r.Epoch, r.N))
	}
	return strings.Join(list, " ")
}

// mustResume fails unless the state that the head names is there to be read.
func (p *player) mustResume(head runlog.Head) {
	p.t.Helper()
	ref := *head.Checkpoint
	m, err := jsutil.GetFromLeader(p.t.Context(), p.nc, contracts.StreamRuns, jsutil.GetRequest{Seq: ref.Revision})
	if want := contracts.KVSubject(contracts.BucketRuns, contracts.CheckpointKey(head.RunID, ref.Epoch, ref.N)); err != nil ||
		m.Subject != want || string(m.Data) != fmt.Sprint(ref.N) {
		p.t.Fatalf("the head names %+v, and there stands %q on %s, %v; stored are %s", ref, m.Data, m.Subject, err, p.stored(head.RunID))
	}
}

func (p *player) waitForStored(runID, want string) {
	p.t.Helper()
	waitFor(p.t, "the checkpoints "+want, func() (bool, string) {
		got := p.stored(runID)
		return got == want, got
	})
}

// The newest stay, over a takeover and over a redrive from the start, whose
// numbers begin anew. What is newer than the head's may yet be named.
func TestHistory(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	p := newPlayer(t, b)
	k := startKeeper(t, b, Config{CheckpointHistory: 4}, func(s *Statekeeper) {
		s.sweeper.interval, s.sweeper.pace = time.Hour, 10*time.Millisecond
	})
	k.ready(t)
	other := p.save(p.begin(), 1)
	head := p.begin()
	id := head.RunID
	for n := range uint64(7) {
		head = p.save(head, n+1)
		p.mustResume(head)
	}
	p.waitForStored(id, "1.4 1.5 1.6 1.7")
	p.kv(contracts.CheckpointKey(id, 1, 8), "lost") // it died before it could name it
	head = p.next(head, id, started("w-2", ""))
	head = p.save(head, 8)
	p.mustResume(head)
	p.waitForStored(id, "1.6 1.7 1.8 2.8") // the orphan is an audit's business
	p.kv(contracts.CheckpointKey(id, 2, 10), "about to be named")
	head = p.save(head, 9)
	p.waitForStored(id, "1.7 1.8 2.8 2.9 2.10")
	p.mustResume(head)

	head = p.next(head, id, contracts.Draft{Type: contracts.TypeFailed, Payload: contracts.Failed{Attempts: 1}})
	head = p.next(head, id, contracts.Draft{Type: contracts.TypeRequeued, FromStart: true, Payload: contracts.Requeued{Reason: contracts.RequeueRedrive, FromStart: true}})
	head = p.next(head, id, started("w-3", ""))
	for n := range uint64(3) {
		head = p.save(head, n+1)
		p.mustResume(head)
	}
	if err := k.sweeper.trim(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	p.waitForStored(id, "2.10 3.1 3.2 3.3")
	if got := p.stored(other.RunID); got != "1.1" {
		t.Errorf("of another run %q is left", got)
	}
	p.mustResume(other)
	// Nothing but the newest value of what is listed: no marker is left behind.
	stream, err := b.JS.Stream(t.Context(), contracts.StreamRuns)
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all, err := subjectsOf(t.Context(), b.JS, contracts.StreamRuns, ">")
	if err != nil || int(info.State.Msgs) != len(all) || len(all) > 7 { // five checkpoints, two statuses
		t.Errorf("the bucket holds %d messages on %v, %v", info.State.Msgs, all, err)
	}
	if trimmed := k.Stats().Trimmed; trimmed != 10 {
		t.Errorf("%d are counted as removed", trimmed)
	}
}

// However often two instances trim to a single checkpoint, and whatever a
// zombie of an older epoch leaves, the state that the head names is there.
func TestHistoryNeverTakesTheHead(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	p := newPlayer(t, b)
	f := folding{log: p.log, counters: new(counters), logger: testLogger(t), keep: 1}
	head := p.begin()
	id := head.RunID
	stop := make(chan struct{})
	ended := make(chan error, 2)
	for range cap(ended) {
		h := &sweeper{api: &api{folding: f}, js: b.JS}
		go func() {
			for {
				select {
				case <-stop:
					ended <- h.trim(t.Context(), id)
					return
				default:
				}
				if err := h.trim(t.Context(), id); err != nil {
					ended <- err
					return
				}
			}
		}()
	}
	n := uint64(0)
	for epoch := range uint64(20) {
		for range 10 {
			n++
			head = p.save(head, n)
			p.mustResume(head)
		}
		for i := range uint64(5) { // what it stores and may not name any more
			p.kv(contracts.CheckpointKey(id, epoch+1, n+1+i), "zombie")
			p.mustResume(head)
		}
		head = p.next(head, id, contracts.Draft{Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueShutdown}})
		head = p.next(head, id, started("w-2", "")) // and has saved nothing yet
		p.mustResume(head)
	}
	head = p.save(head, n+1)
	close(stop)
	for range cap(ended) {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	p.mustResume(head)
	if got, want := p.stored(id), fmt.Sprintf("21.%d", n+1); got != want {
		t.Errorf("left are %s, want %s", got, want)
	}
}

// What a statekeeper that was killed did not get to, the next one's audit finds;
// a dry one leaves it.
func TestAuditTrimsHistory(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	p := newPlayer(t, b)
	head := p.begin()
	for n := range uint64(7) {
		head = p.save(head, n+1)
	}
	head = p.next(head, head.RunID, contracts.Draft{Type: contracts.TypeSucceeded, Payload: contracts.Succeeded{}})
	p.kv(contracts.CheckpointKey(head.RunID, 1, 8), "orphan of the last epoch")
	k := startKeeper(t, b, Config{CheckpointHistory: 4}, func(s *Statekeeper) {
		s.sweeper.interval, s.sweeper.pace = time.Hour, time.Hour
	})
	k.ready(t)
	p.record(head)
	for _, dry := range []bool{true, false} {
		if p.stored(head.RunID) != "1.1 1.2 1.3 1.4 1.5 1.6 1.7 1.8" {
			t.Fatalf("stored are %s", p.stored(head.RunID))
		}
		if _, err := ask[contracts.SweepResponse](t, b.NC, contracts.EndpointSweep, contracts.SweepRequest{DryRun: dry}); err != nil {
			t.Fatal(err)
		}
	}
	if got := p.stored(head.RunID); got != "1.4 1.5 1.6 1.7 1.8" { // the orphan is too young yet
		t.Errorf("left are %s", got)
	}
	p.mustResume(head)
}
