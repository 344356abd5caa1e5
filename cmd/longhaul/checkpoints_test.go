package main

import (
	"context"
	"log/slog"
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
	w, err := worker.New(nc, worker.Config{Agents: []agent.Agent{a}, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
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
	t.Parallel()
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

// The newest three stay, of a run that goes on and of one that has ended.
func TestCheckpointHistory(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	start(t, url, "dispatcher", "--storage", "memory")
	start(t, url, "statekeeper", "--storage", "memory", "--checkpoint-history", "3")
	host(t, url, agent.Agent{Key: "saver", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		for i := range 20 {
			if err := run.Checkpoint(ctx, i+1); err != nil {
				return agent.Result{}, err
			}
		}
		return agent.Result{}, nil
	}})
	id := mustSubmit(t, url, "saver")
	longhaul(t, url, "", "watch", id)
	numbers := func(wait string) {
		t.Helper()
		waitFor(t, wait, func() bool {
			var all []string
			for _, cp := range decodeLines[client.Checkpoint](t, longhaul(t, url, "", "checkpoints", "list", id, "--json").stdout) {
				all = append(all, string(cp.State))
			}
			return strings.Join(all, " ") == wait
		})
	}
	numbers("18 19 20")
	for _, c := range [][2]string{{"get", "20\n"}, {"next", "21\n"}, {"delete", "Deleted 3 checkpoints.\n"}} {
		if got := longhaul(t, url, "", "checkpoints", c[0], id).stdout; got != c[1] {
			t.Errorf("%s printed %q", c[0], got)
		}
	}
	if r := longhaul(t, url, "", "checkpoints", "get", id); r.code != exitNotFound || !strings.Contains(r.stderr, "not found") {
		t.Errorf("get of what was deleted: %+v", r)
	}
	if r := longhaul(t, url, "", "statekeeper", "--checkpoint-history", "0"); r.code != exitUsage || !strings.Contains(r.stderr, "at least 1") {
		t.Errorf("a history of none: %+v", r)
	}
}
