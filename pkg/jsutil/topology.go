package jsutil

import (
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
)

// TopologyOptions are the operator's choices for what is created. What stands
// already keeps the choices that were made for it.
type TopologyOptions struct {
	Replicas int                   // of each stream; default 1
	Storage  jetstream.StorageType // default file
}

// Consumer is a durable consumer that services share, and the stream it reads.
type Consumer struct {
	Stream string
	jetstream.ConsumerConfig
}

// Topology is what must stand on the broker, as data.
type Topology struct {
	Streams   []jetstream.StreamConfig
	Consumers []Consumer
}

const (
	// sharedAckWait is how long a message stays with a dispatcher that gives no
	// sign of life. A killed one keeps what it had in hand from the others for
	// this long, submissions that were acknowledged a moment ago among them. A
	// living one answers within milliseconds, or extends it twice a second; a
	// pause that is longer than this (of its process, of the network) makes
	// messages come twice, which costs a look at the log and does no harm.
	sharedAckWait = 2 * time.Second
	// maxWaiting is how many pull requests a consumer keeps: every free slot of
	// every worker may be one. It costs nothing unused, and can't be changed
	// once the consumer stands; the default, 512, ends at a few large workers.
	maxWaiting = 16 << 10
	// projectorAckWait is how long what a dead projector had taken stays undone
	// if nothing else happens: the next event makes its successor read all that
	// lies before. A living one acknowledges after up to a second, and later when
	// it has much to write; what comes twice then would make it later still.
	projectorAckWait = 5 * time.Second

	// ProjectorGroup is the priority group that statekeepers pull in.
	ProjectorGroup = "projector"
	// ProjectorPinnedTTL is how long the active projector may send no pull
	// request before a standby takes its place. It sends one a second, the client
	// library's least, and none while it waits for a slow write. On a machine
	// starved of its processors the place changed 3 times in 45 s with 3 s, no
	// oftener than with 5 s (4 times), but 11 times with 2 s.
	ProjectorPinnedTTL = 3 * time.Second
)

// eventsOfLog is what runs.<id>.log becomes.
const eventsOfLog = "runs.{{wildcard(1)}}.events"

// NewTopology returns the topology of DESIGN "Names on the wire".
//
// No stream lets a message expire or gives one up for a newer one: what a live
// run needs must stay, however long it runs or waits. A stream that is full
// refuses what comes, except RUNS_SCHEDULE, which may not.
func NewTopology(o TopologyOptions) Topology {
	streams := []jetstream.StreamConfig{
		{
			// Untrusted clients publish here: no header may do anything.
			Name:        contracts.StreamInbox,
			Description: "What clients ask for: runs, cancels, redrives, signals",
			Subjects:    []string{contracts.SubjectSubmit, contracts.SubjectAllCancel, contracts.SubjectAllRedrive, contracts.SubjectAllSignal},
			Retention:   jetstream.WorkQueuePolicy,
			Discard:     jetstream.DiscardNew,
			// As short as the broker allows: a Nats-Msg-Id that two clients happen
			// to share would have it acknowledge the second one's submission and
			// drop it. What is submitted twice is found by the run's log.
			Duplicates: 100 * time.Millisecond,
		},
		{
			// One message per subject: a run can be queued only once.
			Name:                 contracts.StreamWork,
			Description:          "Runs that wait for a worker or are held by one",
			Subjects:             []string{contracts.SubjectAllWork},
			Retention:            jetstream.WorkQueuePolicy,
			MaxMsgsPerSubject:    1,
			Discard:              jetstream.DiscardNew,
			DiscardNewPerSubject: true,
			AllowDirect:          true, // the sweeper asks whether runs have their messages
		},
		{
			// Appended on one subject and read on another, so that a right to
			// append is never a right to show uncommitted events to readers.
			Name:             contracts.StreamLog,
			Description:      "The log of every run; the last event is the run's position",
			Subjects:         []string{contracts.SubjectAllLog},
			Discard:          jetstream.DiscardNew,
			SubjectTransform: &jetstream.SubjectTransformConfig{Source: contracts.SubjectAllLog, Destination: eventsOfLog},
			RePublish:        &jetstream.RePublish{Source: contracts.SubjectAllEvents, Destination: eventsOfLog},
			AllowDirect:      true,
			Metadata:         map[string]string{versionKey: strconv.Itoa(TopologyVersion)},
		},
		{
			// The dispatcher alone publishes here: a schedule's target goes past
			// permissions. Schedules exclude discard-new and switch rollup on.
			Name:              contracts.StreamSchedule,
			Description:       "Runs that wait for their time, and those whose time has come",
			Subjects:          []string{contracts.SubjectAllScheduleAt, contracts.SubjectAllScheduleDue},
			Retention:         jetstream.WorkQueuePolicy,
			AllowMsgSchedules: true,
			AllowRollup:       true,
			AllowDirect:       true,
		},
		bucket(contracts.BucketRuns, "Status and checkpoints of every run"),
		bucket(contracts.BucketAgents, "The agents that workers have registered"),
	}
	for i := range streams {
		streams[i].Replicas, streams[i].Storage = max(o.Replicas, 1), o.Storage
	}
	return Topology{Streams: streams, Consumers: []Consumer{
		shared(contracts.StreamInbox, contracts.ConsumerSubmit, contracts.SubjectSubmit),
		shared(contracts.StreamInbox, contracts.ConsumerCommands, contracts.SubjectAllCancel, contracts.SubjectAllRedrive),
		shared(contracts.StreamInbox, contracts.ConsumerSignals, contracts.SubjectAllSignal),
		shared(contracts.StreamSchedule, contracts.ConsumerSchedule, contracts.SubjectAllScheduleDue),
		projector(),
	}}
}

// bucket is the stream behind a key-value bucket, as the client library would
// make it, but for rollup: one header would wipe the bucket.
func bucket(name, description string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              "KV_" + name,
		Description:       description,
		Subjects:          []string{contracts.KVSubject(name, ">")},
		MaxMsgsPerSubject: 1, // a key's newest value alone
		Discard:           jetstream.DiscardNew,
		AllowDirect:       true,
		DenyDelete:        true,
	}
}

// shared is a consumer of a work queue. MaxAckPending is unlimited because a
// message in NakWithDelay counts against it, MaxDeliver because a message past
// it would be stuck (JETSTREAM.md "Acks, leases, redelivery").
func shared(stream, name string, filters ...string) Consumer {
	c := Consumer{Stream: stream, ConsumerConfig: jetstream.ConsumerConfig{
		Durable:       name,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       sharedAckWait,
		MaxDeliver:    -1,
		MaxAckPending: -1,
		MaxWaiting:    maxWaiting,
	}}
	if len(filters) == 1 {
		// In this form the subject of the create request holds the filter, so
		// that a permission can be cut to it.
		c.FilterSubject = filters[0]
	} else {
		c.FilterSubjects = filters
	}
	return c
}

// projector is the consumer of every event, in order. All statekeepers pull
// from it; the broker delivers to the pinned one alone.
func projector() Consumer {
	return Consumer{Stream: contracts.StreamLog, ConsumerConfig: jetstream.ConsumerConfig{
		Durable:        contracts.ConsumerProjector,
		AckPolicy:      jetstream.AckAllPolicy, // one ack for a whole window of events
		AckWait:        projectorAckWait,
		MaxDeliver:     -1,
		MaxAckPending:  -1,
		MaxWaiting:     512, // the broker's default; two for each statekeeper will do
		PriorityPolicy: jetstream.PriorityPolicyPinned,
		PriorityGroups: []string{ProjectorGroup},
		PinnedTTL:      ProjectorPinnedTTL,
	}}
}

// workConsumers are the consumers of an agent's work, one per priority. Their
// AckWait is the lease.
func workConsumers(agentKey string, lease time.Duration) []Consumer {
	var consumers []Consumer
	for _, p := range contracts.Priorities() {
		c := shared(contracts.StreamWork, contracts.WorkConsumer(agentKey, p), contracts.WorkFilter(agentKey, p))
		c.AckWait = lease
		consumers = append(consumers, c)
	}
	return consumers
}
