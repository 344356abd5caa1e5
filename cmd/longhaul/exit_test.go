package main

import (
	"strings"
	"syscall"
	"testing"

	"longhaul/pkg/contracts"
)

func TestExitCodes(t *testing.T) {
	t.Parallel()
	url := startDev(t)
	long := mustSubmit(t, url, "count", "--param", "n=1000", "--param", "pause_ms=50")
	short := mustSubmit(t, url, "echo")
	unknown := contracts.NewRunID()

	for _, tc := range []struct {
		name string
		args string
		code int
		says string // on stderr
	}{
		{"succeeded", "submit echo --message hi --wait", exitOK, ""},
		{"succeeded, followed", "submit echo --message hi --follow", exitOK, "leaves it running"},
		{"failed", "submit flaky --param retriable=false --wait", exitFailed, "failed: attempt 1 fails"},
		{"failed, followed", "submit flaky --param retriable=false --follow", exitFailed, "longhaul redrive"},
		{"timed out", "submit count --param n=1000 --param pause_ms=50 --timeout 0.2s --wait", exitTimedOut, "timed out"},
		{"not begun in time", "submit echo --start-timeout 1us --wait", exitTimedOut, "no attempt was begun within 1e-06 s"},
		{"bad start timeout", "submit echo --start-timeout soon", exitUsage, "--start-timeout"},
		{"dispatcher with a bad limit", "dispatcher --max-timeout-seconds 2592001", exitUsage, "max_timeout"},
		{"rejected", "submit nosuch --wait", exitRejected, "known are count, echo, flaky"},
		{"cancel", "cancel " + long + " --reason enough --wait", exitOK, ""},
		{"cancelled", "watch " + long, exitCancelled, ""},
		{"cancelled before", "cancel " + long, exitOK, ""},
		{"too late to cancel", "cancel " + short + " --wait", exitError, ""},
		{"get says no more than that there is such a run", "get " + long, exitOK, ""},
		{"redrive of a run that succeeded", "redrive " + short, exitError, "only a run that failed"},
		{"redrive of nothing", "redrive", exitUsage, "--status, --agent"},
		{"redrive of a run and a filter", "redrive " + short + " --status failed", exitUsage, "not both"},
		{"redrive of many, followed", "redrive --agent echo --follow", exitUsage, "for one run"},
		{"redrive of what cannot be", "redrive --status succeeded", exitUsage, `"failed","timed_out","cancelled"`},
		{"redrive since when", "redrive --since yesterday", exitUsage, "--since"},
		{"redrive of what does not match", "redrive --agent nosuch", exitOK, "No run matches."},
		{"delete checkpoints", "checkpoints delete " + long, exitOK, ""},
		{"latest of no checkpoints", "checkpoints get " + long, exitNotFound, "not found"},
		{"unknown run", "get " + unknown, exitNotFound, unknown},
		{"cancel of an unknown run", "cancel " + unknown, exitNotFound, unknown},
		{"unknown run's checkpoints", "checkpoints next " + unknown, exitNotFound, unknown},
		{"no broker", "--nats nats://127.0.0.1:1 list", exitNoBroker, "longhaul dev"},
		{"no such command", "lisst", exitUsage, `did you mean "list"`},
		{"no such flag", "submit echo --prio high", exitUsage, "--priority"},
		{"no such priority", "submit echo --priority urgent", exitUsage, `"high","normal","low"`},
		{"no agent", "submit", exitUsage, "name an agent"},
		{"no id", "watch x", exitUsage, "must be a UUID"},
		{"nothing to watch", "watch", exitUsage, "--agent KEY"},
		{"bad submission", "submit Echo --max-attempts 101", exitUsage, "2 faults"},
		{"bad params", "submit echo --param-json [1]", exitUsage, "must be a JSON object"},
		{"bad parameter", "submit echo --param n", exitUsage, "NAME=VALUE"},
		{"bad duration", "submit echo --timeout soon", exitUsage, "--timeout"},
		{"bad time", "list --created-after yesterday", exitUsage, "--created-after"},
		{"bad limit", "list --limit 0", exitUsage, "1 to 1000"},
		{"bad cursor", "list --cursor nonsense", exitUsage, "cursor"},
		{"no such file", "submit --file /no/such/file", exitUsage, "no such file"},
		{"watch from beyond the end", "watch " + short + " --from 99", exitOK, "has ended with event number 4: succeeded. There is no number 99."},
		{"cancel of many, one unknown", "cancel " + short + " " + unknown, exitNotFound, unknown},
		{"redrive of an unknown run", "redrive " + unknown, exitNotFound, unknown},
		{"watch of an unknown run", "watch " + unknown, exitNotFound, unknown},
		{"get of no id", "get x", exitUsage, "must be a UUID"},
		{"cancel of no id", "cancel x", exitUsage, "must be a UUID"},
		{"two agents", "submit echo count", exitUsage, "one agent is enough"},
		{"stdin for two things", "submit echo --message - --param-json -", exitUsage, "stdin can be read once"},
		{"no such context", "list --context nosuch", exitUsage, "there are none in"},
		{"broker and context", "list --context nosuch --nats " + url, exitUsage, "give one"},
		{"worker without places", "worker --agent echo --concurrency 0", exitUsage, "--concurrency must be above 0, not 0"},
		{"worker without time", "worker --agent echo --run-timeout-seconds 0 --lease-ttl-seconds 0", exitUsage, "--run-timeout-seconds must be above 0"},
		{"worker with an agent without places", "worker --agent echo --agent count --agent-concurrency count=0", exitUsage, "--agent-concurrency count=0: must be one of echo, count, and above 0"},
		{"worker with places for nobody", "worker --agent echo --agent-concurrency eco=1", exitUsage, "--agent-concurrency eco=1: must be one of echo,"},
		{"dev without places", "dev --memory --port 0 --concurrency 0", exitUsage, "--concurrency must be above 0"},
		{"dispatcher without a limit", "dispatcher --max-timeout-seconds 0", exitUsage, "--max-timeout-seconds must be above 0"},
		{"worker without agents", "worker", exitUsage, "--exec NAME=COMMAND"},
		{"worker with an unknown agent", "worker --agent nosuch", exitUsage, "echo, count, flaky"},
		{"worker with bad settings", "worker --agent echo --concurrency -1 --lease-ttl-seconds 0.1", exitUsage, "concurrency"},
		{"worker, once, without work", "worker --agent flaky --once", exitNotFound, "No run waits"},
		{"dev on a port that is taken", "dev --memory --port " + url[strings.LastIndex(url, ":")+1:], exitError, "another port"},
		{"topology differs", "topology verify --replicas 3", exitOK, ""}, // replicas are the operator's choice
		{"version", "version", exitOK, ""},
		{"help", "--help", exitOK, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := longhaul(t, url, "", strings.Fields(tc.args)...)
			if r.code != tc.code || !strings.Contains(r.stderr, tc.says) {
				t.Errorf("longhaul %s: exit code %d, want %d; stderr, which should hold %q:\n%s", tc.args, r.code, tc.code, tc.says, r.stderr)
			}
			if strings.Contains(r.stdout+r.stderr, "\x1b[") {
				t.Error("colours in a pipe")
			}
		})
	}
}

// Errors are JSON, too.
func TestErrorsAsJSON(t *testing.T) {
	t.Parallel()
	r := longhaul(t, "nats://127.0.0.1:1", "", "list", "--json")
	var doc errorDocument
	mustDecode(t, r.stderr, &doc)
	if doc.ExitCode != exitNoBroker || r.code != exitNoBroker || doc.Error == "" || r.stdout != "" {
		t.Errorf("%+v, exit code %d, stdout %q", doc, r.code, r.stdout)
	}
}

func TestInterruptedFollowLeavesTheRun(t *testing.T) {
	t.Parallel()
	url := startDev(t)
	id := contracts.NewRunID()
	p := start(t, url, "submit", "count", "--param", "n=1000", "--param", "pause_ms=20", "--run-id", id, "--follow")
	for !strings.Contains(p.line(), "2 of 1000") {
	}
	p.signal(syscall.SIGINT)
	code, _ := p.end()
	if code != exitInterrupted || !strings.Contains(p.stderr.String(), "The run goes on.") ||
		!strings.Contains(p.stderr.String(), "longhaul cancel "+id) {
		t.Errorf("exit code %d, stderr:\n%s", code, p.stderr)
	}
	var got struct{ Run contracts.StatusRecord }
	mustDecode(t, longhaul(t, url, "", "get", id, "--json").stdout, &got)
	if got.Run.Status != contracts.StatusRunning {
		t.Errorf("the run is %s", got.Run.Status)
	}
	if r := longhaul(t, url, "", "cancel", id, "--wait", "--json"); r.code != exitOK {
		t.Errorf("cancel: %+v", r)
	}
}
