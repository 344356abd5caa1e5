package dispatcher

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

func TestConfigReportsAllFaults(t *testing.T) {
	_, err := New(nil, Config{MaxTimeout: -time.Second, Topology: jsutil.TopologyOptions{Replicas: 7}})
	if err == nil {
		t.Fatal("a bad configuration is taken")
	}
	for _, want := range []string{"connection", "replicas", "max_timeout"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error says nothing about %s: %v", want, err)
		}
	}
}

func TestStartedBeforeBroker(t *testing.T) {
	b := newBench(t, jstest.StartEmpty(t))
	url := b.URL()
	b.Stop(t)
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: url, Retry: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	run(t, nc, b.TopologyOptions(), Config{})
	b.Restart(t) // an empty one: the dispatcher makes the topology
	waitFor(t, "the topology", func() bool {
		differences, err := jsutil.VerifyTopology(t.Context(), b.JS, b.Topology())
		return err == nil && len(differences) == 0
	})
	b.register(t, echo)
	id := contracts.NewRunID()
	b.submit(t, contracts.Submission{RunID: id, AgentKey: "echo"})
	b.checkQueued(t, id)
}

func TestEndsWhileThereIsNoBroker(t *testing.T) {
	b := newBench(t, jstest.StartEmpty(t))
	b.Stop(t)
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: b.URL(), Retry: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	run(t, nc, b.TopologyOptions(), Config{})()
}

func TestBrokerRestart(t *testing.T) {
	b := newBench(t, jstest.StartFile(t))
	b.register(t, echo)
	b.start(t, Config{})
	const n = 1000
	ids := make([]string, n)
	var acks []jetstream.PubAckFuture
	submit := func(from, to int) {
		for i := from; i < to; i++ {
			ids[i] = contracts.NewRunID()
			ack, err := b.JS.PublishAsync(contracts.SubjectSubmit, must(contracts.Encode(contracts.Submission{RunID: ids[i], AgentKey: "echo"})))
			if err != nil {
				t.Fatal(err)
			}
			acks = append(acks, ack)
		}
		for _, a := range acks {
			select {
			case <-a.Ok():
			case err := <-a.Err():
				t.Fatal(err)
			}
		}
		acks = nil
	}
	submit(0, n/2)
	b.Restart(t) // with a part of them anywhere on their way
	submit(n/2, n)
	// Deliveries that were lost on the way come again after the consumer's AckWait.
	for deadline := time.Now().Add(time.Minute); b.count(t, contracts.StreamWork) < n; jsutil.Sleep(t.Context(), 5*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute for %d runs to be queued: %d are", n, b.count(t, contracts.StreamWork))
		}
	}
	for _, id := range ids {
		if have := types(b.history(t, id)); have != "run.queued" {
			t.Fatalf("run %s has the log %s", id, have)
		}
	}
}

func TestTopologyIsMadeAgain(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	submit := func() {
		t.Helper()
		id := contracts.NewRunID()
		waitFor(t, "the inbox", func() bool {
			_, err := b.JS.Publish(t.Context(), contracts.SubjectSubmit, must(contracts.Encode(contracts.Submission{RunID: id, AgentKey: "echo"})))
			return err == nil
		})
		b.checkQueued(t, id)
	}
	submit()
	if err := b.JS.DeleteConsumer(t.Context(), contracts.StreamInbox, contracts.ConsumerSubmit); err != nil {
		t.Fatal(err)
	}
	submit()
	for _, stream := range []string{contracts.StreamInbox, contracts.StreamWork, contracts.StreamLog} {
		if err := b.JS.DeleteStream(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
		submit()
	}
}

func BenchmarkSubmit(b *testing.B) {
	bn := newBench(b, jstest.StartFile(b))
	bn.register(b, echo)
	body := []byte(`{"agent_key":"echo","input":{"messages":[{"role":"user","content":"hi"}],"params":{"n":3}}}`)
	submit := func(n int) {
		for range n {
			if _, err := bn.JS.PublishAsync(contracts.SubjectSubmit, body, jetstream.WithStallWait(patience)); err != nil {
				b.Fatal(err)
			}
		}
		<-bn.JS.PublishAsyncComplete()
	}
	submit(b.N)
	b.ResetTimer()
	bn.start(b, Config{})
	waitFor(b, "all to be queued", func() bool { return bn.count(b, contracts.StreamInbox) == 0 })
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "submits/s")
}
