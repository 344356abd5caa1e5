package main

import (
	"context"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/agent"
	"longhaul/pkg/client"
	"longhaul/services/worker"
)

// host runs a worker with one agent on the broker until the test ends.
func host(t *testing.T, url string, a agent.Agent) {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	w, err := worker.New(nc, worker.Config{Agents: []agent.Agent{a}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		nc.Close()
	})
	waitFor(t, "the agent to be known", func() bool {
		return strings.Contains(longhaul(t, url, "", "agents").stdout, a.Key)
	})
}

func TestCheckpointsThatAreNoJSON(t *testing.T) {
	url := startDev(t)
	host(t, url, agent.Agent{Key: "saver", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		return agent.Result{}, run.Checkpoint(ctx, []byte{0x1b, '[', '2', 'J', 0xff})
	}})
	id := mustSubmit(t, url, "saver")
	if events := longhaul(t, url, "", "watch", id, "-v").stdout; !strings.Contains(events, "1, 5 B, binary") {
		t.Errorf("the events are\n%s", events)
	}
	for _, c := range []struct{ command, want string }{
		{"checkpoints list " + id, "5 B   binary\n"},
		{"checkpoints get " + id, "binary, 5 B\n"},
		{"checkpoints get " + id, "checkpoints get " + id + " --number 1 --json"},
		{"checkpoints next " + id, "2\n"},
	} {
		r := longhaul(t, url, "", strings.Fields(c.command)...)
		if r.code != exitOK || !strings.Contains(r.stdout, c.want) || strings.Contains(r.stdout, "\x1b[2J") {
			t.Errorf("%s: exit code %d\n%s%s", c.command, r.code, r.stdout, r.stderr)
		}
	}
	for _, command := range []string{"list", "get"} {
		out := longhaul(t, url, "", "checkpoints", command, id, "--json").stdout
		var cp client.Checkpoint
		mustDecode(t, out, &cp)
		if string(cp.Binary) != "\x1b[2J\xff" || cp.State != nil || cp.Size != 5 || !strings.Contains(out, `"binary":"G1sySv8="`) {
			t.Errorf("%s --json printed %s", command, out)
		}
	}
}
