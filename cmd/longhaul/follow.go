package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/runlog"
)

// follow shows a run's events. If it sees the run end, it returns the error
// that stands for how it did.
func (a *app) follow(ctx context.Context, c *client.Client, runID string, p *eventPrinter, o runlog.FollowOptions) error {
	return a.followed(ctx, runID, p, c.Follow(ctx, runID, o))
}

// followRound is follow from event number from on until the first end of a
// round. (UntilEnd would look at the end of the log, and after a redrive that
// may still be the last round's.)
func (a *app) followRound(ctx context.Context, c *client.Client, runID string, p *eventPrinter, from uint64) error {
	return a.followed(ctx, runID, p, func(yield func(runlog.Entry, error) bool) {
		for e, err := range c.Follow(ctx, runID, runlog.FollowOptions{From: from}) {
			if !yield(e, err) || err == nil && e.Type.Terminal() {
				return
			}
		}
	})
}

func (a *app) followed(ctx context.Context, runID string, p *eventPrinter, events iter.Seq2[runlog.Entry, error]) error {
	end, err := a.showEvents(events, p)
	switch {
	case errors.Is(context.Cause(ctx), errInterrupted):
		return a.leftRunning(runID, end)
	case err != nil:
		return err
	case end == nil:
		return nil
	}
	return a.ended(client.Outcome{Entry: *end})
}

// showEvents prints events until there are no more and returns the last one if
// that ended a run.
func (a *app) showEvents(events iter.Seq2[runlog.Entry, error], p *eventPrinter) (end *runlog.Entry, err error) {
	defer p.endLine()
	for e, err := range events {
		if errors.Is(err, runlog.ErrGap) || errors.Is(err, runlog.ErrMalformed) {
			p.endLine()
			a.err.printf("%s\n", a.err.yellow(err.Error()))
			continue
		}
		if err != nil {
			return end, err
		}
		end = nil
		if e.Type.Terminal() {
			end = &e
		}
		if a.JSON {
			if err := a.printJSON(e.Event); err != nil {
				return end, err
			}
			continue
		}
		p.print(e)
	}
	return end, nil
}

// leftRunning is what interrupting a command that follows a run comes to.
func (a *app) leftRunning(runID string, end *runlog.Entry) error {
	if end == nil && !a.JSON {
		a.err.printf("\nThe run goes on.\n")
		a.err.next("watch it again", "longhaul watch "+runID, "cancel it", "longhaul cancel "+runID)
	}
	return &codedError{code: exitInterrupted}
}

// ended suggests what can be done with a run that ended, and returns the exit
// code that says how it did.
func (a *app) ended(o client.Outcome) error {
	if !a.JSON && o.Status.Redrivable() {
		a.err.next("all about it", "longhaul get "+o.RunID, "run it again", "longhaul redrive "+o.RunID)
	}
	if code := statusCode(o.Status); code != exitOK {
		return &codedError{code: code}
	}
	return nil
}

// wait waits for the end of a run, at event number from or later, and prints
// what it came to: on stdout the output alone, so that it can be piped.
func (a *app) wait(ctx context.Context, c *client.Client, runID string, from uint64) error {
	o, err := c.WaitFrom(ctx, runID, from)
	if errors.Is(context.Cause(ctx), errInterrupted) {
		return a.leftRunning(runID, nil)
	}
	if err != nil {
		return err
	}
	if a.JSON {
		if err := a.printJSON(newOutcomeDocument(o)); err != nil {
			return err
		}
		return a.ended(o)
	}
	if err := o.Err(); err != nil {
		a.err.printf("%s %v\n", a.err.red("✗"), printable(err.Error()))
		return a.ended(o)
	}
	result, err := o.Result()
	if err != nil {
		return err
	}
	if len(result.FinalOutput) > 0 {
		a.out.printf("%s\n", valueWords(result.FinalOutput))
	}
	return nil
}

// outcomeDocument is how a run ended, as --wait --json prints it.
type outcomeDocument struct {
	RunID       string           `json:"run_id"`
	AgentKey    string           `json:"agent_key,omitempty"`
	Status      contracts.Status `json:"status"`
	Attempt     int              `json:"attempt"`
	MaxAttempts int              `json:"max_attempts"`
	Seq         uint64           `json:"seq"`
	Result      json.RawMessage  `json:"result,omitempty"` // the payload of the terminal event
}

func newOutcomeDocument(o client.Outcome) outcomeDocument {
	return outcomeDocument{RunID: o.RunID, AgentKey: o.AgentKey, Status: o.Status, Attempt: o.Attempt,
		MaxAttempts: o.MaxAttempts, Seq: o.Seq, Result: o.Payload}
}

// watchCmd follows events.
type watchCmd struct {
	RunID    string `arg:"" optional:"" name:"run" help:"The run's id."`
	Agent    string `placeholder:"KEY" help:"Follow every run of an agent, from now on."`
	All      bool   `help:"Follow every run, from now on."`
	From     uint64 `default:"1" placeholder:"SEQ" help:"Begin with this event of the run (default 1)."`
	UntilEnd bool   `negatable:"" default:"true" help:"End when the run has ended (default); else wait for a redrive."`
	Verbose  bool   `short:"v" help:"Show internal and debug events as well, such as checkpoints and heartbeats."`
}

// Help is shown below the command's summary.
func (watchCmd) Help() string {
	return `Text that the agent streams is shown as text, every other event in one line. Interrupting it does nothing to the run. The exit code tells how the run ended: 0 if it succeeded, 3 to 6 if it failed, timed out, was cancelled or was rejected.

Examples:

    longhaul watch 0198c0de-7a11-7abc-8def-0123456789ab
    longhaul watch 0198c0de-7a11-7abc-8def-0123456789ab --from 17 --json
    longhaul watch --agent echo
    longhaul watch --all --verbose`
}

// Validate checks what the grammar cannot say.
func (w *watchCmd) Validate() error {
	n := 0
	for _, given := range []bool{w.RunID != "", w.Agent != "", w.All} {
		if given {
			n++
		}
	}
	if n != 1 {
		return errors.New("say what to watch: a run's id, --agent KEY or --all")
	}
	if w.RunID != "" {
		return wrongID(w.RunID)
	}
	if w.From > 1 {
		return errors.New("--from is for one run")
	}
	return nil
}

// Run runs the command.
func (w *watchCmd) Run(ctx context.Context, a *app) error {
	c, hangUp, err := a.dial()
	if err != nil {
		return err
	}
	defer hangUp()
	p := &eventPrinter{c: a.out, verbose: w.Verbose}
	if w.RunID == "" {
		p.many = true
		_, err := a.showEvents(c.FollowAll(ctx, w.Agent), p)
		if errors.Is(context.Cause(ctx), errInterrupted) {
			return nil // the only way to end it
		}
		return err
	}
	return w.one(ctx, a, c, p)
}

func (w *watchCmd) one(ctx context.Context, a *app, c *client.Client, p *eventPrinter) error {
	head, err := a.head(ctx, c, w.RunID)
	if err != nil {
		return err
	}
	if w.From <= head.Seq {
		return a.follow(ctx, c, w.RunID, p, runlog.FollowOptions{From: w.From, UntilEnd: w.UntilEnd})
	}
	// Beyond what there is, and perhaps beyond all that there will be.
	if !head.Status.Terminal() || !w.UntilEnd {
		if !a.JSON {
			a.err.printf("%s\n", a.err.dim(fmt.Sprintf("The last event is number %d (%s); waiting for number %d.", head.Seq, head.Type, w.From)))
		}
		err := a.follow(ctx, c, w.RunID, p, runlog.FollowOptions{From: w.From, UntilEnd: w.UntilEnd})
		if err != nil || !w.UntilEnd {
			return err
		}
		if head, err = c.Head(ctx, w.RunID); err != nil || head.Seq >= w.From {
			return err
		}
	}
	if !a.JSON {
		a.err.printf("Run %s has ended with event number %d: %s. There is no number %d.\n", w.RunID, head.Seq, a.err.status(head.Status), w.From)
	}
	return a.ended(client.Outcome{Entry: head})
}

// wrongID reports an argument that can be no run's id.
func wrongID(id string) error {
	if err := contracts.CheckRunID(id); err != nil {
		return fmt.Errorf("run id %w", err)
	}
	return nil
}
