package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"longhaul/test/torture/history"
)

// Input is all that is judged.
type Input struct {
	History []history.Entry
	Dump    Dump
	Bounds  Bounds
}

// Dump is what stood in the broker after the last wait: every message of the
// streams, in the order of their sequences.
type Dump struct {
	Log      []Message `json:"log"`      // RUNS_LOG
	Work     []Message `json:"work"`     // RUNS_WORK
	Schedule []Message `json:"schedule"` // RUNS_SCHEDULE
	Inbox    []Message `json:"inbox"`    // RUNS_INBOX
	Runs     []Message `json:"runs"`     // the stream behind bucket runs
}

// Message is one stored message.
type Message struct {
	Seq     uint64              `json:"seq"`
	Subject string              `json:"subject"`
	Time    time.Time           `json:"time"`
	Header  map[string][]string `json:"header,omitempty"`
	Data    []byte              `json:"data"`
}

// Bounds are what is granted. Zero fields are set to their defaults.
type Bounds struct {
	// Slack is the difference between two clocks of the machine, and the time
	// between a write to the history and what it tells of: 250 ms.
	Slack time.Duration
	// Early is by how much the broker may have stored a start before its time:
	// clocks again, of worker and broker: 50 ms.
	Early time.Duration
	// Cancel is how long an acknowledged cancel may take without a fault: 20 s.
	Cancel time.Duration
	// Zombie is for how long, its process running, an execution may go on after a
	// newer epoch began: the lease, or 30 s where the history does not tell it.
	Zombie time.Duration
	// Reader is how far an open reader may be behind the log: 25 s, for it
	// compares a quiet tail with the log every 15 s or so.
	Reader time.Duration
	// Start is how long a probe may wait for its start: 15 s.
	Start time.Duration
	// Turn is for how long a worker may have known that the run before one had
	// ended when the start of that one is stored: four leases. It looks, then it
	// tries to append for a lease, and what it sent may take its time.
	Turn time.Duration
	// Outage is how long brokers have to be down before holders may have given up
	// their runs by their own clocks: half the lease.
	Outage time.Duration
	// Wake is how long a broker that is back may need for a leader and for its
	// clients: 2 s.
	Wake time.Duration
	// Settle is how long after a fault its consequences may show: 10 s, the age
	// up to which a connection is not believed.
	Settle time.Duration
}

func (b Bounds) withDefaults(c history.Config) Bounds {
	lease := c.Lease
	if lease == 0 {
		lease = 30 * time.Second
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&b.Slack, 250 * time.Millisecond},
		{&b.Early, 50 * time.Millisecond},
		{&b.Cancel, 20 * time.Second},
		{&b.Zombie, lease},
		{&b.Reader, 25 * time.Second},
		{&b.Start, 15 * time.Second},
		{&b.Turn, 4 * lease},
		{&b.Outage, lease / 2},
		{&b.Wake, 2 * time.Second},
		{&b.Settle, 10 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return b
}

// dumpFile is the name of a dump in a directory of results; histories are all
// files that end with historySuffix.
const (
	dumpFile      = "dump.json"
	historySuffix = ".jsonl"
)

// Save writes the dump into a directory, for Load.
func (d Dump) Save(dir string) error {
	data, err := json.Marshal(d)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, dumpFile), data, 0o644)
	}
	if err != nil {
		return fmt.Errorf("save the dump: %w", err)
	}
	return nil
}

// Load reads a directory with a dump and any number of histories, so that what
// was recorded can be judged again.
func Load(dir string) (Input, error) {
	var in Input
	data, err := os.ReadFile(filepath.Join(dir, dumpFile))
	if err == nil {
		err = json.Unmarshal(data, &in.Dump)
	}
	paths, globErr := filepath.Glob(filepath.Join(dir, "*"+historySuffix))
	if err = errors.Join(err, globErr); err != nil {
		return in, fmt.Errorf("load the dump: %w", err)
	}
	slices.Sort(paths)
	in.History, err = history.ReadFiles(paths...)
	return in, err
}
