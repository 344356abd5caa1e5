package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil/jstest"
	"longhaul/pkg/runlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a broker with the run log, and the dispatcher's part played by hand.
type bench struct {
	*jstest.Broker
	runs *runlog.Log
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := jstest.Start(t)
	return &bench{Broker: b, runs: runlog.New(b.JS)}
}

// start runs a worker until the test ends or stop is called; stop waits for it.
func (b *bench) start(t *testing.T, cfg Config) (w *Worker, stop func()) {
	t.Helper()
	return b.startLogged(t, cfg, testLogger(t))
}

// startLogged is start with a logger of the test's own.
func (b *bench) startLogged(t *testing.T, cfg Config, log *slog.Logger) (w *Worker, stop func()) {
	t.Helper()
	cfg.Logger = log
	if cfg.CancelGrace == 0 {
		cfg.CancelGrace = 300 * time.Millisecond
	}
	if cfg.RetryBackoffMax == 0 {
		cfg.RetryBackoffMax = 50 * time.Millisecond
	}
	w, err := New(b.Connect(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("Run: %v", err)
				}
			case <-time.After(30 * time.Second):
				t.Error("worker did not drain within 30 s")
			}
		})
	}
	t.Cleanup(stop)
	return w, stop
}

// testLogger writes to the test's log; errors of the product show there.
func testLogger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// submit does what the dispatcher does with an accepted submission. Before its
// work is queued, the run has gone on as the drafts say.
func (b *bench) submit(t *testing.T, s contracts.Submission, then ...contracts.Draft) string {
	t.Helper()
	if s.RunID == "" {
		s.RunID = contracts.NewRunID()
	}
	if s.Priority == "" {
		s.Priority = contracts.PriorityNormal
	}
	if s.MaxAttempts == 0 {
		s.MaxAttempts = 3
	}
	e := mustNext(t, contracts.Head{}, s.RunID, contracts.Draft{
		Type: contracts.TypeQueued, AgentKey: s.AgentKey, Priority: s.Priority, MaxAttempts: s.MaxAttempts,
		Payload: contracts.Queued{Submission: s},
	})
	at, err := b.runs.Append(t.Context(), runlog.Head{}, e)
	if err != nil {
		t.Fatal(err)
	}
	body, err := contracts.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	queued := at.Sequence
	for _, d := range then {
		if at, err = b.runs.Append(t.Context(), at, mustNext(t, at.Head, s.RunID, d)); err != nil {
			t.Fatal(err)
		}
	}
	b.publishWork(t, s, body, queued)
	return s.RunID
}

func (b *bench) publishWork(t *testing.T, s contracts.Submission, body []byte, sequence uint64) {
	t.Helper()
	m := nats.NewMsg(contracts.WorkSubject(s.AgentKey, s.Priority, s.RunID))
	m.Data = body
	if sequence > 0 {
		m.Header.Set(contracts.HeaderLogSequence, strconv.FormatUint(sequence, 10))
	}
	if _, err := b.JS.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

func mustNext(t *testing.T, head contracts.Head, runID string, d contracts.Draft) contracts.Event {
	t.Helper()
	e, err := contracts.Next(head, runID, d, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// waitForEnd returns the run's whole log once it has ended, checked event by event.
func (b *bench) waitForEnd(t *testing.T, runID string) []runlog.Entry {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var all []runlog.Entry
	var head contracts.Head
	for e, err := range b.runs.Follow(ctx, runID, runlog.FollowOptions{UntilEnd: true}) {
		if err != nil {
			t.Fatalf("follow run %s after %d events: %v", runID, len(all), err)
		}
		if head, err = contracts.Apply(head, e.Event); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	if !head.Status.Terminal() {
		t.Fatalf("run %s did not end; its events: %s", runID, types(all))
	}
	return all
}

// waitFor polls until ok, and says what it waited for if that never comes.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// waitForEvent waits until the run's log holds an event of the type.
func (b *bench) waitForEvent(t *testing.T, runID string, want contracts.EventType) runlog.Entry {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	for e, err := range b.runs.Follow(ctx, runID, runlog.FollowOptions{}) {
		if err != nil {
			t.Fatalf("waited for %s of run %s: %v", want, runID, err)
		}
		if e.Type == want {
			return e
		}
	}
	t.Fatalf("waited in vain for %s of run %s", want, runID)
	return runlog.Entry{}
}

// waitForNoWork waits until no work message is left.
func (b *bench) waitForNoWork(t *testing.T) {
	t.Helper()
	waitFor(t, "an empty work queue", func() bool {
		s, err := b.JS.Stream(t.Context(), contracts.StreamWork)
		return err == nil && s.CachedInfo().State.Msgs == 0
	})
}

func types(all []runlog.Entry) string {
	var s []string
	for _, e := range all {
		s = append(s, string(e.Type))
	}
	return strings.Join(s, " ")
}

func payload[T any](t *testing.T, e runlog.Entry) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(e.Payload, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func last(all []runlog.Entry) runlog.Entry { return all[len(all)-1] }

func wantTypes(t *testing.T, all []runlog.Entry, want string) {
	t.Helper()
	if got := types(all); got != want {
		t.Errorf("events\n  got  %s\n  want %s", got, want)
	}
}

func echo(_ context.Context, run *agent.Run) (agent.Result, error) {
	return agent.Result{FinalOutput: "hi " + run.ID, Usage: map[string]int{"tokens": 3}}, nil
}

func TestSuccess(t *testing.T) {
	b := newBench(t)
	w, _ := b.start(t, Config{Agents: []agent.Agent{{Key: "echo", Run: echo}}})
	id := b.submit(t, contracts.Submission{AgentKey: "echo"})
	all := b.waitForEnd(t, id)
	wantTypes(t, all, "run.queued run.started run.succeeded")
	if started := payload[contracts.Started](t, all[1]); started.Epoch != 1 || started.Attempt != 1 || started.AgentKey != "echo" ||
		all[1].WorkerID != w.ID() || !strings.HasPrefix(started.LeaseToken, "$JS.ACK.") {
		t.Errorf("run.started is %+v by %q", started, all[1].WorkerID)
	}
	if p := payload[contracts.Succeeded](t, all[2]); string(p.FinalOutput) != `"hi `+id+`"` || string(p.Usage) != `{"tokens":3}` {
		t.Errorf("run.succeeded is %s", all[2].Payload)
	}
	b.waitForNoWork(t)
}

func TestManyRunsInFewSlots(t *testing.T) {
	b := newBench(t)
	var now, most atomic.Int32
	b.start(t, Config{Concurrency: 4, Agents: []agent.Agent{{Key: "a", Run: func(context.Context, *agent.Run) (agent.Result, error) {
		n := now.Add(1)
		for {
			m := most.Load()
			if n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		time.Sleep(time.Millisecond)
		now.Add(-1)
		return agent.Result{}, nil
	}}}})
	var ids []string
	for i := range 200 {
		ids = append(ids, b.submit(t, contracts.Submission{AgentKey: "a", Priority: contracts.Priorities()[i%3]}))
	}
	for _, id := range ids {
		wantTypes(t, b.waitForEnd(t, id), "run.queued run.started run.succeeded")
	}
	b.waitForNoWork(t)
	if m := most.Load(); m != 4 {
		t.Errorf("at most %d runs at once, want 4", m)
	}
}

func TestPriorities(t *testing.T) {
	b := newBench(t)
	var mu sync.Mutex
	var order []string
	run := func(_ context.Context, run *agent.Run) (agent.Result, error) {
		mu.Lock()
		defer mu.Unlock()
		order = append(order, string(run.Submission.Priority))
		return agent.Result{}, nil
	}
	cfg := Config{Concurrency: 1, Agents: []agent.Agent{{Key: "a", Run: run}}}
	_, stop := b.start(t, cfg) // makes the queues
	first := b.submit(t, contracts.Submission{AgentKey: "a"})
	b.waitForEnd(t, first)
	stop()
	var ids []string
	for _, p := range []contracts.Priority{contracts.PriorityLow, contracts.PriorityNormal, contracts.PriorityHigh} {
		for range 40 {
			ids = append(ids, b.submit(t, contracts.Submission{AgentKey: "a", Priority: p}))
		}
	}
	order = nil
	b.start(t, cfg)
	for _, id := range ids {
		b.waitForEnd(t, id)
	}
	high, low := 0, 0
	for _, p := range order[:40] {
		switch p {
		case "high":
			high++
		case "low":
			low++
		}
	}
	// 16:4:1, and the first few before the backlogs are known.
	if high < 24 || low < 1 {
		t.Errorf("of the first 40 runs %d were high and %d low; want most, and at least one\n%v", high, low, order)
	}
}

func TestRetry(t *testing.T) {
	b := newBench(t)
	b.start(t, Config{Agents: []agent.Agent{{Key: "flaky", Run: func(_ context.Context, run *agent.Run) (agent.Result, error) {
		if run.Attempt < 3 {
			return agent.Result{}, fmt.Errorf("attempt %d went wrong", run.Attempt)
		}
		return agent.Result{FinalOutput: run.Attempt}, nil
	}}}})
	all := b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "flaky"}))
	wantTypes(t, all, "run.queued run.started run.retrying run.started run.retrying run.started run.succeeded")
	for i := 2; i < len(all); i += 2 {
		if all[i].Type != contracts.TypeRetrying {
			continue
		}
		p := payload[contracts.Retrying](t, all[i])
		if p.Error.Message != fmt.Sprintf("attempt %d went wrong", all[i].Attempt) || !p.Error.Retriable {
			t.Errorf("run.retrying says %+v", p.Error)
		}
		if started := all[i+1].Time; started.Before(all[i].NotBefore) || !p.RetryAt.Equal(all[i].NotBefore) {
			t.Errorf("started at %v, before retry_at %v (payload %v)", started, all[i].NotBefore, p.RetryAt)
		}
	}
}

// What an error says of when to come back wins over a shorter delay of the
// worker's own, also above its longest.
func TestRetryAfter(t *testing.T) {
	b := newBench(t)
	b.start(t, Config{RetryBackoffMax: time.Millisecond, Agents: []agent.Agent{{Key: "busy", Run: func(_ context.Context, run *agent.Run) (agent.Result, error) {
		if run.Attempt == 1 {
			return agent.Result{}, errors.New("429")
		}
		return agent.Result{}, nil
	}, OnError: func(context.Context, *agent.Run, error) *contracts.ErrorInfo {
		return &contracts.ErrorInfo{Type: "RateLimited", Message: "later", Retriable: true, RetryAfterSeconds: 0.5}
	}}}})
	all := b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "busy"}))
	wantTypes(t, all, "run.queued run.started run.retrying run.started run.succeeded")
	p := payload[contracts.Retrying](t, all[2])
	if p.DelaySeconds < 0.5 || p.DelaySeconds > 0.551 || p.Error.RetryAfterSeconds != 0.5 {
		t.Errorf("run.retrying is %+v, want a delay of 0.5 s and up to a tenth more", p)
	}
	if waited := all[3].Time.Sub(all[1].Time); waited < 500*time.Millisecond {
		t.Errorf("started again after %v", waited)
	}
}

func TestNoRetryLeft(t *testing.T) {
	b := newBench(t)
	b.start(t, Config{Agents: []agent.Agent{{Key: "bad", Run: func(context.Context, *agent.Run) (agent.Result, error) {
		return agent.Result{}, errors.New("no luck")
	}}}})
	all := b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "bad", MaxAttempts: 2}))
	wantTypes(t, all, "run.queued run.started run.retrying run.started run.failed")
	if p := payload[contracts.Failed](t, last(all)); p.Attempts != 2 || p.Message != "no luck" || p.Type != contracts.ErrorTypeAgent {
		t.Errorf("run.failed is %+v", p)
	}
	b.waitForNoWork(t)
}

func TestErrorsThatAreNotRetried(t *testing.T) {
	b := newBench(t)
	b.start(t, Config{Agents: []agent.Agent{
		{Key: "permanent", Run: func(context.Context, *agent.Run) (agent.Result, error) {
			return agent.Result{}, fmt.Errorf("sorry: %w", agent.Permanent(errors.New("bad key")))
		}},
		{Key: "classified", Run: func(context.Context, *agent.Run) (agent.Result, error) {
			return agent.Result{}, errors.New("401")
		}, OnError: func(_ context.Context, _ *agent.Run, err error) *contracts.ErrorInfo {
			return &contracts.ErrorInfo{Type: "AuthError", Message: err.Error(), Details: json.RawMessage(`{"code":401}`)}
		}},
		{Key: "panics", Run: func(context.Context, *agent.Run) (agent.Result, error) { panic("oh no") }},
		{Key: "huge", Run: func(context.Context, *agent.Run) (agent.Result, error) {
			return agent.Result{FinalOutput: strings.Repeat("x", 2<<20)}, nil
		}},
	}})
	for key, want := range map[string]contracts.ErrorInfo{
		"permanent":  {Type: contracts.ErrorTypeAgent, Message: "sorry: bad key"},
		"classified": {Type: "AuthError", Message: "401"},
		"panics":     {Type: contracts.ErrorTypePanic, Message: "panic: oh no", Retriable: true},
		"huge":       {Type: contracts.ErrorTypeResultTooLarge, Message: "result of 2097"},
	} {
		t.Run(key, func(t *testing.T) {
			all := b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: key, MaxAttempts: map[bool]int{true: 1, false: 3}[want.Retriable]}))
			wantTypes(t, all, "run.queued run.started run.failed")
			p := payload[contracts.Failed](t, last(all))
			if p.Type != want.Type || !strings.HasPrefix(p.Message, want.Message) || p.Retriable != want.Retriable {
				t.Errorf("run.failed is %+v", p.ErrorInfo)
			}
			if key == "panics" && !strings.Contains(p.Stack, "worker_test.go") {
				t.Errorf("the panic's stack does not show where: %s", p.Stack)
			}
		})
	}
}

func TestTimeout(t *testing.T) {
	b := newBench(t)
	cause := make(chan error, 1)
	b.start(t, Config{Agents: []agent.Agent{{Key: "slow", Run: func(ctx context.Context, _ *agent.Run) (agent.Result, error) {
		<-ctx.Done()
		cause <- context.Cause(ctx)
		return agent.Result{}, ctx.Err()
	}}}})
	all := b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "slow", TimeoutSeconds: 0.1}))
	wantTypes(t, all, "run.queued run.started run.timed_out")
	if p := payload[contracts.TimedOut](t, last(all)); p.TimeoutSeconds != 0.1 {
		t.Errorf("run.timed_out is %+v", p)
	}
	if err := <-cause; !errors.Is(err, agent.ErrTimeout) {
		t.Errorf("cause is %v", err)
	}
}

func TestEventsAndDeltas(t *testing.T) {
	b := newBench(t)
	emitted := make(chan error, 3)
	b.start(t, Config{Agents: []agent.Agent{{Key: "talk", Run: func(_ context.Context, run *agent.Run) (agent.Result, error) {
		for i := range 2000 {
			if err := run.Delta(strconv.Itoa(i) + " "); err != nil {
				return agent.Result{}, err
			}
		}
		emitted <- run.Emit("tool.call", map[string]any{"name": "search"})
		emitted <- run.Emit("run.succeeded", nil)
		emitted <- run.Emit("big", strings.Repeat("x", 2<<20))
		return agent.Result{}, run.Message(contracts.Text("assistant", "done"))
	}}}})
	all := b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "talk"}))
	var text strings.Builder
	deltas := 0
	for _, e := range all {
		if e.Type == contracts.TypeDelta {
			deltas++
			text.WriteString(payload[contracts.Delta](t, e).Text)
		}
	}
	var want strings.Builder
	for i := range 2000 {
		want.WriteString(strconv.Itoa(i) + " ")
	}
	if text.String() != want.String() {
		t.Error("the deltas do not add up to the text")
	}
	if deltas > 1000 {
		t.Errorf("2000 pieces became %d events, want them merged", deltas)
	}
	if tail := types(all[len(all)-3:]); tail != "tool.call assistant.message run.succeeded" {
		t.Errorf("the log ends with %s", tail)
	}
	for i, wantErr := range []string{"", "reserved", "limit"} {
		if err := <-emitted; (err == nil) != (wantErr == "") || err != nil && !strings.Contains(err.Error(), wantErr) {
			t.Errorf("Emit %d: %v, want %q", i, err, wantErr)
		}
	}
}

func TestCheckpointAndResume(t *testing.T) {
	b := newBench(t)
	b.start(t, Config{Agents: []agent.Agent{{Key: "count", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		var s struct{ I int }
		found, err := run.State(&s)
		if err != nil {
			return agent.Result{}, err
		}
		if found != (run.Attempt > 1) {
			return agent.Result{}, agent.Permanent(fmt.Errorf("attempt %d: state found: %v", run.Attempt, found))
		}
		for s.I < 6 {
			s.I++
			if err := run.Checkpoint(ctx, s); err != nil {
				return agent.Result{}, err
			}
			if s.I == 3 && run.Attempt == 1 {
				return agent.Result{}, errors.New("half way")
			}
		}
		return agent.Result{FinalOutput: s.I}, nil
	}}}})
	all := b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "count"}))
	c := " state.checkpoint state.checkpoint state.checkpoint"
	wantTypes(t, all, "run.queued run.started"+c+" run.retrying run.started"+c+" run.succeeded")
	resumed := payload[contracts.Started](t, all[6])
	if resumed.ResumedFrom == nil || resumed.ResumedFrom.N != 3 || resumed.ResumedFrom.Epoch != 1 {
		t.Errorf("second attempt resumed from %+v", resumed.ResumedFrom)
	}
	if ref := last(all).Checkpoint; ref == nil || ref.N != 6 || ref.Epoch != 2 {
		t.Errorf("head's checkpoint is %+v", ref)
	}
}

// ask speaks to a worker as the dispatcher does.
func (b *bench) ask(t *testing.T, workerID string, req contracts.HolderRequest) contracts.HolderReply {
	t.Helper()
	body, err := contracts.Encode(req)
	if err != nil {
		t.Fatal(err)
	}
	m, err := b.NC.Request(contracts.WorkerSubject(workerID), body, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var reply contracts.HolderReply
	if err := json.Unmarshal(m.Data, &reply); err != nil {
		t.Fatal(err)
	}
	return reply
}

func TestCancel(t *testing.T) {
	b := newBench(t)
	hooked := make(chan struct{}, 1)
	var release sync.WaitGroup
	release.Add(1)
	t.Cleanup(release.Done)
	w, _ := b.start(t, Config{Concurrency: 2, Agents: []agent.Agent{
		{Key: "obeys", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
			for ctx.Err() == nil {
				if err := run.Delta("x"); err != nil {
					break
				}
			}
			if !run.Cancelled() {
				return agent.Result{}, errors.New("not told that it is cancelled")
			}
			return agent.Result{}, nil
		}, Cancel: func(context.Context, *agent.Run) { hooked <- struct{}{} }},
		{Key: "ignores", Run: func(context.Context, *agent.Run) (agent.Result, error) {
			release.Wait()
			return agent.Result{}, nil
		}},
	}})
	for _, key := range []string{"obeys", "ignores"} {
		t.Run(key, func(t *testing.T) {
			id := b.submit(t, contracts.Submission{AgentKey: key})
			b.waitForEvent(t, id, contracts.TypeStarted)
			begun := time.Now()
			reply := b.ask(t, w.ID(), contracts.HolderRequest{Op: contracts.HolderCancel, RunID: id, Reason: "enough", By: "me"})
			if !reply.Holds || !reply.Requested || reply.WorkerID != w.ID() {
				t.Fatalf("reply is %+v", reply)
			}
			again := b.ask(t, w.ID(), contracts.HolderRequest{Op: contracts.HolderCancel, RunID: id})
			if again.Holds && !again.Requested && again.Error != errEnded.Error() {
				t.Errorf("second cancel: %+v", again)
			}
			all := b.waitForEnd(t, id)
			if p := payload[contracts.Cancelled](t, last(all)); last(all).Status != contracts.StatusCancelled || p.Reason != "enough" || p.By != "me" {
				t.Errorf("last event is %s %s", last(all).Type, last(all).Payload)
			}
			if took := time.Since(begun); took > 3*time.Second {
				t.Errorf("cancelled after %v", took)
			}
		})
	}
	select {
	case <-hooked:
	default:
		t.Error("the Cancel hook was not called")
	}
}

// TestCancelWrittenByDispatcher has the log say cancelling without the holder's doing.
func TestCancelWrittenByDispatcher(t *testing.T) {
	b := newBench(t)
	b.start(t, Config{Lease: 3 * time.Second, HeartbeatInterval: 200 * time.Millisecond, Agents: []agent.Agent{
		{Key: "quiet", Run: func(ctx context.Context, _ *agent.Run) (agent.Result, error) {
			<-ctx.Done()
			return agent.Result{}, ctx.Err()
		}},
		{Key: "talks", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
			for ctx.Err() == nil {
				if err := run.Emit("tick", nil); err != nil {
					return agent.Result{}, err
				}
			}
			return agent.Result{}, ctx.Err()
		}},
	}})
	for _, key := range []string{"quiet", "talks"} {
		t.Run(key, func(t *testing.T) {
			id := b.submit(t, contracts.Submission{AgentKey: key})
			b.waitForEvent(t, id, contracts.TypeStarted)
			b.cancelByHand(t, id)
			all := b.waitForEnd(t, id)
			if p := payload[contracts.Cancelled](t, last(all)); last(all).Type != contracts.TypeCancelled || p.Reason != "from afar" {
				t.Errorf("last event is %s %s", last(all).Type, last(all).Payload)
			}
		})
	}
}

// TestDeadHolder hands over a run whose holder is gone, at each number of attempts.
func TestDeadHolder(t *testing.T) {
	b := newBench(t)
	a := agent.Agent{Key: "echo", Run: echo}
	_, stop := b.start(t, Config{Agents: []agent.Agent{a}})
	stop() // the queues are there, and no worker
	for attempts, want := range map[int]string{
		2: "run.queued run.started run.started run.succeeded",
		1: "run.queued run.started run.failed",
	} {
		t.Run(want, func(t *testing.T) {
			id := b.submit(t, contracts.Submission{AgentKey: "echo", MaxAttempts: attempts})
			head, err := b.runs.Last(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			e := mustNext(t, head.Head().Head, id, contracts.Draft{Type: contracts.TypeStarted, WorkerID: "w-dead"})
			if _, err := b.runs.Append(t.Context(), head.Head(), e); err != nil {
				t.Fatal(err)
			}
			_, stop := b.start(t, Config{Agents: []agent.Agent{a}, TakeoverGrace: 100 * time.Millisecond})
			defer stop()
			all := b.waitForEnd(t, id)
			wantTypes(t, all, want)
			if attempts == 1 {
				if p := payload[contracts.Failed](t, last(all)); p.Type != contracts.ErrorTypeAttemptsExhausted {
					t.Errorf("run.failed is %+v", p)
				}
			} else if all[2].Epoch != 2 || all[2].Attempt != 2 {
				t.Errorf("second start has epoch %d, attempt %d", all[2].Epoch, all[2].Attempt)
			}
			b.waitForNoWork(t)
		})
	}
}

// TestLiveHolderIsLeftAlone gives the lease of a run back while it is executed.
func TestLiveHolderIsLeftAlone(t *testing.T) {
	b := newBench(t)
	finish := make(chan struct{})
	var executions atomic.Int32
	cfg := Config{Agents: []agent.Agent{{Key: "long", Run: func(ctx context.Context, _ *agent.Run) (agent.Result, error) {
		executions.Add(1)
		select {
		case <-finish:
		case <-ctx.Done():
		}
		return agent.Result{}, context.Cause(ctx)
	}}}}
	b.start(t, cfg)
	b.start(t, cfg)
	id := b.submit(t, contracts.Submission{AgentKey: "long"})
	started := payload[contracts.Started](t, b.waitForEvent(t, id, contracts.TypeStarted))
	for range 10 {
		if err := b.NC.Publish(started.LeaseToken, []byte("-NAK")); err != nil {
			t.Fatal(err)
		}
		if err := b.NC.Flush(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the message to be with a worker again", func() bool {
			c, err := b.JS.Consumer(t.Context(), contracts.StreamWork, contracts.WorkConsumer("long", contracts.PriorityNormal))
			return err == nil && c.CachedInfo().NumAckPending == 1 && c.CachedInfo().NumPending == 0
		})
	}
	close(finish)
	wantTypes(t, b.waitForEnd(t, id), "run.queued run.started run.succeeded")
	if n := executions.Load(); n != 1 {
		t.Errorf("%d executions, want 1", n)
	}
}

// TestAskedWhileStarting asks in the moment when run.started may be in the log
// already and its holder does not know yet: the answer must not be no.
func TestAskedWhileStarting(t *testing.T) {
	b := newBench(t)
	w, _ := b.start(t, Config{Agents: []agent.Agent{{Key: "echo", Run: echo}}})
	b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "echo"})) // it listens by now
	id := contracts.NewRunID()
	holds := func(epoch uint64) bool {
		return b.ask(t, w.ID(), contracts.HolderRequest{Op: contracts.HolderHolds, RunID: id, Epoch: epoch}).Holds
	}
	if !w.beginStart(id, 2) || w.beginStart(id, 2) {
		t.Fatal("a run is started once at a time")
	}
	if holds(1) || !holds(2) {
		t.Error("while epoch 2 is starting: want held in epoch 2 and in no other")
	}
	cancelled := make(chan contracts.HolderReply, 1)
	go func() { cancelled <- b.ask(t, w.ID(), contracts.HolderRequest{Op: contracts.HolderCancel, RunID: id}) }()
	if !holds(2) {
		t.Error("a cancel that waits for the start ended it")
	}
	select {
	case reply := <-cancelled:
		t.Errorf("a cancel was answered before the start was over: %+v", reply)
	default:
	}
	w.endStart(id)
	if reply := <-cancelled; reply.Holds {
		t.Errorf("after a start that failed: %+v", reply)
	}
	if holds(2) {
		t.Error("held after a start that failed")
	}
}

// TestFenced starts another epoch behind a worker's back: none of its writes may follow.
func TestFenced(t *testing.T) {
	b := newBench(t)
	cause := make(chan error, 1)
	b.start(t, Config{Agents: []agent.Agent{{Key: "zombie", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		for ctx.Err() == nil {
			if err := run.Emit("tick", nil); err != nil {
				break
			}
		}
		<-ctx.Done()
		cause <- context.Cause(ctx)
		return agent.Result{FinalOutput: "from the grave"}, nil
	}}}})
	id := b.submit(t, contracts.Submission{AgentKey: "zombie"})
	b.waitForEvent(t, id, "tick")
	var at runlog.Head
	for {
		head, err := b.runs.LastFromLeader(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		e := mustNext(t, head.Head().Head, id, contracts.Draft{Type: contracts.TypeStarted, WorkerID: "w-other"})
		if at, err = b.runs.Append(t.Context(), head.Head(), e); err == nil {
			break
		}
	}
	if err := <-cause; !errors.Is(err, agent.ErrLeaseLost) {
		t.Errorf("cause is %v", err)
	}
	e := mustNext(t, at.Head, id, contracts.Draft{Type: contracts.TypeSucceeded})
	if _, err := b.runs.Append(t.Context(), at, e); err != nil {
		t.Fatalf("the log went on after epoch 2 began: %v", err)
	}
	for _, e := range b.waitForEnd(t, id) {
		if e.Seq > at.Seq && e.Epoch < 2 {
			t.Errorf("event %d of epoch %d came after epoch 2", e.Seq, e.Epoch)
		}
	}
}

func TestDrain(t *testing.T) {
	b := newBench(t)
	a := agent.Agent{Key: "long", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		if run.Epoch > 1 {
			return agent.Result{FinalOutput: run.Attempt}, nil
		}
		<-ctx.Done()
		return agent.Result{}, context.Cause(ctx)
	}}
	_, stop := b.start(t, Config{Agents: []agent.Agent{a}, DrainTimeout: 10 * time.Millisecond})
	id := b.submit(t, contracts.Submission{AgentKey: "long", MaxAttempts: 1})
	b.waitForEvent(t, id, contracts.TypeStarted)
	stop()
	b.start(t, Config{Agents: []agent.Agent{a}})
	all := b.waitForEnd(t, id)
	wantTypes(t, all, "run.queued run.started run.requeued run.started run.succeeded")
	if p := payload[contracts.Requeued](t, all[2]); p.Reason != contracts.RequeueShutdown {
		t.Errorf("run.requeued is %+v", p)
	}
	if last(all).Attempt != 1 || last(all).Epoch != 2 {
		t.Errorf("ended in attempt %d, epoch %d; the drain must not be charged", last(all).Attempt, last(all).Epoch)
	}
}

// TestShorterLeaseOfTheQueue has a worker find queues whose lease is not its own.
func TestShorterLeaseOfTheQueue(t *testing.T) {
	b := newBench(t)
	var executions atomic.Int32
	a := agent.Agent{Key: "long", Run: func(context.Context, *agent.Run) (agent.Result, error) {
		executions.Add(1)
		time.Sleep(3 * time.Second) // three times the queue's lease
		return agent.Result{}, nil
	}}
	_, stop := b.start(t, Config{Agents: []agent.Agent{a}, Lease: time.Second})
	waitFor(t, "the queues to be made", func() bool {
		_, err := b.JS.Consumer(t.Context(), contracts.StreamWork, contracts.WorkConsumer("long", contracts.PriorityLow))
		return err == nil
	})
	stop()
	b.start(t, Config{Agents: []agent.Agent{a}, TakeoverGrace: 10 * time.Millisecond})
	id := b.submit(t, contracts.Submission{AgentKey: "long"})
	b.waitForEvent(t, id, contracts.TypeStarted)
	c, err := b.JS.Consumer(t.Context(), contracts.StreamWork, contracts.WorkConsumer("long", contracts.PriorityNormal))
	if err != nil {
		t.Fatal(err)
	}
	b.waitForEnd(t, id)
	info, err := c.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := executions.Load(); n != 1 || info.Delivered.Consumer != 1 {
		t.Errorf("%d executions of %d deliveries; the heartbeat did not keep the lease", n, info.Delivered.Consumer)
	}
}

func TestRunOnce(t *testing.T) {
	b := newBench(t)
	w, err := New(b.Connect(t), Config{Agents: []agent.Agent{{Key: "echo", Run: echo}}, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	if did, err := w.RunOnce(t.Context()); did || err != nil {
		t.Fatalf("with an empty queue: %v, %v", did, err)
	}
	low := b.submit(t, contracts.Submission{AgentKey: "echo", Priority: contracts.PriorityLow})
	high := b.submit(t, contracts.Submission{AgentKey: "echo", Priority: contracts.PriorityHigh})
	for _, id := range []string{high, low} {
		if did, err := w.RunOnce(t.Context()); !did || err != nil {
			t.Fatalf("RunOnce: %v, %v", did, err)
		}
		if head, err := b.runs.Last(t.Context(), id); err != nil || head.Status != contracts.StatusSucceeded {
			t.Fatalf("run %s: %v, %v", id, head.Status, err)
		}
	}
}

func TestBadWorkBlocksNothing(t *testing.T) {
	b := newBench(t)
	b.start(t, Config{Concurrency: 1, Agents: []agent.Agent{{Key: "echo", Run: echo}}})
	good := b.submit(t, contracts.Submission{AgentKey: "echo"})
	b.waitForEnd(t, good)
	b.waitForNoWork(t) // the next one has the same subject as this one had
	for _, body := range []string{"", "garbage", "{}", `{"run_id":"x"}`} {
		b.publishWork(t, contracts.Submission{AgentKey: "echo", Priority: contracts.PriorityHigh, RunID: contracts.NewRunID()}, []byte(body), 7)
	}
	// Again the work of a run that has ended, as a redelivered submit makes it.
	e, err := b.runs.First(t.Context(), good)
	if err != nil {
		t.Fatal(err)
	}
	body, err := contracts.Encode(e.Event)
	if err != nil {
		t.Fatal(err)
	}
	b.publishWork(t, contracts.Submission{AgentKey: "echo", Priority: contracts.PriorityNormal, RunID: good}, body, e.Sequence)
	wantTypes(t, b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "echo"})), "run.queued run.started run.succeeded")
	b.waitForNoWork(t)
	wantTypes(t, b.waitForEnd(t, good), "run.queued run.started run.succeeded")
}

// TestBrokerGone takes the broker away for longer than a lease: the worker stops
// its agent by its own clock, before anybody else could be handed the run.
func TestBrokerGone(t *testing.T) {
	broker := jstest.StartFile(t)
	b := &bench{Broker: broker, runs: runlog.New(broker.JS)}
	stopped := make(chan error, 1)
	begun := make(chan struct{})
	_, stop := b.start(t, Config{Lease: 2 * time.Second, Agents: []agent.Agent{{Key: "long", Run: func(ctx context.Context, _ *agent.Run) (agent.Result, error) {
		close(begun)
		<-ctx.Done()
		stopped <- context.Cause(ctx)
		return agent.Result{}, nil
	}}}})
	b.submit(t, contracts.Submission{AgentKey: "long"})
	<-begun
	broker.Stop(t)
	gone := time.Now()
	select {
	case cause := <-stopped:
		if took := time.Since(gone); !errors.Is(cause, agent.ErrLeaseLost) || took > 2*time.Second {
			t.Errorf("stopped after %v because of %v", took, cause)
		}
	case <-time.After(10 * time.Second):
		t.Error("the agent goes on without a lease")
	}
	stop()
}

// TestBrokerRestart restarts the broker in the middle of runs: none is executed again.
func TestBrokerRestart(t *testing.T) {
	broker := jstest.StartFile(t)
	b := &bench{Broker: broker, runs: runlog.New(broker.JS)}
	var executions atomic.Int32
	cfg := Config{Concurrency: 20, Agents: []agent.Agent{{Key: "long", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		executions.Add(1)
		for i := range 30 {
			if err := run.Checkpoint(ctx, i); err != nil {
				return agent.Result{}, err
			}
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				return agent.Result{}, context.Cause(ctx)
			}
		}
		return agent.Result{}, nil
	}}}}
	b.start(t, cfg)
	b.start(t, cfg)
	var ids []string
	for range 20 {
		ids = append(ids, b.submit(t, contracts.Submission{AgentKey: "long"}))
	}
	waitFor(t, "all to execute", func() bool { return executions.Load() == 20 })
	broker.Restart(t)
	for _, id := range ids {
		if end := last(b.waitForEnd(t, id)); end.Status != contracts.StatusSucceeded || end.Epoch != 1 {
			t.Errorf("run %s ended %s in epoch %d", id, end.Status, end.Epoch)
		}
	}
	if n := executions.Load(); n != 20 {
		t.Errorf("%d executions of 20 runs", n)
	}
}
