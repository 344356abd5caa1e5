package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// Agent is an agent that workers have registered, and its queue.
type Agent struct {
	contracts.AgentRecord
	// Listening says that a worker waits for its work at this moment. A worker
	// with no free slot does not wait.
	Listening bool `json:"listening"`
	// Queued counts the runs that have not been handed to a worker yet, Held
	// those that have: executing, or in a retry's delay.
	Queued uint64 `json:"queued"`
	Held   int    `json:"held"`
	// Queues are the same by priority, the more urgent first. One is missing as
	// long as no worker has made it.
	Queues []Queue `json:"queues,omitempty"`
}

// Queue is what waits of an agent's runs at one priority.
type Queue struct {
	Priority  contracts.Priority `json:"priority"`
	Listening bool               `json:"listening"`
	Queued    uint64             `json:"queued"`
	Held      int                `json:"held"`
	// Pause is nil unless the queue is paused.
	Pause *Paused `json:"pause,omitempty"`
}

// Paused says until when a queue hands no run to a worker, and why.
type Paused struct {
	Until  time.Time `json:"until,omitzero"` // zero: until it is resumed
	Reason string    `json:"reason,omitempty"`
	By     string    `json:"by,omitempty"`
}

// Agents returns every registered agent, by key. It costs one request, and
// three for each agent.
func (c *Client) Agents(ctx context.Context) ([]Agent, error) {
	msgs, _, err := jsutil.GetBatch(ctx, c.nc, contracts.StreamAgents,
		jsutil.GetRequest{MultiLast: []string{contracts.KVSubject(contracts.BucketAgents, ">")}})
	if err != nil {
		return nil, fmt.Errorf("list agents: %w", err)
	}
	var agents []Agent
	for _, msg := range msgs {
		if msg.Header.Get("KV-Operation") != "" {
			continue // deleted
		}
		var a Agent
		if err := json.Unmarshal(msg.Data, &a.AgentRecord); err != nil {
			return nil, fmt.Errorf("list agents: decode %s: %w", msg.Subject, err)
		}
		agents = append(agents, a)
	}
	for i := range agents {
		if err := c.queue(ctx, &agents[i]); err != nil {
			return nil, fmt.Errorf("list agents: queue of %s: %w", agents[i].AgentKey, err)
		}
	}
	slices.SortFunc(agents, func(a, b Agent) int { return cmp.Compare(a.AgentKey, b.AgentKey) })
	return agents, nil
}

// queue fills in what the consumers of an agent's work tell.
func (c *Client) queue(ctx context.Context, a *Agent) (err error) {
	if a.Queues, err = c.queues(ctx, a.AgentKey); err != nil {
		return err
	}
	for _, q := range a.Queues {
		a.Listening = a.Listening || q.Listening
		a.Queued += q.Queued
		a.Held += q.Held
	}
	return nil
}

// queues are an agent's queues, the more urgent first.
func (c *Client) queues(ctx context.Context, agentKey string) ([]Queue, error) {
	if err := contracts.CheckAgentKey(agentKey); err != nil {
		return nil, fmt.Errorf("agent key: %w", err)
	}
	var queues []Queue
	for _, p := range contracts.Priorities() {
		consumer, err := c.js.Consumer(ctx, contracts.StreamWork, contracts.WorkConsumer(agentKey, p))
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			continue // registered before its first worker made them
		}
		if err != nil {
			return nil, jsutil.Translate(err)
		}
		info := consumer.CachedInfo()
		q := Queue{Priority: p, Listening: info.NumWaiting > 0, Queued: info.NumPending, Held: info.NumAckPending}
		if until := info.Config.PauseUntil; info.Paused && until != nil {
			q.Pause = &Paused{Reason: info.Config.Metadata[pauseReason], By: info.Config.Metadata[pauseBy]}
			if until.Before(untilResumed) {
				q.Pause.Until = *until
			}
		}
		queues = append(queues, q)
	}
	return queues, nil
}
