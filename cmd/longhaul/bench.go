package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/internal/bench"
	"longhaul/internal/shell"
	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/services/worker"
)

// benchCmd measures a broker, and Longhaul on it.
type benchCmd struct {
	Runs        int  `default:"5000" placeholder:"N" help:"Runs in each round (default ${default})."`
	Rounds      int  `default:"3" placeholder:"N" help:"Rounds of each measurement (default ${default})."`
	Concurrency int  `default:"64" placeholder:"N" help:"Runs that are executed at once (default ${default})."`
	Latency     int  `default:"200" placeholder:"N" help:"Runs, one at a time, whose latency is measured in each round (default ${default})."`
	Force       bool `help:"Measure although runs are live, whose work it disturbs and is disturbed by."`
}

// Help is shown below the command's summary.
func (benchCmd) Help() string {
	return `Compares Longhaul with the least that any engine on JetStream has to do: an ideal run is a message to a work queue, four confirmed messages that tell its states, and an ack. Both are measured on your broker, in rounds that take turns; their ratio says more than the figures, which hang on machine, disk and network.

A dispatcher and a statekeeper have to run. The worker is in this process, for both, and hosts an agent of its own, longhaul-bench; no other worker gets these runs. Everything that is made is removed in the end: the runs, their agent, and two streams named LONGHAUL_BENCH_…. It takes about a minute, and all that your broker has to give.

Examples:

    longhaul bench
    longhaul bench --runs 20000 --concurrency 16 --json`
}

// Validate checks what the grammar cannot say.
func (b *benchCmd) Validate() error {
	return errors.Join(shell.Above("--runs", float64(b.Runs)), shell.Above("--rounds", float64(b.Rounds)), shell.Above("--concurrency", float64(b.Concurrency)), shell.Above("--latency", float64(b.Latency)))
}

const (
	// benchAgent is the key of the agent whose runs are measured.
	benchAgent = "longhaul-bench"
	// benchJob is the size of a submission, in bytes.
	benchJob = 512
	// benchReady bounds the registration of the agent, benchDrain the queueing of
	// what was submitted before an interruption, benchClean the removal of it all.
	benchReady, benchDrain, benchClean = 20 * time.Second, 30 * time.Second, 5 * time.Minute
)

// benchDocument is what --json prints.
type benchDocument struct {
	Rounds      int    `json:"rounds"`
	Runs        int    `json:"runs"`
	Concurrency int    `json:"concurrency"`
	Replicas    int    `json:"replicas"`
	Storage     string `json:"storage"`
	CPUs        int    `json:"client_cpus"`
	// PerSecond has medians; RatioToIdeal is the median of the rounds' ratios.
	PerSecond    map[string]float64         `json:"per_second"`
	RatioToIdeal float64                    `json:"ratio_to_ideal"`
	Latencies    map[string]bench.Quantiles `json:"latencies"`
}

// Names of what is measured.
const (
	benchPublish, benchIdeal, benchRuns = "publish, confirmed", "ideal run", "longhaul"
	benchBegin, benchEnd                = "submit → agent's code begins", "submit → end seen by a follower"
)

// Run runs the command.
func (b *benchCmd) Run(ctx context.Context, a *app) (err error) {
	m := &benchSetup{benchCmd: b, app: a, rates: map[string][]float64{}, found: map[string]*bench.Latencies{
		benchBegin: bench.NewLatencies(), benchEnd: bench.NewLatencies(),
	}}
	defer m.hangUp()
	if err := m.open(ctx); err != nil {
		return err
	}
	if err := m.permit(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.clean(ctx)) }()
	if err := m.host(ctx); err != nil {
		return err
	}
	for round := range b.Rounds {
		if !a.JSON {
			a.err.printf("round %d of %d\n", round+1, b.Rounds)
		}
		if err := m.round(ctx); err != nil {
			return err
		}
	}
	return m.report()
}

// benchSetup is a bench under way. One goroutine uses it.
type benchSetup struct {
	*benchCmd
	app *app

	conns                []*nats.Conn
	load, watcher        *bench.Load
	submitting, working  *bench.Floor
	replicas             int
	storage              jetstream.StorageType
	before               map[contracts.Status]int
	ids                  []string // of all runs that were submitted
	stopWorker           context.CancelFunc
	worker               chan error
	rates                map[string][]float64
	found                map[string]*bench.Latencies
	submitNC, workNC, nc *nats.Conn
}

// open connects as a client, a worker and a follower do: each by itself.
func (m *benchSetup) open(ctx context.Context) (err error) {
	for _, nc := range []**nats.Conn{&m.submitNC, &m.workNC, &m.nc} {
		if *nc, err = m.app.connect(); err != nil {
			return err
		}
		m.conns = append(m.conns, *nc)
	}
	if m.load, err = bench.NewLoad(m.submitNC, benchAgent); err != nil {
		return err
	}
	m.load.Submits = func(id string) { m.ids = append(m.ids, id) }
	if m.watcher, err = bench.NewLoad(m.nc, benchAgent); err != nil {
		return err
	}
	if m.submitting, err = bench.NewFloor(m.submitNC); err != nil {
		return err
	}
	if m.working, err = bench.NewFloor(m.workNC); err != nil {
		return err
	}
	js, err := jsutil.JetStream(m.nc)
	if err != nil {
		return err
	}
	log, err := js.Stream(ctx, contracts.StreamLog)
	if err != nil {
		return fmt.Errorf("look at stream %s: %w", contracts.StreamLog, jsutil.Translate(err))
	}
	m.replicas, m.storage = log.CachedInfo().Config.Replicas, log.CachedInfo().Config.Storage
	return nil
}

// permit refuses a broker that has something to do.
func (m *benchSetup) permit(ctx context.Context) error {
	stats, err := m.load.Client.Stats(ctx)
	if err != nil {
		return err
	}
	m.before = stats.ByAgent[benchAgent]
	live := 0
	for s, n := range stats.ByStatus {
		if !s.Terminal() {
			live += n
		}
	}
	m.load.Beside = live > 0
	if live > 0 && !m.Force {
		return &codedError{code: exitError, err: fmt.Errorf("%s live on this broker: measuring would take from them what it has", plural(live, "run")),
			hint: "measure when all have ended, or all the same: --force"}
	}
	agents, err := m.load.Client.Agents(ctx)
	if err != nil {
		return err
	}
	for _, there := range agents {
		if there.AgentKey == benchAgent && there.Listening {
			return &codedError{code: exitError, err: errors.New("another bench is under way on this broker")}
		}
	}
	return nil
}

// host begins to execute the runs of the agent, and waits until it is known.
func (m *benchSetup) host(ctx context.Context) error {
	w, err := worker.New(m.workNC, worker.Config{Agents: []agent.Agent{bench.Agent(benchAgent, m.found[benchBegin].Record, nil)},
		Concurrency: m.Concurrency, Logger: m.app.logger(slog.LevelWarn)})
	if err != nil {
		return err
	}
	// Not ended by an interruption, but by clean.
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.stopWorker, m.worker = stop, make(chan error, 1)
	go func() { m.worker <- w.Run(working) }() // clean waits for it
	ctx, cancel := context.WithTimeout(ctx, benchReady)
	defer cancel()
	if err := m.load.Hosted(ctx); err != nil {
		return err
	}
	// The first runs have statuses to show that everybody is there.
	return m.load.Trace(ctx, m.watcher.Client, bench.Job{}, bench.NewLatencies(), bench.NewLatencies())
}

// round measures everything once.
func (m *benchSetup) round(ctx context.Context) error {
	if err := m.submitting.Prepare(ctx, m.replicas, m.storage); err != nil {
		return err
	}
	if err := m.timed(benchPublish, func() error { return m.submitting.Publish(ctx, m.Runs) }); err != nil {
		return err
	}
	if err := m.submitting.Prepare(ctx, m.replicas, m.storage); err != nil {
		return err
	}
	if err := m.timed(benchIdeal, func() error { return m.ideal(ctx) }); err != nil {
		return err
	}
	before, err := m.load.Count(ctx)
	if err != nil {
		return err
	}
	err = m.timed(benchRuns, func() error {
		if err := m.load.Submit(ctx, m.Runs, bench.Job{}, benchJob); err != nil {
			return err
		}
		_, err := m.load.Done(ctx, before, m.Runs)
		return err
	})
	if err != nil {
		return err
	}
	for range m.Latency {
		if err := m.load.Trace(ctx, m.watcher.Client, bench.Job{}, m.found[benchEnd], bench.NewLatencies()); err != nil {
			return err
		}
		if err := bench.Rest(ctx); err != nil {
			return err
		}
	}
	return nil
}

// timed notes the rate of the round's runs.
func (m *benchSetup) timed(name string, do func() error) error {
	begun := time.Now()
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	m.rates[name] = append(m.rates[name], bench.PerSecond(m.Runs, time.Since(begun)))
	return nil
}

func (m *benchSetup) ideal(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	executed := make(chan error, 1)
	go func() { executed <- m.working.Execute(ctx, m.Runs, m.Concurrency) }()
	err := m.submitting.Publish(ctx, m.Runs)
	if err != nil {
		cancel()
	}
	return errors.Join(err, <-executed)
}

// clean removes what was made, also after an interruption.
func (m *benchSetup) clean(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), benchClean)
	defer cancel()
	err := m.submitting.Remove(ctx)
	if m.worker == nil {
		return err
	}
	// After an interruption much may wait: it is queued, taken back and forgotten.
	quiet, cancel := context.WithTimeout(ctx, benchDrain)
	err = errors.Join(err, m.load.Quiet(quiet))
	cancel()
	err = errors.Join(err, bench.Dequeue(ctx, m.nc, benchAgent))
	m.stopWorker()
	err = errors.Join(err, <-m.worker)
	quiet, cancel = context.WithTimeout(ctx, benchDrain)
	err = errors.Join(err, m.load.Quiet(quiet), bench.Clean(ctx, m.nc, benchAgent, m.ids))
	cancel()
	if err != nil {
		return fmt.Errorf("remove what was made: %w", err)
	}
	return nil
}

func (m *benchSetup) hangUp() {
	for _, nc := range m.conns {
		nc.Close()
	}
}

func (m *benchSetup) report() error {
	doc := benchDocument{Rounds: m.Rounds, Runs: m.Runs, Concurrency: m.Concurrency, Replicas: m.replicas, Storage: m.storage.String(),
		CPUs: runtime.NumCPU(), PerSecond: map[string]float64{}, Latencies: map[string]bench.Quantiles{}}
	for name, all := range m.rates {
		doc.PerSecond[name] = bench.Median(all)
	}
	var ratios []float64
	for i, rate := range m.rates[benchRuns] {
		ratios = append(ratios, rate/m.rates[benchIdeal][i])
	}
	doc.RatioToIdeal = bench.Median(ratios)
	for name, h := range m.found {
		doc.Latencies[name] = h.Quantiles()
	}
	if m.app.JSON {
		return m.app.printJSON(doc)
	}
	out := m.app.out
	out.printf("Medians of %d rounds of %s, %d at a time; %s storage, %s.\n\n", doc.Rounds, plural(doc.Runs, "run"), doc.Concurrency, strings.ToLower(doc.Storage), plural(doc.Replicas, "replica"))
	var rows [][]string
	for _, name := range []string{benchPublish, benchIdeal, benchRuns} {
		rows = append(rows, []string{name, number(int(doc.PerSecond[name])), fmt.Sprintf("%.2f", doc.PerSecond[name]/doc.PerSecond[benchIdeal])})
	}
	rows[len(rows)-1][2] = fmt.Sprintf("%.2f", doc.RatioToIdeal)
	out.table([]string{"", "PER SECOND", "OF THE IDEAL RUN"}, rows)
	rows = nil
	for _, name := range []string{benchBegin, benchEnd} {
		q := doc.Latencies[name]
		rows = append(rows, []string{name, fmt.Sprintf("%.2f ms", q.P50), fmt.Sprintf("%.2f ms", q.P99), fmt.Sprintf("%.2f ms", q.P999)})
	}
	out.printf("\n")
	out.table([]string{"AT REST", "P50", "P99", "P99.9"}, rows)
	return nil
}
