package check

import (
	"fmt"
	"strings"
	"time"
)

// position is where a run stands, folded from its log by this package.
type position struct {
	seq        uint64
	status     string
	agentKey   string
	priority   string
	epoch      uint64
	attempt    int
	max        int
	worker     string
	checkpoint *checkpoint
	notBefore  time.Time
	waitsFor   string
}

// step is one event and where the run stood before and after it.
type step struct {
	before, after position
	event
	// stale: the event is of an older epoch than the run has reached; it moves nothing.
	stale bool
}

// next is the table of statuses, as docs/protocol.md draws it. "*" is any type
// that an agent may emit.
var next = map[string]map[string]string{
	"":          {queued: "pending", scheduled: "scheduled", rejected: "rejected"},
	"scheduled": {queued: "pending", cancelled: "cancelled"},
	"pending":   {started: "running", cancelled: "cancelled", failed: "failed", timedOut: "timed_out", requeued: "pending", signalled: "pending"},
	"running": {
		"*": "running", heartbeat: "running", checkpointed: "running", stepCompleted: "running", started: "running",
		retrying: "pending", sleeping: "pending", requeued: "pending", cancelRequested: "cancelling",
		succeeded: "succeeded", failed: "failed", timedOut: "timed_out",
	},
	"cancelling": {"*": "cancelling", heartbeat: "cancelling", checkpointed: "cancelling", stepCompleted: "cancelling", cancelled: "cancelled"},
	"failed":     {requeued: "pending"},
	"timed_out":  {requeued: "pending"},
	"cancelled":  {requeued: "pending"},
}

// leads is the status that an event leads to; false if it may not come there.
func leads(status, eventType string) (string, bool) {
	if area, _, _ := strings.Cut(eventType, "."); area != "run" && area != "state" && area != "step" {
		eventType = "*"
	}
	to, ok := next[status][eventType]
	return to, ok
}

// fold goes through a run's log.
func fold(events []event) []step {
	steps := make([]step, 0, len(events))
	var at position
	for _, e := range events {
		st := step{before: at, event: e, stale: e.Epoch < at.epoch}
		if !st.stale {
			st.after = follow(at, e)
			// One breach is told once: go on from where the log says it is.
			at = position{e.Seq, e.Status, e.AgentKey, e.Priority, e.Epoch, e.Attempt, e.MaxAttempts, e.WorkerID, e.Checkpoint, e.NotBefore, e.WaitsFor}
		} else {
			st.after = at
		}
		steps = append(steps, st)
	}
	return steps
}

// follow is where the run has to stand after e.
func follow(at position, e event) position {
	to := at
	to.seq++
	to.notBefore, to.waitsFor = time.Time{}, ""
	if status, ok := leads(at.status, e.Type); ok {
		to.status = status
	} else {
		to.status = e.Status // told by logKeepsTable
	}
	if at.status == "" {
		to.agentKey, to.priority, to.max = e.AgentKey, e.Priority, e.MaxAttempts
	}
	switch e.Type {
	case scheduled, retrying:
		to.notBefore, to.worker = e.NotBefore, ""
	case sleeping: // it goes on as the same attempt
		to.notBefore, to.waitsFor, to.worker, to.attempt = e.NotBefore, e.body.Signal, "", at.attempt-1
	case signalled: // what it waits for ends its wait; any other leaves it as it was
		if at.waitsFor == "" || at.waitsFor != e.body.Name && at.waitsFor != "*" {
			to.notBefore, to.waitsFor = at.notBefore, at.waitsFor
		}
	case started:
		to.epoch, to.attempt, to.worker = at.epoch+1, at.attempt+1, e.WorkerID
	case requeued:
		to.worker = ""
		switch {
		case held(at.status): // a drain: the attempt is not charged
			to.attempt--
		case at.status == "pending": // its work was lost: it waits as before
			to.notBefore, to.waitsFor = at.notBefore, at.waitsFor
		default: // a redrive
			to.attempt = 0
			if e.body.FromStart {
				to.checkpoint = nil
			}
		}
	case checkpointed:
		to.checkpoint = e.Checkpoint
	}
	return to
}

// round is what lies between two redrives.
type round struct {
	steps []step
	// open: it has no terminal event.
	open bool
}

// rounds cuts a log at its redrives.
func rounds(steps []step) []round {
	var all []round
	for _, st := range steps {
		if len(all) == 0 || st.Type == requeued && redrivable(st.before.status) {
			all = append(all, round{open: true})
		}
		r := &all[len(all)-1]
		r.steps = append(r.steps, st)
		if terminal(st.Type) {
			r.open = false
		}
	}
	return all
}

// last is where the run stands at the end.
func last(steps []step) position {
	for i := len(steps) - 1; i >= 0; i-- {
		if !steps[i].stale {
			e := steps[i].event
			return position{e.Seq, e.Status, e.AgentKey, e.Priority, e.Epoch, e.Attempt, e.MaxAttempts, e.WorkerID, e.Checkpoint, e.NotBefore, e.WaitsFor}
		}
	}
	return position{}
}

// name is an event in a sentence.
func (e event) name() string { return fmt.Sprintf("%s (seq %d, epoch %d)", e.Type, e.Seq, e.Epoch) }
