package worker_test

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// exampleRun is the id of the run that brokerWithRun submits.
var exampleRun = contracts.RunIDFromKey("example")

// brokerWithRun starts a broker in which one run waits, as a dispatcher would
// have queued it.
func brokerWithRun(submission string) (url string, stop func()) {
	broker, err := jsutil.StartEmbedded(jsutil.EmbeddedConfig{})
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	runs, nc := openLog(broker.URL())
	defer nc.Close()
	js, err := jsutil.JetStream(nc)
	check(err)
	check(jsutil.EnsureTopology(ctx, js, jsutil.NewTopology(jsutil.TopologyOptions{Storage: broker.Storage()})))
	s, faults := contracts.DecodeSubmission([]byte(submission))
	if len(faults) > 0 {
		panic(faults)
	}
	s.RunID, s.Priority, s.MaxAttempts = exampleRun, contracts.PriorityNormal, 1
	e, err := contracts.Next(contracts.Head{}, s.RunID, contracts.Draft{
		Type: contracts.TypeQueued, AgentKey: s.AgentKey, Priority: s.Priority, MaxAttempts: s.MaxAttempts, Payload: contracts.Queued{Submission: s},
	}, time.Now())
	check(err)
	at, err := runs.Append(ctx, runlog.Head{}, e)
	check(err)
	m := nats.NewMsg(contracts.WorkSubject(s.AgentKey, s.Priority, s.RunID))
	m.Header.Set(contracts.HeaderLogSequence, strconv.FormatUint(at.Sequence, 10))
	m.Data, err = contracts.Encode(e)
	check(err)
	_, err = js.PublishMsg(ctx, m)
	check(err)
	return broker.URL(), broker.Shutdown
}

// outputOf waits for the run's end and returns its final output, as JSON.
func outputOf(url string) string {
	runs, nc := openLog(url)
	defer nc.Close()
	var last runlog.Entry
	for e, err := range runs.Follow(context.Background(), exampleRun, runlog.FollowOptions{UntilEnd: true}) {
		check(err)
		last = e
	}
	var p contracts.Succeeded
	check(json.Unmarshal(last.Payload, &p))
	return string(p.FinalOutput)
}

func openLog(url string) (*runlog.Log, *nats.Conn) {
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: url, Name: "example"})
	check(err)
	js, err := jsutil.JetStream(nc)
	check(err)
	return runlog.New(js), nc
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
