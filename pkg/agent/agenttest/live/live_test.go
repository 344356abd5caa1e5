package live_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest/live"
	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/runlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type params struct {
	Text string `json:"text"`
}

// One agent with all that agents have, over a deployment in the midst of it.
func TestStage(t *testing.T) {
	var fetched, sent atomic.Int32
	waiting := make(chan struct{}, 1)
	report := agent.Agent{Key: "report", InputSchema: agent.SchemaFor[params](), Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		p, err := agent.Params[params](run)
		if err != nil {
			return agent.Result{}, err
		}
		page, err := agent.Step(ctx, run, "fetch", func(context.Context) (string, error) {
			run.AddUsage(agent.Usage{Cost: 1})
			fetched.Add(1)
			return strings.ToUpper(p.Text), nil
		})
		if err != nil {
			return agent.Result{}, err
		}
		if run.Epoch == 1 {
			waiting <- struct{}{}
			<-ctx.Done()
			return agent.Result{}, ctx.Err()
		}
		_, err = agent.Step(ctx, run, "send", func(context.Context) (int32, error) { return sent.Add(1), nil })
		return agent.Result{FinalOutput: page}, err
	}}
	stage := live.Start(t, report)
	id, err := stage.Client.Submit(t.Context(), contracts.Submission{AgentKey: "report", Input: contracts.Input{Params: []byte(`{"text":"x"}`)}})
	if err != nil {
		t.Fatal(err)
	}
	<-waiting
	stage.Deploy(t, report)
	o, err := stage.Client.Wait(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var out string
	if err := o.Output(&out); err != nil || out != "X" || fetched.Load() != 1 || sent.Load() != 1 {
		t.Errorf("output %q, %v, fetched %d times, sent %d times", out, err, fetched.Load(), sent.Load())
	}
	// The status record has what was spent.
	deadline := time.Now().Add(10 * time.Second)
	for {
		rec, err := stage.Client.Get(t.Context(), id)
		if err == nil && rec.Run.Status == contracts.StatusSucceeded {
			if rec.Run.Usage != (agent.Usage{Cost: 1}) || string(rec.Result) == "" {
				t.Errorf("record %+v, result %s", rec.Run, rec.Result)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for the status: %+v, %v", rec, err)
		}
		time.Sleep(10 * time.Millisecond)
	}

	id, err = stage.Client.Submit(t.Context(), contracts.Submission{AgentKey: "report", Input: contracts.Input{Params: []byte(`{"txt":"x"}`)}})
	if err != nil {
		t.Fatal(err)
	}
	o, err = stage.Client.Wait(t.Context(), id)
	var wrong *client.RunError
	if err != nil || !errors.As(o.Err(), &wrong) || !strings.Contains(wrong.Error(), "input.params.text: is required") {
		t.Errorf("a wrong input: %v, %v", o.Err(), err)
	}
}

// A run that sleeps is cancelled at once, by the command that a user gives.
func TestCancelOfASleepingRun(t *testing.T) {
	stage := live.Start(t, agent.Agent{Key: "sleepy", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		return agent.Result{}, agent.Sleep(ctx, run, "nap", time.Hour)
	}})
	id, err := stage.Client.Submit(t.Context(), contracts.Submission{AgentKey: "sleepy"})
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range stage.Client.Follow(t.Context(), id, runlog.FollowOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == contracts.TypeSleeping {
			break
		}
	}
	begun := time.Now()
	if err := stage.Client.Cancel(t.Context(), id, contracts.CancelCommand{Reason: "enough"}); err != nil {
		t.Fatal(err)
	}
	o, err := stage.Client.Wait(t.Context(), id)
	if err != nil || o.Status != contracts.StatusCancelled || time.Since(begun) > 5*time.Second {
		t.Errorf("%s after %v, %v", o.Status, time.Since(begun), err)
	}
}
