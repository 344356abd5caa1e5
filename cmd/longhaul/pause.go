package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
)

// pauseCmd has workers be handed no more runs of an agent.
type pauseCmd struct {
	Agent    []string             `arg:"" name:"agent" help:"The agents' keys."`
	Priority []contracts.Priority `enum:"high,normal,low" placeholder:"PRIORITY" help:"Only this priority: high, normal or low; may be repeated."`
	For      string               `placeholder:"TIME" help:"End by itself after this time, such as 90s, 2h or 1d (default: with longhaul resume)."`
	Reason   string               `placeholder:"TEXT" help:"Why; shown beside the queue."`
	By       string               `placeholder:"WHO" help:"Who pauses (default: the user of this machine)."`
}

// Help is shown below the command's summary.
func (pauseCmd) Help() string {
	return `Runs that are being executed go on to their end. What would be handed to a worker meanwhile waits: new runs, retries, sleepers that wake, and runs whose worker has died. A run can still be cancelled, and times out if it has not begun by its start timeout.

The pause is kept by the broker: it outlasts restarts of all services and of the broker, and holds for workers that come later. longhaul agents shows it.

Examples:

    longhaul pause report --reason "the database is being moved"
    longhaul pause report --priority low --for 2h
    longhaul resume report`
}

// Validate checks what the grammar cannot say.
func (p *pauseCmd) Validate() error {
	if err := wrongKeys(p.Agent); err != nil || p.For == "" {
		return err
	}
	d, err := parseDuration(p.For)
	if err == nil && d == 0 {
		err = errors.New("must be above 0")
	}
	if err != nil {
		return fmt.Errorf("--for: %w", err)
	}
	return nil
}

// Run runs the command.
func (p *pauseCmd) Run(ctx context.Context, a *app) error {
	o := client.PauseOptions{Priorities: p.Priority, Reason: p.Reason, By: orUser(p.By)}
	if p.For != "" {
		var err error
		if o.For, err = parseDuration(p.For); err != nil {
			return err
		}
	}
	return a.eachQueue(p.Agent, func(c *client.Client, key string) ([]client.Queue, error) { return c.Pause(ctx, key, o) })
}

// resumeCmd ends a pause.
type resumeCmd struct {
	Agent    []string             `arg:"" name:"agent" help:"The agents' keys."`
	Priority []contracts.Priority `enum:"high,normal,low" placeholder:"PRIORITY" help:"Only this priority: high, normal or low; may be repeated."`
}

// Help is shown below the command's summary.
func (resumeCmd) Help() string {
	return `Workers are handed at once what waits. For a queue that is not paused it does nothing.

Examples:

    longhaul resume report
    longhaul resume report --priority high`
}

// Validate checks what the grammar cannot say.
func (r *resumeCmd) Validate() error { return wrongKeys(r.Agent) }

// Run runs the command.
func (r *resumeCmd) Run(ctx context.Context, a *app) error {
	return a.eachQueue(r.Agent, func(c *client.Client, key string) ([]client.Queue, error) { return c.Resume(ctx, key, r.Priority...) })
}

// queueDocument is what --json prints for each agent.
type queueDocument struct {
	AgentKey string         `json:"agent_key"`
	Queues   []client.Queue `json:"queues"`
}

// eachQueue changes the queues of agents, and shows them.
func (a *app) eachQueue(agents []string, change func(c *client.Client, key string) ([]client.Queue, error)) error {
	c, hangUp, err := a.dial()
	if err != nil {
		return err
	}
	defer hangUp()
	var rows [][]string
	for _, key := range agents {
		queues, err := change(c, key)
		if errors.Is(err, client.ErrNoQueue) {
			return &codedError{code: exitNotFound, err: err, hint: "is the key right? longhaul agents lists them; longhaul topology create --agent " + key + " makes its queues beforehand"}
		}
		if err != nil {
			return err
		}
		if a.JSON {
			if err := a.printJSON(queueDocument{key, queues}); err != nil {
				return err
			}
			continue
		}
		for _, q := range queues {
			state := a.out.green("open")
			if q.Pause != nil {
				state = a.out.yellow(a.pauseWords(*q.Pause))
			}
			rows = append(rows, []string{key, string(q.Priority), number(int(q.Queued)), number(q.Held), state}) //nolint:gosec // counts of messages
		}
	}
	if !a.JSON {
		a.out.table([]string{"AGENT", "PRIORITY", "QUEUED", "HELD", "STATE"}, rows)
	}
	return nil
}

// pauseWords says until when a queue is paused, by whom and why.
func (a *app) pauseWords(p client.Paused) string {
	words := "paused until it is resumed"
	if !p.Until.IsZero() {
		words = "paused for " + short(p.Until.Sub(a.out.now()).Round(time.Second))
	}
	if p.By != "" {
		words += ", by " + oneLine(p.By, 40)
	}
	if p.Reason != "" {
		words += ": " + oneLine(p.Reason, 80)
	}
	return words
}

func wrongKeys(keys []string) error {
	for _, key := range keys {
		if err := contracts.CheckAgentKey(key); err != nil {
			return fmt.Errorf("agent %q: %w", key, err)
		}
	}
	return nil
}
