package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.uber.org/goleak"

	"longhaul/pkg/agent/builtin"
	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
	"longhaul/services/dispatcher"
	"longhaul/services/statekeeper"
	"longhaul/services/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// want is how a run of a recording is to end.
type want struct {
	status contracts.Status
	starts int // in its whole log
}

func wants() map[string]want {
	return map[string]want{
		runDone: {contracts.StatusSucceeded, 1}, runFailed: {contracts.StatusFailed, 2}, runRejected: {contracts.StatusRejected, 0},
		runCancelled: {contracts.StatusCancelled, 1}, runRetrying: {contracts.StatusSucceeded, 2}, runCut: {contracts.StatusSucceeded, 2},
		runCancelling: {contracts.StatusCancelled, 1}, runQueued: {contracts.StatusSucceeded, 1}, runLow: {contracts.StatusSucceeded, 1},
		runWithdrawn: {contracts.StatusCancelled, 0}, runFirst: {contracts.StatusSucceeded, 1}, runSecond: {contracts.StatusSucceeded, 1},
		runLater: {contracts.StatusSucceeded, 1}, runInbox: {contracts.StatusSucceeded, 1},
	}
}

// TestReplay is an upgrade without the old binaries: what the services of former
// versions have left on a broker, in the midst of all that a run can be in
// (testdata, recorded by `make upgrade-record`), is given to today's, which bring
// every run to its end. What these write, the former ones can read.
func TestReplay(t *testing.T) {
	recordings, err := filepath.Glob("testdata/*/system.jsonl")
	if err != nil || len(recordings) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	for _, path := range recordings {
		dir := filepath.Dir(path)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			r := replay(t, path)
			cut := r.history(t, runCut)
			r.today(t)
			for what, want := range wants() {
				if r.runs[what] == "" {
					t.Errorf("the recording has no run %s", what)
					continue
				}
				r.judge(t, what, want)
			}
			r.conversation(t)
			r.resumed(t, cut)
			r.readable(t, dir)
		})
	}
}

// replayed is a broker with what a recording has.
type replayed struct {
	url    string
	js     jetstream.JetStream
	log    *runlog.Log
	client *client.Client
	runs   map[string]string
	before map[string][][]byte // every log as it was, by run
}

// replay makes the streams as they were and puts every message where it was.
func replay(t *testing.T, path string) *replayed {
	t.Helper()
	broker, err := jsutil.StartEmbedded(jsutil.EmbeddedConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Shutdown)
	r := &replayed{url: broker.URL(), before: map[string][][]byte{}}
	nc := r.connect(t)
	if r.js, err = jsutil.JetStream(nc); err != nil {
		t.Fatal(err)
	}
	r.log = runlog.New(r.js)
	if r.client, err = client.New(nc); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }() // it is only read
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	last := map[string]uint64{}
	for lines.Scan() {
		var l line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		var err error
		switch {
		case l.Runs != nil:
			r.runs = l.Runs
		case l.Stream != nil:
			_, err = r.js.CreateStream(t.Context(), *l.Stream)
		case l.Consumer != nil:
			_, err = r.js.CreateConsumer(t.Context(), l.Of, *l.Consumer)
		default:
			for last[l.Of]++; last[l.Of] < l.Seq; last[l.Of]++ {
				r.gap(t, l, last[l.Of])
			}
			err = r.put(t, l)
		}
		if err != nil {
			t.Fatalf("%.200s: %v", lines.Bytes(), err)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *replayed) connect(t *testing.T) *nats.Conn {
	t.Helper()
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: r.url, Name: t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// put stores a message at its place.
func (r *replayed) put(t *testing.T, l line) error {
	t.Helper()
	if id, found := strings.CutSuffix(l.Subject, ".events"); found && l.Of == contracts.StreamLog {
		id = strings.TrimPrefix(id, "runs.")
		r.before[id] = append(r.before[id], []byte(l.Data))
		l.Subject = contracts.LogSubject(id)
	}
	ack, err := r.js.PublishMsg(t.Context(), &nats.Msg{Subject: l.Subject, Header: l.Header, Data: []byte(l.Data)})
	if err == nil && ack.Sequence != l.Seq {
		err = fmt.Errorf("it is at %d, and not at %d", ack.Sequence, l.Seq)
	}
	return err
}

// gap stores something and removes it, so that what follows has its sequence.
func (r *replayed) gap(t *testing.T, l line, seq uint64) {
	t.Helper()
	to := map[string]string{contracts.StreamInbox: "runs.gone.cancel", contracts.StreamSchedule: "runs.schedule.due.gone", contracts.StreamWork: "runs.work.gone.normal.gone",
		contracts.StreamLog: "runs.gone.log", contracts.StreamRuns: "$KV.runs.gone", contracts.StreamAgents: "$KV.agents.gone"}[l.Of]
	err := r.put(t, line{Of: l.Of, Seq: seq, Subject: to})
	if err == nil {
		var s jetstream.Stream
		if s, err = r.js.Stream(t.Context(), l.Of); err == nil {
			err = s.Purge(t.Context(), jetstream.WithPurgeSubject(strings.Replace(to, ".log", ".events", 1)))
		}
	}
	if err != nil {
		t.Fatalf("leave out %d of %s: %v", seq, l.Of, err)
	}
}

// service is any of them.
type service interface {
	Run(ctx context.Context) error
}

// serve starts one of today's services; it ends with the test.
func serve[S service](t *testing.T, s S, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// today starts today's services. A statekeeper that has years of retention lets
// the ends of a recording stand. The worker comes last: it could be quicker than
// the dispatcher with a cancel that is waiting in the inbox.
func (r *replayed) today(t *testing.T) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	d, err := dispatcher.New(r.connect(t), dispatcher.Config{Logger: log})
	serve(t, d, err)
	k, err := statekeeper.New(r.connect(t), statekeeper.Config{Logger: log, Retention: 200 * 365 * 24 * time.Hour})
	serve(t, k, err)
	r.judge(t, runWithdrawn, wants()[runWithdrawn])
	w, err := worker.New(r.connect(t), worker.Config{Logger: log, Agents: builtin.All(), RetryBackoffMax: 100 * time.Millisecond})
	serve(t, w, err)
}

// judge follows a run to its end, behind what was there before.
func (r *replayed) judge(t *testing.T, what string, w want) {
	t.Helper()
	id := r.runs[what]
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	for head := (contracts.Head{}); !head.Status.Terminal() || len(r.before[id]) > 0 && head.Seq < uint64(len(r.before[id])) || what == runFailed && head.Epoch < 2; {
		e, err := r.log.LastFromLeader(ctx, id)
		if head = e.Head().Head; err != nil && ctx.Err() != nil {
			t.Fatalf("the run %s does not end: %+v, %v", what, head, err)
		}
		time.Sleep(5 * time.Millisecond) // between two looks
	}
	var head contracts.Head
	starts := 0
	for i, e := range r.history(t, what) {
		var err error
		if head, err = contracts.Apply(head, e.Event); err != nil {
			t.Fatalf("the run %s: %v", what, err)
		}
		if e.Type == contracts.TypeStarted {
			starts++
		}
		if i < len(r.before[id]) {
			was, err := contracts.DecodeEvent(r.before[id][i])
			if err != nil || was.Type != e.Type || !was.Time.Equal(e.Time) {
				t.Errorf("event %d of the run %s was %s, and is %+v; %v", i+1, what, r.before[id][i], e, err)
			}
		}
	}
	if head.Status != w.status || starts != w.starts {
		t.Errorf("the run %s is %s after %d starts, want %s after %d", what, head.Status, starts, w.status, w.starts)
	}
	for {
		got, err := r.client.Get(ctx, id)
		if err == nil && got.Run.Status == w.status && got.Run.Seq == head.Seq {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the status of the run %s is %+v, %v", what, got.Run, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (r *replayed) history(t *testing.T, what string) (all []runlog.Entry) {
	t.Helper()
	for e, err := range r.log.Read(t.Context(), r.runs[what], 1) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// conversation holds that the second of two began behind the end of the first.
func (r *replayed) conversation(t *testing.T) {
	t.Helper()
	first, second := r.history(t, runFirst), r.history(t, runSecond)
	i := slices.IndexFunc(second, func(e runlog.Entry) bool { return e.Type == contracts.TypeStarted })
	if end := first[len(first)-1]; i < 0 || second[i].Sequence < end.Sequence {
		t.Errorf("of a conversation the second run began before the end of the first")
	}
}

// resumed holds that the run of a dead worker went on behind its checkpoint.
func (r *replayed) resumed(t *testing.T, was []runlog.Entry) {
	t.Helper()
	ref := was[len(was)-1].Checkpoint
	for _, e := range r.history(t, runCut)[len(was):] {
		if e.Type == contracts.TypeStarted {
			if e.Checkpoint == nil || *e.Checkpoint != *ref {
				t.Errorf("resumed from %+v, want %+v", e.Checkpoint, ref)
			}
			continue
		}
		if e.Checkpoint != nil && e.Type == contracts.TypeCheckpoint {
			if e.Checkpoint.N != ref.N+1 {
				t.Errorf("behind checkpoint %d comes %d", ref.N, e.Checkpoint.N)
			}
			return
		}
	}
	t.Error("no checkpoint follows")
}

// readable holds what is written today against what the former version says of
// events, of which a test holds that its decoder thinks the same: what a rollback
// finds. The golden files have more than these runs.
func (r *replayed) readable(t *testing.T, dir string) {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	s, err := compiler.Compile(filepath.Join(dir, "event.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	check := func(where string, data []byte) {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err == nil {
			err = s.Validate(doc)
		}
		if err != nil {
			t.Errorf("%s cannot be read by the version before: %v\n%s", where, err, data)
		}
	}
	for what, id := range r.runs {
		for e, err := range r.log.Read(t.Context(), id, uint64(len(r.before[id]))+1) {
			if err != nil {
				t.Fatal(err)
			}
			m, err := jsutil.GetFromLeader(t.Context(), r.js.Conn(), contracts.StreamLog, jsutil.GetRequest{Seq: e.Sequence})
			if err != nil {
				t.Fatal(err)
			}
			check(fmt.Sprintf("event %d of the run %s", e.Seq, what), m.Data)
		}
	}
	golden, err := filepath.Glob("../../pkg/contracts/testdata/golden/event-*.json")
	if err != nil || len(golden) < 20 {
		t.Fatalf("%d golden files: %v", len(golden), err)
	}
	for _, path := range golden {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		check(filepath.Base(path), data)
	}
}
