package history

import (
	"encoding/json"
	"strings"
	"time"
)

// Kind is what sort of thing an entry tells of.
type Kind string

// The kinds, each with its operations and with the detail that it carries.
const (
	// KindSubmit: invoke, then ok (the broker's PubAck), fail (refused for
	// certain) or unknown. Entry.Run is the run id if the submitter chose one;
	// the ok entry of an own choice repeats it. Entry.Submit on the invoke.
	KindSubmit Kind = "submit"
	// KindCancel and KindRedrive: as KindSubmit, Entry.Run always set,
	// no detail.
	KindCancel  Kind = "cancel"
	KindRedrive Kind = "redrive"
	// KindRead: begin (Entry.Read.From), any number of info, each with what was
	// seen since the one before, and end. A reader that was killed has no end.
	KindRead Kind = "read"
	// KindExec: begin and end of one execution of an agent. Entry.Exec. A killed
	// worker has no end.
	KindExec Kind = "exec"
	// KindStep: info, written by an agent when it has done step Entry.Exec.Step,
	// before the checkpoint that covers it. Entry.Exec tells the execution. That of
	// a durable step has the text that Durable makes.
	KindStep Kind = "step"
	// KindCheckpoint: invoke, then ok (the log is said to hold it), fail or
	// unknown: an agent's checkpoint. Entry.Exec, with its Stamp.
	KindCheckpoint Kind = "checkpoint"
	// KindAppend: invoke, then ok (Entry.Append.Seq is the answer), fail (the
	// compare-and-set was refused) or unknown: a raw appender racing for a log
	// that belongs to no run of the services.
	KindAppend Kind = "append"
	// KindFault: begin and end of a fault, or info for one without duration.
	// Entry.Fault.
	KindFault Kind = "fault"
	// KindNote: info; Entry.Text. The harness writes "healed" when the last fault
	// is over, and "end" when it has stopped waiting, both by Entry.Note.
	KindNote Kind = "note"
)

// Op is the place of an entry in the life of what it tells of.
type Op string

// The operations. A timeout is unknown, never failed: fail says that it did not
// happen and will not.
const (
	OpInvoke  Op = "invoke"
	OpOK      Op = "ok"
	OpFail    Op = "fail"
	OpUnknown Op = "unknown"
	OpBegin   Op = "begin"
	OpEnd     Op = "end"
	OpInfo    Op = "info"
)

// Notes that the checker understands, in Entry.Note.
const (
	// NoteConfig is written once at the start; Entry.Config.
	NoteConfig = "config"
	// NoteHealed: from here on no fault is in force.
	NoteHealed = "healed"
	// NoteEnd: the dumps of the streams were taken after this.
	NoteEnd = "end"
)

// Entry is one line.
type Entry struct {
	// Time is the wall clock of whoever writes, RFC 3339 with nanoseconds. The
	// nemesis may skew a worker's; the harness itself keeps to one.
	Time time.Time `json:"t"`
	// Mono is nanoseconds since the harness began, by the monotonic clock of the
	// machine; 0 if the writer does not know it.
	Mono  int64  `json:"mono,omitempty"`
	Actor string `json:"actor"`
	Kind  Kind   `json:"kind"`
	Op    Op     `json:"op"`
	// ID ties invoke and outcome, begin and end: unique per actor.
	ID  int64  `json:"id,omitempty"`
	Run string `json:"run,omitempty"`
	// Key is a submission's idempotency key.
	Key string `json:"key,omitempty"`
	// Error tells a fail or an unknown in words.
	Error string `json:"error,omitempty"`
	Note  string `json:"note,omitempty"`
	Text  string `json:"text,omitempty"`

	Submit *Submit `json:"submit,omitempty"`
	Read   *Read   `json:"read,omitempty"`
	Exec   *Exec   `json:"exec,omitempty"`
	Append *Append `json:"append,omitempty"`
	Fault  *Fault  `json:"fault,omitempty"`
	Config *Config `json:"config,omitempty"`
}

// Submit is what was submitted.
type Submit struct {
	Agent    string `json:"agent"`
	Priority string `json:"priority,omitempty"`
	// NotBefore is zero for now.
	NotBefore time.Time `json:"not_before,omitzero"`
	// StartTimeout and Timeout are seconds, 0 for none.
	StartTimeout int `json:"start_timeout,omitempty"`
	Timeout      int `json:"timeout,omitempty"`
	MaxAttempts  int `json:"max_attempts,omitempty"`
	// Conversation is the one that the run is to belong to, OnConflict what it
	// asks for there.
	Conversation string `json:"conversation,omitempty"`
	OnConflict   string `json:"on_conflict,omitempty"`
	// Garbage: the body breaks a rule, and the run has to end as rejected (or,
	// where no run id can be read out of it, in a log of its own).
	Garbage bool `json:"garbage,omitempty"`
	// Probe: submitted after the faults, to see that what went wrong before does
	// not hold up what comes now.
	Probe bool `json:"probe,omitempty"`
	// InboxSeq, on ok, is the sequence in the broker's answer.
	InboxSeq  uint64 `json:"inbox_seq,omitempty"`
	Duplicate bool   `json:"duplicate,omitempty"`
}

// Read is what a reader asked for and saw. Seq is an event's own, not the
// stream's.
type Read struct {
	// From is the first seq that was asked for, on begin.
	From uint64 `json:"from,omitempty"`
	// Seqs are the events seen since the entry before, in the order of their
	// arrival.
	Seqs []uint64 `json:"seqs,omitempty"`
	// Gap: the reader was told that what it asked for is not there any more, and
	// goes on at Next.
	Gap  bool   `json:"gap,omitempty"`
	Next uint64 `json:"next,omitempty"`
	// Terminal, on end: the reader ended because it saw a terminal event. Else it
	// was told to stop, or its connection was closed.
	Terminal bool `json:"terminal,omitempty"`
}

// Stamp is what the agents of the torture test put, under the key "stamp", into
// every checkpoint's state, into the payload of every event that they emit, and
// into their final output: who wrote this. A worker writes an envelope, and a
// worker that is broken writes a wrong one.
type Stamp struct {
	Epoch  uint64 `json:"epoch"`
	Worker string `json:"worker"`
	// Step is the step that was done last when it was made.
	Step int `json:"step"`
	// Serial counts the stamps of this execution, so that no two are equal.
	Serial int `json:"serial"`
}

// Stamped is a state, payload or output that carries a stamp, among whatever else.
type Stamped struct {
	Stamp *Stamp `json:"stamp,omitempty"`
}

// Exec is one execution, as the agent sees it.
type Exec struct {
	Agent   string `json:"agent"`
	Worker  string `json:"worker"`
	Epoch   uint64 `json:"epoch"`
	Attempt int    `json:"attempt"`
	// Resumed is the stamp in the state that the agent was given, absent if it
	// was given none. On begin.
	Resumed *Stamp `json:"resumed_from,omitempty"`
	// Heard are the messages that the agent was given before the run's own, if the
	// run is one of a conversation: an array, be it empty. On begin.
	Heard json.RawMessage `json:"heard,omitempty"`
	// Step is the step that is done, on a step entry: 1, 2, 3 … over the run.
	Step int `json:"step,omitempty"`
	// Outcome, on end: one of the Outcome constants.
	Outcome Outcome `json:"outcome,omitempty"`
	// Cause is why the agent's context ended, if it did: one of the Cause
	// constants.
	Cause string `json:"cause,omitempty"`
	// Stamp is that of the checkpoint, on KindCheckpoint.
	Stamp *Stamp `json:"stamp,omitempty"`
	// Deaf: the agent does not listen to its context, on purpose.
	Deaf bool `json:"deaf,omitempty"`
	// PID is the worker's process.
	PID int `json:"pid,omitempty"`
}

// durable begins the text of a durable step's entry; the step's name follows.
const durable = "durable "

// Durable is the text of a durable step's entry.
func Durable(name string) string { return durable + name }

// DurableStep is the name of the durable step that an entry tells of, "" if it
// tells of none.
func DurableStep(e Entry) string {
	name, is := strings.CutPrefix(e.Text, durable)
	if !is {
		return ""
	}
	return name
}

// Outcome is how an execution ended, as far as the agent can tell.
type Outcome string

// The outcomes.
const (
	OutcomeSucceeded Outcome = "succeeded" // returned a result
	OutcomeFailed    Outcome = "failed"    // returned an error of its own, or panicked
	OutcomeCancelled Outcome = "cancelled" // its context ended by a cancel
	OutcomeAbandoned Outcome = "abandoned" // its context ended for another cause: see Exec.Cause
)

// The causes of a context's end.
const (
	CauseCancelled = "cancelled"
	CauseTimeout   = "timeout"
	CauseLeaseLost = "lease_lost"
	CauseShutdown  = "shutdown"
	CauseOther     = "other"
)

// Append is one compare-and-set by a raw appender.
type Append struct {
	// Subject is written to; Expected is the stream sequence that the subject's
	// last message must have, 0 for none.
	Subject  string `json:"subject"`
	Expected uint64 `json:"expected"`
	// Value tells this append from any other: it is in the message's body.
	Value string `json:"value"`
	// Seq is the stored message's stream sequence, on ok; Duplicate says that the
	// broker took it for a repetition.
	Seq       uint64 `json:"seq,omitempty"`
	Duplicate bool   `json:"duplicate,omitempty"`
}

// The faults that the checker reasons about, in Fault.Name. Others are shown
// with a run's story and explain nothing.
const (
	FaultKill  = "kill"  // info: kill -9 of a process
	FaultExit  = "exit"  // info: a process ended by itself, such as by an agent's hand
	FaultStop  = "stop"  // begin, end: SIGSTOP to SIGCONT
	FaultDrain = "drain" // begin, end: SIGTERM until the process is gone
	// FaultPartition: begin, end: Target's links are cut, delayed or dropped.
	FaultPartition = "partition"
	// FaultBroker: begin, end: a broker's node is down, or cannot store. On
	// one broker until it answers again, on three for each node.
	FaultBroker = "broker"
	FaultSkew   = "skew" // begin, end: Target's wall clock is ahead by Skew
	// FaultForgedAck and FaultDeleteWork: info, with Entry.Run.
	FaultForgedAck  = "forged_ack"
	FaultDeleteWork = "delete_work"
	// FaultStall: begin, end: the harness itself was not scheduled for so long.
	FaultStall = "stall"
)

// Fault is what the nemesis did.
type Fault struct {
	// Name is the kind of fault: one of the Fault constants, or another word.
	Name string `json:"name"`
	// Target is what it hit: for a worker its worker id, for others the name of
	// the process.
	Target string `json:"target,omitempty"`
	PID    int    `json:"pid,omitempty"`
	// Skew is how far the target's wall clock is put ahead, for "skew".
	Skew time.Duration `json:"skew_ns,omitempty"`
}

// Config is what the checker must know of the services' settings to state its
// bounds, and what a reader of a report must know to run it again.
type Config struct {
	Seed    uint64 `json:"seed"`
	Cluster string `json:"cluster"`
	// Command runs it again.
	Command string `json:"command"`
	// Version is the program's; Server the broker's.
	Version string `json:"version,omitempty"`
	Server  string `json:"server,omitempty"`
	// Lease is the work message's AckWait.
	Lease time.Duration `json:"lease_ns,omitempty"`
	// HistoryLimit is how many messages of its conversation a run is given at
	// most; 0 for the services' default.
	HistoryLimit int `json:"history_limit,omitempty"`
	// Nodes is how many brokers there are.
	Nodes int `json:"nodes,omitempty"`
	// Retention that is shorter than the test would delete what is checked: 0
	// says that nothing was deleted.
	Retention time.Duration     `json:"retention_ns,omitempty"`
	Settings  map[string]string `json:"settings,omitempty"`
}
