package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// register makes the worker's agents known and their queues exist.
func (w *Worker) register(ctx context.Context) error {
	if err := w.ensureQueues(ctx); err != nil {
		return err
	}
	if err := w.adoptLease(ctx); err != nil {
		return err
	}
	kv, err := w.js.KeyValue(ctx, contracts.BucketAgents)
	if err != nil {
		return fmt.Errorf("open bucket %s: %w", contracts.BucketAgents, jsutil.Translate(err))
	}
	for _, a := range w.cfg.Agents {
		if err := w.registerAgent(ctx, kv, a); err != nil {
			return fmt.Errorf("register agent %s: %w", a.Key, err)
		}
	}
	return nil
}

// registerAgent writes the agent's record unless the same is there already: a
// hundred workers of one agent are no hundred writes at every restart.
func (w *Worker) registerAgent(ctx context.Context, kv jetstream.KeyValue, a agent.Agent) error {
	record := contracts.AgentRecord{
		AgentKey: a.Key, Description: a.Description, InputSchema: a.InputSchema,
		TimeoutSeconds: w.cfg.RunTimeout.Seconds(), MaxAttempts: w.cfg.MaxAttempts,
	}
	entry, err := kv.Get(ctx, a.Key)
	if err != nil && !errors.Is(jsutil.Translate(err), jsutil.ErrNotFound) {
		return jsutil.Translate(err)
	}
	if err == nil {
		var there contracts.AgentRecord
		if json.Unmarshal(entry.Value(), &there) == nil {
			there.RegisteredAt, there.RegisteredBy = time.Time{}, ""
			if same(there, record) {
				return nil
			}
		}
	}
	record.RegisteredAt, record.RegisteredBy = time.Now().UTC(), w.cfg.WorkerID
	value, err := contracts.Encode(record)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	_, err = w.put(ctx, &nats.Msg{Subject: contracts.KVSubject(contracts.BucketAgents, a.Key), Data: value})
	return err
}

// same compares two records as they are encoded: a schema's white space does not count.
func same(a, b contracts.AgentRecord) bool {
	var x, y any
	if len(a.InputSchema) > 0 && len(b.InputSchema) > 0 &&
		json.Unmarshal(a.InputSchema, &x) == nil && json.Unmarshal(b.InputSchema, &y) == nil && reflect.DeepEqual(x, y) {
		b.InputSchema = a.InputSchema
	}
	return reflect.DeepEqual(a, b)
}

// ensureQueues makes the consumers of the worker's agents where they are missing.
func (w *Worker) ensureQueues(ctx context.Context) error {
	for _, a := range w.cfg.Agents {
		if err := jsutil.EnsureWorkConsumers(ctx, w.js, a.Key, w.cfg.Lease); err != nil {
			return fmt.Errorf("make the queues of agent %s: %w", a.Key, err)
		}
	}
	return nil
}

// adoptLease takes the shortest lease that the queues grant, if that is shorter
// than ours: they may have been made by workers that were told otherwise, and a
// heartbeat that suits our lease would come too late for theirs.
func (w *Worker) adoptLease(ctx context.Context) error {
	for _, s := range w.sourcesOf() {
		name := contracts.WorkConsumer(s.agentKey, s.priority)
		consumer, err := w.js.Consumer(ctx, contracts.StreamWork, name)
		if err != nil {
			return fmt.Errorf("read the lease of consumer %s: %w", name, jsutil.Translate(err))
		}
		if granted := consumer.CachedInfo().Config.AckWait; granted < w.cfg.Lease {
			w.log.Warn("queue grants a shorter lease than configured, which holds", "agent_key", s.agentKey, "lease", granted, "configured", w.cfg.Lease)
			w.cfg.Lease = granted
			w.cfg.HeartbeatInterval = min(w.cfg.HeartbeatInterval, granted/3)
		}
	}
	return nil
}
