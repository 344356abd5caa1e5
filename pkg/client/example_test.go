package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

func Example() {
	nc, shutdown := exampleSystem() // or jsutil.Connect, to a broker where Longhaul runs
	defer shutdown()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()

	c, err := client.New(nc)
	check(err)
	id, err := c.Submit(ctx, contracts.Submission{
		AgentKey:       "echo",
		IdempotencyKey: "order-77", // submitting it again makes no second run
		Input:          contracts.Input{Messages: []contracts.Message{contracts.Text("user", "hi")}},
	})
	check(err)
	for event, err := range c.Follow(ctx, id, runlog.FollowOptions{UntilEnd: true}) {
		check(err)
		fmt.Println(event.Seq, event.Type, event.Status)
	}
	outcome, err := c.Wait(ctx, id)
	check(err)
	var answer string
	check(outcome.Output(&answer)) // a *client.RunError, if the run did not succeed
	fmt.Println(answer)
	// Output:
	// 1 run.queued pending
	// 2 run.started running
	// 3 run.succeeded succeeded
	// hi
}

// exampleSystem is a broker, and in place of the services something that
// writes the log of an echo run.
func exampleSystem() (nc *nats.Conn, shutdown func()) {
	broker, err := jsutil.StartEmbedded(jsutil.EmbeddedConfig{})
	check(err)
	nc, err = jsutil.Connect(jsutil.ConnectConfig{URL: broker.URL()})
	check(err)
	js, err := jsutil.JetStream(nc)
	check(err)
	topology := jsutil.NewTopology(jsutil.TopologyOptions{Storage: broker.Storage()})
	check(jsutil.EnsureTopology(context.Background(), js, topology))
	runs := runlog.New(js)
	var appending sync.WaitGroup // the last event is seen before its confirmation is
	_, err = nc.Subscribe(contracts.SubjectSubmit, func(m *nats.Msg) {
		appending.Add(1)
		defer appending.Done()
		var s contracts.Submission
		check(json.Unmarshal(m.Data, &s))
		output, _ := json.Marshal(s.Input.Messages[0].Text())
		var head runlog.Head
		for _, d := range []contracts.Draft{
			{Type: contracts.TypeQueued, AgentKey: s.AgentKey, Priority: contracts.PriorityNormal, MaxAttempts: 3, Payload: contracts.Queued{Submission: s}},
			started(),
			succeeded(string(output)),
		} {
			e, err := contracts.Next(head.Head, s.RunID, d, time.Now())
			check(err)
			head, err = runs.Append(context.Background(), head, e)
			check(err)
		}
	})
	check(err)
	return nc, func() {
		appending.Wait()
		nc.Close()
		broker.Shutdown()
	}
}

// check ends the example; a program would return the error.
func check(err error) {
	if err != nil {
		panic(err)
	}
}
