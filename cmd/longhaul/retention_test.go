package main

import (
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
)

// Statekeepers that are killed in the midst of removing runs, one after the
// other: the next one goes on, in the end nothing is left, and what lives is whole.
func TestRetentionKilled(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	start(t, url, "dispatcher", "--storage", "memory", "--accept-unknown-agents").says("dispatcher runs")
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	live := mustSubmit(t, url, "nobody", "-m", "hi")
	const runs = 300
	for range runs {
		id, err := c.Submit(t.Context(), contracts.Submission{AgentKey: "nobody", IdempotencyKey: contracts.NewRunID()})
		if err == nil {
			err = c.Cancel(t.Context(), id, contracts.CancelCommand{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// left counts the subjects of a stream, less those of deletion markers and of the live run.
	left := func(name string) (n int) {
		s, err := js.Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		info, err := s.Info(t.Context(), jetstream.WithSubjectFilter(">"))
		if err != nil {
			t.Fatal(err)
		}
		for subject := range info.State.Subjects {
			if !strings.Contains(subject, live) {
				n++
			}
		}
		return n
	}
	waitFor(t, "all runs to be cancelled", func() bool { return left(contracts.StreamLog) == runs && left(contracts.StreamWork) == 0 })
	before := runs
	for range 4 {
		p := start(t, url, "statekeeper", "--storage", "memory", "--retention-for", "cancelled=1s")
		waitFor(t, "runs to be removed", func() bool { return left(contracts.StreamLog) < before })
		p.signal(syscall.SIGKILL)
		p.end()
		if before = left(contracts.StreamLog); before == 0 {
			t.Fatal("the statekeepers were killed too late")
		}
	}
	start(t, url, "statekeeper", "--storage", "memory", "--retention-for", "cancelled=1s")
	waitFor(t, "nothing to be left", func() bool {
		r := longhaul(t, url, "", "doctor", "--storage", "memory", "--fix", "--json") // which removes the markers
		return r.stdout != "" && left(contracts.StreamLog)+left(contracts.StreamRuns) == 0
	})
	if r := longhaul(t, url, "", "get", live, "--json"); r.code != exitOK || !strings.Contains(r.stdout, `"pending"`) {
		t.Errorf("the run that waits: %+v", r)
	}
}

func TestRetentionFlags(t *testing.T) {
	t.Parallel()
	for flag, want := range map[string]string{
		"--retention-for=failed=soon": `--retention-for failed: "soon" is no duration`,
		"--retention-for=running=3d":  `retention for "running": is no status that a run ends with`,
		"--retention-for=failed=0":    "retention for failed: must be more than 0, not 0s",
		"--retention-days=0":          "--retention-days: must be more than 0, not 0",
	} {
		if r := longhaul(t, startBroker(t), "", "statekeeper", flag); r.code != exitUsage || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: %+v, want %s", flag, r, want)
		}
	}
}
