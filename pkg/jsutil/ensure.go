package jsutil

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
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

// TopologyError says that what stands on the broker can't serve, and can't be
// changed in place. It is an ErrRefused.
type TopologyError struct {
	// Differences are those that can't be changed.
	Differences []Difference
	// Newer is the version of what stands, if a newer Longhaul made it.
	Newer int
}

func (e *TopologyError) Error() string {
	if e.Newer > 0 {
		return fmt.Sprintf("the broker's topology is of version %d, made by a newer Longhaul, and this one, of version %d, changes nothing in it: %s; use the newer one",
			e.Newer, TopologyVersion, describe(e.Differences))
	}
	return "the broker holds what Longhaul can't use and can't change in place: " + describe(e.Differences) +
		". If they are Longhaul's, delete them with the nats CLI, after a backup of what streams hold, " +
		"and start again: they are made anew; a consumer that is deleted loses no message. " +
		"If they are somebody else's, give Longhaul a NATS account of its own"
}

func describe(diffs []Difference) string {
	var parts []string
	for _, d := range diffs {
		parts = append(parts, fmt.Sprintf("%s: %s must be %s, is %s", d.Object, d.Setting, d.Want, d.Have))
	}
	return strings.Join(parts, "; ")
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
// a *TopologyError that lists all of it. What a newer Longhaul has made
// (TopologyVersion) is left as it is; it only must not lack anything.
//
// When all is right it costs one request per object, and one. Any number of processes
// may call it at the same time, with the same t; it may be cut off anywhere
// and called again.
func EnsureTopology(ctx context.Context, js jetstream.JetStream, t Topology) error {
	return ensure(ctx, js, t, consumerSettings(true))
}

// VerifyTopology returns every difference between t and what stands on the
// broker, and changes nothing. The error says that it could not look.
func VerifyTopology(ctx context.Context, js jetstream.JetStream, t Topology) ([]Difference, error) {
	in, err := inspect(ctx, js, t, consumerSettings(true))
	return in.diffs, err
}

// EnsureWorkConsumers makes the consumers of an agent's work stand on the
// broker, one per priority, with lease as their AckWait. Where other workers
// have made them already with another AckWait, theirs holds.
func EnsureWorkConsumers(ctx context.Context, js jetstream.JetStream, agentKey string, lease time.Duration) error {
	return ensure(ctx, js, Topology{Consumers: workConsumers(agentKey, lease)}, consumerSettings(false))
}

// VerifyWorkConsumers is VerifyTopology for the consumers of an agent's work.
func VerifyWorkConsumers(ctx context.Context, js jetstream.JetStream, agentKey string) ([]Difference, error) {
	in, err := inspect(ctx, js, Topology{Consumers: workConsumers(agentKey, 0)}, consumerSettings(false))
	return in.diffs, err
}

func ensure(ctx context.Context, js jetstream.JetStream, t Topology, consumer []setting) error {
	var last []Difference
	for range maxRounds {
		in, err := inspect(ctx, js, t, consumer)
		if err != nil || len(in.diffs) == 0 {
			return err
		}
		last = slices.Clone(in.diffs)
		if fatal := slices.DeleteFunc(in.diffs, func(d Difference) bool { return d.Fixable }); len(fatal) > 0 {
			return &TopologyError{Differences: fatal, Newer: in.newer}
		}
		for _, fix := range in.fixes {
			if err := fix(ctx); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("the topology was changed %d times and the broker, or somebody else, keeps changing it back: %w",
		maxRounds, &TopologyError{Differences: last})
}

// inspection is what is wrong on a broker, and how to put it right.
type inspection struct {
	js    jetstream.JetStream
	diffs []Difference
	fixes []func(ctx context.Context) error // one per object, in the order of the topology
	newer int                               // the version that the topology has, if that is more than ours and something is missing
}

// inspect looks at all of t, and at those settings of its consumers; streams
// stand before consumers, so that fixing in order works.
func inspect(ctx context.Context, js jetstream.JetStream, t Topology, consumer []setting) (inspection, error) {
	in := inspection{js: js}
	for _, want := range t.Streams {
		if err := in.stream(ctx, want); err != nil {
			return inspection{}, fmt.Errorf("look at stream %s: %w", want.Name, err)
		}
	}
	for _, want := range t.Consumers {
		if err := in.consumer(ctx, want, consumer); err != nil {
			return inspection{}, fmt.Errorf("look at consumer %s of %s: %w", want.Durable, want.Stream, err)
		}
	}
	version, err := StandingVersion(ctx, js)
	if version > TopologyVersion {
		in.spare(version)
	}
	return in, err
}

func (in *inspection) stream(ctx context.Context, want jetstream.StreamConfig) error {
	object := "stream " + want.Name
	s, err := in.js.Stream(ctx, want.Name)
	if err != nil {
		return in.absent(object, err, func(ctx context.Context) error {
			_, err := in.js.CreateStream(ctx, want)
			return overlap(ctx, in.js, want, err)
		})
	}
	have, ours := s.CachedInfo().Config, want.Metadata
	if ours != nil { // what else is in there is the operator's, or the broker's
		want.Metadata = make(map[string]string)
		maps.Copy(want.Metadata, have.Metadata)
		maps.Copy(want.Metadata, ours)
	}
	diffs, updated := compare(object, streamSettings(want), have, want)
	in.add(diffs, func(ctx context.Context) error {
		_, err := in.js.UpdateStream(ctx, updated)
		return err
	})
	return nil
}

func (in *inspection) consumer(ctx context.Context, want Consumer, settings []setting) error {
	object := "consumer " + want.Durable + " of " + want.Stream
	c, err := in.js.Consumer(ctx, want.Stream, want.Durable)
	if err != nil {
		return in.absent(object, err, func(ctx context.Context) error {
			_, err := in.js.CreateConsumer(ctx, want.Stream, want.ConsumerConfig)
			return err
		})
	}
	diffs, updated := compare(object, settings, c.CachedInfo().Config, want.ConsumerConfig)
	in.add(diffs, func(ctx context.Context) error {
		_, err := in.js.UpdateConsumer(ctx, want.Stream, updated)
		return err
	})
	return nil
}

// absent adds an object that was not found, and returns any other err.
func (in *inspection) absent(object string, err error, create func(context.Context) error) error {
	d := Difference{Object: object, Setting: SettingExistence, Want: "present", Have: "missing", Fixable: true}
	switch err = Translate(err); {
	case errors.Is(err, jetstream.ErrNotPullConsumer):
		d = Difference{Object: object, Setting: "deliver_subject", Want: "none", Have: "present"}
	case !errors.Is(err, ErrNoTopology):
		return err
	}
	in.add([]Difference{d}, create)
	return nil
}

// add adds what is wrong with one object, if anything is.
func (in *inspection) add(diffs []Difference, fix func(context.Context) error) {
	if len(diffs) == 0 {
		return
	}
	in.diffs = append(in.diffs, diffs...)
	in.fixes = append(in.fixes, func(ctx context.Context) error {
		err := fix(ctx)
		if err == nil || errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) || errors.Is(err, jetstream.ErrConsumerExists) {
			return nil // or somebody was faster; the next round looks at what it made
		}
		return fmt.Errorf("put right that %s: %w", describe(diffs), Translate(err))
	})
}

// overlapCode is the broker's "subjects overlap with an existing stream",
// which does not say with which.
const overlapCode = 10065

// overlap adds to such an error the streams that are in the way.
func overlap(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig, err error) error {
	if api := (*jetstream.APIError)(nil); !errors.As(err, &api) || api.ErrorCode != overlapCode {
		return err
	}
	for _, subject := range want.Subjects {
		if name, lookErr := js.StreamNameBySubject(ctx, subject); lookErr == nil {
			err = fmt.Errorf("%w; stream %s (by %s) is in the way: give Longhaul a NATS account of its own or remove it", err, name, subject)
		}
	}
	return err
}

// WaitTopology is EnsureTopology for services: it goes on until the broker can
// be asked, however long that takes. Any other error ends it, and so does ctx.
// It tells the log what it waits for, and the logger may be nil.
func WaitTopology(ctx context.Context, js jetstream.JetStream, t Topology, logger *slog.Logger) error {
	logger = cmp.Or(logger, slog.New(slog.DiscardHandler))
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
		Sleep(ctx, reconnectWait)
	}
}
