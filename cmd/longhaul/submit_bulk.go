package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
)

// progressEvery is how often a terminal shows how far bulk work has come.
const progressEvery = 100 * time.Millisecond

// bulkLine is one line's outcome, as --json prints it.
type bulkLine struct {
	Line   int              `json:"line"`
	RunID  string           `json:"run_id,omitempty"`
	Error  string           `json:"error,omitempty"`
	Faults contracts.Faults `json:"faults,omitempty"`
}

// bulk submits every submission of in, many at a time.
func (s *submitCmd) bulk(ctx context.Context, a *app, in *source) error {
	c, hangUp, err := a.dial()
	if err != nil {
		return err
	}
	defer hangUp()

	b := &bulkSubmit{app: a, source: in, progress: newProgress(a)}
	for id, err := range c.SubmitAll(ctx, b.submissions(ctx)) {
		if b.settled(id, err); errors.Is(err, client.ErrUnavailable) || ctx.Err() != nil {
			break
		}
	}
	b.flushRefused()
	b.progress.clear()
	if !a.JSON {
		a.err.printf("%s submitted%s in %s.\n", plural(len(b.ids), "run"), b.refusedWords(), short(b.progress.elapsed()))
		if b.stopped > 0 {
			a.err.printf("From line %d on it is not known to be stored. To submit that again is safe where lines name a run_id or idempotency_key.\n", b.stopped)
		}
	}
	switch {
	case b.readErr != nil:
		return b.readErr
	case errors.Is(context.Cause(ctx), errInterrupted):
		return &codedError{code: exitInterrupted}
	case b.code == exitNoBroker:
		return &codedError{code: exitNoBroker}
	}
	if s.Wait {
		if err := a.waitAll(ctx, c, b.ids); err != nil {
			return err
		}
	}
	if b.code != exitOK {
		return &codedError{code: b.code}
	}
	return nil
}

// bulkSubmit keeps the lines of the input and what becomes of them together.
// SubmitAll draws submissions and yields outcomes in the same goroutine.
type bulkSubmit struct {
	app      *app
	source   *source
	progress *progress

	lines   []int      // of the submissions that are under way, in order
	refused []bulkLine // lines that were wrong, met before those under way
	ids     []string
	bad     int
	code    int
	stopped int // the line at which submitting was given up
	readErr error
}

// submissions yields the input's submissions and sets aside the lines that are wrong.
func (b *bulkSubmit) submissions(ctx context.Context) iter.Seq[contracts.Submission] {
	return func(yield func(contracts.Submission) bool) {
		for ctx.Err() == nil {
			sub, line, err := b.source.next()
			if errors.Is(err, io.EOF) {
				return
			}
			var faults contracts.Faults
			if errors.As(err, &faults) {
				b.refused = append(b.refused, bulkLine{Line: line, Error: err.Error(), Faults: faults})
				continue
			}
			if err != nil {
				b.readErr = err
				return
			}
			b.lines = append(b.lines, line)
			if !yield(sub) {
				return
			}
		}
	}
}

// settled takes the outcome of the oldest submission under way.
func (b *bulkSubmit) settled(id string, err error) {
	line := b.lines[0]
	b.lines = b.lines[1:]
	for len(b.refused) > 0 && b.refused[0].Line < line {
		b.report(b.refused[0], exitUsage)
		b.refused = b.refused[1:]
	}
	if err == nil {
		b.ids = append(b.ids, id)
		b.report(bulkLine{Line: line, RunID: id}, exitOK)
		return
	}
	if errors.Is(err, client.ErrUnavailable) || errors.Is(err, context.Canceled) {
		b.stopped = line
	}
	var faults contracts.Faults
	errors.As(err, &faults)
	b.report(bulkLine{Line: line, Error: err.Error(), Faults: faults}, exitCode(err))
}

func (b *bulkSubmit) flushRefused() {
	for _, l := range b.refused {
		b.report(l, exitUsage)
	}
	b.refused = nil
}

func (b *bulkSubmit) report(l bulkLine, code int) {
	if code != exitOK {
		b.bad++
		// A broker that is gone outweighs a line that is wrong.
		b.code = max(b.code, code)
	}
	switch {
	case b.app.JSON:
		_ = b.app.printJSON(l)
	case l.RunID == "":
		b.progress.clear()
		b.app.err.printf("line %d: %s\n", l.Line, printable(l.Error))
	case !b.app.out.terminal:
		b.app.out.printf("%s\n", l.RunID)
	}
	b.progress.show(fmt.Sprintf("%s submitted%s", plural(len(b.ids), "run"), b.refusedWords()), len(b.ids)+b.bad)
}

func (b *bulkSubmit) refusedWords() string {
	if b.bad == 0 {
		return ""
	}
	return ", " + number(b.bad) + " not"
}

// waitAll waits for the end of every run and says how they ended.
func (a *app) waitAll(ctx context.Context, c *client.Client, ids []string) error {
	counts := map[contracts.Status]int{}
	p := newProgress(a)
	for i, id := range ids {
		o, err := c.Wait(ctx, id)
		if errors.Is(context.Cause(ctx), errInterrupted) {
			p.clear()
			a.err.printf("The runs go on.\n")
			return &codedError{code: exitInterrupted}
		}
		if err != nil {
			p.clear()
			return err
		}
		counts[o.Status]++
		if a.JSON {
			if err := a.printJSON(newOutcomeDocument(o)); err != nil {
				return err
			}
		}
		p.show(fmt.Sprintf("%s of %s ended", number(i+1), number(len(ids))), i+1)
	}
	p.clear()
	if !a.JSON {
		for _, s := range contracts.Statuses() {
			if counts[s] > 0 {
				a.err.printf("  %s %s\n", number(counts[s]), a.err.status(s))
			}
		}
	}
	// Of several ways to end badly the code tells the first in its order.
	for _, s := range []contracts.Status{contracts.StatusFailed, contracts.StatusTimedOut, contracts.StatusCancelled, contracts.StatusRejected} {
		if counts[s] > 0 {
			return &codedError{code: statusCode(s)}
		}
	}
	return nil
}

// progress shows one line on a terminal that is written over and over.
type progress struct {
	c       console
	on      bool
	begin   time.Time
	last    time.Time
	visible bool
}

func newProgress(a *app) *progress {
	return &progress{c: a.err, on: a.err.terminal && !a.JSON, begin: a.now()}
}

func (p *progress) elapsed() time.Duration { return p.c.now().Sub(p.begin) }

// show shows what is done, n in all, if it is time to.
func (p *progress) show(what string, n int) {
	now := p.c.now()
	if !p.on || now.Sub(p.last) < progressEvery {
		return
	}
	p.last, p.visible = now, true
	rate := ""
	if d := now.Sub(p.begin).Seconds(); d > 0.2 {
		rate = fmt.Sprintf(", %s/s", number(int(float64(n)/d)))
	}
	p.c.printf("\r\x1b[K%s%s", what, p.c.dim(rate))
}

// clear takes the line away.
func (p *progress) clear() {
	if p.visible {
		p.c.printf("\r\x1b[K")
		p.visible = false
	}
}
