package statekeeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

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

// stored is what stands in the bucket for a run.
type stored struct {
	// rec is zero where there is no record: nothing, a deletion marker, or bytes
	// that are no record of this run.
	rec contracts.StatusRecord
	// revision is what the next write of the key is compared with; 0 where no
	// message stands on it.
	revision uint64
	// data is the message's body.
	data []byte
}

// get reads one record, from any replica. That there is none is no error.
func (r *records) get(ctx context.Context, runID string) (stored, error) {
	m, err := jsutil.GetLast(ctx, r.js.Conn(), contracts.StreamRuns, statusSubject(runID))
	switch {
	case errors.Is(err, jsutil.ErrNotFound):
		return stored{}, nil
	case err != nil:
		return stored{}, fmt.Errorf("read the status record of run %s: %w", runID, err)
	}
	return decodeStored(m), nil
}

// page reads the records of some runs, at most contracts.MaxListLimit, with as
// few requests as the broker allows.
func (r *records) page(ctx context.Context, runIDs []string) (map[string]stored, error) {
	subjects := make([]string, 0, len(runIDs))
	for _, id := range runIDs {
		subjects = append(subjects, statusSubject(id))
	}
	got, err := jsutil.GetLasts(ctx, r.js.Conn(), contracts.StreamRuns, subjects)
	if err != nil {
		return nil, fmt.Errorf("read %d status records: %w", len(subjects), err)
	}
	found := make(map[string]stored, len(got))
	for subject, m := range got {
		found[runIDOf(subject)] = decodeStored(m)
	}
	return found, nil
}

func decodeStored(m jsutil.Stored) stored {
	s := stored{revision: m.Sequence, data: m.Data}
	if m.Header.Get(kvOperation) != "" || json.Unmarshal(m.Data, &s.rec) != nil || s.rec.RunID != runIDOf(m.Subject) ||
		s.rec.Seq == 0 || s.rec.LogSequence == 0 || !s.rec.Status.Valid() {
		s.rec = contracts.StatusRecord{}
	}
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

// runIDOf is the inverse of statusSubject.
func runIDOf(subject string) string {
	return strings.TrimPrefix(subject, strings.TrimSuffix(allStatusSubjects(), "*"))
}
