package jsutil

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Difference is one setting on the broker that is not what a topology wants.
type Difference struct {
	Object  string `json:"object"`  // "stream RUNS_LOG", "consumer dispatcher-submit of RUNS_INBOX"
	Setting string `json:"setting"` // as the nats CLI's JSON names it; SettingExistence if there is no such object
	Want    string `json:"want"`
	Have    string `json:"have"`
	// Fixable says that EnsureTopology would change it.
	Fixable bool `json:"fixable"`
}

// SettingExistence is the Setting of an object that is missing.
const SettingExistence = "existence"

func missing(object string) Difference {
	return Difference{Object: object, Setting: SettingExistence, Want: "present", Have: "missing", Fixable: true}
}

// TopologyError says that what stands on the broker can't serve, and can't be
// changed in place. It is an ErrRefused.
type TopologyError struct {
	// Differences are those that can't be changed.
	Differences []Difference
}

func (e *TopologyError) Error() string {
	var b strings.Builder
	b.WriteString("the broker holds what Longhaul can't use and can't change in place:")
	for i, d := range e.Differences {
		if i > 0 {
			b.WriteByte(';')
		}
		fmt.Fprintf(&b, " %s: %s must be %s, is %s", d.Object, d.Setting, d.Want, d.Have)
	}
	b.WriteString(". If they are Longhaul's, delete them with the nats CLI, after a backup of what streams hold, " +
		"and start again: they are made anew; a consumer that is deleted loses no message. " +
		"If they are somebody else's, give Longhaul a NATS account of its own")
	return b.String()
}

// Unwrap makes it an ErrRefused.
func (e *TopologyError) Unwrap() error { return ErrRefused }

// maxRounds bounds how often EnsureTopology looks again after it changed
// something: once to see that the change took, more if others work on it too.
const maxRounds = 5

// EnsureTopology makes t stand on the broker: it creates what is missing and
// updates what differs in a setting that matters. Settings that are the
// operator's are left as they are found (settings.go says which). If
// something differs that can't be changed, nothing is touched and the error is
// a *TopologyError that lists all of it.
//
// When all is right it costs one request per object. Any number of processes
// may call it at the same time, with the same t; it may be cut off anywhere
// and called again.
func EnsureTopology(ctx context.Context, js jetstream.JetStream, t Topology) error {
	return ensure(ctx, js, t, consumerSettings(false))
}

// VerifyTopology returns every difference between t and what stands on the
// broker, and changes nothing. The error says that it could not look.
func VerifyTopology(ctx context.Context, js jetstream.JetStream, t Topology) ([]Difference, error) {
	findings, err := inspect(ctx, js, t, consumerSettings(false))
	var diffs []Difference
	for _, f := range findings {
		diffs = append(diffs, f.diffs...)
	}
	return diffs, err
}

// EnsureWorkConsumers makes the consumers of an agent's work stand on the
// broker, one per priority, with lease as their AckWait. Where other workers
// have made them already with another AckWait, theirs holds.
func EnsureWorkConsumers(ctx context.Context, js jetstream.JetStream, agentKey string, lease time.Duration) error {
	return ensure(ctx, js, Topology{Consumers: workConsumers(agentKey, lease)}, consumerSettings(true))
}

func ensure(ctx context.Context, js jetstream.JetStream, t Topology, consumer []setting[consumerConfig]) error {
	var last []Difference
	for range maxRounds {
		findings, err := inspect(ctx, js, t, consumer)
		if err != nil || len(findings) == 0 {
			return err
		}
		var fatal []Difference
		last = nil
		for _, f := range findings {
			for _, d := range f.diffs {
				if last = append(last, d); !d.Fixable {
					fatal = append(fatal, d)
				}
			}
		}
		if len(fatal) > 0 {
			return &TopologyError{Differences: fatal}
		}
		for _, f := range findings {
			if err := f.fix(ctx); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("the topology was changed %d times and the broker, or somebody else, keeps changing it back: %w",
		maxRounds, &TopologyError{Differences: last})
}

// A finding is what is wrong with one object, and how to put it right.
type finding struct {
	diffs []Difference
	fix   func(ctx context.Context) error
}

// inspect returns a finding for each object that is not as t wants it; streams
// stand before consumers, so that fixing in order works.
func inspect(ctx context.Context, js jetstream.JetStream, t Topology, consumer []setting[consumerConfig]) ([]finding, error) {
	var findings []finding
	settings := streamSettings()
	for _, want := range t.Streams {
		f, err := inspectStream(ctx, js, want, settings)
		if err != nil {
			return nil, fmt.Errorf("look at stream %s: %w", want.Name, Translate(err))
		}
		if len(f.diffs) > 0 {
			findings = append(findings, f)
		}
	}
	for _, want := range t.Consumers {
		f, err := inspectConsumer(ctx, js, want, consumer)
		if err != nil {
			return nil, fmt.Errorf("look at consumer %s of %s: %w", want.Durable, want.Stream, Translate(err))
		}
		if len(f.diffs) > 0 {
			findings = append(findings, f)
		}
	}
	return findings, nil
}

func inspectStream(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig, settings []setting[streamConfig]) (finding, error) {
	object := "stream " + want.Name
	s, err := js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		create := func(ctx context.Context) error {
			_, err := js.CreateStream(ctx, want)
			if err == nil || errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
				return nil // somebody was faster; the next round looks at what it made
			}
			return fmt.Errorf("create %s: %w", object, overlap(ctx, js, want, err))
		}
		return finding{diffs: []Difference{missing(object)}, fix: create}, nil
	}
	if err != nil {
		return finding{}, err
	}
	diffs, updated := compare(object, settings, s.CachedInfo().Config, want)
	update := func(ctx context.Context) error {
		if _, err := js.UpdateStream(ctx, updated); err != nil {
			return fmt.Errorf("update %s (%s): %w", object, summary(diffs), Translate(err))
		}
		return nil
	}
	return finding{diffs: diffs, fix: update}, nil
}

func inspectConsumer(ctx context.Context, js jetstream.JetStream, want Consumer, settings []setting[consumerConfig]) (finding, error) {
	object := "consumer " + want.Durable + " of " + want.Stream
	c, err := js.Consumer(ctx, want.Stream, want.Durable)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound), errors.Is(err, jetstream.ErrStreamNotFound):
		create := func(ctx context.Context) error {
			_, err := js.CreateConsumer(ctx, want.Stream, want.ConsumerConfig)
			if err == nil || errors.Is(err, jetstream.ErrConsumerExists) {
				return nil
			}
			return fmt.Errorf("create %s: %w", object, Translate(err))
		}
		return finding{diffs: []Difference{missing(object)}, fix: create}, nil
	case errors.Is(err, jetstream.ErrNotPullConsumer):
		return finding{diffs: []Difference{{Object: object, Setting: "deliver_subject", Want: "none", Have: "present"}}}, nil
	case err != nil:
		return finding{}, err
	}
	diffs, updated := compare(object, settings, c.CachedInfo().Config, want.ConsumerConfig)
	update := func(ctx context.Context) error {
		if _, err := js.UpdateConsumer(ctx, want.Stream, updated); err != nil {
			return fmt.Errorf("update %s (%s): %w", object, summary(diffs), Translate(err))
		}
		return nil
	}
	return finding{diffs: diffs, fix: update}, nil
}

// overlapCode is the broker's "subjects overlap with an existing stream",
// which does not say with which.
const overlapCode = 10065

// overlap adds to such an error the streams that are in the way.
func overlap(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig, err error) error {
	api := (*jetstream.APIError)(nil)
	if !errors.As(err, &api) || api.ErrorCode != overlapCode {
		return Translate(err)
	}
	var others []string
	for _, subject := range want.Subjects {
		names := js.StreamNames(ctx, jetstream.WithStreamListSubject(subject))
		for name := range names.Name() {
			others = append(others, fmt.Sprintf("%s (by %s)", name, subject))
		}
	}
	return fmt.Errorf("%w: its subjects are taken by stream %s; give Longhaul a NATS account of its own or remove what is in the way: %w",
		ErrRefused, strings.Join(others, ", "), err)
}

func summary(diffs []Difference) string {
	var parts []string
	for _, d := range diffs {
		parts = append(parts, fmt.Sprintf("%s from %s to %s", d.Setting, d.Have, d.Want))
	}
	return strings.Join(parts, ", ")
}

// WaitTopology is EnsureTopology for services: it goes on until the broker can
// be asked, however long that takes. Any other error ends it, and so does ctx.
// It tells the log what it waits for, and the logger may be nil.
func WaitTopology(ctx context.Context, js jetstream.JetStream, t Topology, logger *slog.Logger) error {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	var told time.Time
	for {
		err := EnsureTopology(ctx, js, t)
		switch {
		case err != nil && ctx.Err() != nil:
			return fmt.Errorf("wait for the topology: %w", context.Cause(ctx))
		case !errors.Is(err, ErrUnavailable):
			return err
		case time.Since(told) >= failureInterval:
			told = time.Now()
			logger.Warn("broker not ready for the topology", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(reconnectWait):
		}
	}
}
