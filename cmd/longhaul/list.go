package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
)

// listCmd lists runs.
type listCmd struct {
	Status        []contracts.Status `short:"s" enum:"scheduled,pending,running,cancelling,succeeded,failed,timed_out,cancelled,rejected" placeholder:"STATUS" help:"Only runs in this status; several with commas between them."`
	Agent         string             `placeholder:"KEY" help:"Only runs of this agent."`
	Conversation  string             `placeholder:"ID" help:"Only runs of this conversation."`
	Metadata      map[string]string  `mapsep:"none" placeholder:"NAME=VALUE" help:"Only runs with this metadata; may be repeated."`
	CreatedAfter  string             `placeholder:"TIME" help:"Only runs created since: a time, or a duration back from now, such as 1h or 7d."`
	CreatedBefore string             `placeholder:"TIME" help:"Only runs created before."`
	Limit         int                `short:"n" default:"50" help:"Runs on a page (default ${default}, at most 1000)."`
	Cursor        string             `placeholder:"CURSOR" help:"The page that the one before named as its next."`
	All           bool               `help:"Every page."`
}

// Help is shown below the command's summary.
func (listCmd) Help() string {
	return `With --json a page is one document, {"runs": […], "cursor": "…"}; with --all as well, one run a line.

Examples:

    longhaul list --status failed,timed_out --created-after 1d
    longhaul list --agent echo --metadata user=u1 --limit 10
    longhaul list --all --json | jq -r .run_id`
}

// Validate checks what the grammar cannot say.
func (l *listCmd) Validate() error {
	if l.Limit < 1 || l.Limit > contracts.MaxListLimit {
		return errors.New("--limit must be 1 to 1000")
	}
	return nil
}

func (l *listCmd) request(now time.Time) (contracts.ListRequest, error) {
	req := contracts.ListRequest{Status: l.Status, AgentKey: l.Agent, ConversationID: l.Conversation, Metadata: l.Metadata,
		Limit: l.Limit, Cursor: l.Cursor}
	var err error
	if l.CreatedAfter != "" {
		if req.CreatedAfter, err = parsePast(l.CreatedAfter, now); err != nil {
			return req, usagef("--created-after: %w", err)
		}
	}
	if l.CreatedBefore != "" {
		if req.CreatedBefore, err = parsePast(l.CreatedBefore, now); err != nil {
			return req, usagef("--created-before: %w", err)
		}
	}
	if l.All {
		req.Limit = contracts.MaxListLimit
	}
	return req, nil
}

// Run runs the command.
func (l *listCmd) Run(ctx context.Context, a *app) error {
	req, err := l.request(a.now())
	if err != nil {
		return err
	}
	c, hangUp, err := a.dial()
	if err != nil {
		return err
	}
	defer hangUp()
	shown := 0
	for {
		page, err := c.List(ctx, req)
		if err != nil {
			return err
		}
		if err := l.show(a, page, shown); err != nil {
			return err
		}
		shown += len(page.Runs)
		if !l.All || page.Cursor == "" {
			return nil
		}
		req.Cursor = page.Cursor
	}
}

func (l *listCmd) show(a *app, page contracts.ListResponse, before int) error {
	switch {
	case a.JSON && l.All:
		for _, r := range page.Runs {
			if err := a.printJSON(r); err != nil {
				return err
			}
		}
		return nil
	case a.JSON:
		if page.Runs == nil {
			page.Runs = []contracts.StatusRecord{}
		}
		return a.printJSON(page)
	case len(page.Runs) == 0 && before == 0:
		a.err.printf("No runs.\n")
		a.err.next("submit one", "longhaul submit echo --message hi")
		return nil
	}
	rows := make([][]string, 0, len(page.Runs))
	for _, r := range page.Runs {
		rows = append(rows, a.runRow(r))
	}
	a.out.table([]string{"RUN", "AGENT", "STATUS", "ATTEMPT", "CREATED", "TOOK", "NOTE"}, rows)
	if page.Cursor != "" && !l.All {
		a.err.printf("%s\n", a.err.dim("More: the same with --cursor "+page.Cursor+", or --all."))
	}
	return nil
}

func (a *app) runRow(r contracts.StatusRecord) []string {
	took := ""
	switch {
	case ranFor(r) > 0:
		took = short(ranFor(r))
	case r.Status == contracts.StatusRunning && !r.StartedAt.IsZero():
		took = short(a.now().Sub(r.StartedAt)) + "…"
	}
	note := ""
	switch {
	case len(r.Faults) > 0:
		note = r.Faults.Error()
	case r.Error != nil && r.Status != contracts.StatusSucceeded:
		note = errorWords(*r.Error)
	case r.Status == contracts.StatusScheduled:
		note = "starts " + a.out.ago(r.NotBefore)
	}
	attempt := ""
	if r.MaxAttempts > 0 {
		attempt = strings.TrimPrefix(attemptWords(r), "none yet, ")
	}
	return []string{r.RunID, r.AgentKey, a.out.status(r.Status), attempt, a.out.ago(r.CreatedAt), took, oneLine(note, 60)}
}

// statsCmd counts runs.
type statsCmd struct{}

// Help is shown below the command's summary.
func (statsCmd) Help() string {
	return `Examples:

    longhaul stats
    longhaul stats --json | jq .by_status.failed`
}

// Run runs the command.
func (s *statsCmd) Run(ctx context.Context, a *app) error {
	c, hangUp, err := a.dial()
	if err != nil {
		return err
	}
	defer hangUp()
	stats, err := c.Stats(ctx)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(stats)
	}
	if stats.Total == 0 {
		a.err.printf("No runs.\n")
		return nil
	}
	head := []string{"AGENT"}
	var columns []contracts.Status
	for _, st := range contracts.Statuses() {
		if stats.ByStatus[st] > 0 {
			columns, head = append(columns, st), append(head, strings.ToUpper(strings.ReplaceAll(string(st), "_", " ")))
		}
	}
	agents := make([]string, 0, len(stats.ByAgent))
	for key := range stats.ByAgent {
		agents = append(agents, key)
	}
	slices.Sort(agents)
	var rows [][]string
	row := func(name string, counts map[contracts.Status]int) {
		cells, total := []string{name}, 0
		for _, st := range columns {
			cells, total = append(cells, number(counts[st])), total+counts[st]
		}
		rows = append(rows, append(cells, number(total)))
	}
	for _, key := range agents {
		name := key
		if name == "" {
			name = "(none)" // rejected without a valid one
		}
		row(name, stats.ByAgent[key])
	}
	row(a.out.bold("all"), stats.ByStatus)
	a.out.table(append(head, "ALL"), rows)
	// What is queued may be so because of a pause. Who may count runs and not
	// look at queues does without.
	if registered, err := c.Agents(ctx); err == nil {
		a.showPauses(registered)
	}
	return nil
}

// agentsCmd lists agents.
type agentsCmd struct{}

// Help is shown below the command's summary.
func (agentsCmd) Help() string {
	return `LISTENING says whether a worker waits for the agent's work now; one whose places are all taken does not. HELD counts the runs that are executing or in a retry's delay. Queues that are paused are named below the table.

Examples:

    longhaul agents
    longhaul agents --json | jq '.[] | select(.agent_key == "count") | .input_schema'`
}

// Run runs the command.
func (c *agentsCmd) Run(ctx context.Context, a *app) error {
	cl, hangUp, err := a.dial()
	if err != nil {
		return err
	}
	defer hangUp()
	agents, err := cl.Agents(ctx)
	if err != nil {
		return err
	}
	if a.JSON {
		if agents == nil {
			agents = []client.Agent{}
		}
		return a.printJSON(agents)
	}
	if len(agents) == 0 {
		a.err.printf("No worker has registered an agent yet.\n")
		a.err.next("start one", "longhaul worker --agent echo")
		return nil
	}
	rows := make([][]string, 0, len(agents))
	for _, ag := range agents {
		listening := a.out.dim("no")
		if ag.Listening {
			listening = a.out.green("yes")
		}
		rows = append(rows, []string{ag.AgentKey, listening, number(int(ag.Queued)), number(ag.Held), //nolint:gosec // counts of messages
			strings.Join(paramNames(ag.InputSchema), ", "), oneLine(ag.Description, 70)})
	}
	a.out.table([]string{"AGENT", "LISTENING", "QUEUED", "HELD", "PARAMS", "WHAT IT DOES"}, rows)
	a.showPauses(agents)
	return nil
}

// showPauses names the queues that are paused.
func (a *app) showPauses(agents []client.Agent) {
	any := false
	for _, ag := range agents {
		for _, q := range ag.Queues {
			if q.Pause == nil {
				continue
			}
			if !any {
				a.out.printf("\n")
			}
			any = true
			a.out.printf("%s %s (%s) is %s\n", a.out.yellow("‖"), ag.AgentKey, q.Priority, a.pauseWords(*q.Pause))
		}
	}
	if any {
		a.err.next("let one go on", "longhaul resume AGENT")
	}
}
