package jsutil

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A setting is one thing about a C (a stream's or a consumer's configuration)
// that Longhaul depends on. What no setting speaks of is the operator's:
// replicas, storage, placement, compression, limits by bytes, the window for
// duplicates, description, metadata, a pause …
type setting[C any] struct {
	name string
	// show is the value as people read it; equal texts are equal values.
	show func(c *C) string
	// set copies the value; nil if the broker never changes it.
	set func(dst, src *C)
	// may says whether the broker, and we, would make this change; nil is yes.
	may func(have, want *C) bool
	// needed says whether the wanted value matters; nil is always.
	needed func(want *C) bool
}

// field is the setting that a field of C holds.
func field[C, V any](name string, of func(*C) *V) setting[C] {
	return setting[C]{
		name: name,
		show: func(c *C) string { return fmt.Sprint(*of(c)) },
		set:  func(dst, src *C) { *of(dst) = *of(src) },
	}
}

// limit is a field where zero and less mean that there is none.
func limit[C any, V int | int64](name string, of func(*C) *V) setting[C] {
	s := field(name, of)
	s.show = func(c *C) string {
		if v := *of(c); v > 0 {
			return fmt.Sprint(v)
		}
		return "unlimited"
	}
	return s
}

// duration is a field where zero means never or none.
func duration[C any](name string, of func(*C) *time.Duration) setting[C] {
	s := field(name, of)
	s.show = func(c *C) string {
		if v := *of(c); v > 0 {
			return v.String()
		}
		return "none"
	}
	return s
}

// fixed is s where the broker takes no change.
func (s setting[C]) fixed() setting[C] { s.set = nil; return s }

// onlyIf is s with a condition on the change.
func (s setting[C]) onlyIf(may func(have, want *C) bool) setting[C] { s.may = may; return s }

// compare returns what differs between have and want, and have with all that
// may be changed set as wanted.
func compare[C any](object string, settings []setting[C], have, want C) (diffs []Difference, updated C) {
	updated = have
	for _, s := range settings {
		if s.needed != nil && !s.needed(&want) || s.show(&have) == s.show(&want) {
			continue
		}
		fixable := s.set != nil && (s.may == nil || s.may(&have, &want))
		if fixable {
			s.set(&updated, &want)
		}
		diffs = append(diffs, Difference{Object: object, Setting: s.name, Want: s.show(&want), Have: s.show(&have), Fixable: fixable})
	}
	return diffs, updated
}

type (
	streamConfig   = jetstream.StreamConfig
	consumerConfig = jetstream.ConsumerConfig
)

// streamSettings are what matters about a stream. Which of them may be changed
// is the server's rule (configUpdateCheck in its stream.go).
func streamSettings() []setting[streamConfig] {
	return []setting[streamConfig]{
		{
			name: "subjects",
			show: func(c *streamConfig) string { return sortedList(c.Subjects) },
			set:  func(dst, src *streamConfig) { dst.Subjects = src.Subjects },
			// A subject that we do not know says that the stream is somebody else's.
			may: func(have, want *streamConfig) bool {
				return !slices.ContainsFunc(have.Subjects, func(s string) bool { return !slices.Contains(want.Subjects, s) })
			},
		},
		field("retention", func(c *streamConfig) *jetstream.RetentionPolicy { return &c.Retention }).
			onlyIf(func(have, want *streamConfig) bool {
				return have.Retention != jetstream.WorkQueuePolicy && want.Retention != jetstream.WorkQueuePolicy
			}),
		field("discard", func(c *streamConfig) *jetstream.DiscardPolicy { return &c.Discard }),
		field("discard_new_per_subject", func(c *streamConfig) *bool { return &c.DiscardNewPerSubject }),
		limit("max_msgs_per_subject", func(c *streamConfig) *int64 { return &c.MaxMsgsPerSubject }),
		maxMsgs(),
		duration("max_age", func(c *streamConfig) *time.Duration { return &c.MaxAge }),
		field("no_ack", func(c *streamConfig) *bool { return &c.NoAck }),
		field("allow_direct", func(c *streamConfig) *bool { return &c.AllowDirect }),
		field("allow_rollup_hdrs", func(c *streamConfig) *bool { return &c.AllowRollup }),
		field("allow_msg_ttl", func(c *streamConfig) *bool { return &c.AllowMsgTTL }).
			onlyIf(func(have, _ *streamConfig) bool { return !have.AllowMsgTTL }),
		field("allow_msg_schedules", func(c *streamConfig) *bool { return &c.AllowMsgSchedules }).
			onlyIf(func(have, _ *streamConfig) bool { return !have.AllowMsgSchedules }),
		field("allow_msg_counter", func(c *streamConfig) *bool { return &c.AllowMsgCounter }).fixed(),
		field("sealed", func(c *streamConfig) *bool { return &c.Sealed }).fixed(),
		field("deny_purge", func(c *streamConfig) *bool { return &c.DenyPurge }).fixed(),
		// Asynchronous persistence overrides sync_interval: always.
		field("persist_mode", func(c *streamConfig) *jetstream.PersistModeType { return &c.PersistMode }).fixed(),
		{name: "mirror", show: func(c *streamConfig) string { return presence(c.Mirror != nil) }},
		{name: "sources", show: func(c *streamConfig) string { return presence(len(c.Sources) > 0) }},
		{
			name: "subject_transform",
			show: func(c *streamConfig) string {
				if t := c.SubjectTransform; t != nil {
					return t.Source + " → " + t.Destination
				}
				return "none"
			},
			set: func(dst, src *streamConfig) { dst.SubjectTransform = src.SubjectTransform },
		},
		{
			name: "republish",
			show: func(c *streamConfig) string {
				if r := c.RePublish; r != nil {
					return fmt.Sprintf("%s → %s, headers only %t", r.Source, r.Destination, r.HeadersOnly)
				}
				return "none"
			},
			set: func(dst, src *streamConfig) { dst.RePublish = src.RePublish },
			// Where we need none, the operator may have one, for an audit perhaps.
			needed: func(want *streamConfig) bool { return want.RePublish != nil },
		},
		// It would be every consumer's default, and delete those that rest.
		duration("consumer_limits.inactive_threshold", func(c *streamConfig) *time.Duration { return &c.ConsumerLimits.InactiveThreshold }),
	}
}

// maxMsgs: a stream that refuses what is too much may be bounded as the
// operator likes; one that drops its oldest message for the newest may not.
func maxMsgs() setting[streamConfig] {
	s := limit("max_msgs", func(c *streamConfig) *int64 { return &c.MaxMsgs })
	s.needed = func(want *streamConfig) bool { return want.Discard == jetstream.DiscardOld }
	return s
}

// consumerSettings are what matters about a consumer (checkNewConsumerConfig
// in the server's consumer.go). With keepAckWait, AckWait is left as it is found.
func consumerSettings(keepAckWait bool) []setting[consumerConfig] {
	settings := []setting[consumerConfig]{
		{
			// The broker would change it, but messages between the old filter
			// and the new one would be stranded.
			name: "filter",
			show: func(c *consumerConfig) string {
				if c.FilterSubject != "" {
					return c.FilterSubject
				}
				return sortedList(c.FilterSubjects)
			},
		},
		field("deliver_policy", func(c *consumerConfig) *jetstream.DeliverPolicy { return &c.DeliverPolicy }).fixed(),
		field("ack_policy", func(c *consumerConfig) *jetstream.AckPolicy { return &c.AckPolicy }).fixed(),
		field("replay_policy", func(c *consumerConfig) *jetstream.ReplayPolicy { return &c.ReplayPolicy }).fixed(),
		limit("max_deliver", func(c *consumerConfig) *int { return &c.MaxDeliver }),
		limit("max_ack_pending", func(c *consumerConfig) *int { return &c.MaxAckPending }),
		field("backoff", func(c *consumerConfig) *[]time.Duration { return &c.BackOff }),
		duration("inactive_threshold", func(c *consumerConfig) *time.Duration { return &c.InactiveThreshold }),
		field("headers_only", func(c *consumerConfig) *bool { return &c.HeadersOnly }),
		field("priority_policy", func(c *consumerConfig) *jetstream.PriorityPolicy { return &c.PriorityPolicy }),
		field("priority_groups", func(c *consumerConfig) *[]string { return &c.PriorityGroups }),
		duration("priority_timeout", func(c *consumerConfig) *time.Duration { return &c.PinnedTTL }),
	}
	if !keepAckWait {
		settings = append(settings, duration("ack_wait", func(c *consumerConfig) *time.Duration { return &c.AckWait }))
	}
	return settings
}

func sortedList(list []string) string {
	if len(list) == 0 {
		return "all"
	}
	return strings.Join(slices.Sorted(slices.Values(list)), ", ")
}

func presence(is bool) string {
	if is {
		return "present"
	}
	return "none"
}
