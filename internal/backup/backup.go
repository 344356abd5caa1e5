// Package backup saves all that Longhaul has on a broker into a directory, and
// puts it back on a broker that has none of it.
//
// Streams are saved one after the other while the system runs, so that they
// show moments that differ. The order makes that harmless. RUNS_LOG is the truth;
// what leads to a run is saved before it, what the log names after it:
//
//   - RUNS_INBOX first: a submission that has left it by then is in the log.
//   - RUNS_SCHEDULE and RUNS_WORK: what is in them and not in the log any more
//     (the run has gone on) a worker or dispatcher drops when it has read the
//     log; what the log has and they have not yet, the sweeper queues again.
//   - RUNS_LOG.
//   - KV_runs: every checkpoint that the log names is in it.
//   - KV_agents.
//
// What is newer in KV_runs than the log, statuses above all, must not stand:
// Restore removes all statuses and the projector's place, and statekeeper folds
// them anew from the logs.
//
// The files of a stream are those of `nats stream backup`, so that the nats
// command can restore one, too. The manifest is written last: a directory
// without one is no backup.
package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// Streams are what is saved, in that order.
func Streams() []string {
	return []string{contracts.StreamInbox, contracts.StreamSchedule, contracts.StreamWork, contracts.StreamLog, contracts.StreamRuns, contracts.StreamAgents}
}

// Manifest says what a backup holds.
type Manifest struct {
	Longhaul string    `json:"longhaul"` // version of the program that made it
	Topology int       `json:"topology"` // version of what was saved
	Server   string    `json:"server"`   // version of the broker
	Begun    time.Time `json:"begun"`    // what was acknowledged by then is in it
	Ended    time.Time `json:"ended"`
	Streams  []Saved   `json:"streams"`
}

// Saved is one stream of a backup.
type Saved struct {
	Name     string `json:"name"`
	Messages uint64 `json:"messages"`
	Bytes    int64  `json:"bytes"` // of the archive
}

// The files of a backup.
const (
	manifestFile = "longhaul.json"
	metaFile     = "backup.json"   // of each stream
	dataFile     = "stream.arc.s2" // the same
)

// ErrNoBackup says that a directory holds no complete backup.
var ErrNoBackup = errors.New("it holds no complete backup")

// Save saves everything into dir, which must not exist, or be empty. The
// services may go on meanwhile. done is told of each stream.
func Save(ctx context.Context, js jetstream.JetStream, dir, version string, done func(Saved)) (Manifest, error) {
	m := Manifest{Longhaul: version, Server: js.Conn().ConnectedServerVersion(), Begun: time.Now().UTC()}
	var err error
	if m.Topology, err = jsutil.StandingVersion(ctx, js); err != nil {
		return m, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return m, err
	}
	there, err := os.ReadDir(dir)
	if err != nil {
		return m, err
	}
	if len(there) > 0 {
		return m, fmt.Errorf("directory %s is not empty, and nothing is overwritten", dir)
	}
	for _, name := range Streams() {
		s, err := patiently(ctx, js.Conn(), name, filepath.Join(dir, name))
		if err != nil {
			return m, fmt.Errorf("save stream %s: %w", name, err)
		}
		m.Streams = append(m.Streams, s)
		done(s)
	}
	m.Ended = time.Now().UTC()
	data, err := json.MarshalIndent(m, "", "  ")
	if err == nil {
		err = writeFile(filepath.Join(dir, manifestFile), data)
	}
	return m, err
}

// Read returns the manifest of a backup; ErrNoBackup if there is none.
func Read(dir string) (Manifest, error) {
	var m Manifest
	data, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if errors.Is(err, os.ErrNotExist) {
		return m, fmt.Errorf("directory %s: %w", dir, ErrNoBackup)
	}
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil {
		return m, fmt.Errorf("read the manifest of %s: %w", dir, err)
	}
	return m, nil
}

// writeFile writes a file that is on the disk when it returns.
func writeFile(name string, data []byte) (err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	return err
}
