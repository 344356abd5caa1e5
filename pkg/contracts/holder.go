package contracts

// HolderRequest is asked of a worker on runs.worker.<worker_id>.
type HolderRequest struct {
	Op    HolderOp `json:"op"`
	RunID string   `json:"run_id,omitempty"`
	Epoch uint64   `json:"epoch,omitempty"`
	// Of a cancel.
	Reason string `json:"reason,omitempty"`
	By     string `json:"by,omitempty"`
}

// HolderOp is what is asked.
type HolderOp string

// The questions. An answer of any kind shows that the worker lives.
const (
	HolderPing   HolderOp = "ping"   // do you live?
	HolderHolds  HolderOp = "holds"  // do you hold run R in epoch N?
	HolderCancel HolderOp = "cancel" // cancel run R, if you hold it
)

// HolderReply answers a HolderRequest.
type HolderReply struct {
	WorkerID string `json:"worker_id"`
	Holds    bool   `json:"holds"`
	// Requested says, for a cancel, that run.cancel_requested is committed.
	Requested bool `json:"requested,omitempty"`
	// Error says why a request was not understood or not carried out.
	Error string `json:"error,omitempty"`
}
