package worker

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
	"longhaul/pkg/runlog"
)

// wire lies between one client and the broker, and can be cut.
type wire struct {
	listener net.Listener
	broker   string
	passing  sync.WaitGroup

	mu   sync.Mutex
	ends map[net.Conn]bool
	cut  bool
}

func newWire(t *testing.T, brokerURL string) *wire {
	t.Helper()
	u, err := url.Parse(brokerURL)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: l, broker: u.Host, ends: map[net.Conn]bool{}}
	w.passing.Go(w.accept)
	t.Cleanup(func() {
		_ = l.Close()
		w.set(true)
		w.passing.Wait()
	})
	return w
}

// set cuts the wire, or mends it.
func (w *wire) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	for c := range w.ends {
		if cut {
			_ = c.Close()
			delete(w.ends, c)
		}
	}
}

func (w *wire) accept() {
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", w.broker)
		if err != nil {
			_ = near.Close()
			continue
		}
		w.mu.Lock()
		w.ends[near], w.ends[far] = true, true
		cut := w.cut
		w.mu.Unlock()
		if cut {
			w.set(true)
		}
		for from, to := range map[net.Conn]net.Conn{near: far, far: near} {
			w.passing.Go(func() {
				_, _ = io.Copy(to, from) // ends when either end does
				_ = to.Close()
			})
		}
	}
}

// connect returns a connection over the wire.
func (w *wire) connect(t *testing.T) *nats.Conn {
	t.Helper()
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: "nats://" + w.listener.Addr().String(), Name: t.Name(), Retry: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if err := jsutil.WaitConnected(t.Context(), nc); err != nil {
		t.Fatal(err)
	}
	return nc
}

// outlive waits until the worker's only attempt has been silent for longer than its lease.
func outlive(t *testing.T, w *Worker) {
	t.Helper()
	waitFor(t, "the lease to be over, and the attempt still there", func() bool {
		all := w.attempts()
		return len(all) == 1 && all[0].lease.silence(time.Now()) > w.cfg.Lease+300*time.Millisecond
	})
}

// An agent comes to its end while the broker is away, for longer than the
// lease. Whatever the end, nothing is left to run, and it gets into the log.
func TestEndOutlivesTheLease(t *testing.T) {
	failed := errors.New("no luck")
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"result":    {nil, "run.queued run.started tick run.succeeded"},
		"error":     {agent.Permanent(failed), "run.queued run.started tick run.failed"},
		"try again": {failed, "run.queued run.started tick run.retrying run.started run.succeeded"},
	} {
		t.Run(name, func(t *testing.T) {
			broker := jstest.StartFile(t)
			b := &bench{Broker: broker, runs: runlog.New(broker.JS)}
			goOn, stray := make(chan struct{}), make(chan error, 3)
			var executions, asked atomic.Int32
			cfg := Config{Lease: 2 * time.Second, Concurrency: 1, Agents: []agent.Agent{{
				Key: "late",
				Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
					if executions.Add(1) > 1 {
						return agent.Result{}, nil
					}
					<-goOn
					go func() { // what an agent may leave behind
						<-ctx.Done()
						stray <- run.Emit("stray", nil)
						stray <- run.Delta("stray")
						stray <- run.Checkpoint(t.Context(), "stray")
					}()
					return agent.Result{}, errors.Join(run.Emit("tick", nil), c.err)
				},
				OnError: func(_ context.Context, _ *agent.Run, err error) *contracts.ErrorInfo {
					asked.Add(1)
					return nil
				},
			}}}
			w, _ := b.start(t, cfg)
			id := b.submit(t, contracts.Submission{AgentKey: "late"})
			b.waitForEvent(t, id, contracts.TypeStarted)
			b.start(t, cfg) // will be handed the run when the broker is back
			broker.Stop(t)
			close(goOn)
			outlive(t, w)
			if c.err != nil && asked.Load() != 1 {
				t.Error("the agent is to be asked about its error before the lease is over")
			}
			for range 3 {
				if err := <-stray; !errors.Is(err, errEnded) {
					t.Errorf("something was taken from an agent that has returned: %v", err)
				}
			}
			broker.Restart(t)
			wantTypes(t, b.waitForEnd(t, id), c.want)
			b.waitForNoWork(t)
			if s := w.Stats(); s.Fenced != 0 {
				t.Errorf("stats are %+v", s)
			}
			wantTypes(t, b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "late"})), "run.queued run.started run.succeeded")
		})
	}
}

// Somebody else has begun meanwhile: the end comes too late, and the log says so.
func TestEndAfterAnotherBegan(t *testing.T) {
	b := newBench(t)
	wire := newWire(t, b.URL())
	goOn := make(chan struct{})
	run := func(name string) agent.Agent {
		return agent.Agent{Key: "late", Run: func(context.Context, *agent.Run) (agent.Result, error) {
			if name == "cut off" {
				<-goOn
			}
			return agent.Result{FinalOutput: name}, nil
		}}
	}
	cfg := Config{Lease: 2 * time.Second, TakeoverGrace: 100 * time.Millisecond, CancelGrace: time.Second, Logger: testLogger(t), Agents: []agent.Agent{run("cut off")}}
	w, err := New(wire.connect(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	id := b.submit(t, contracts.Submission{AgentKey: "late"})
	b.waitForEvent(t, id, contracts.TypeStarted)
	waitFor(t, "the agent to be under way", func() bool { return w.Stats().Executing == 1 })
	wire.set(true)
	close(goOn)
	outlive(t, w)
	cfg.Agents = []agent.Agent{run("next")}
	b.start(t, cfg)
	all := b.waitForEnd(t, id)
	wire.set(false)
	waitFor(t, "the late end to be refused", func() bool { return w.Stats() == Stats{Fenced: 1} })
	wantTypes(t, b.waitForEnd(t, id), "run.queued run.started run.started run.succeeded")
	if p := payload[contracts.Succeeded](t, last(all)); string(p.FinalOutput) != `"next"` {
		t.Errorf("the run ended with %s", p.FinalOutput)
	}
	b.waitForNoWork(t)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A drain gives a finished result DrainTimeout, and no more if its lease is over.
func TestDrainWithALateEnd(t *testing.T) {
	broker := jstest.StartFile(t)
	b := &bench{Broker: broker, runs: runlog.New(broker.JS)}
	goOn := make(chan struct{})
	w, stop := b.start(t, Config{Lease: 2 * time.Second, DrainTimeout: 300 * time.Millisecond, Agents: []agent.Agent{{Key: "late", Run: func(context.Context, *agent.Run) (agent.Result, error) {
		<-goOn
		return agent.Result{}, nil
	}}}})
	id := b.submit(t, contracts.Submission{AgentKey: "late"})
	b.waitForEvent(t, id, contracts.TypeStarted)
	broker.Stop(t)
	close(goOn)
	outlive(t, w)
	begun := time.Now()
	stop()
	if took := time.Since(begun); took > 5*time.Second { // of which closing the subscriptions takes 2
		t.Errorf("the drain took %v", took)
	}
	if s := w.Stats(); s.Executing != 0 || s.Fenced != 1 {
		t.Errorf("stats are %+v", s)
	}
}

// The late holder writes the end, and answers the work message, in the very
// moment between another one's question and its start. A stale answer is taken
// by the broker; all the same nothing is executed twice, and nothing is lost.
func TestLateEndDuringATakeover(t *testing.T) {
	b := newBench(t)
	for name, c := range map[string]struct {
		end        []contracts.Draft
		answer     func(d *jsutil.Delivery) error
		want       string
		executions int32
	}{
		"end, ack, start": {[]contracts.Draft{{Type: contracts.TypeSucceeded}}, (*jsutil.Delivery).Ack,
			"run.queued run.started run.succeeded", 0},
		"end, start": {[]contracts.Draft{{Type: contracts.TypeSucceeded}}, nil,
			"run.queued run.started run.succeeded", 0},
		"retry, nak, start": {[]contracts.Draft{{Type: contracts.TypeRetrying, NotBefore: time.Now().Add(time.Second)}},
			func(d *jsutil.Delivery) error { return d.Nak(time.Second) },
			"run.queued run.started run.retrying run.started run.succeeded", 1},
		"end, redrive, ack, start": {[]contracts.Draft{{Type: contracts.TypeFailed}, {Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueRedrive}}},
			(*jsutil.Delivery).Ack,
			"run.queued run.started run.failed run.requeued run.started run.succeeded", 1},
	} {
		t.Run(name, func(t *testing.T) {
			var executions atomic.Int32
			key := "a-" + strings.NewReplacer(", ", "-").Replace(name)
			w, err := New(b.Connect(t), Config{Logger: testLogger(t), Agents: []agent.Agent{{Key: key, Run: func(context.Context, *agent.Run) (agent.Result, error) {
				executions.Add(1)
				return agent.Result{}, nil
			}}}})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.RunOnce(t.Context()); err != nil { // makes the queues
				t.Fatal(err)
			}
			id := b.submit(t, contracts.Submission{AgentKey: key})
			first := mustFetch(t, w, key)
			at := b.startByHand(t, id, "w-late")
			late, err := b.NC.Subscribe(contracts.WorkerSubject("w-late"), func(m *nats.Msg) {
				for _, d := range c.end {
					var err error
					if at, err = b.runs.Append(context.Background(), at, mustNext(t, at.Head, id, d)); err != nil {
						t.Error(err)
					}
				}
				if c.answer != nil {
					if err := errors.Join(c.answer(first), w.nc.Flush()); err != nil {
						t.Error(err)
					}
				}
				if err := m.Respond([]byte(`{"worker_id":"w-late"}`)); err != nil {
					t.Error(err)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = late.Unsubscribe() }()
			if err := errors.Join(first.Nak(0), w.nc.Flush()); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the run to end", func() bool {
				if _, err := w.RunOnce(t.Context()); err != nil {
					t.Fatal(err)
				}
				head, err := b.runs.LastFromLeader(t.Context(), id)
				return err == nil && head.Status.Terminal()
			})
			wantTypes(t, b.waitForEnd(t, id), c.want)
			if n := executions.Load(); n != c.executions {
				t.Errorf("%d executions, want %d", n, c.executions)
			}
			b.waitForNoWork(t)
		})
	}
}

// An agent that has not returned is no finished result, whatever its last event
// says: it may still do something, and is given up with the lease.
func TestAbandonedAgentHasNoLateEnd(t *testing.T) {
	broker := jstest.StartFile(t)
	b := &bench{Broker: broker, runs: runlog.New(broker.JS)}
	release := make(chan struct{})
	w, stop := b.start(t, Config{Lease: 2 * time.Second, Agents: []agent.Agent{{Key: "deaf", Run: func(context.Context, *agent.Run) (agent.Result, error) {
		<-release
		return agent.Result{}, nil
	}}}})
	id := b.submit(t, contracts.Submission{AgentKey: "deaf", TimeoutSeconds: 0.5})
	b.waitForEvent(t, id, contracts.TypeStarted)
	broker.Stop(t)
	waitFor(t, "the agent to be given up", func() bool { return w.Stats() == Stats{Abandoned: 1, AbandonedTotal: 1, Fenced: 1} })
	close(release)
	stop()
}
