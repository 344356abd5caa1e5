package main

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/runlog"
)

// ledger is what was seen of all runs. It judges every event as it comes, by
// the table that all appenders keep to and by the epochs on their own.
type ledger struct {
	mu     sync.Mutex
	runs   map[string]*story
	counts map[contracts.EventType]int
	faults []string
}

// story is one run.
type story struct {
	head   contracts.Head
	epoch  uint64 // of the newest run.started
	events []seen
	ended  time.Time
}

// seen is one event and when it was seen. The payload is kept where a step or a lease shows in it.
type seen struct {
	At       time.Time
	Type     contracts.EventType
	Epoch    uint64
	Attempt  int
	WorkerID string
	Payload  json.RawMessage
}

// maxFaults bounds what is listed of one kind of fault.
const maxFaults = 20

func newLedger() *ledger {
	return &ledger{runs: map[string]*story{}, counts: map[contracts.EventType]int{}}
}

// add takes the next event of the log, or what went wrong with following it.
func (l *ledger) add(e runlog.Entry, err error) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.fault("following the log: %v", err)
		return
	}
	r := l.runs[e.RunID]
	if r == nil {
		r = &story{}
		l.runs[e.RunID] = r
	}
	head, err := contracts.Apply(r.head, e.Event)
	if err != nil {
		l.fault("run %s: %v", e.RunID, err)
		head = e.Event.Head()
	}
	if e.Epoch < r.epoch {
		l.fault("run %s: %s of epoch %d came after the start of epoch %d", e.RunID, e.Type, e.Epoch, r.epoch)
	}
	r.head = head
	if e.Type == contracts.TypeStarted {
		r.epoch = max(r.epoch, e.Epoch)
	}
	if e.Type.Terminal() {
		r.ended = now
	}
	l.counts[e.Type]++
	s := seen{At: now, Type: e.Type, Epoch: e.Epoch, Attempt: e.Attempt, WorkerID: e.WorkerID}
	switch e.Type {
	case contracts.TypeStarted, contracts.TypeCheckpoint, contracts.TypeDelta:
		s.Payload = e.Payload
	}
	r.events = append(r.events, s)
}

func (l *ledger) fault(format string, args ...any) {
	if len(l.faults) < maxFaults {
		l.faults = append(l.faults, fmt.Sprintf(format, args...))
	}
}

// faultList is what broke a rule so far.
func (l *ledger) faultList() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.faults...)
}

// count is how many events of a type were seen.
func (l *ledger) count(t contracts.EventType) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts[t]
}

// events are what was seen of a run. They are not to be changed.
func (l *ledger) events(runID string) []seen {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.runs[runID]; r != nil {
		return r.events[:len(r.events):len(r.events)]
	}
	return nil
}

// head is where a run was last seen to stand.
func (l *ledger) head(runID string) contracts.Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.runs[runID]; r != nil {
		return r.head
	}
	return contracts.Head{}
}

// ended counts those of the runs that have ended.
func (l *ledger) ended(ids []string) int {
	return l.having(ids, func(h contracts.Head) bool { return h.Status.Terminal() })
}

// succeeded counts those of the runs that have ended well.
func (l *ledger) succeeded(ids []string) int {
	return l.having(ids, func(h contracts.Head) bool { return h.Status == contracts.StatusSucceeded })
}

func (l *ledger) having(ids []string, ok func(contracts.Head) bool) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, id := range ids {
		if r := l.runs[id]; r != nil && ok(r.head) {
			n++
		}
	}
	return n
}

// find returns the first event of a run that suits.
func find(events []seen, ok func(seen) bool) (seen, bool) {
	for _, e := range events {
		if ok(e) {
			return e, true
		}
	}
	return seen{}, false
}

// is makes a condition for find.
func is(t contracts.EventType, epoch uint64) func(seen) bool {
	return func(e seen) bool { return e.Type == t && e.Epoch == epoch }
}

// counted returns how far the count agent had come with a checkpoint.
func counted(e seen) (int, error) {
	var p contracts.Checkpointed
	var state struct {
		I int `json:"i"`
	}
	if err := json.Unmarshal(e.Payload, &p); err != nil {
		return 0, fmt.Errorf("read a checkpoint: %w", err)
	}
	if err := json.Unmarshal(p.State, &state); err != nil {
		return 0, fmt.Errorf("read the state of checkpoint %d: %w", p.N, err)
	}
	return state.I, nil
}

// checkCount checks that a run of the count agent has taken each of its n
// steps: finished once, and not begun again after that.
func checkCount(events []seen, n int) error {
	done := 0
	for _, e := range events {
		switch e.Type {
		case contracts.TypeDelta: // each step says its number before its checkpoint
			var p contracts.Delta
			var step, of int
			if err := json.Unmarshal(e.Payload, &p); err != nil {
				return fmt.Errorf("read a delta: %w", err)
			}
			if _, err := fmt.Sscanf(p.Text, "%d of %d", &step, &of); err != nil {
				return fmt.Errorf("delta %q: %w", p.Text, err)
			}
			if step <= done {
				return fmt.Errorf("step %d was executed again in epoch %d", step, e.Epoch)
			}
		case contracts.TypeCheckpoint:
			step, err := counted(e)
			if err != nil {
				return err
			}
			if step != done+1 {
				return fmt.Errorf("step %d was finished after step %d, in epoch %d", step, done, e.Epoch)
			}
			done = step
		}
	}
	if done != n {
		return fmt.Errorf("%d of %d steps were finished", done, n)
	}
	return nil
}
