package statekeeper

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

// Somebody purges one run's work message by its subject, and the broker loses
// sight of others that are in flight: they stand in the stream and nobody is
// ever handed them. Their runs are queued again all the same.
func TestSweeperFindsStranded(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	p := newPlayer(t, b)
	if err := jsutil.EnsureWorkConsumers(t.Context(), b.JS, "echo", time.Second); err != nil {
		t.Fatal(err)
	}
	cons, err := b.JS.Consumer(t.Context(), contracts.StreamWork, contracts.WorkConsumer("echo", contracts.PriorityNormal))
	if err != nil {
		t.Fatal(err)
	}
	var runs []string
	for range 4 {
		head, id := p.submit(contracts.Submission{})
		p.putWork(id)
		p.next(head, id, started("w-1", ""))
		runs = append(runs, id)
	}
	batch, err := cons.Fetch(4, jetstream.FetchMaxWait(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	var got []jetstream.Msg
	for m := range batch.Messages() {
		got = append(got, m)
	}
	work, err := b.JS.Stream(t.Context(), contracts.StreamWork)
	if err != nil || len(got) != 4 {
		t.Fatalf("%d messages, %v", len(got), err)
	}
	if err := work.Purge(t.Context(), jetstream.WithPurgeSubject(got[2].Subject())); err != nil {
		t.Fatal(err)
	}
	if err := got[3].DoubleAck(t.Context()); err != nil {
		t.Fatal(err)
	}
	info, err := cons.Info(t.Context())
	if err != nil || info.AckFloor.Stream != 4 {
		t.Fatalf("the broker has not lost sight of anything: %+v, %v", info, err)
	}

	startKeeper(t, b, Config{}, eager)
	waitFor(t, "dispatchers to be asked about all of them", func() (bool, string) {
		a := p.asked()
		return a[runs[0]] && a[runs[1]] && a[runs[2]] && a[runs[3]], fmt.Sprint(a)
	})
}
