package jsutil

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A setting is a field of a stream's or a consumer's configuration that
// Longhaul depends on. What no setting speaks of is the operator's: replicas,
// storage, placement, compression, limits by bytes, description, metadata, a
// pause …
type setting struct {
	// field is its name in Go, with that of the struct it lies in. People are
	// told its name in JSON, which is that of the nats CLI.
	field string
	// may says whether the broker, and we, would make this change; nil is yes.
	may func(have, want reflect.Value) bool
}

// never is for what the broker does not change.
func never(_, _ reflect.Value) bool { return false }

// onlyOn is for what the broker switches on and not off again.
func onlyOn(_, want reflect.Value) bool { return want.Bool() }

// streamSettings are what matters about a stream. Which of them may be changed
// is the server's rule (configUpdateCheck in its stream.go).
func streamSettings(want jetstream.StreamConfig) []setting {
	settings := []setting{
		{"Subjects", onlyOurs},
		{"Retention", notOfQueues},
		{"Discard", nil},
		{"DiscardNewPerSubject", nil},
		{"MaxMsgsPerSubject", nil},
		{"MaxAge", nil},
		{"NoAck", nil},
		{"AllowDirect", nil},
		{"AllowRollup", nil},
		{"AllowMsgTTL", onlyOn},
		{"AllowMsgSchedules", onlyOn},
		{"AllowMsgCounter", never},
		{"Sealed", never},
		{"DenyPurge", never},
		{"PersistMode", never}, // asynchronous persistence overrides sync_interval: always
		{"Mirror", never},
		{"Sources", never},
		{"SubjectTransform", nil},
		// It would be every consumer's default, and delete those that rest.
		{"ConsumerLimits.InactiveThreshold", nil},
		{"Metadata", nil}, // the stamp alone is looked at
	}
	if want.RePublish != nil { // where we need none, the operator may have one, for an audit perhaps
		settings = append(settings, setting{"RePublish", nil})
	}
	if want.Duplicates > 0 {
		settings = append(settings, setting{"Duplicates", nil})
	}
	// A stream that refuses what is too much may be bounded as the operator
	// likes; one that drops its oldest message for the newest may not.
	if want.Discard == jetstream.DiscardOld {
		settings = append(settings, setting{"MaxMsgs", nil})
	}
	return settings
}

// onlyOurs: a subject that we do not know says that the stream is somebody else's.
func onlyOurs(have, want reflect.Value) bool {
	for _, s := range have.Seq2() {
		if !slices.Contains(want.Interface().([]string), s.String()) {
			return false
		}
	}
	return true
}

func notOfQueues(have, want reflect.Value) bool {
	queue := int64(jetstream.WorkQueuePolicy)
	return have.Int() != queue && want.Int() != queue
}

// consumerSettings are what matters about a consumer (checkNewConsumerConfig
// in the server's consumer.go).
func consumerSettings(withAckWait bool) []setting {
	settings := []setting{
		// The broker would change the filter, but messages between the old one
		// and the new one would be stranded.
		{"FilterSubject", never},
		{"FilterSubjects", never},
		{"DeliverPolicy", never},
		{"AckPolicy", never},
		{"ReplayPolicy", never},
		{"MaxDeliver", nil},
		{"MaxAckPending", nil},
		{"BackOff", nil},
		{"InactiveThreshold", nil},
		{"HeadersOnly", nil},
		{"PriorityPolicy", nil},
		{"PriorityGroups", nil},
		{"PinnedTTL", nil},
	}
	if withAckWait {
		// Not of work consumers: those of workers in other languages have the default.
		settings = append(settings, setting{"AckWait", nil}, setting{"MaxWaiting", never})
	}
	return settings
}

// compare returns what differs between have and want, two configurations of
// the same type, and have with all that may be changed set as wanted.
func compare[C any](object string, settings []setting, have, want C) (diffs []Difference, updated C) {
	updated = have
	for _, s := range settings {
		h, name := fieldOf(&have, s.field)
		w, _ := fieldOf(&want, s.field)
		if show(h) == show(w) {
			continue
		}
		fixable := s.may == nil || s.may(h, w)
		if fixable {
			u, _ := fieldOf(&updated, s.field)
			u.Set(w)
		}
		diffs = append(diffs, Difference{Object: object, Setting: name, Want: show(w), Have: show(h), Fixable: fixable})
	}
	return diffs, updated
}

// fieldOf returns the field at path and its name in JSON.
func fieldOf(config any, path string) (v reflect.Value, name string) {
	v = reflect.ValueOf(config).Elem()
	var names []string
	for _, part := range strings.Split(path, ".") {
		f, ok := v.Type().FieldByName(part)
		if !ok {
			panic("jsutil: " + v.Type().String() + " has no field " + part)
		}
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		v, names = v.FieldByIndex(f.Index), append(names, tag)
	}
	return v, strings.Join(names, ".")
}

// show is a value as people read it; equal texts are equal values.
func show(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case []string:
		return cmp.Or(strings.Join(slices.Sorted(slices.Values(x)), ", "), "none")
	case map[string]string:
		return versionKey + "=" + cmp.Or(x[versionKey], "none")
	case []*jetstream.StreamSource:
		if len(x) > 0 {
			return "present"
		}
		return "none"
	case int, int64: // the broker has -1 where a configuration may leave 0
		if v.Int() <= 0 {
			return "unlimited"
		}
	}
	if v.IsZero() && (v.Kind() == reflect.Pointer || v.Kind() == reflect.String || v.Type() == reflect.TypeFor[time.Duration]()) {
		return "none"
	}
	if v.Kind() == reflect.Pointer {
		return fmt.Sprintf("%+v", v.Elem())
	}
	return fmt.Sprint(v)
}
