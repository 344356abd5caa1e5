package main

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"go.uber.org/goleak"

	"longhaul/pkg/agent/agenttest"
	"longhaul/pkg/contracts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var want = progress{Offset: 53, Rows: 5, Bad: 2, Cents: map[string]int64{"Cork": 350, "Delft": 100}}

func sales(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sales.csv")
	if err := os.WriteFile(file, []byte("d1,Cork,1.25\nd2,Delft,1\nd3,Cork,n/a\nodd\nd4,Cork,2.25\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// A worker dies before and behind each event: nothing is added up twice, and nothing is left out.
func TestCrashes(t *testing.T) {
	submission := agenttest.Params(params{File: sales(t), Batch: 1})
	whole := agenttest.New(tally, submission)
	if got, err := agenttest.Output[progress](whole.Run(t.Context())); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
	for at := 2; at < len(whole.Events()); at++ {
		for _, behind := range []bool{false, true} {
			trial, n := agenttest.New(tally, submission), 0
			script := func(contracts.Event) agenttest.Act {
				if n++; n == at {
					return agenttest.Crash
				}
				return agenttest.GoOn
			}
			if behind {
				trial.After = script
			} else {
				trial.Before = script
			}
			if got, err := agenttest.Output[progress](trial.Run(t.Context())); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("crash at event %d, behind it: %t: got %+v, %v", at, behind, got, err)
			}
		}
	}
}

func TestCancel(t *testing.T) {
	trial := agenttest.New(tally, agenttest.Params(params{File: sales(t), Batch: 1, PauseMS: 60_000}))
	trial.After = agenttest.At(agenttest.Cancel, "progress", "")
	if o := trial.Run(t.Context()); o.Status != contracts.StatusCancelled {
		t.Errorf("%s, %+v", o.Status, o.Error)
	}
}

func TestNoSuchFile(t *testing.T) {
	o := agenttest.New(tally, agenttest.Params(params{File: "nosuch.csv"})).Run(t.Context())
	if o.Status != contracts.StatusFailed || o.Error.Retriable {
		t.Errorf("%s, %+v", o.Status, o.Error)
	}
	o = agenttest.New(tally, agenttest.Params(map[string]any{"files": 1})).Run(t.Context())
	if o.Status != contracts.StatusRejected {
		t.Errorf("without a file: %s", o.Status)
	}
}
