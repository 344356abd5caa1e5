package contracts

// Status says where a run stands.
type Status string

// The statuses, in the order in which a run may pass them.
const (
	StatusNone       Status = ""           // the log is empty
	StatusScheduled  Status = "scheduled"  // waits for its not_before, held by the broker's schedule
	StatusPending    Status = "pending"    // waits for a worker, perhaps until a retry is due or it has slept
	StatusRunning    Status = "running"    // a worker holds it
	StatusCancelling Status = "cancelling" // a worker held it when the cancel was written into the log
	StatusSucceeded  Status = "succeeded"
	StatusFailed     Status = "failed"
	StatusTimedOut   Status = "timed_out"
	StatusCancelled  Status = "cancelled"
	StatusRejected   Status = "rejected" // never accepted; cannot be redriven
)

// Statuses lists every status that a run can be seen in.
func Statuses() []Status {
	return []Status{StatusScheduled, StatusPending, StatusRunning, StatusCancelling, StatusSucceeded,
		StatusFailed, StatusTimedOut, StatusCancelled, StatusRejected}
}

// Valid reports whether s is one of Statuses.
func (s Status) Valid() bool {
	_, ok := transitions[s]
	return ok && s != StatusNone
}

// Terminal reports whether a round ends with s: nothing but a redrive follows.
func (s Status) Terminal() bool {
	return s == StatusSucceeded || s == StatusRejected || s.Redrivable()
}

// Held reports whether a worker is named as the holder of a run in status s.
func (s Status) Held() bool { return s == StatusRunning || s == StatusCancelling }

// Redrivable reports whether a run that ended with s may start a new round.
func (s Status) Redrivable() bool {
	return s == StatusFailed || s == StatusTimedOut || s == StatusCancelled
}

// transitions is the whole state machine: from a status, by an event type, to
// a status. What is not in it does not happen. typeAny stands for every type
// that an agent may emit.
var transitions = map[Status]map[EventType]Status{
	StatusNone: {
		TypeQueued:    StatusPending,
		TypeScheduled: StatusScheduled,
		TypeRejected:  StatusRejected,
	},
	StatusScheduled: {
		TypeQueued:    StatusPending,
		TypeCancelled: StatusCancelled,
	},
	StatusPending: {
		TypeStarted:   StatusRunning,
		TypeCancelled: StatusCancelled,
		TypeFailed:    StatusFailed,   // it cannot be started
		TypeRequeued:  StatusPending,  // its work message was lost
		TypeTimedOut:  StatusTimedOut, // it was not begun in time
		TypeSignalled: StatusPending,
	},
	StatusRunning: {
		typeAny:             StatusRunning,
		TypeStarted:         StatusRunning, // takeover
		TypeHeartbeat:       StatusRunning,
		TypeCheckpoint:      StatusRunning,
		TypeStepCompleted:   StatusRunning,
		TypeRetrying:        StatusPending,
		TypeSleeping:        StatusPending,
		TypeRequeued:        StatusPending, // drain
		TypeCancelRequested: StatusCancelling,
		TypeSucceeded:       StatusSucceeded,
		TypeFailed:          StatusFailed,
		TypeTimedOut:        StatusTimedOut,
	},
	StatusCancelling: {
		typeAny:           StatusCancelling, // an agent may report while it ends
		TypeHeartbeat:     StatusCancelling,
		TypeCheckpoint:    StatusCancelling,
		TypeStepCompleted: StatusCancelling,
		TypeCancelled:     StatusCancelled,
	},
	StatusFailed:    {TypeRequeued: StatusPending}, // redrive
	StatusTimedOut:  {TypeRequeued: StatusPending},
	StatusCancelled: {TypeRequeued: StatusPending},
	StatusSucceeded: {},
	StatusRejected:  {},
}

// transition looks the table up.
func transition(from Status, t EventType) (Status, bool) {
	if !t.Reserved() {
		t = typeAny
	}
	to, ok := transitions[from][t]
	return to, ok
}
