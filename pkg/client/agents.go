package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

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
func (c *Client) queue(ctx context.Context, a *Agent) error {
	if err := contracts.CheckAgentKey(a.AgentKey); err != nil {
		return fmt.Errorf("agent key: %w", err)
	}
	for _, p := range contracts.Priorities() {
		consumer, err := c.js.Consumer(ctx, contracts.StreamWork, contracts.WorkConsumer(a.AgentKey, p))
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			continue // registered before its first worker made them
		}
		if err != nil {
			return jsutil.Translate(err)
		}
		info := consumer.CachedInfo()
		a.Listening = a.Listening || info.NumWaiting > 0
		a.Queued += info.NumPending
		a.Held += info.NumAckPending
	}
	return nil
}
