package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/internal/shell"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// topologyCmd is about what must stand on the broker.
type topologyCmd struct {
	Show   topologyShowCmd   `cmd:"" help:"Show the streams and consumers that Longhaul needs."`
	Verify topologyVerifyCmd `cmd:"" help:"Compare them with the broker's: exit code 1 if they differ."`
	Create topologyCreateCmd `cmd:"" help:"Create what is missing, and update what may be updated."`

	Migrate topologyMigrateCmd `cmd:"" help:"Bring what an older version left up to date, and say what that takes."`
}

// Help is shown below the command's summary.
func (topologyCmd) Help() string {
	return `The services create what is missing when they start, and update what differs, where they may; this is for those who want it done beforehand, or checked.

Examples:

    longhaul topology create --replicas 3
    longhaul topology create --agent echo --agent count
    longhaul topology verify
    longhaul topology migrate --dry-run
    longhaul topology show --json`
}

type topologyShowCmd struct {
	shell.Topology
}

// Run runs the command.
func (t *topologyShowCmd) Run(a *app) error {
	top := jsutil.NewTopology(t.Options())
	if a.JSON {
		type consumer struct {
			Stream string                   `json:"stream"`
			Config jetstream.ConsumerConfig `json:"config"`
		}
		doc := struct {
			Streams   []jetstream.StreamConfig `json:"streams"`
			Consumers []consumer               `json:"consumers"`
		}{Streams: top.Streams}
		for _, c := range top.Consumers {
			doc.Consumers = append(doc.Consumers, consumer{c.Stream, c.ConsumerConfig})
		}
		return a.printJSON(doc)
	}
	var rows [][]string
	for _, s := range top.Streams {
		rows = append(rows, []string{s.Name, s.Retention.String(), s.Storage.String(), fmt.Sprint(s.Replicas), strings.Join(s.Subjects, " "), s.Description})
	}
	a.out.table([]string{"STREAM", "RETENTION", "STORAGE", "REPLICAS", "SUBJECTS", "WHAT IT HOLDS"}, rows)
	a.out.printf("\n")
	rows = nil
	for _, c := range top.Consumers {
		filters := c.FilterSubjects
		if c.FilterSubject != "" {
			filters = append(filters, c.FilterSubject)
		}
		rows = append(rows, []string{c.Durable, c.Stream, c.AckPolicy.String(), c.AckWait.String(), strings.Join(filters, " ")})
	}
	a.out.table([]string{"CONSUMER", "STREAM", "ACKS", "ACK WAIT", "FILTER"}, rows)
	a.out.printf("\n%s\n", a.out.dim("Workers add three consumers for each agent, one for each priority."))
	return nil
}

type topologyVerifyCmd struct {
	shell.Topology
}

// Run runs the command.
func (t *topologyVerifyCmd) Run(ctx context.Context, a *app) error {
	js, err := a.jetStream()
	if err != nil {
		return err
	}
	defer js.Conn().Close()
	differences, err := jsutil.VerifyTopology(ctx, js, jsutil.NewTopology(t.Options()))
	if err != nil {
		return err
	}
	if a.JSON {
		if differences == nil {
			differences = []jsutil.Difference{}
		}
		err = a.printJSON(struct {
			OK          bool                `json:"ok"`
			Differences []jsutil.Difference `json:"differences"`
		}{len(differences) == 0, differences})
	} else {
		a.showDifferences(differences)
	}
	if err == nil && len(differences) > 0 {
		err = &codedError{code: exitError}
	}
	return err
}

func (a *app) showDifferences(differences []jsutil.Difference) {
	if len(differences) == 0 {
		a.out.printf("%s Everything is as it should be.\n", a.out.green("✓"))
		return
	}
	var rows [][]string
	fixable := 0
	for _, d := range differences {
		can := a.out.red("no")
		if d.Fixable {
			can = "yes"
			fixable++
		}
		rows = append(rows, []string{d.Object, d.Setting, d.Want, d.Have, can})
	}
	a.out.table([]string{"OBJECT", "SETTING", "WANTED", "IS", "CAN BE CHANGED"}, rows)
	if fixable > 0 {
		a.err.next("change what can be changed", "longhaul topology migrate")
	}
}

type topologyCreateCmd struct {
	shell.Topology
	Agent           []string `placeholder:"KEY" help:"Create the queues of an agent, too, as its workers do where they may; may be repeated."`
	LeaseTTLSeconds float64  `name:"lease-ttl-seconds" default:"30" placeholder:"S" help:"How long a run stays with a worker of that agent that gives no sign of life (default ${default})."`
}

// Validate checks what the grammar cannot say.
func (t *topologyCreateCmd) Validate() error {
	for _, key := range t.Agent {
		if err := contracts.CheckAgentKey(key); err != nil {
			return fmt.Errorf("--agent %q: %w", key, err)
		}
	}
	return shell.Above("--lease-ttl-seconds", t.LeaseTTLSeconds)
}

// electing is how long a cluster may take to be able to make streams: brokers that
// have just been started elect a leader first.
const electing = 30 * time.Second

// ensurePatiently makes the topology, on a broker that is not ready yet as well.
// One that refuses is not waited for: it says so beside the answer that does not come.
func ensurePatiently(ctx context.Context, js jetstream.JetStream, top jsutil.Topology) error {
	for begun := time.Now(); ; {
		err := jsutil.EnsureTopology(ctx, js, top)
		refused := errors.Is(js.Conn().LastError(), nats.ErrPermissionViolation)
		if !errors.Is(err, jsutil.ErrUnavailable) || refused || time.Since(begun) > electing {
			return refusedIn(js, err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(topologyPause):
		}
	}
}

// refusedIn says in place of an answer that did not come that the broker has refused the question.
func refusedIn(js jetstream.JetStream, err error) error {
	if said := js.Conn().LastError(); errors.Is(err, jsutil.ErrUnavailable) && errors.Is(said, nats.ErrPermissionViolation) {
		return &codedError{code: exitError, err: said, hint: "the operator's user may create streams and queues"}
	}
	return err
}

// topologyPause is between two tries.
const topologyPause = 500 * time.Millisecond

// Run runs the command.
func (t *topologyCreateCmd) Run(ctx context.Context, a *app) error {
	js, err := a.jetStream()
	if err != nil {
		return err
	}
	defer js.Conn().Close()
	top := jsutil.NewTopology(t.Options())
	if err := ensurePatiently(ctx, js, top); err != nil {
		return err
	}
	for _, key := range t.Agent {
		if err := jsutil.EnsureWorkConsumers(ctx, js, key, shell.Seconds(t.LeaseTTLSeconds)); err != nil {
			return refusedIn(js, fmt.Errorf("create the queues of agent %s: %w", key, err))
		}
	}
	consumers := len(top.Consumers) + len(t.Agent)*len(contracts.Priorities())
	if a.JSON {
		return a.printJSON(struct {
			Streams   int `json:"streams"`
			Consumers int `json:"consumers"`
		}{len(top.Streams), consumers})
	}
	a.out.printf("%s %s and %s stand.\n", a.out.green("✓"), plural(len(top.Streams), "stream"), plural(consumers, "consumer"))
	return nil
}
