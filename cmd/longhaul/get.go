package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/runlog"
)

// getCmd shows one run.
type getCmd struct {
	RunID string `arg:"" name:"run" help:"The run's id."`
}

// Help is shown below the command's summary.
func (getCmd) Help() string {
	return `It exits with 0 whatever became of the run, with 8 if there is no such run; use submit --wait or watch for exit codes that tell how it ended.

Examples:

    longhaul get 0198c0de-7a11-7abc-8def-0123456789ab
    longhaul get 0198c0de-7a11-7abc-8def-0123456789ab --json | jq .result.final_output`
}

// Validate checks what the grammar cannot say.
func (g *getCmd) Validate() error { return wrongID(g.RunID) }

// Run runs the command.
func (g *getCmd) Run(ctx context.Context, a *app) error {
	c, hangUp, err := a.dial()
	if err != nil {
		return err
	}
	defer hangUp()
	resp, err := c.Get(ctx, g.RunID)
	if unknown := (*client.APIError)(nil); errors.Is(err, client.ErrNotFound) && errors.As(err, &unknown) {
		return &codedError{code: exitNotFound, err: unknown, hint: "is the id right? longhaul list shows what there is"}
	}
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(resp)
	}
	var asked []client.Asked
	if w := resp.Run.WaitsFor; w == contracts.AnySignal || strings.HasPrefix(w, contracts.ConfirmSignal("")) {
		if asked, err = c.Confirmations(ctx, g.RunID); err != nil {
			return err
		}
	}
	a.showRun(resp, asked)
	return nil
}

// showRun prints one run for people, what it asks, and what can be done with it.
func (a *app) showRun(resp contracts.GetResponse, asked []client.Asked) {
	r, c := resp.Run, a.out
	c.fields(
		"Run", c.bold(r.RunID),
		"Agent", r.AgentKey,
		"Status", c.status(r.Status),
		"Attempt", attemptWords(r),
		"Priority", string(r.Priority),
		"Worker", r.WorkerID,
		"Conversation", printable(r.ConversationID),
		"Key", printable(r.IdempotencyKey),
		"Metadata", metadataWords(r.Metadata),
		"Created", c.at(r.CreatedAt),
		"Waits for", cmp.Or(a.askedWords(asked), waitsForWords(r)),
		"Not before", c.at(r.NotBefore),
		"Started", c.at(r.StartedAt),
		"Finished", finishedWords(c, r),
		"Checkpoint", checkpointRefWords(r.Checkpoint),
		"Usage", usageWords(r.Usage),
		"Events", number(int(r.Seq)), //nolint:gosec // a count of events
		"Reason", reasonWords(resp),
		"Error", runErrorWords(r),
		"Faults", faultLines(r.Faults),
		"Output", outputWords(resp),
	)
	switch {
	case r.Status.Redrivable():
		c.next("its events", "longhaul watch "+r.RunID, "run it again", "longhaul redrive "+r.RunID)
	case len(asked) > 0:
		a.nextConfirm(r.RunID, asked[0])
	case r.WaitsFor != "" && r.WaitsFor != contracts.AnySignal:
		c.next("let it go on", "longhaul signal "+r.RunID+" "+shellWord(r.WaitsFor), "watch it", "longhaul watch "+r.RunID, "cancel it", "longhaul cancel "+r.RunID)
	case !r.Status.Terminal():
		c.next("watch it", "longhaul watch "+r.RunID, "cancel it", "longhaul cancel "+r.RunID)
	default:
		c.next("its events", "longhaul watch "+r.RunID)
	}
}

// waitsForWords says what a waiting run needs in order to go on before its deadline.
func waitsForWords(r contracts.StatusRecord) string {
	switch r.WaitsFor {
	case "":
		return ""
	case contracts.AnySignal:
		return "one of several signals, or the time below"
	}
	return "the signal " + printable(r.WaitsFor) + ", or the time below"
}

// shellWord quotes a name for a shell if it needs that.
func shellWord(s string) string {
	if strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/@-") == "" {
		return printable(s)
	}
	return "'" + strings.ReplaceAll(printable(s), "'", `'\''`) + "'"
}

func attemptWords(r contracts.StatusRecord) string {
	switch {
	case r.MaxAttempts == 0:
		return ""
	case r.Attempt == 0:
		return fmt.Sprintf("none yet, of %d", r.MaxAttempts)
	}
	return fmt.Sprintf("%d of %d", r.Attempt, r.MaxAttempts)
}

func metadataWords(m map[string]string) string {
	keys := make([]string, 0, len(m))
	for k, v := range m {
		keys = append(keys, printable(k+"="+v))
	}
	slices.Sort(keys)
	return strings.Join(keys, "\n")
}

func finishedWords(c console, r contracts.StatusRecord) string {
	s := c.at(r.FinishedAt)
	if took := ranFor(r); took > 0 {
		s += c.dim(", the last attempt took " + short(took))
	}
	return s
}

// ranFor is how long the last attempt took, if it has ended.
func ranFor(r contracts.StatusRecord) time.Duration {
	if r.StartedAt.IsZero() || r.FinishedAt.Before(r.StartedAt) {
		return 0
	}
	return r.FinishedAt.Sub(r.StartedAt)
}

func checkpointRefWords(ref *contracts.CheckpointRef) string {
	if ref == nil {
		return ""
	}
	return fmt.Sprintf("%d (of epoch %d)", ref.N, ref.Epoch)
}

func usageWords(u contracts.Usage) string {
	if u == (contracts.Usage{}) {
		return ""
	}
	return fmt.Sprintf("%d tokens in, %d out, cost %g", u.InputTokens, u.OutputTokens, u.Cost)
}

func runErrorWords(r contracts.StatusRecord) string {
	if r.Error == nil {
		return ""
	}
	return printable(errorWords(*r.Error))
}

// reasonWords says why a run was cancelled or timed out.
func reasonWords(resp contracts.GetResponse) string {
	e := contracts.Event{Payload: resp.Result}
	switch resp.Run.Status {
	case contracts.StatusCancelled:
		e.Type = contracts.TypeCancelled
	case contracts.StatusTimedOut:
		e.Type = contracts.TypeTimedOut
	default:
		return ""
	}
	return printable(summary(e, console{}))
}

func faultLines(faults contracts.Faults) string {
	lines := make([]string, 0, len(faults))
	for _, f := range faults {
		lines = append(lines, printable(strings.TrimPrefix(f.Field+": "+f.Message, ": ")))
	}
	return strings.Join(lines, "\n")
}

func outputWords(resp contracts.GetResponse) string {
	if resp.Run.Status != contracts.StatusSucceeded {
		return ""
	}
	e := contracts.Event{Type: contracts.TypeSucceeded, Payload: resp.Result}
	return printable(summary(e, console{}))
}

// head returns the last event of a run. A run that was submitted a moment ago
// may not have one yet: it is waited for, shortly.
func (a *app) head(ctx context.Context, c *client.Client, runID string) (runlog.Entry, error) {
	const patience, between = 2 * time.Second, 50 * time.Millisecond
	deadline := time.Now().Add(patience)
	for {
		e, err := c.Head(ctx, runID)
		if !errors.Is(err, client.ErrNotFound) {
			return e, err
		}
		if time.Now().After(deadline) {
			return e, &codedError{code: exitNotFound, err: fmt.Errorf("run %s: %w", runID, client.ErrNotFound),
				hint: "is the id right? A run that was submitted while no dispatcher runs has no log yet"}
		}
		select {
		case <-time.After(between):
		case <-ctx.Done():
			return e, context.Cause(ctx)
		}
	}
}
