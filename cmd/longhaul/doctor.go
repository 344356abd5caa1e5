package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/services/statekeeper"
)

// doctorCmd looks for what is wrong.
type doctorCmd struct {
	Fix bool `help:"Put right what can be put right."`
	topologyFlags
}

// Help is shown below the command's summary.
func (doctorCmd) Help() string {
	return `It looks at the broker, its streams and consumers, agents without a worker, workers that do not answer, runs that nothing would move any more, statuses that say something else than the run's log, checkpoints that no log names, how far statuses lag behind, and what statekeepers have put right by themselves. With --fix it creates and updates what it may on the broker, and has a statekeeper put right now what it would in minutes. Exit code 0: all is well, or is now; 1: something is wrong.

Examples:

    longhaul doctor
    longhaul doctor --fix
    longhaul doctor --json | jq '.findings[] | select(.state == "wrong")'`
}

// The states of a finding.
const (
	findingOK    = "ok"
	findingWrong = "wrong"
	findingFixed = "fixed"
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
	nc       *nats.Conn
	js       jetstream.JetStream
	client   *client.Client
	findings []finding
}

// Run runs the command.
func (d *doctorCmd) Run(ctx context.Context, a *app) error {
	nc, err := a.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	x := &examination{doctorCmd: d, nc: nc}
	if x.js, err = jsutil.JetStream(nc); err == nil {
		x.client, err = client.New(nc)
	}
	if err != nil {
		return err
	}
	x.say("broker", findingOK, fmt.Sprintf("nats-server %s answers", nc.ConnectedServerVersion()))
	for _, look := range []struct {
		what string
		at   func(context.Context) error
	}{{"topology", x.topology}, {"agents", x.agents}, {"workers", x.workers}, {"statuses lag", x.lag}, {"runs", x.runs}, {"repairs", x.repairs}} {
		x.failed(look.what, look.at(ctx))
	}
	return x.report(a)
}

func (x *examination) say(what, state, words string, names ...string) {
	x.findings = append(x.findings, finding{what, state, words, names})
}

// failed notes that something could not be looked at.
func (x *examination) failed(what string, err error) {
	if err != nil {
		x.say(what, findingWrong, "cannot be looked at: "+err.Error())
	}
}

func (x *examination) topology(ctx context.Context) error {
	top := jsutil.NewTopology(x.options())
	differences, err := jsutil.VerifyTopology(ctx, x.js, top)
	if err != nil {
		return err
	}
	var names []string
	for _, d := range differences {
		names = append(names, fmt.Sprintf("%s %s is %s, wanted %s", d.Object, d.Setting, d.Have, d.Want))
	}
	if len(names) == 0 {
		x.say("topology", findingOK, "streams and consumers are as they should be")
		return nil
	}
	state := findingWrong
	if x.Fix {
		if err := jsutil.EnsureTopology(ctx, x.js, top); err != nil {
			return err
		}
		state = findingFixed
	}
	x.say("topology", state, plural(len(names), "setting")+" of streams and consumers differ", names...)
	return nil
}

func (x *examination) agents(ctx context.Context) error {
	agents, err := x.client.Agents(ctx)
	if err != nil {
		return err
	}
	var deaf []string
	for _, a := range agents {
		if !a.Listening && a.Held == 0 { // who holds runs may have no free slot
			deaf = append(deaf, fmt.Sprintf("%s (%s waiting)", a.AgentKey, plural(int(a.Queued), "run")))
		}
	}
	if len(deaf) > 0 {
		x.say("agents", findingWrong, fmt.Sprintf("%d of %s without a worker that listens", len(deaf), plural(len(agents), "agent")), deaf...)
	} else {
		x.say("agents", findingOK, plural(len(agents), "agent")+" registered, each with a worker")
	}
	return nil
}

// workers asks everybody who holds runs whether it lives.
func (x *examination) workers(ctx context.Context) error {
	held := make(map[string]int)
	req := contracts.ListRequest{Status: []contracts.Status{contracts.StatusRunning, contracts.StatusCancelling}, Limit: contracts.MaxListLimit}
	for {
		page, err := x.client.List(ctx, req)
		if err != nil {
			return err
		}
		for _, r := range page.Runs {
			held[r.WorkerID]++
		}
		if req.Cursor = page.Cursor; req.Cursor == "" {
			break
		}
	}
	var mute []string
	for id, n := range held {
		once, cancel := context.WithTimeout(ctx, time.Second)
		_, err := jsutil.AskHolder(once, x.nc, id, contracts.HolderRequest{Op: contracts.HolderPing})
		cancel()
		if err != nil {
			mute = append(mute, fmt.Sprintf("%s (holds %s)", id, plural(n, "run")))
		}
	}
	if len(mute) > 0 {
		x.say("workers", findingWrong, plural(len(mute), "worker")+" that hold runs do not answer; statekeeper gives their runs to others", mute...)
	} else {
		x.say("workers", findingOK, plural(len(held), "worker")+" that hold runs answer")
	}
	return nil
}

// muchLag is how many events statekeeper may be behind before it is wrong.
const muchLag = 10_000

func (x *examination) lag(ctx context.Context) error {
	cons, err := x.js.Consumer(ctx, contracts.StreamLog, contracts.ConsumerProjector)
	if err != nil {
		return jsutil.Translate(err)
	}
	info, state := cons.CachedInfo(), findingOK
	behind := info.NumPending + uint64(info.NumAckPending)
	if behind > muchLag {
		state = findingWrong
	}
	x.say("statuses lag", state, plural(int(behind), "event")+" behind the logs")
	return nil
}

// runs has statekeeper look at every run.
func (x *examination) runs(ctx context.Context) error {
	did, err := x.client.Sweep(ctx, contracts.SweepRequest{DryRun: !x.Fix})
	if err != nil {
		return err
	}
	for _, f := range []struct {
		what, well, bad string
		names           []string
	}{
		{"stuck runs", "no live run has lost its work message or schedule", "live and with nothing to wait with: no work message, no schedule", did.Requeued},
		{"leases", "no lease is with a worker that never began", "handed to a worker that never began it", did.Released},
		{"statuses", "every status says what its log says", "whose status says something else than the log", did.Statuses},
		{"checkpoints", "every checkpoint is named by a log", "that no log names", did.Checkpoints},
	} {
		noun := "run"
		if f.what == "checkpoints" {
			noun = "checkpoint"
		}
		switch {
		case len(f.names) == 0:
			x.say(f.what, findingOK, f.well)
		case x.Fix:
			x.say(f.what, findingFixed, plural(len(f.names), noun)+" "+f.bad, f.names...)
		default:
			x.say(f.what, findingWrong, plural(len(f.names), noun)+" "+f.bad, f.names...)
		}
	}
	switch words := plural(len(did.Expired), "run") + " ended longer ago than it is kept"; {
	case len(did.Expired) == 0:
		x.say("retention", findingOK, "no run is kept longer than it shall be")
	case x.Fix:
		x.say("retention", findingFixed, words+", removed", did.Expired...)
	default: // nothing is wrong: the next sweeps take them
		x.say("retention", findingOK, words+" and goes in a moment", did.Expired...)
	}
	return nil
}

// repairs tells what the statekeepers have put right by themselves, and removed.
func (x *examination) repairs(ctx context.Context) error {
	answers, err := x.nc.SubscribeSync(x.nc.NewInbox())
	if err != nil {
		return err
	}
	defer func() { _ = answers.Unsubscribe() }() // the connection ends with us
	if err := x.nc.PublishRequest("$SRV.STATS."+contracts.ServiceName, answers.Subject, nil); err != nil {
		return err
	}
	keepers, sum := 0, statekeeper.Stats{}
	for {
		ctx, cancel := context.WithTimeout(ctx, statsWait)
		m, err := answers.NextMsgWithContext(ctx)
		cancel()
		if err != nil || len(m.Data) == 0 { // all have answered, or none is there
			break
		}
		var one struct {
			Endpoints []struct {
				Data statekeeper.Stats `json:"data"`
			} `json:"endpoints"`
		}
		if err := json.Unmarshal(m.Data, &one); err != nil {
			return fmt.Errorf("decode the answer: %w", err)
		}
		if keepers++; len(one.Endpoints) == 0 {
			continue
		}
		n := one.Endpoints[0].Data // the same at all
		sum.Takeovers, sum.Requeued, sum.Released = sum.Takeovers+n.Takeovers, sum.Requeued+n.Requeued, sum.Released+n.Released
		sum.Repaired, sum.Orphans, sum.Expired = sum.Repaired+n.Repaired, sum.Orphans+n.Orphans, sum.Expired+n.Expired
	}
	if keepers == 0 {
		return client.ErrNoStatekeeper
	}
	x.say("repairs", findingOK, fmt.Sprintf("since %s: %s of dead workers given back, %s that had lost its work queued again, "+
		"%s given back that nobody had begun with, %s written anew, %s that no log named removed, %s removed after retention",
		plural(keepers, "statekeeper")+" began", plural(int(sum.Takeovers), "lease"), plural(int(sum.Requeued), "run"),
		plural(int(sum.Released), "lease"), fmt.Sprintf("%d of the statuses", sum.Repaired), plural(int(sum.Orphans), "checkpoint"), plural(int(sum.Expired), "run")))
	return nil
}

// statsWait is how long the next statekeeper's answer is waited for.
const statsWait = 300 * time.Millisecond

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
