package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"longhaul/pkg/client"
)

// checkpointsCmd is about the states that a run has saved.
type checkpointsCmd struct {
	List   checkpointsListCmd   `cmd:"" help:"List a run's checkpoints in order."`
	Get    checkpointsGetCmd    `cmd:"" help:"Print the state of a checkpoint: the latest, or --number N."`
	Next   checkpointsNextCmd   `cmd:"" help:"Print the number that the run's next checkpoint will have."`
	Delete checkpointsDeleteCmd `cmd:"" help:"Delete the stored states of a run's checkpoints."`
}

// Help is shown below the command's summary.
func (checkpointsCmd) Help() string {
	return `Examples:

    longhaul checkpoints list 0198c0de-7a11-7abc-8def-0123456789ab
    longhaul checkpoints get 0198c0de-7a11-7abc-8def-0123456789ab --number 3
    longhaul checkpoints delete 0198c0de-7a11-7abc-8def-0123456789ab`
}

type checkpointsListCmd struct {
	RunID string `arg:"" name:"run" help:"The run's id."`
}

// Validate checks what the grammar cannot say.
func (l *checkpointsListCmd) Validate() error { return wrongID(l.RunID) }

// Run runs the command.
func (l *checkpointsListCmd) Run(ctx context.Context, a *app) error {
	c, hangUp, err := a.dial()
	if err != nil {
		return err
	}
	defer hangUp()
	if _, err := a.head(ctx, c, l.RunID); err != nil {
		return err
	}
	var rows [][]string
	for cp, err := range c.Checkpoints(ctx, l.RunID) {
		if err != nil {
			return err
		}
		if a.JSON {
			if err := a.printJSON(cp); err != nil {
				return err
			}
			continue
		}
		rows = append(rows, []string{fmt.Sprint(cp.N), fmt.Sprint(cp.Epoch), a.out.ago(cp.Time), byteSize(cp.Size), stateWords(cp)})
	}
	switch {
	case a.JSON:
	case len(rows) == 0:
		a.err.printf("Run %s has no checkpoints.\n", l.RunID)
	default:
		a.out.table([]string{"N", "EPOCH", "SAVED", "SIZE", "STATE"}, rows)
	}
	return nil
}

// stateWords shows a state in one line.
func stateWords(cp client.Checkpoint) string {
	if cp.State == nil {
		return "binary"
	}
	return oneLine(string(cp.State), 80)
}

type checkpointsGetCmd struct {
	RunID  string `arg:"" name:"run" help:"The run's id."`
	Number uint64 `placeholder:"N" help:"The checkpoint's number (default: the latest)."`
}

// Validate checks what the grammar cannot say.
func (g *checkpointsGetCmd) Validate() error { return wrongID(g.RunID) }

// Run runs the command.
func (g *checkpointsGetCmd) Run(ctx context.Context, a *app) error {
	c, hangUp, err := a.dial()
	if err != nil {
		return err
	}
	defer hangUp()
	cp, err := g.find(ctx, a, c)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(cp)
	}
	if cp.State == nil {
		a.out.printf("%s, %s\n", stateWords(cp), byteSize(cp.Size))
		a.out.next("as base64", "longhaul checkpoints get "+g.RunID+" --number "+fmt.Sprint(cp.N)+" --json")
		return nil
	}
	var pretty bytes.Buffer
	if json.Indent(&pretty, cp.State, "", "  ") != nil {
		pretty.Reset()
		pretty.Write(cp.State)
	}
	a.out.printf("%s\n", printable(pretty.String()))
	return nil
}

func (g *checkpointsGetCmd) find(ctx context.Context, a *app, c *client.Client) (client.Checkpoint, error) {
	if _, err := a.head(ctx, c, g.RunID); err != nil {
		return client.Checkpoint{}, err
	}
	if g.Number == 0 {
		return c.LatestCheckpoint(ctx, g.RunID)
	}
	// After a redrive from the start numbers begin anew: the last one counts.
	var found *client.Checkpoint
	for cp, err := range c.Checkpoints(ctx, g.RunID) {
		if err != nil {
			return client.Checkpoint{}, err
		}
		if cp.N == g.Number {
			found = &cp
		}
	}
	if found == nil {
		return client.Checkpoint{}, fmt.Errorf("checkpoint %d of run %s: %w", g.Number, g.RunID, client.ErrNotFound)
	}
	return *found, nil
}

type checkpointsNextCmd struct {
	RunID string `arg:"" name:"run" help:"The run's id."`
}

// Validate checks what the grammar cannot say.
func (n *checkpointsNextCmd) Validate() error { return wrongID(n.RunID) }

// Run runs the command.
func (n *checkpointsNextCmd) Run(ctx context.Context, a *app) error {
	c, hangUp, err := a.dial()
	if err != nil {
		return err
	}
	defer hangUp()
	next, err := c.NextCheckpoint(ctx, n.RunID)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(struct {
			RunID string `json:"run_id"`
			Next  uint64 `json:"next"`
		}{n.RunID, next})
	}
	a.out.printf("%d\n", next)
	return nil
}

type checkpointsDeleteCmd struct {
	RunID string `arg:"" name:"run" help:"The run's id."`
	Force bool   `help:"Even of a run that has not ended and may need them to resume."`
}

// Validate checks what the grammar cannot say.
func (d *checkpointsDeleteCmd) Validate() error { return wrongID(d.RunID) }

// Run runs the command.
func (d *checkpointsDeleteCmd) Run(ctx context.Context, a *app) error {
	c, hangUp, err := a.dial()
	if err != nil {
		return err
	}
	defer hangUp()
	head, err := c.Head(ctx, d.RunID)
	switch {
	case errors.Is(err, client.ErrNotFound): // its log has gone; what is left of it may go, too
	case err != nil:
		return err
	case !head.Status.Terminal() && !d.Force:
		return &codedError{code: exitError, err: fmt.Errorf("run %s is %s and may need its checkpoints to resume", d.RunID, head.Status),
			hint: "delete them all the same: --force"}
	}
	n, err := c.DeleteCheckpoints(ctx, d.RunID)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(struct {
			RunID   string `json:"run_id"`
			Deleted int    `json:"deleted"`
		}{d.RunID, n})
	}
	a.out.printf("Deleted %s.\n", plural(n, "checkpoint"))
	return nil
}
