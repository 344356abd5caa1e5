package bench_test

import (
	"math"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"longhaul/internal/bench"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil/jstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSubmissionIsAsLargeAsAsked(t *testing.T) {
	for _, size := range []int{512, 16_000, 256_000} {
		s, err := bench.Submission("bench", bench.Job{Events: 3, Sent: time.Now().UnixNano()}, size)
		if err != nil {
			t.Fatal(err)
		}
		s.RunID = contracts.NewRunID()
		data, err := contracts.Encode(s)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) != size {
			t.Errorf("%d bytes, want %d", len(data), size)
		}
		if faults := s.Check(); len(faults) > 0 {
			t.Error(faults)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		all  []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := bench.Median(c.all); got != c.want {
			t.Errorf("median of %v: %v, want %v", c.all, got, c.want)
		}
	}
}

func TestLatenciesAddUp(t *testing.T) {
	a, b := bench.NewLatencies(), bench.NewLatencies()
	for i := 1; i <= 500; i++ {
		a.Record(time.Duration(i) * time.Millisecond)
		b.Record(time.Duration(500+i) * time.Millisecond)
	}
	taken, err := b.Take()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Add(taken); err != nil {
		t.Fatal(err)
	}
	if n := b.Quantiles().Count; n != 0 {
		t.Errorf("%d are left of what was taken", n)
	}
	q := a.Quantiles()
	for name, c := range map[string][2]float64{"count": {float64(q.Count), 1000}, "p50": {q.P50, 500}, "p99": {q.P99, 990}, "p99.9": {q.P999, 999}, "max": {q.Max, 1000}} {
		if math.Abs(c[0]-c[1]) > c[1]/500 {
			t.Errorf("%s: %v, want %v", name, c[0], c[1])
		}
	}
}

// TestIdealRun: an ideal run is what it is said to be, and nothing less.
func TestIdealRun(t *testing.T) {
	b := jstest.StartFile(t)
	f, err := bench.NewFloor(b.NC)
	if err != nil {
		t.Fatal(err)
	}
	const n = 700 // more than are under way at a time
	for _, f.InTurn = range []bool{false, true} {
		began := bench.NewLatencies()
		f.Began = began.Record
		if err := f.Prepare(t.Context(), 1, jetstream.FileStorage); err != nil {
			t.Fatal(err)
		}
		if err := f.Publish(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		if err := f.Execute(t.Context(), n, 16); err != nil {
			t.Fatal(err)
		}
		for stream, want := range map[string]uint64{"LONGHAUL_BENCH_LOG": 4 * n, "LONGHAUL_BENCH_WORK": 0} {
			waitForMessages(t, b.JS, stream, want)
		}
		if q := began.Quantiles(); q.Count != n || q.Max > 60_000 {
			t.Errorf("latencies of %d jobs: %+v", n, q)
		}
	}
	if err := f.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.JS.Stream(t.Context(), "LONGHAUL_BENCH_LOG"); err == nil {
		t.Error("its streams are there still")
	}
}

// waitForMessages waits until a stream holds as many: an ack is not answered.
func waitForMessages(t *testing.T, js jetstream.JetStream, stream string, want uint64) {
	t.Helper()
	var have uint64
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		s, err := js.Stream(t.Context(), stream)
		if err != nil {
			t.Fatal(err)
		}
		if have = s.CachedInfo().State.Msgs; have == want {
			return
		}
	}
	t.Errorf("%s holds %d messages, want %d", stream, have, want)
}

// TestDequeue takes back what waits for the bench's agent, and nothing else.
func TestDequeue(t *testing.T) {
	b := jstest.Start(t)
	id := contracts.NewRunID()
	for _, key := range []string{"bench", "other"} {
		for _, p := range contracts.Priorities() {
			if _, err := b.JS.Publish(t.Context(), contracts.WorkSubject(key, p, id), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := bench.Dequeue(t.Context(), b.NC, "bench"); err != nil {
		t.Fatal(err)
	}
	s, err := b.JS.Stream(t.Context(), contracts.StreamWork)
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.Info(t.Context(), jetstream.WithSubjectFilter(">"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range contracts.Priorities() {
		if info.State.Subjects[contracts.WorkSubject("other", p, id)] != 1 {
			t.Errorf("other agents' work is gone: %v", info.State.Subjects)
		}
	}
	if info.State.Msgs != 3 {
		t.Errorf("%d messages are left, want 3: %v", info.State.Msgs, info.State.Subjects)
	}
}
