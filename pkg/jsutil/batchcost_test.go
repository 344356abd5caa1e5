package jsutil_test

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

// A small batch does not cost half a megabyte, which is what a synchronous
// subscription of the library takes by default.
func TestGetBatchIsCheap(t *testing.T) {
	b := jstest.Start(t)
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: b.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := b.JS.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, AllowDirect: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.JS.Publish(t.Context(), "s", nil); err != nil {
		t.Fatal(err)
	}
	bytes := testing.Benchmark(func(bench *testing.B) {
		bench.ReportAllocs()
		for bench.Loop() {
			if got, _, err := jsutil.GetBatch(bench.Context(), nc, "S", jsutil.GetRequest{MultiLast: []string{"s"}}); err != nil || len(got) != 1 {
				bench.Fatalf("%d messages, %v", len(got), err)
			}
		}
	}).AllocedBytesPerOp()
	if bytes > 64<<10 {
		t.Errorf("a batch of one message allocates %d bytes", bytes)
	}
}
