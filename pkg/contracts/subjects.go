package contracts

import (
	"fmt"
	"strconv"
	"strings"
)

// Subjects with no id in them (DESIGN "Names on the wire").
const (
	SubjectSubmit = "runs.submit"
	// A request to a dispatcher in place of a message to the inbox (ADR 21).
	SubjectSubmitDirect = "runs.submit.direct"

	SubjectAllCancel  = "runs.*.cancel"
	SubjectAllRedrive = "runs.*.redrive"
	SubjectAllSignal  = "runs.*.signal"
	SubjectAllEvents  = "runs.*.events"
	SubjectAllLog     = "runs.*.log"
	// Five tokens, written out: runs.work.> would overlap with runs.*.cancel.
	SubjectAllWork = "runs.work.*.*.*"
	// Schedules live at four tokens, clear of the three-token pattern runs.*.x.
	SubjectAllScheduleAt  = "runs.schedule.at.*"
	SubjectAllScheduleDue = "runs.schedule.due.*"
	SubjectAPI            = "runs.api"
)

// Streams and buckets.
const (
	StreamInbox    = "RUNS_INBOX"
	StreamWork     = "RUNS_WORK"
	StreamLog      = "RUNS_LOG"
	StreamSchedule = "RUNS_SCHEDULE"
	BucketRuns     = "runs"
	BucketAgents   = "agents"
	// StreamRuns and StreamAgents are the streams behind the two buckets.
	StreamRuns   = "KV_" + BucketRuns
	StreamAgents = "KV_" + BucketAgents
)

// Consumers that services share by name.
const (
	ConsumerSubmit    = "dispatcher-submit"
	ConsumerCommands  = "dispatcher-commands"
	ConsumerSignals   = "dispatcher-signals"
	ConsumerSchedule  = "dispatcher-schedule"
	ConsumerProjector = "statekeeper-projector"
)

// HeaderLogSequence is on every work message: the stream sequence in RUNS_LOG
// of the run.queued event that the message repeats, so that a worker can append
// run.started without a read.
const HeaderLogSequence = "Longhaul-Log-Sequence"

// HeaderTraceparent and HeaderTracestate may be on a submission: what its run's
// spans are a part of, as W3C Trace Context has it.
const (
	HeaderTraceparent = "traceparent"
	HeaderTracestate  = "tracestate"
)

// HeaderContentType is on a checkpoint's entry in bucket runs if the state is
// not JSON.
const (
	HeaderContentType = "Content-Type"
	ContentTypeBinary = "application/octet-stream"
)

// EventsSubject is where a run's committed events are read. Like all builders
// here it panics on an id that its Check function refuses: ids from outside
// are checked where they come in, and a bug must not become a wildcard.
func EventsSubject(runID string) string { return "runs." + mustRunID(runID) + ".events" }

// LogSubject is where a run's events are appended.
func LogSubject(runID string) string { return "runs." + mustRunID(runID) + ".log" }

// CancelSubject takes a durable CancelCommand.
func CancelSubject(runID string) string { return "runs." + mustRunID(runID) + ".cancel" }

// RedriveSubject takes a durable RedriveCommand.
func RedriveSubject(runID string) string { return "runs." + mustRunID(runID) + ".redrive" }

// SignalSubject takes a durable SignalCommand.
func SignalSubject(runID string) string { return "runs." + mustRunID(runID) + ".signal" }

// WorkSubject is the one subject on which a run can wait for a worker.
func WorkSubject(agentKey string, p Priority, runID string) string {
	return "runs.work." + mustAgentKey(agentKey) + "." + mustPriority(p) + "." + mustRunID(runID)
}

// WorkFilter matches the work of one agent and priority.
func WorkFilter(agentKey string, p Priority) string {
	return "runs.work." + mustAgentKey(agentKey) + "." + mustPriority(p) + ".*"
}

// WorkConsumer names the durable consumer of one agent and priority.
func WorkConsumer(agentKey string, p Priority) string {
	return "work-" + mustAgentKey(agentKey) + "-" + mustPriority(p)
}

// WorkerSubject is where a worker answers a HolderRequest.
func WorkerSubject(workerID string) string {
	return "runs.worker." + checked("worker id", workerID, CheckWorkerID)
}

// ScheduleAtSubject holds the schedule of a run that waits for its not_before.
func ScheduleAtSubject(runID string) string { return "runs.schedule.at." + mustRunID(runID) }

// ScheduleDueSubject receives the message that the broker makes when it is time.
func ScheduleDueSubject(runID string) string { return "runs.schedule.due." + mustRunID(runID) }

// APISubject is one endpoint of statekeeper's service.
func APISubject(endpoint string) string { return SubjectAPI + "." + endpoint }

// StatusKey is a run's status record in bucket runs.
func StatusKey(runID string) string { return "status." + mustRunID(runID) }

// IdempotencyKey is where the run that holds an idempotency key is written
// down in bucket runs. The key itself is hashed: it may hold any character.
func IdempotencyKey(key string) string { return "key." + RunIDFromKey(key) }

// ConversationKey is where the newest runs of a conversation are written down
// in bucket runs: their ids in the order in which they have their turn, with
// spaces between them. The conversation's id is hashed.
func ConversationKey(conversationID string) string {
	return "conversation." + RunIDFromKey(conversationID)
}

// CheckpointKey is one checkpoint's state in bucket runs. The epoch is in it so
// that a fenced worker can only ever write beside its successor, never over it.
func CheckpointKey(runID string, epoch, n uint64) string {
	return fmt.Sprintf("checkpoint.%s.%d.%d", mustRunID(runID), epoch, n)
}

// RoundKey is where it is settled in bucket runs what follows the event at a
// sequence of RUNS_LOG, by which a run has ended: a redrive or the run's removal.
// Whoever creates the key may go on, and the other may not.
func RoundKey(runID string, sequence uint64) string {
	return fmt.Sprintf("round.%s.%d", mustRunID(runID), sequence)
}

// RunIDOfRoundKey is the run that a RoundKey is about.
func RunIDOfRoundKey(key string) (string, bool) {
	t := strings.Split(key, ".")
	if len(t) != 3 || t[0] != "round" || CheckRunID(t[1]) != nil {
		return "", false
	}
	return t[1], true
}

// What stands on a RoundKey.
const (
	RoundRedrive = "redrive"
	RoundRemoval = "removal"
)

// KVSubject is the subject that a bucket's key is stored on.
func KVSubject(bucket, key string) string { return "$KV." + bucket + "." + key }

// RunIDOfSubject returns the run id of runs.<id>.<last> for one of a run's own
// subjects, of a work subject and of a schedule subject.
func RunIDOfSubject(subject string) (string, error) {
	var id string
	switch t := strings.Split(subject, "."); {
	case len(t) == 3 && t[0] == "runs": // of runs.worker.x and runs.api.x the second is no run id
		id = t[1]
	case len(t) == 5 && t[0] == "runs" && t[1] == "work":
		id = t[4]
	case len(t) == 4 && t[0] == "runs" && t[1] == "schedule":
		id = t[3]
	default:
		return "", fmt.Errorf("subject %s belongs to no run", quote(subject))
	}
	if err := CheckRunID(id); err != nil {
		return "", fmt.Errorf("subject %s: run id %w", quote(subject), err)
	}
	return id, nil
}

// ParseCheckpointKey is the inverse of CheckpointKey.
func ParseCheckpointKey(key string) (runID string, epoch, n uint64, err error) {
	t := strings.Split(key, ".")
	if len(t) == 4 && t[0] == "checkpoint" && CheckRunID(t[1]) == nil {
		var err1, err2 error
		epoch, err1 = strconv.ParseUint(t[2], 10, 64)
		n, err2 = strconv.ParseUint(t[3], 10, 64)
		if err1 == nil && err2 == nil {
			return t[1], epoch, n, nil
		}
	}
	return "", 0, 0, fmt.Errorf("key %s names no checkpoint", quote(key))
}

func mustRunID(id string) string { return checked("run id", id, CheckRunID) }

func mustAgentKey(key string) string { return checked("agent key", key, CheckAgentKey) }

func mustPriority(p Priority) string { return checked("priority", string(p), checkPriority) }

func checked(what, value string, check func(string) error) string {
	if err := check(value); err != nil {
		panic("contracts: " + what + " " + err.Error())
	}
	return value
}
