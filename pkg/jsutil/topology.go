package jsutil

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
)

// TopologyOptions are the choices that are the operator's.
type TopologyOptions struct {
	Replicas int                   // default 1
	Storage  jetstream.StorageType // default file
}

// Consumer is one durable consumer that services share.
type Consumer struct {
	Stream string
	jetstream.ConsumerConfig
}

// Topology is everything that must stand on the broker.
type Topology struct {
	Streams   []jetstream.StreamConfig
	Consumers []Consumer
}

const (
	sharedAckWait    = 30 * time.Second
	projectorAckWait = 5 * time.Second
	// ProjectorGroup is the priority group of statekeeper's projector.
	ProjectorGroup = "projector"
)

// NewTopology returns the topology of DESIGN "Names on the wire".
func NewTopology(o TopologyOptions) Topology {
	if o.Replicas == 0 {
		o.Replicas = 1
	}
	streams := []jetstream.StreamConfig{
		{
			Name:      contracts.StreamInbox,
			Subjects:  []string{contracts.SubjectSubmit, contracts.SubjectAllCancel, contracts.SubjectAllRedrive},
			Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew,
		},
		{
			Name: contracts.StreamWork, Subjects: []string{contracts.SubjectAllWork},
			Retention: jetstream.WorkQueuePolicy, MaxMsgsPerSubject: 1,
			Discard: jetstream.DiscardNew, DiscardNewPerSubject: true, AllowDirect: true,
		},
		{
			Name: contracts.StreamLog, Subjects: []string{contracts.SubjectAllLog},
			Discard:          jetstream.DiscardNew,
			SubjectTransform: &jetstream.SubjectTransformConfig{Source: contracts.SubjectAllLog, Destination: "runs.{{wildcard(1)}}.events"},
			RePublish:        &jetstream.RePublish{Source: contracts.SubjectAllEvents, Destination: "runs.{{wildcard(1)}}.events"},
			AllowDirect:      true,
		},
		{
			Name: contracts.StreamSchedule, Subjects: []string{contracts.SubjectAllScheduleAt, contracts.SubjectAllScheduleDue},
			Retention: jetstream.WorkQueuePolicy, AllowMsgSchedules: true, AllowDirect: true,
		},
		bucket(contracts.BucketRuns),
		bucket(contracts.BucketAgents),
	}
	for i := range streams {
		streams[i].Replicas, streams[i].Storage = o.Replicas, o.Storage
	}
	return Topology{Streams: streams, Consumers: []Consumer{
		shared(contracts.StreamInbox, contracts.ConsumerSubmit, contracts.SubjectSubmit),
		shared(contracts.StreamInbox, contracts.ConsumerCommands, contracts.SubjectAllCancel, contracts.SubjectAllRedrive),
		shared(contracts.StreamSchedule, contracts.ConsumerSchedule, contracts.SubjectAllScheduleDue),
		{Stream: contracts.StreamLog, ConsumerConfig: jetstream.ConsumerConfig{
			Durable: contracts.ConsumerProjector, AckPolicy: jetstream.AckAllPolicy, AckWait: projectorAckWait,
			MaxDeliver: -1, MaxAckPending: -1,
			PriorityPolicy: jetstream.PriorityPolicyPinned, PinnedTTL: projectorAckWait, PriorityGroups: []string{ProjectorGroup},
		}},
	}}
}

// bucket is the stream behind a key-value bucket.
func bucket(name string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: "KV_" + name, Subjects: []string{"$KV." + name + ".>"},
		MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew, AllowDirect: true, DenyDelete: true,
	}
}

func shared(stream, name string, filters ...string) Consumer {
	return Consumer{Stream: stream, ConsumerConfig: jetstream.ConsumerConfig{
		Durable: name, FilterSubjects: filters,
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: sharedAckWait, MaxDeliver: -1, MaxAckPending: -1,
	}}
}

// workConsumer is the consumer of one agent and priority. AckWait is the lease.
func workConsumer(agentKey string, p contracts.Priority, lease time.Duration) Consumer {
	c := shared(contracts.StreamWork, contracts.WorkConsumer(agentKey, p), contracts.WorkFilter(agentKey, p))
	c.AckWait = lease
	return c
}
