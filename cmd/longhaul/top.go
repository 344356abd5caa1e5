package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
)

// topCmd shows what goes on.
type topCmd struct {
	Once bool `help:"Show it once and end; so it does, too, when not on a terminal, and with --json."`
	Runs int  `default:"10" placeholder:"N" help:"How many of the runs in flight are shown, the newest (default ${default})."`
}

// Help is shown below the command's summary.
func (topCmd) Help() string {
	return `It shows the queues by agent and priority with their depth and the age of the oldest run, the workers and what they hold, the runs in flight, and rates by status, anew each second until Ctrl-C. Rates are counted from the events as they come.

Examples:

    longhaul top
    longhaul top --once
    longhaul top --json | jq '.queues[] | select(.oldest_seconds > 60)'`
}

// Validate checks what the grammar cannot say.
func (t *topCmd) Validate() error {
	if t.Runs < 0 || t.Runs > contracts.MaxListLimit {
		return fmt.Errorf("--runs must be from 0 to %d, not %d", contracts.MaxListLimit, t.Runs)
	}
	return nil
}

const (
	// topInterval is between two looks.
	topInterval = time.Second
	// rateWindow is how far rates look back.
	rateWindow = 10 * time.Second
)

// view is one look, and what --json prints.
type view struct {
	Time     time.Time                `json:"time"`
	Total    int                      `json:"total"`
	ByStatus map[contracts.Status]int `json:"by_status"`
	// Rates are runs per second, by what befell them: submitted, started,
	// retrying, and how they ended.
	Rates   map[string]float64       `json:"rates"`
	Queues  []contracts.QueueLoad    `json:"queues"`
	Workers map[string]int           `json:"workers"` // runs held, by worker
	Runs    []contracts.StatusRecord `json:"runs"`    // in flight, the newest
}

// Run runs the command.
func (t *topCmd) Run(ctx context.Context, a *app) error {
	nc, err := a.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	c, err := client.New(nc)
	if err != nil {
		return err
	}
	meter, err := newMeter(nc, a.now)
	if err != nil {
		return err
	}
	defer meter.stop()
	if t.Once || a.JSON || !a.out.terminal {
		if !wait(ctx, topInterval) { // or there would be no rate
			return context.Cause(ctx)
		}
		v, err := t.look(ctx, a, c, meter)
		if err != nil {
			return err
		}
		if a.JSON {
			return a.printJSON(v)
		}
		a.out.printf("%s", a.frame(v))
		return nil
	}
	// On a screen of its own, without a cursor; what was there before comes back.
	a.out.printf("\x1b[?1049h\x1b[?25l")
	defer a.out.printf("\x1b[?25h\x1b[?1049l")
	frame := ""
	for more := true; more; more = wait(ctx, topInterval) {
		once, cancel := context.WithTimeout(ctx, 5*topInterval)
		v, err := t.look(once, a, c, meter)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil: // the last view stays, below what is wrong
			a.paintFrame(a.out.red(oneLine(err.Error(), 200)) + "\n" + frame)
		default:
			frame = a.frame(v)
			a.paintFrame(frame)
		}
	}
	return nil // Ctrl-C is how it is ended
}

// wait waits, and reports whether ctx has not ended.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (t *topCmd) look(ctx context.Context, a *app, c *client.Client, m *meter) (view, error) {
	v := view{Time: a.now().UTC(), Rates: m.rates(), Runs: []contracts.StatusRecord{}}
	stats, err := c.Stats(ctx)
	if err != nil {
		return v, err
	}
	v.Total, v.ByStatus = stats.Total, stats.ByStatus
	load, err := c.Load(ctx)
	if err != nil {
		return v, err
	}
	v.Queues, v.Workers = load.Queues, load.Workers
	slices.SortFunc(v.Queues, func(x, y contracts.QueueLoad) int {
		return cmp.Or(strings.Compare(x.AgentKey, y.AgentKey), cmp.Compare(slices.Index(contracts.Priorities(), x.Priority), slices.Index(contracts.Priorities(), y.Priority)))
	})
	if t.Runs == 0 {
		return v, nil
	}
	page, err := c.List(ctx, contracts.ListRequest{Status: []contracts.Status{contracts.StatusRunning, contracts.StatusCancelling}, Limit: t.Runs})
	v.Runs = append(v.Runs, page.Runs...)
	return v, err
}

// frame draws a view for people.
func (a *app) frame(v view) string {
	var b bytes.Buffer
	c := a.out
	c.w = &b
	var counts []string
	for _, st := range contracts.Statuses() {
		if n := v.ByStatus[st]; n > 0 {
			counts = append(counts, fmt.Sprintf("%s %s", number(n), c.status(st)))
		}
	}
	c.printf("%s  %s: %s\n", c.bold("longhaul top"), plural(v.Total, "run"), cmp.Or(strings.Join(counts, ", "), "none yet"))
	var rates []string
	for _, name := range rateNames() {
		if r := v.Rates[name]; r > 0 {
			rates = append(rates, fmt.Sprintf("%.1f %s", r, strings.ReplaceAll(name, "_", " ")))
		}
	}
	c.printf("per second  %s\n\n", cmp.Or(strings.Join(rates, ", "), c.dim("nothing moves")))
	var rows [][]string
	for _, q := range v.Queues {
		if q.Waiting == 0 && q.Held == 0 && !q.Paused && q.Priority != contracts.PriorityNormal {
			continue // an agent shows by one line at least
		}
		age, state := "", ""
		if q.Waiting > 0 {
			age = short(time.Duration(q.OldestSeconds * float64(time.Second)))
		}
		if q.Paused {
			state = c.yellow("paused")
		}
		rows = append(rows, []string{oneLine(q.AgentKey, 40), string(q.Priority), number(int(q.Waiting)), age, number(q.Held), state}) //nolint:gosec // a count
	}
	c.table([]string{"QUEUE", "PRIORITY", "WAITING", "OLDEST", "HELD", ""}, rows)
	c.printf("\n")
	rows = nil
	for _, id := range slices.Sorted(maps.Keys(v.Workers)) {
		rows = append(rows, []string{oneLine(id, 60), number(v.Workers[id])})
	}
	c.table([]string{fmt.Sprintf("WORKERS AT WORK (%d)", len(rows)), "HOLDS"}, rows)
	c.printf("\n")
	rows = nil
	for _, r := range v.Runs {
		rows = append(rows, []string{r.RunID, oneLine(r.AgentKey, 40), c.status(r.Status), attemptWords(r), oneLine(r.WorkerID, 40), short(max(0, a.now().Sub(r.StartedAt)))})
	}
	c.table([]string{"RUN IN FLIGHT", "AGENT", "STATUS", "ATTEMPT", "WORKER", "FOR"}, rows)
	return b.String()
}

// paintFrame puts a frame in the place of the last one, cut to the terminal.
func (a *app) paintFrame(frame string) {
	width, height := 80, 24
	if f, ok := a.stdout.(*os.File); ok {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 0 && h > 1 {
			width, height = w, h
		}
	}
	lines := strings.Split(strings.TrimRight(frame, "\n"), "\n")
	if len(lines) >= height {
		lines = append(lines[:height-2], a.out.dim(fmt.Sprintf("… %d more lines", len(lines)-height+2)))
	}
	var b strings.Builder
	b.WriteString("\x1b[H")
	for _, l := range lines {
		b.WriteString(clip(l, width) + "\x1b[K\r\n")
	}
	a.out.printf("%s", b.String()+"\x1b[J")
}

// clip cuts a line to so many visible characters, and ends its colours.
func clip(line string, width int) string {
	if visibleWidth(line) <= width {
		return line
	}
	var b strings.Builder
	for seen := 0; seen < width && line != ""; {
		if strings.HasPrefix(line, "\x1b[") {
			end := strings.IndexByte(line, 'm') + 1
			b.WriteString(line[:end])
			line = line[end:]
			continue
		}
		_, size := utf8.DecodeRuneInString(line)
		b.WriteString(line[:size])
		line = line[size:]
		seen++
	}
	return b.String() + "\x1b[0m"
}
