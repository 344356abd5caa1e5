package check

import (
	"encoding/json"
	"time"
)

// record is a status record, as docs/protocol.md describes it.
type record struct {
	RunID       string      `json:"run_id"`
	AgentKey    string      `json:"agent_key"`
	Priority    string      `json:"priority"`
	Status      string      `json:"status"`
	Epoch       uint64      `json:"epoch"`
	Attempt     int         `json:"attempt"`
	MaxAttempts int         `json:"max_attempts"`
	WorkerID    string      `json:"worker_id"`
	Checkpoint  *checkpoint `json:"checkpoint"`
	NotBefore   time.Time   `json:"not_before"`
	StartedAt   time.Time   `json:"started_at"`
	FinishedAt  time.Time   `json:"finished_at"`
	Seq         uint64      `json:"seq"`
	LogSequence uint64      `json:"log_sequence"`
}

// checkStatus: at the end, when projections have had their time, each run that
// has a log has a record, and it says what the log's last event says. It needs
// the dump of bucket runs.
func (s *stories) checkStatus(j *jury, r *story, steps []step) {
	if len(steps) == 0 {
		return
	}
	j.exercised(statusIsFold, 1)
	if r.status == nil || len(r.status.Data) == 0 {
		j.breach(statusIsFold, r.id, "the run has no status record")
		return
	}
	var got record
	if err := json.Unmarshal(r.status.Data, &got); err != nil {
		j.breach(statusIsFold, r.id, "its status record cannot be read: %v", err)
		return
	}
	e := steps[len(steps)-1].event
	want := record{
		RunID: r.id, AgentKey: e.AgentKey, Priority: e.Priority, Status: e.Status, Epoch: e.Epoch, Attempt: e.Attempt,
		MaxAttempts: e.MaxAttempts, WorkerID: e.WorkerID, NotBefore: e.NotBefore.UTC(), Seq: e.Seq, LogSequence: e.sequence,
	}
	for _, st := range steps {
		switch {
		case st.Type == started:
			want.StartedAt = st.Time.UTC()
		case terminal(st.Type):
			want.FinishedAt = st.Time.UTC()
		case st.Type == requeued:
			want.FinishedAt = time.Time{}
		}
	}
	sameCheckpoint := got.Checkpoint.equal(e.Checkpoint)
	got.Checkpoint = nil
	got.NotBefore, got.StartedAt, got.FinishedAt = got.NotBefore.UTC(), got.StartedAt.UTC(), got.FinishedAt.UTC()
	if got != want || !sameCheckpoint {
		j.breach(statusIsFold, r.id, "its status record is %s, and the log says %+v", r.status.Data, want)
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
