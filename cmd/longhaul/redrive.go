package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"longhaul/internal/shell"
	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
)

// redriveCmd starts a new round of a run, or of all that match a filter.
type redriveCmd struct {
	RunID     string `arg:"" optional:"" name:"run" help:"The run's id."`
	FromStart bool   `help:"Begin without the last checkpoint."`
	By        string `placeholder:"WHO" help:"Who asks for it (default: the user of this machine)."`
	Follow    bool   `xor:"after" help:"Show the run's events until it has ended."`
	Wait      bool   `short:"w" xor:"after" help:"Wait for the end, and print the output."`

	Status   []contracts.Status `short:"s" enum:"failed,timed_out,cancelled" placeholder:"STATUS" help:"All runs in this status: failed, timed_out or cancelled; several with commas between them."`
	Agent    string             `placeholder:"KEY" help:"All runs of this agent."`
	Since    string             `placeholder:"TIME" help:"All runs that ended since: a time, or a duration back from now, such as 1h or 7d."`
	Metadata map[string]string  `mapsep:"none" placeholder:"NAME=VALUE" help:"All runs with this metadata; may be repeated."`
	Yes      bool               `short:"y" help:"Do not ask, however many match."`
}

// Help is shown below the command's summary.
func (redriveCmd) Help() string {
	return `It is a new round of the same run: it goes on from its last checkpoint, on the same log, with its attempts counted anew. The exit code is 1 for a run that did not end badly, 8 for one that is unknown; with --follow and --wait it tells how the run ended.

In place of a run, a filter names all that match the whole of it; without --status these are the runs that failed, timed out or were cancelled. It says how many there are, and asks before it acts on more than one; where there is nobody to ask, --yes is needed. With --json it prints one line for each.

Examples:

    longhaul redrive 0198c0de-7a11-7abc-8def-0123456789ab --follow
    longhaul redrive 0198c0de-7a11-7abc-8def-0123456789ab --from-start --wait
    longhaul redrive --status failed --agent report --since 1h
    longhaul redrive --status failed,timed_out --metadata user=u1 --from-start --yes --json`
}

// filtered reports whether a filter is given.
func (r *redriveCmd) filtered() bool {
	return len(r.Status) > 0 || r.Agent != "" || r.Since != "" || len(r.Metadata) > 0
}

// Validate checks what the grammar cannot say.
func (r *redriveCmd) Validate() error {
	switch {
	case r.RunID == "" && !r.filtered():
		return errors.New("name a run, or a filter: --status, --agent, --since, --metadata")
	case r.RunID != "" && r.filtered():
		return errors.New("either a run or a filter, not both")
	case r.RunID == "" && (r.Follow || r.Wait):
		return errors.New("--follow and --wait are for one run; use watch --agent KEY in another terminal")
	case r.RunID != "":
		return wrongID(r.RunID)
	}
	return nil
}

// redriveDocument is what --json prints for each run.
type redriveDocument struct {
	RunID string `json:"run_id"`
	// From is the number of the new round's first event.
	From uint64 `json:"from"`
}

// Run runs the command.
func (r *redriveCmd) Run(ctx context.Context, a *app) error {
	var since time.Time
	if r.Since != "" {
		var err error
		if since, err = parsePast(r.Since, a.now()); err != nil {
			return usagef("--since: %w", err)
		}
	}
	c, hangUp, err := a.dial()
	if err != nil {
		return err
	}
	defer hangUp()
	if r.RunID == "" {
		return r.many(ctx, a, c, since)
	}
	head, err := a.head(ctx, c, r.RunID)
	if err != nil {
		return err
	}
	if !head.Status.Redrivable() {
		hint := ""
		if head.Status == contracts.StatusRejected {
			hint = "it never became a run: submit it again, corrected"
		}
		return &codedError{code: exitError, hint: hint, err: fmt.Errorf(
			"run %s has the status %s; only a run that failed, timed out or was cancelled can be redriven", r.RunID, head.Status)}
	}
	if err := c.Redrive(ctx, r.RunID, r.command()); err != nil {
		return err
	}
	switch {
	case r.Follow:
		return a.followRound(ctx, c, r.RunID, &eventPrinter{c: a.out}, head.Seq+1)
	case r.Wait:
		return a.wait(ctx, c, r.RunID, head.Seq+1)
	case a.JSON:
		return a.printJSON(redriveDocument{r.RunID, head.Seq + 1})
	}
	a.out.printf("Run %s will be run again.\n", r.RunID)
	a.out.next("watch it", fmt.Sprintf("longhaul watch %s --from %d", r.RunID, head.Seq+1))
	return nil
}

func (r *redriveCmd) command() contracts.RedriveCommand {
	return contracts.RedriveCommand{By: orUser(r.By), FromStart: r.FromStart}
}

// many redrives all that match. The first error ends it, and so does an
// interruption: what is left matches the same filter the next time.
func (r *redriveCmd) many(ctx context.Context, a *app, c *client.Client, since time.Time) error {
	runs, counts, err := r.matches(ctx, a, c, since)
	if err != nil {
		return err
	}
	if err := r.confirm(ctx, a, len(runs), counts); err != nil {
		return err
	}
	p := newProgress(a)
	done := 0
	stopped := func(err error) error {
		p.clear()
		return fmt.Errorf("after %s of %s: %w; the rest still matches the filter", number(done), plural(len(runs), "run"), err)
	}
	for some := range slices.Chunk(runs, redrivenAtOnce) {
		if ctx.Err() != nil {
			return stopped(context.Cause(ctx))
		}
		// What is begun is brought to its end, for its runs are to be counted.
		for i, err := range r.each(context.WithoutCancel(ctx), c, some) {
			if err != nil {
				return stopped(err)
			}
			done++
			switch {
			case a.JSON:
				if err := a.printJSON(redriveDocument{some[i].id.String(), some[i].seq + 1}); err != nil {
					return err
				}
			case !a.out.terminal:
				a.out.printf("%s\n", some[i].id)
			}
		}
		p.show(fmt.Sprintf("%s of %s redriven", number(done), number(len(runs))), done)
	}
	p.clear()
	if !a.JSON && len(runs) > 0 {
		a.err.printf("%s will be run again.\n", plural(len(runs), "run"))
		a.err.next("see them", "longhaul list --status pending,running")
	}
	return nil
}

// redrivenAtOnce is how many commands are under way at a time: one after the
// other, a hundred thousand would take a minute, on three replicas several.
const redrivenAtOnce = 64

// each sends the command for some runs, all at the same time, and returns what
// came of each.
func (r *redriveCmd) each(ctx context.Context, c *client.Client, some []match) []error {
	errs := make([]error, len(some))
	var sending sync.WaitGroup
	for i, run := range some {
		sending.Go(func() { errs[i] = c.Redrive(ctx, run.id.String(), r.command()) })
	}
	sending.Wait()
	return errs
}

// match is what is kept of a run that matches: 24 bytes, for there may be a million.
type match struct {
	id  uuid.UUID
	seq uint64 // of its last event
}

// matches lists every run that is meant, page by page, before any of them is
// touched (a run that is redriven leaves the list), and counts how they ended.
func (r *redriveCmd) matches(ctx context.Context, a *app, c *client.Client, since time.Time) (runs []match, counts map[contracts.Status]int, err error) {
	req := contracts.ListRequest{Status: r.Status, AgentKey: r.Agent, Metadata: r.Metadata, Limit: contracts.MaxListLimit}
	if len(req.Status) == 0 {
		req.Status = slices.DeleteFunc(contracts.Statuses(), func(s contracts.Status) bool { return !s.Redrivable() })
	}
	p := newProgress(a)
	defer p.clear()
	counts = map[contracts.Status]int{}
	for {
		page, err := c.List(ctx, req)
		if err != nil {
			return nil, nil, err
		}
		for _, run := range page.Runs {
			if run.FinishedAt.Before(since) {
				continue
			}
			id, err := uuid.Parse(run.RunID)
			if err != nil {
				return nil, nil, fmt.Errorf("list runs: run id %q: %w", run.RunID, err)
			}
			runs = append(runs, match{id, run.Seq})
			counts[run.Status]++
		}
		if page.Cursor == "" {
			return runs, counts, nil
		}
		req.Cursor = page.Cursor
		p.show(plural(len(runs), "run")+" found", len(runs))
	}
}

// confirm says how many runs are meant, and asks whether that is so if they are
// more than one. Nil means that it is.
func (r *redriveCmd) confirm(ctx context.Context, a *app, n int, counts map[contracts.Status]int) error {
	if !a.JSON {
		a.err.printf("%s.\n", matchWords(n, counts))
	}
	switch {
	case n <= 1 || r.Yes:
		return nil
	case a.JSON || !a.err.terminal || !shell.IsTerminal(a.stdin):
		return &codedError{code: exitUsage, err: fmt.Errorf("%s match, and there is nobody to ask", plural(n, "run")),
			hint: "add --yes to redrive them all"}
	}
	return a.ask(ctx, "Run them again?")
}

// matchWords tells how many match, and how they ended.
func matchWords(n int, counts map[contracts.Status]int) string {
	if n == 0 {
		return "No run matches"
	}
	var parts []string
	for _, s := range contracts.Statuses() {
		if counts[s] > 0 {
			parts = append(parts, number(counts[s])+" "+strings.ReplaceAll(string(s), "_", " "))
		}
	}
	return fmt.Sprintf("%s: %s", plural(n, "run"), strings.Join(parts, ", "))
}

// ask returns nil if the answer is yes. What is no answer is a no.
func (a *app) ask(ctx context.Context, question string) error {
	a.err.printf("%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() { // nothing ends a read but the end of the process
		line, _ := bufio.NewReader(a.stdin).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case s := <-answer:
		if s == "y" || s == "yes" {
			return nil
		}
		return &codedError{code: exitError, err: errors.New("nothing was done")}
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
