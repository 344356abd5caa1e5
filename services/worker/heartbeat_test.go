package worker

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
	"longhaul/pkg/runlog"
)

// lag has the direct gets of a stream answered by a replica of the test's own,
// which knows the given subjects in its own way, and no other. The leader's
// answers stay the broker's. catchUp ends it.
func (b *bench) lag(t *testing.T, stream string, answers map[string]func() *nats.Msg) (answered *atomic.Int64, catchUp func()) {
	t.Helper()
	direct := func(yes bool) {
		t.Helper()
		s, err := b.JS.Stream(t.Context(), stream)
		if err != nil {
			t.Fatal(err)
		}
		cfg := s.CachedInfo().Config
		cfg.AllowDirect = yes
		if _, err := b.JS.UpdateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	answered = new(atomic.Int64)
	nc := b.Connect(t)
	for subject, answer := range answers {
		if _, err := nc.Subscribe(jetstream.DefaultAPIPrefix+"DIRECT.GET."+subject, func(m *nats.Msg) {
			if err := m.RespondMsg(answer()); err != nil {
				t.Error(err)
			}
			answered.Add(1)
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	direct(false)
	return answered, func() {
		direct(true)
		nc.Close()
	}
}

// knowsNothing is the answer of a replica that has not got that far.
func knowsNothing() *nats.Msg {
	return &nats.Msg{Header: nats.Header{"Status": {"404"}, "Description": {"Message Not Found"}}}
}

// shows is the answer of a replica whose last entry is e.
func shows(t *testing.T, e runlog.Entry) func() *nats.Msg {
	t.Helper()
	data, err := contracts.Encode(e.Event)
	if err != nil {
		t.Fatal(err)
	}
	return func() *nats.Msg {
		return &nats.Msg{Data: data, Header: nats.Header{
			jetstream.SubjectHeader: {contracts.EventsSubject(e.RunID)}, jetstream.SequenceHeader: {strconv.FormatUint(e.Sequence, 10)},
		}}
	}
}

// lines is where a logger writes, one entry a line.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// waits is an agent that goes on until it is told, and says why it was ended.
func waits(goOn <-chan struct{}, ended chan<- error) agent.Agent {
	return agent.Agent{Key: "waits", Run: func(ctx context.Context, _ *agent.Run) (agent.Result, error) {
		select {
		case <-goOn:
			return agent.Result{}, nil
		case <-ctx.Done():
			ended <- context.Cause(ctx)
			return agent.Result{}, context.Cause(ctx)
		}
	}}
}

// A replica that lags shows no log at all, or its state before a redrive: that
// is no reason to give up an attempt which the leader knows to be alive.
func TestHeartbeatReadsAReplicaThatLags(t *testing.T) {
	b := newBench(t)
	ended := make(chan error, 2)
	goOn := make(chan struct{})
	b.start(t, Config{Lease: time.Second, HeartbeatInterval: 50 * time.Millisecond, Agents: []agent.Agent{waits(goOn, ended)}})
	fresh := b.submit(t, contracts.Submission{AgentKey: "waits"})
	redriven := b.submit(t, contracts.Submission{AgentKey: "waits"},
		contracts.Draft{Type: contracts.TypeStarted, WorkerID: "w-before"},
		contracts.Draft{Type: contracts.TypeFailed},
		contracts.Draft{Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueRedrive}})
	b.waitForEvent(t, fresh, contracts.TypeStarted)
	waitFor(t, "the second round to begin", func() bool {
		head, err := b.runs.LastFromLeader(t.Context(), redriven)
		return err == nil && head.Epoch == 2
	})
	failed := b.waitForEvent(t, redriven, contracts.TypeFailed)
	misled, catchUp := b.lag(t, contracts.StreamLog, map[string]func() *nats.Msg{
		contracts.StreamLog + "." + contracts.EventsSubject(fresh):    knowsNothing,
		contracts.StreamLog + "." + contracts.EventsSubject(redriven): shows(t, failed),
	})
	waitFor(t, "heartbeats to be misled, or the agents to be ended", func() bool { return misled.Load() > 10 || len(ended) > 0 })
	catchUp()
	close(goOn)
	wantTypes(t, b.waitForEnd(t, fresh), "run.queued run.started run.succeeded")
	wantTypes(t, b.waitForEnd(t, redriven), "run.queued run.started run.failed run.requeued run.started run.succeeded")
	if len(ended) > 0 {
		t.Errorf("an attempt was given up: %v", <-ended)
	}
}

// The run has gone on without its holder, in each of the ways that there are:
// the next heartbeat finds out, and says so without an error that is none.
func TestHeartbeatFindsItselfFenced(t *testing.T) {
	b := newBench(t)
	for name, then := range map[string][]contracts.Draft{
		"another epoch": {{Type: contracts.TypeStarted, WorkerID: "w-other"}},
		"ended":         {{Type: contracts.TypeFailed}},
		"redriven":      {{Type: contracts.TypeFailed}, {Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueRedrive}}},
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan error, 1)
			said := &lines{}
			b.startLogged(t, Config{Lease: 3 * time.Second, HeartbeatInterval: 50 * time.Millisecond, Agents: []agent.Agent{waits(nil, ended)}}, slog.New(slog.NewJSONHandler(said, nil)))
			id := b.submit(t, contracts.Submission{AgentKey: "waits"})
			at := b.waitForEvent(t, id, contracts.TypeStarted).Head()
			for _, d := range then {
				var err error
				if at, err = b.runs.Append(t.Context(), at, mustNext(t, at.Head, id, d)); err != nil {
					t.Fatal(err)
				}
			}
			select {
			case err := <-ended:
				if !errors.Is(err, agent.ErrLeaseLost) {
					t.Errorf("ended because of %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("the agent goes on")
			}
			waitFor(t, "the log line", func() bool { return strings.Contains(said.String(), "run is not ours any more") })
			if strings.Contains(said.String(), `"error":null`) {
				t.Errorf("the log says %s", said)
			}
		})
	}
}
