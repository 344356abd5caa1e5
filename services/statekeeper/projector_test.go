package statekeeper

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
	"longhaul/pkg/runlog"
)

func TestProjectsWholeLives(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	k := startKeeper(t, b, Config{})
	p := newPlayer(t, b)

	head, id := p.submit(contracts.Submission{AgentKey: "echo", ConversationID: "c-1", Metadata: map[string]string{"user": "u1"}, IdempotencyKey: "order-77"})
	rec := p.record(head)
	if rec.Status != contracts.StatusPending || rec.ConversationID != "c-1" || rec.Metadata["user"] != "u1" || rec.IdempotencyKey != "order-77" {
		t.Errorf("after run.queued: %+v", rec)
	}
	head = p.next(head, id, started("w-1", "token"))
	head = p.next(head, id, contracts.Draft{Type: contracts.TypeRetrying, NotBefore: time.Now(),
		Payload: contracts.Retrying{Error: contracts.ErrorInfo{Type: "Boom", Message: "no", Stack: "deep"}}})
	if rec = p.record(head); rec.Status != contracts.StatusPending || rec.Error == nil || rec.Error.Type != "Boom" || rec.Error.Stack != "" {
		t.Errorf("after run.retrying: %+v", rec)
	}
	head = p.next(head, id, started("w-2", "token"))
	head = p.next(head, id, delta("hello"))
	head = p.next(head, id, contracts.Draft{Type: contracts.TypeCheckpoint, Checkpoint: &contracts.CheckpointRef{N: 1, Epoch: 2, Revision: 9}})
	if rec = p.record(head); rec.Status != contracts.StatusRunning || rec.Attempt != 2 || rec.WorkerID != "w-2" || rec.Checkpoint == nil {
		t.Errorf("after state.checkpoint: %+v", rec)
	}
	head = p.next(head, id, succeeded())
	if rec = p.record(head); rec.Status != contracts.StatusSucceeded || rec.Error != nil || rec.FinishedAt.IsZero() || rec.Seq != 7 {
		t.Errorf("after run.succeeded: %+v", rec)
	}

	rejected := contracts.NewRunID()
	rec = p.record(p.next(runlog.Head{}, rejected, contracts.Draft{Type: contracts.TypeRejected,
		Payload: contracts.Rejected{Errors: contracts.Faults{{Field: "agent_key", Message: "is unknown"}}}}))
	if rec.Status != contracts.StatusRejected || len(rec.Faults) != 1 {
		t.Errorf("after run.rejected: %+v", rec)
	}

	head, failed := p.submit(contracts.Submission{})
	head = p.next(head, failed, started("w-1", ""))
	head = p.next(head, failed, contracts.Draft{Type: contracts.TypeCancelRequested})
	head = p.next(head, failed, contracts.Draft{Type: contracts.TypeCancelled})
	head = p.next(head, failed, contracts.Draft{Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueRedrive}})
	if rec = p.record(head); rec.Status != contracts.StatusPending || !rec.FinishedAt.IsZero() {
		t.Errorf("after a redrive: %+v", rec)
	}
	for _, id := range []string{id, rejected, failed} {
		p.check(id)
	}
	waitAcked(t, b, 1)
	if n := k.projector.counters.stats().Rebuilt; n != 0 {
		t.Errorf("%d records were rebuilt, none needed it", n)
	}
}

// waitAcked waits until the projector's consumer has nothing left.
func waitAcked(t testing.TB, b *jstest.Broker, least uint64) {
	t.Helper()
	waitFor(t, "every event to be acknowledged", func() (bool, string) {
		cons, err := b.JS.Consumer(t.Context(), contracts.StreamLog, contracts.ConsumerProjector)
		if err != nil {
			return false, err.Error()
		}
		info := cons.CachedInfo()
		return info.NumPending == 0 && info.NumAckPending == 0 && info.AckFloor.Stream >= least,
			fmt.Sprintf("%d pending, %d not acknowledged, floor %d", info.NumPending, info.NumAckPending, info.AckFloor.Stream)
	})
}

// TestStatusAppearsSoon measures how long after its event a status can be read.
func TestStatusAppearsSoon(t *testing.T) {
	b := jstest.Start(t)
	startKeeper(t, b, Config{}).ready(t)
	p := newPlayer(t, b)
	p.record(first(p.submit(contracts.Submission{})))
	var took []time.Duration
	for range 30 {
		head, _ := p.submit(contracts.Submission{})
		began := time.Now()
		p.record(head)
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("status after run.queued: median %s, worst %s", took[len(took)/2], took[len(took)-1])
	if took[len(took)/2] > 60*time.Millisecond {
		t.Errorf("the median status took %s, want about 30ms", took[len(took)/2])
	}
}

func first(h runlog.Head, _ string) runlog.Head { return h }

func TestMergesWrites(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	// A window that a run does not outlast even with the race detector on a busy
	// machine; with the default one it is the same where runs take less than that.
	k := startKeeper(t, b, Config{}, withWindow(500*time.Millisecond))
	p := newPlayer(t, b)
	const runs = 500
	work := make(chan int)
	var players sync.WaitGroup
	ids := make([]string, runs)
	for range 16 {
		players.Go(func() {
			for i := range work {
				ids[i] = p.short(contracts.Submission{})
			}
		})
	}
	for i := range runs {
		work <- i
	}
	close(work)
	players.Wait()
	waitAcked(t, b, 3*runs)
	stream, err := b.JS.Stream(t.Context(), contracts.StreamRuns)
	if err != nil {
		t.Fatal(err)
	}
	writes := stream.CachedInfo().State.LastSeq // every write took a sequence
	t.Logf("%d short runs, %d status writes: %.2f a run", runs, writes, float64(writes)/runs)
	if writes > runs*11/10 {
		t.Errorf("%d writes for %d short runs, want about one each", writes, runs)
	}
	if n := k.projector.counters.stats().Writes; n < int64(writes) {
		t.Errorf("counted %d writes, the stream has %d", n, writes)
	}
	for _, id := range ids {
		p.check(id)
	}
}

// TestStreamingIsQuiet: text costs few writes, and is acknowledged all the same.
func TestStreamingIsQuiet(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	k := startKeeper(t, b, Config{})
	p := newPlayer(t, b)
	head, id := p.submit(contracts.Submission{})
	head = p.next(head, id, started("w-1", ""))
	p.record(head)
	for range 300 {
		head = p.next(head, id, delta("x"))
	}
	began := time.Now()
	head = p.next(head, id, contracts.Draft{Type: contracts.TypeCancelRequested})
	p.record(head)
	if took := time.Since(began); took > quietWindow/2 {
		t.Errorf("a change of the status behind them took %s", took)
	}
	head = p.next(head, id, contracts.Draft{Type: contracts.TypeCancelled})
	p.record(head)
	if n := k.projector.counters.stats().Writes; n > 8 && !raceEnabled {
		t.Errorf("%d writes for a run that streamed 300 deltas", n)
	}
	p.check(id)
	waitAcked(t, b, head.Sequence)
}

func TestRebuildsDamagedRecords(t *testing.T) {
	t.Parallel()
	damage := map[string]func(t *testing.T, b *jstest.Broker, p *player, id string){
		"purged": func(t *testing.T, b *jstest.Broker, _ *player, id string) {
			stream, err := b.JS.Stream(t.Context(), contracts.StreamRuns)
			if err == nil {
				err = stream.Purge(t.Context(), jetstream.WithPurgeSubject(statusSubject(id)))
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		"deleted": func(t *testing.T, b *jstest.Broker, _ *player, id string) {
			kv, err := b.JS.KeyValue(t.Context(), contracts.BucketRuns)
			if err == nil {
				err = kv.Delete(t.Context(), contracts.StatusKey(id))
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		"garbage":   overwrite(func(contracts.StatusRecord) []byte { return []byte("\x00 not json") }),
		"empty":     overwrite(func(contracts.StatusRecord) []byte { return nil }),
		"ahead":     overwrite(edited(func(r *contracts.StatusRecord) { r.Seq, r.LogSequence = 900, 900_000 })),
		"half way":  overwrite(edited(func(r *contracts.StatusRecord) { r.Seq = 1 })),
		"seq ahead": overwrite(edited(func(r *contracts.StatusRecord) { r.Seq = 900 })),
		"another":   overwrite(edited(func(r *contracts.StatusRecord) { r.RunID = contracts.NewRunID() })),
	}
	for name, do := range damage {
		// The same with a projector that remembers the run and with one that does not.
		for _, fresh := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/fresh=%v", name, fresh), func(t *testing.T) {
				t.Parallel()
				b := jstest.Start(t)
				k := startKeeper(t, b, Config{})
				p := newPlayer(t, b)
				head, id := p.submit(contracts.Submission{Metadata: map[string]string{"a": "b"}})
				head = p.next(head, id, started("w-1", ""))
				p.record(head)
				waitAcked(t, b, head.Sequence)
				if fresh {
					k.stop()
				}
				do(t, b, p, id)
				if fresh {
					startKeeper(t, b, Config{})
				}
				head = p.next(head, id, delta("x"))
				head = p.next(head, id, succeeded())
				waitAcked(t, b, head.Sequence)
				p.check(id)
			})
		}
	}
}

func overwrite(with func(contracts.StatusRecord) []byte) func(*testing.T, *jstest.Broker, *player, string) {
	return func(t *testing.T, b *jstest.Broker, p *player, id string) {
		t.Helper()
		there, err := p.records.get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.JS.Publish(t.Context(), statusSubject(id), with(there.rec)); err != nil {
			t.Fatal(err)
		}
	}
}

func edited(edit func(*contracts.StatusRecord)) func(contracts.StatusRecord) []byte {
	return func(r contracts.StatusRecord) []byte {
		edit(&r)
		data, err := contracts.Encode(r)
		if err != nil {
			panic(err)
		}
		return data
	}
}

// TestPoison: events that nobody can decode stop neither their run nor others.
func TestPoison(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	k := startKeeper(t, b, Config{})
	p := newPlayer(t, b)
	head, id := p.submit(contracts.Submission{})
	head = p.next(head, id, started("w-1", ""))
	ack, err := b.JS.PublishMsg(t.Context(), &nats.Msg{Subject: contracts.LogSubject(id), Data: []byte("{garbage")})
	if err != nil {
		t.Fatal(err)
	}
	// Whoever appended after it would count it.
	head.Sequence = ack.Sequence
	head.Seq++
	head = p.next(head, id, delta("x"))
	// A payload of the wrong form, in an envelope that is good.
	e := p.make(head, id, contracts.Draft{Type: contracts.TypeFailed, Payload: contracts.Failed{}})
	e.Payload = json.RawMessage(`{"message": 7}`)
	if head, err = p.log.Append(t.Context(), head, e); err != nil {
		t.Fatal(err)
	}
	rec := p.record(head)
	if rec.Status != contracts.StatusFailed || rec.Seq != head.Seq || rec.AgentKey != "echo" {
		t.Errorf("record %+v", rec)
	}
	if n := k.projector.counters.stats().Poison; n < 2 {
		t.Errorf("counted %d poison events, want 2 at least", n)
	}
	// A checkpoint that names none, by a worker of somebody's own.
	bare, bareID := p.submit(contracts.Submission{})
	bare = p.next(bare, bareID, started("w-1", ""))
	e = p.make(bare, bareID, contracts.Draft{Type: contracts.TypeCheckpoint, Checkpoint: &contracts.CheckpointRef{N: 1, Epoch: 1, Revision: 1}, Payload: contracts.Checkpointed{}})
	e.Checkpoint = nil
	if bare, err = p.log.Append(t.Context(), bare, e); err != nil {
		t.Fatal(err)
	}
	p.record(bare)
	other := p.short(contracts.Submission{})
	last, err := p.log.LastFromLeader(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	p.record(last.Head())
	waitAcked(t, b, last.Sequence)
	p.check(other)
}

// racer is a projector with a consumer of its own, so that it sees every event
// no matter who else does.
func racer(t *testing.T, b *jstest.Broker, name string) *projector {
	t.Helper()
	js, err := jsutil.JetStream(b.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.JS.CreateConsumer(t.Context(), contracts.StreamLog, jetstream.ConsumerConfig{
		Durable: name, AckPolicy: jetstream.AckAllPolicy, AckWait: time.Second, MaxAckPending: -1,
		PriorityPolicy: jetstream.PriorityPolicyPinned, PriorityGroups: []string{jsutil.ProjectorGroup}, PinnedTTL: jsutil.ProjectorPinnedTTL,
	}); err != nil {
		t.Fatal(err)
	}
	p := newProjector(js, folding{log: runlog.New(js), counters: new(counters), logger: testLogger(t), keep: defaultHistory, due: new(sync.Map)}, &feed{})
	p.consumer = name
	return p
}

// TestRacingProjectors: several that project everything at once agree with the
// log in the end, and no record ever goes back.
func TestRacingProjectors(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	p := newPlayer(t, b)
	s := &supervised{}
	for i := range 3 {
		r := racer(t, b, fmt.Sprintf("racer-%d", i))
		// Of different habits, so that none is always first.
		r.window = time.Duration(1+4*i) * time.Millisecond
		s.start(t, r)
	}
	back := watchRegress(t, b)
	const runs = 60
	ids := make([]string, runs)
	heads := make([]runlog.Head, runs)
	var players sync.WaitGroup
	for i := range runs {
		players.Go(func() {
			head, id := p.submit(contracts.Submission{Metadata: map[string]string{"i": fmt.Sprint(i)}})
			head = p.next(head, id, started("w-1", ""))
			for n := range 20 {
				if n%5 == 0 {
					head = p.next(head, id, contracts.Draft{Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueShutdown}})
					head = p.next(head, id, started("w-2", ""))
				}
				head = p.next(head, id, delta("x"))
			}
			ids[i], heads[i] = id, p.next(head, id, succeeded())
		})
	}
	players.Wait()
	for i, id := range ids {
		p.record(heads[i])
		p.check(id)
	}
	s.stop(t)
	var conflicts int64
	for _, r := range s.projectors {
		conflicts += r.counters.stats().Conflicts
	}
	if conflicts == 0 {
		t.Error("no two writes ever met: this test shows nothing")
	}
	t.Logf("%d conflicts", conflicts)
	if n := back(); n > 0 {
		t.Errorf("%d writes took a record back", n)
	}
	for _, id := range ids { // and nobody wrote an older one at last
		p.check(id)
	}
}
