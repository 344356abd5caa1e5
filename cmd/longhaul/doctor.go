package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/internal/shell"
	"longhaul/pkg/client"
	"longhaul/pkg/jsutil"
)

// doctorCmd looks for what is wrong.
type doctorCmd struct {
	Fix           bool     `help:"Put right what can be put right."`
	Broker        bool     `help:"Look at the broker alone: quick, and enough between two steps of a rolling restart."`
	Monitor       []string `placeholder:"URL" help:"Monitoring port of a server, such as http://127.0.0.1:8222, which tells its fsync setting and its disk; may be repeated."`
	SystemContext string   `placeholder:"NAME" help:"NATS context of a user of the broker's system account, to ask all servers instead."`
	shell.Topology
}

// Help is shown below the command's summary.
func (doctorCmd) Help() string {
	return `It looks at the broker's and the services' versions, the streams and consumers, their replicas, clocks, storage and how it is synced to the disk, agents without a worker, paused queues, workers that do not answer, runs that nothing would move any more, statuses that say something else than the run's log, checkpoints that no log names, how far statuses lag behind, what statekeepers have put right by themselves, and what the broker refuses. With --fix it creates and updates what it may on the broker, and has a statekeeper put right now what it would in minutes. Exit code 0: all is well, or is now; 1: something is wrong.

Examples:

    longhaul doctor
    longhaul doctor --fix
    longhaul doctor --monitor http://127.0.0.1:8222
    longhaul doctor --broker --replicas 3 --monitor http://n1:8222 --monitor http://n2:8222 --monitor http://n3:8222
    longhaul doctor --json | jq '.findings[] | select(.state == "wrong")'`
}

// The states of a finding.
const (
	findingOK    = "ok"
	findingWrong = "wrong"
	findingFixed = "fixed"
	// findingUnknown is what could not be asked; the words say how it could. It is no fault.
	findingUnknown = "unknown"
)

// finding is one thing that the doctor saw.
type finding struct {
	What  string   `json:"what"`
	State string   `json:"state"`
	Words string   `json:"words"`
	Names []string `json:"names,omitempty"` // of the runs, keys, workers or settings meant
}

// examination is one call of the doctor.
type examination struct {
	*doctorCmd
	app      *app
	nc       *nats.Conn
	js       jetstream.JetStream
	client   *client.Client
	holders  map[string]*holder // by worker, known after ask
	served   map[string]bool    // agents of which somebody executes a run; the same, nil if nobody could tell
	paused   map[string]bool    // by pausedKey, known after agents
	findings []finding

	replicas int           // the fewest of any stream, known after streams
	heard    int           // how often the broker told its time
	offset   time.Duration // of its clock from ours
	within   time.Duration // so exactly is that known
}

// Run runs the command.
func (d *doctorCmd) Run(ctx context.Context, a *app) error {
	nc, err := a.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	x := &examination{doctorCmd: d, app: a, nc: nc}
	if x.js, err = jsutil.JetStream(nc); err == nil {
		x.client, err = client.New(nc)
	}
	if err != nil {
		return err
	}
	for _, look := range []struct {
		what    string
		at      func(context.Context) error
		further bool // than the broker
	}{
		{"broker", x.broker, false}, {"topology", x.topology, false}, {"replicas", x.streams, false}, {"servers", x.servers, false},
		{"account", x.account, false}, {"clocks", x.clocks, false}, {"workers", x.ask, true},
		{"agents", x.agents, true}, {"workers", x.workers, true}, {"statuses lag", x.lag, true}, {"runs", x.runs, true}, {"repairs", x.repairs, true},
		{lastLook, x.permissions, false},
	} {
		switch {
		case look.further && d.Broker:
		case look.what != lastLook && x.refused() != nil: // each further question would wait for an answer that does not come
		default:
			x.failed(look.what, look.at(ctx))
		}
	}
	return x.report(a)
}

// lastLook is made in any case.
const lastLook = "permissions"

// refused is what the broker has refused to this user, nil if nothing.
func (x *examination) refused() error {
	if err := x.nc.LastError(); errors.Is(err, nats.ErrPermissionViolation) {
		return err
	}
	return nil
}

func (x *examination) say(what, state, words string, names ...string) {
	x.findings = append(x.findings, finding{what, state, words, names})
}

// failed notes that something could not be looked at.
func (x *examination) failed(what string, err error) {
	if err != nil {
		words := "cannot be looked at: " + err.Error()
		if errors.Is(err, client.ErrNoStatekeeper) {
			words += "; start one: longhaul statekeeper"
		}
		x.say(what, findingWrong, words)
	}
}

// shownNames bounds the names shown of one finding; --json has all.
const shownNames = 5

func (x *examination) report(a *app) error {
	wrong := 0
	for _, f := range x.findings {
		mark := a.out.green("✓")
		switch f.State {
		case findingWrong:
			wrong++
			mark = a.out.red("✗")
		case findingFixed:
			mark = a.out.yellow("✓ fixed:")
		case findingUnknown:
			mark = a.out.dim("?")
		}
		if a.JSON {
			continue
		}
		a.out.printf("%s %s: %s\n", mark, a.out.bold(f.What), oneLine(f.Words, 400))
		for i, name := range f.Names {
			if i == shownNames {
				a.out.printf("    … and %d more\n", len(f.Names)-i)
				break
			}
			a.out.printf("    %s\n", oneLine(strings.TrimSpace(name), 120))
		}
	}
	if a.JSON {
		err := a.printJSON(struct {
			OK       bool      `json:"ok"`
			Findings []finding `json:"findings"`
		}{wrong == 0, x.findings})
		if err != nil {
			return err
		}
	} else if wrong > 0 && !x.Fix {
		a.err.next("put right what can be put right", "longhaul doctor --fix")
	}
	if wrong > 0 {
		return &codedError{code: exitError}
	}
	return nil
}
