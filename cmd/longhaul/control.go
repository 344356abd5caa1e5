package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/user"
	"slices"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
)

// cancelCmd cancels runs.
type cancelCmd struct {
	RunIDs []string `arg:"" name:"run" help:"The runs' ids."`
	Reason string   `placeholder:"TEXT" help:"Why; stands in the run's log."`
	By     string   `placeholder:"WHO" help:"Who cancels (default: the user of this machine)."`
	Wait   bool     `short:"w" help:"Wait until the runs have ended."`
}

// Help is shown below the command's summary.
func (cancelCmd) Help() string {
	return `The request is durable: it is carried out even if nothing but the broker runs at this moment. With --wait the exit code is 0 when every run was cancelled. Without, too, a run that has ended otherwise makes it 1, and one that is unknown 8.

Examples:

    longhaul cancel 0198c0de-7a11-7abc-8def-0123456789ab --reason "wrong month" --wait
    longhaul list --status pending --agent report --all --json | jq -r .run_id | xargs longhaul cancel`
}

// Validate checks what the grammar cannot say.
func (c *cancelCmd) Validate() error { return wrongIDs(c.RunIDs) }

// cancelDocument is what --json prints for each run.
type cancelDocument struct {
	RunID string `json:"run_id"`
	// Requested says that the request is stored; a run that has ended needs none.
	Requested bool             `json:"requested"`
	Status    contracts.Status `json:"status"` // before the request; with --wait, after
}

// Run runs the command.
func (c *cancelCmd) Run(ctx context.Context, a *app) error {
	cl, hangUp, err := a.dial()
	if err != nil {
		return err
	}
	defer hangUp()
	code := exitOK
	for _, id := range c.RunIDs {
		doc, err := c.one(ctx, a, cl, id)
		if err != nil {
			if len(c.RunIDs) == 1 || errors.Is(context.Cause(ctx), errInterrupted) {
				return err
			}
			code = max(code, a.fail(err)) // the others are not to blame
			continue
		}
		if (c.Wait || !doc.Requested) && doc.Status != contracts.StatusCancelled {
			code = max(code, exitError)
		}
		if a.JSON {
			if err := a.printJSON(doc); err != nil {
				return err
			}
			continue
		}
		c.say(a, doc)
	}
	if code != exitOK {
		return &codedError{code: code}
	}
	return nil
}

func (c *cancelCmd) one(ctx context.Context, a *app, cl *client.Client, id string) (cancelDocument, error) {
	head, err := a.head(ctx, cl, id)
	if err != nil && !errors.Is(err, client.ErrNotFound) {
		return cancelDocument{}, err
	}
	doc := cancelDocument{RunID: id, Status: head.Status}
	if head.Status.Terminal() {
		return doc, nil
	}
	if err := cl.Cancel(ctx, id, contracts.CancelCommand{Reason: c.Reason, By: orUser(c.By)}); err != nil {
		return doc, err
	}
	if err != nil {
		// Its submission may lie in the inbox, and no dispatcher be there to take it.
		return doc, fmt.Errorf("%w; the request is stored, should its submission still be on the way", err)
	}
	doc.Requested = true
	if c.Wait {
		o, err := cl.WaitFrom(ctx, id, head.Seq+1)
		if err != nil {
			return doc, err
		}
		doc.Status = o.Status
	}
	return doc, nil
}

func (c *cancelCmd) say(a *app, doc cancelDocument) {
	switch {
	case !doc.Requested:
		a.out.printf("Run %s has ended already: %s.\n", doc.RunID, a.out.status(doc.Status))
	case c.Wait && doc.Status != contracts.StatusCancelled:
		a.out.printf("Run %s ended before it could be cancelled: %s.\n", doc.RunID, a.out.status(doc.Status))
	case c.Wait:
		a.out.printf("Run %s is cancelled.\n", doc.RunID)
	default:
		a.out.printf("Run %s will be cancelled.\n", doc.RunID)
		if len(c.RunIDs) == 1 {
			a.out.next("see it end", "longhaul watch "+doc.RunID)
		}
	}
}

func wrongIDs(ids []string) error {
	for _, id := range ids {
		if err := wrongID(id); err != nil {
			return err
		}
	}
	return nil
}

// orUser returns by, or else the user of this machine.
func orUser(by string) string {
	if by != "" {
		return by
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

// paramNames lists the parameters that a JSON Schema names.
func paramNames(schema json.RawMessage) []string {
	var s struct {
		Properties map[string]json.RawMessage `json:"properties"`
	}
	_ = json.Unmarshal(schema, &s) // what cannot be read names none
	names := make([]string, 0, len(s.Properties))
	for name := range s.Properties {
		names = append(names, oneLine(name, 40))
	}
	slices.Sort(names)
	return names
}
