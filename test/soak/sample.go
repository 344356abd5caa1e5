package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/test/cluster"
)

// settleTime is for what is still under way when the last run was submitted.
const settleTime = 2 * time.Minute

const mib = 1 << 20

// sample is the state of everything at one moment.
type sample struct {
	Seconds    float64            `json:"seconds"` // since the start
	RSS        map[string]float64 `json:"rss_mib"`
	Goroutines map[string]float64 `json:"goroutines"`
	DiskMiB    float64            `json:"disk_mib"`
	Messages   map[string]uint64  `json:"messages"` // by stream
	Submitted  int64              `json:"submitted"`
	Ended      int64              `json:"ended"`
	Followed   int64              `json:"followed"`
	Waiting    int                `json:"waiting"`
}

// sampleUntil records samples until every run has ended, and the last sample is in.
func (s *stage) sampleUntil(ctx context.Context, o options, l *load, out *recorder) error {
	begun := time.Now()
	for next := begun; ; next = next.Add(o.every) {
		if err := cluster.Sleep(ctx, time.Until(next)); err != nil {
			return err
		}
		got, err := s.sample(ctx, time.Since(begun), l)
		if err != nil {
			return err
		}
		if err := out.add(got); err != nil {
			return err
		}
		if n := len(out.record); n%30 == 1 {
			fmt.Fprintf(os.Stderr, "%6.0f s: %d submitted, %d ended, %d wait; disk %.0f MiB; RSS %s\n",
				got.Seconds, got.Submitted, got.Ended, got.Waiting, got.DiskMiB, words(got.RSS))
		}
		switch {
		case time.Since(begun) < o.duration:
		case got.Waiting == 0:
			return nil
		case time.Since(begun) > o.duration+settleTime:
			return fmt.Errorf("%d runs have not ended %s after the last was submitted", got.Waiting, settleTime)
		}
	}
}

func (s *stage) sample(ctx context.Context, at time.Duration, l *load) (sample, error) {
	got := sample{
		Seconds: at.Seconds(), RSS: map[string]float64{}, Goroutines: map[string]float64{}, Messages: map[string]uint64{},
		Submitted: l.submitted.Load(), Ended: l.ended.Load(), Followed: l.followed.Load(), Waiting: l.waiting(),
	}
	var errs []error
	for _, p := range append([]member{{Process: s.broker.Process}}, s.members...) {
		rss, err := cluster.ResidentBytes(p.PID())
		errs = append(errs, err)
		got.RSS[p.Name] = rss / mib
		if p.http != "" {
			soon, cancel := context.WithTimeout(ctx, 10*time.Second)
			n, err := cluster.Metric(soon, p.http, "go_goroutines")
			cancel()
			errs = append(errs, err)
			got.Goroutines[p.Name] = n
		}
	}
	for _, name := range []string{contracts.StreamLog, contracts.StreamWork, contracts.StreamInbox, contracts.StreamRuns, contracts.StreamSchedule} {
		n, err := messages(ctx, s.js, name)
		errs = append(errs, err)
		got.Messages[name] = n
	}
	disk, err := cluster.DiskBytes(s.store())
	got.DiskMiB = disk / mib
	if err := errors.Join(append(errs, err)...); err != nil {
		return got, fmt.Errorf("take a sample: %w", err)
	}
	return got, nil
}

func messages(ctx context.Context, js jetstream.JetStream, stream string) (uint64, error) {
	st, err := js.Stream(ctx, stream)
	if err != nil {
		return 0, fmt.Errorf("look at stream %s: %w", stream, err)
	}
	return st.CachedInfo().State.Msgs, nil
}

// recorder writes samples down as they come.
type recorder struct {
	file   *os.File
	record record
}

func newRecorder(path string) (*recorder, error) {
	var f *os.File
	var err error
	if path == "" {
		f, err = os.CreateTemp("", "longhaul-soak-*.jsonl")
	} else {
		f, err = os.Create(path)
	}
	return &recorder{file: f}, err
}

func (r *recorder) path() string { return r.file.Name() }

func (r *recorder) add(s sample) error {
	r.record = append(r.record, s)
	return json.NewEncoder(r.file).Encode(s)
}

func (r *recorder) close() error { return r.file.Close() }

// readRecord reads what a recorder wrote.
func readRecord(path string) (record, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	var rec record
	for dec := json.NewDecoder(f); dec.More(); {
		var s sample
		if err := dec.Decode(&s); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		rec = append(rec, s)
	}
	return rec, nil
}
