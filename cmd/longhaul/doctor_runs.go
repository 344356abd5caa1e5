package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/services/statekeeper"
)

// agents looks for agents that nobody serves, and for queues that are paused.
func (x *examination) agents(ctx context.Context) error {
	agents, err := x.client.Agents(ctx)
	if err != nil {
		return err
	}
	var deaf, paused []string
	x.paused = make(map[string]bool)
	for _, a := range agents {
		open := uint64(0) // what waits at queues that are not paused
		for _, q := range a.Queues {
			if q.Pause == nil {
				open += q.Queued
				continue
			}
			x.paused[pausedKey(a.AgentKey, q.Priority)] = true
			paused = append(paused, fmt.Sprintf("%s, %s priority (%s waiting), is %s", a.AgentKey, q.Priority, plural(int(q.Queued), "run"), x.app.pauseWords(*q.Pause))) //nolint:gosec // a count of messages
		}
		// Who holds runs may have no free slot. Behind a pause nobody need listen.
		busy := x.served[a.AgentKey] || x.served == nil && a.Held > 0
		if !a.Listening && !busy && (open > 0 || len(x.paused) == 0 || !x.allPaused(a)) {
			deaf = append(deaf, fmt.Sprintf("%s (%s waiting)", a.AgentKey, plural(int(a.Queued), "run"))) //nolint:gosec // a count of messages
		}
	}
	if len(deaf) > 0 {
		x.say("agents", findingWrong, fmt.Sprintf("%d of %s without a worker that listens: start one, or delete what is not needed any more (nats kv del agents KEY)", len(deaf), plural(len(agents), "agent")), deaf...)
	} else {
		x.say("agents", findingOK, plural(len(agents), "agent")+" registered, each with a worker")
	}
	if len(paused) > 0 {
		x.say("queues", findingOK, plural(len(paused), "queue")+" paused by an operator: what waits there is not stuck, longhaul resume AGENT lets it go on", paused...)
	} else {
		x.say("queues", findingOK, "none is paused")
	}
	return nil
}

func pausedKey(agentKey string, p contracts.Priority) string { return agentKey + " " + string(p) }

// allPaused reports whether each of an agent's queues is paused.
func (x *examination) allPaused(a client.Agent) bool {
	return len(a.Queues) > 0 && !slices.ContainsFunc(a.Queues, func(q client.Queue) bool { return q.Pause == nil })
}

// holder is a worker that holds runs, as far as statuses say.
type holder struct {
	runs   int
	queues map[string]int // the same by pausedKey
	alive  bool
}

// ask asks everybody who holds runs whether it lives, and notes of which agents
// somebody does.
func (x *examination) ask(ctx context.Context) error {
	x.holders, x.served = make(map[string]*holder), make(map[string]bool)
	of := make(map[string][]string) // agents by worker
	req := contracts.ListRequest{Status: []contracts.Status{contracts.StatusRunning, contracts.StatusCancelling}, Limit: contracts.MaxListLimit}
	for {
		page, err := x.client.List(ctx, req)
		if err != nil {
			x.served = nil
			return err
		}
		for _, r := range page.Runs {
			h := x.holders[r.WorkerID]
			if h == nil {
				h = &holder{queues: map[string]int{}}
				x.holders[r.WorkerID] = h
			}
			h.runs++
			h.queues[pausedKey(r.AgentKey, r.Priority)]++
			of[r.WorkerID] = append(of[r.WorkerID], r.AgentKey)
		}
		if req.Cursor = page.Cursor; req.Cursor == "" {
			break
		}
	}
	for id, h := range x.holders {
		once, cancel := context.WithTimeout(ctx, time.Second)
		_, err := jsutil.AskHolder(once, x.nc, id, contracts.HolderRequest{Op: contracts.HolderPing})
		cancel()
		if h.alive = err == nil; h.alive {
			for _, key := range of[id] {
				x.served[key] = true
			}
		}
	}
	return nil
}

// workers tells who holds runs and does not answer.
func (x *examination) workers(context.Context) error {
	if x.served == nil {
		return nil // ask has said why
	}
	var mute, behind []string
	for id, h := range x.holders {
		waits := 0 // of its runs, behind a pause
		for key, n := range h.queues {
			if x.paused[key] {
				waits += n
			}
		}
		switch {
		case h.alive:
		case waits == h.runs:
			behind = append(behind, fmt.Sprintf("%s (held %s)", id, plural(h.runs, "run")))
		default:
			mute = append(mute, fmt.Sprintf("%s (holds %s)", id, plural(h.runs, "run")))
		}
	}
	switch {
	case len(mute) > 0:
		x.say("workers", findingWrong, plural(len(mute), "worker")+" that should hold runs give no answer; statekeeper gives their runs to others, if there are such", mute...)
	case len(behind) > 0:
		x.say("workers", findingOK, plural(len(behind), "worker")+" that held runs have gone; the runs go on elsewhere when their queue is resumed", behind...)
	default:
		x.say("workers", findingOK, plural(len(x.holders), "worker")+" that hold runs answer")
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
	var keepers []keeper
	sum := statekeeper.Stats{}
	for {
		ctx, cancel := context.WithTimeout(ctx, statsWait)
		m, err := answers.NextMsgWithContext(ctx)
		cancel()
		if err != nil || len(m.Data) == 0 { // all have answered, or none is there
			break
		}
		var one keeper
		var n statekeeper.Stats
		err = json.Unmarshal(m.Data, &one)
		if err == nil && len(one.Endpoints) > 0 {
			err = json.Unmarshal(one.Endpoints[0].Data, &n) // the same at all
		}
		if err != nil {
			return fmt.Errorf("decode the answer: %w", err)
		}
		keepers = append(keepers, one)
		sum.Takeovers, sum.Requeued, sum.Released = sum.Takeovers+n.Takeovers, sum.Requeued+n.Requeued, sum.Released+n.Released
		sum.Repaired, sum.Orphans, sum.Expired = sum.Repaired+n.Repaired, sum.Orphans+n.Orphans, sum.Expired+n.Expired
	}
	if len(keepers) == 0 {
		return client.ErrNoStatekeeper
	}
	x.versions(keepers)
	x.say("repairs", findingOK, fmt.Sprintf("since %s: %s of dead workers given back, %s that had lost its work queued again, "+
		"%s given back that nobody had begun with, %s written anew, %s that no log named removed, %s removed after retention",
		plural(len(keepers), "statekeeper")+" began", plural(int(sum.Takeovers), "lease"), plural(int(sum.Requeued), "run"),
		plural(int(sum.Released), "lease"), fmt.Sprintf("%d of the statuses", sum.Repaired), plural(int(sum.Orphans), "checkpoint"), plural(int(sum.Expired), "run")))
	return nil
}

// statsWait is how long the next statekeeper's answer is waited for.
const statsWait = 300 * time.Millisecond
