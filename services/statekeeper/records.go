package statekeeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// records reads and writes the status records in bucket runs. Its methods may
// be called from several goroutines.
type records struct {
	js jetstream.JetStream
}

// stored is a run's record as it stands in the bucket.
type stored struct {
	rec contracts.StatusRecord
	// revision is what the next write of the key is compared with; 0 where no
	// message stands on it.
	revision uint64
	// size is that of rec as JSON, in bytes.
	size int
	// valid is false where there is no record: nothing, a deletion marker, or
	// bytes that are no record of this run.
	valid bool
}

// get reads one record. That there is none is no error.
func (r *records) get(ctx context.Context, runID string) (stored, error) {
	m, err := getLast(ctx, r.js.Conn(), contracts.StreamRuns, statusSubject(runID))
	switch {
	case errors.Is(err, jsutil.ErrNotFound):
		return stored{}, nil
	case err != nil:
		return stored{}, fmt.Errorf("read the status record of run %s: %w", runID, err)
	}
	return decodeStored(runID, m), nil
}

// page reads the records of many runs, at most contracts.MaxListLimit, with as
// few requests as the broker allows. Runs without a record are left out.
func (r *records) page(ctx context.Context, runIDs []string) (map[string]stored, error) {
	found := make(map[string]stored, len(runIDs))
	left := make([]string, len(runIDs))
	for i, id := range runIDs {
		left[i] = statusSubject(id)
	}
	prefix := len(allStatusSubjects()) - 1
	for len(left) > 0 {
		got, more, err := getBatch(ctx, r.js.Conn(), contracts.StreamRuns, getRequest{MultiLast: left})
		if err != nil {
			return nil, fmt.Errorf("read %d status records: %w", len(left), err)
		}
		answered := make(map[string]bool, len(got))
		for _, m := range got {
			answered[m.subject] = true
			id := m.subject[prefix:]
			if s := decodeStored(id, m); s.valid {
				found[id] = s
			}
		}
		if !more || len(got) == 0 {
			break
		}
		rest := left[:0]
		for _, subject := range left {
			if !answered[subject] {
				rest = append(rest, subject)
			}
		}
		left = rest
	}
	return found, nil
}

func decodeStored(runID string, m rawMsg) stored {
	s := stored{revision: m.sequence, size: len(m.data)}
	if m.header.Get(kvOperation) != "" || json.Unmarshal(m.data, &s.rec) != nil ||
		s.rec.RunID != runID || s.rec.Seq == 0 || s.rec.LogSequence == 0 || !s.rec.Status.Valid() {
		s.rec = contracts.StatusRecord{}
		return s
	}
	s.valid = true
	return s
}

// kvOperation is on a message of a bucket that is no value: DEL or PURGE.
const kvOperation = "KV-Operation"

// putAsync sends rec to be stored on top of revision, and on that only.
func (r *records) putAsync(rec contracts.StatusRecord, revision uint64) (jetstream.PubAckFuture, error) {
	data, err := contracts.Encode(rec)
	if err != nil {
		return nil, fmt.Errorf("encode the status record of run %s: %w", rec.RunID, err)
	}
	future, err := r.js.PublishMsgAsync(&nats.Msg{
		Subject: statusSubject(rec.RunID),
		Header:  nats.Header{jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(revision, 10)}},
		Data:    data,
	})
	if err != nil {
		return nil, fmt.Errorf("write the status record of run %s: %w", rec.RunID, jsutil.Translate(err))
	}
	return future, nil
}

// statusSubject is where a run's record is stored.
func statusSubject(runID string) string {
	return contracts.KVSubject(contracts.BucketRuns, contracts.StatusKey(runID))
}

// allStatusSubjects matches every run's record.
func allStatusSubjects() string { return contracts.KVSubject(contracts.BucketRuns, "status.*") }
