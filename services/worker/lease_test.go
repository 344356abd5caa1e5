package worker

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
	"longhaul/pkg/runlog"
)

// fetched is a message that has waited for d in the hands of a worker which has
// not begun with it.
func (b *bench) fetched(t *testing.T, cfg Config, d time.Duration) (*Worker, *jsutil.Delivery, string) {
	t.Helper()
	cfg.Logger = testLogger(t)
	w, err := New(b.Connect(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.RunOnce(t.Context()); err != nil { // makes the queues
		t.Fatal(err)
	}
	key := cfg.Agents[0].Key
	id := b.submit(t, contracts.Submission{AgentKey: key})
	before := time.Now()
	m := mustFetch(t, w, key)
	if m.Since.Before(before) || m.Since.After(time.Now()) {
		t.Errorf("handed out at %v, after it was asked for at %v", m.Since, before)
	}
	m.Since = m.Since.Add(-d)
	return w, m, id
}

// mustFetch takes a message that was published a moment ago.
func mustFetch(t *testing.T, w *Worker, agentKey string) (d *jsutil.Delivery) {
	t.Helper()
	waitFor(t, "a work message", func() bool {
		var err error
		if d, err = w.fetchOne(t.Context(), &source{agentKey: agentKey, priority: contracts.PriorityNormal}); err != nil {
			t.Fatal(err)
		}
		return d != nil
	})
	return d
}

// A message that has waited for most of its lease: the lease begins anew before
// the run does. A young one costs no such question.
func TestLeaseIsRenewedBeforeTheStart(t *testing.T) {
	b := newBench(t)
	for waited, want := range map[time.Duration]string{
		25 * time.Second: "+WPI run.started run.succeeded +ACK",
		time.Second:      "run.started run.succeeded +ACK",
	} {
		t.Run(waited.String(), func(t *testing.T) {
			w, d, id := b.fetched(t, Config{Agents: []agent.Agent{{Key: "a-" + waited.String(), Run: echo}}}, waited)
			var said []string
			sub, err := b.NC.Subscribe(">", func(m *nats.Msg) {
				switch m.Subject {
				case d.Token():
					said = append(said, string(m.Data))
				case contracts.EventsSubject(id):
					e, err := contracts.DecodeEvent(m.Data)
					if err != nil {
						t.Error(err)
					}
					said = append(said, string(e.Type))
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := b.NC.Flush(); err != nil {
				t.Fatal(err)
			}
			w.take(d, func() {})
			if err := w.nc.Flush(); err != nil {
				t.Fatal(err)
			}
			if err := b.NC.Flush(); err != nil {
				t.Fatal(err)
			}
			over := make(chan struct{})
			sub.SetClosedHandler(func(string) { close(over) })
			if err := sub.Drain(); err != nil {
				t.Fatal(err)
			}
			<-over
			if got := strings.Join(said, " "); got != want {
				t.Errorf("said on the wire: %s; want %s", got, want)
			}
		})
	}
}

// A lease that cannot be renewed is given back, and the run is not begun: no
// attempt is charged.
func TestStartWithoutALease(t *testing.T) {
	b := newBench(t)
	w, d, id := b.fetched(t, Config{Agents: []agent.Agent{{Key: "echo", Run: echo}}}, time.Minute)
	if err := b.JS.DeleteConsumer(t.Context(), contracts.StreamWork, contracts.WorkConsumer("echo", contracts.PriorityNormal)); err != nil {
		t.Fatal(err)
	}
	w.take(d, func() {})
	if head, err := b.runs.LastFromLeader(t.Context(), id); err != nil || head.Type != contracts.TypeQueued {
		t.Errorf("the run stands at %s, %v", head.Type, err)
	}
}

// The lease counts from the request that the message answered, not from the start.
func TestLeaseCountsFromTheDelivery(t *testing.T) {
	b := newBench(t)
	goOn := make(chan struct{})
	w, d, id := b.fetched(t, Config{Agents: []agent.Agent{waits(goOn, nil)}}, 8*time.Second)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.take(d, func() {})
	}()
	waitFor(t, "the attempt", func() bool { return w.holding(id) != nil })
	a := w.holding(id)
	if silent := a.lease.silence(time.Now()); silent < 8*time.Second {
		t.Errorf("the lease counts from %v ago, the message was handed out 8 s ago", silent)
	}
	a.mu.Lock()
	if due := time.Until(a.nextBeat); due > 2*time.Second {
		t.Errorf("the first heartbeat comes in %v, 8 s and that after the delivery", due)
	}
	a.mu.Unlock()
	close(goOn)
	<-done
}

// A server that is cut off from the others answers reads from what it has, and
// can extend no lease: a head that can be read there keeps no agent running.
func TestCutOffWithAReplica(t *testing.T) {
	broker := jstest.StartFile(t)
	b := &bench{Broker: broker, runs: runlog.New(broker.JS)}
	ended := make(chan error, 1)
	b.start(t, Config{Lease: 3 * time.Second, Agents: []agent.Agent{waits(nil, ended)}})
	id := b.submit(t, contracts.Submission{AgentKey: "waits"})
	answer := shows(t, b.waitForEvent(t, id, contracts.TypeStarted))
	u, err := url.Parse(broker.URL())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	broker.Stop(t)
	lonely, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	lonely.Start()
	t.Cleanup(func() {
		lonely.Shutdown()
		lonely.WaitForShutdown()
	})
	nc := b.Connect(t)
	if _, err := nc.Subscribe("$JS.API.DIRECT.GET."+contracts.StreamLog+".>", func(m *nats.Msg) {
		if err := m.RespondMsg(answer()); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, agent.ErrLeaseLost) {
			t.Errorf("the agent was ended by %v", err)
		}
	case <-ctx.Done():
		t.Error("the agent goes on without a lease")
	}
}
