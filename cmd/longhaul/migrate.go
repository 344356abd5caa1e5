package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/internal/shell"
	"longhaul/pkg/client"
	"longhaul/pkg/jsutil"
)

// topologyMigrateCmd brings what an older version left up to date.
type topologyMigrateCmd struct {
	shell.Topology
	DryRun bool `help:"Only say what would be done."`
}

// Help is shown below the command's summary.
func (topologyMigrateCmd) Help() string {
	return `It compares all streams and consumers, those of every registered agent's queue among them, with what this version of longhaul needs, says what it creates and changes, and does it. What cannot be changed in place it names, with what to do, and then changes nothing at all. It never deletes anything.

It may be run beside running services, and again after it was cut off. A topology that a newer version made is refused: older services leave that alone, too, and run beside it. Exit code 0: the topology is up to date, or would be; 1: something is in the way.

Examples:

    longhaul topology migrate --dry-run
    longhaul topology migrate`
}

// defaultLease is that of a queue of which a part is missing; what stands keeps its own.
const defaultLease = 30 * time.Second

// migration is what is to be done, and what --json prints.
type migration struct {
	From    int                 `json:"from"`
	To      int                 `json:"to"`
	DryRun  bool                `json:"dry_run"`
	Changes []jsutil.Difference `json:"changes"` // made, or to be made
	Blocked []jsutil.Difference `json:"blocked"` // can't be changed: nothing is
	Newer   bool                `json:"newer,omitempty"`
}

// Run runs the command.
func (t *topologyMigrateCmd) Run(ctx context.Context, a *app) error {
	js, err := a.jetStream()
	if err != nil {
		return err
	}
	defer js.Conn().Close()
	top := jsutil.NewTopology(t.Options())
	m, agents, err := planMigration(ctx, js, top)
	if err != nil {
		return err
	}
	m.DryRun = t.DryRun
	if !t.DryRun && !m.Newer && len(m.Blocked) == 0 {
		if err := migrate(ctx, js, top, agents); err != nil {
			return err
		}
	}
	if a.JSON {
		err = a.printJSON(m)
	} else {
		a.showMigration(m)
	}
	if err == nil && (m.Newer || len(m.Blocked) > 0) {
		err = &codedError{code: exitError}
	}
	return err
}

// planMigration compares the topology, and the queues of the agents that it
// returns, with what this version needs.
func planMigration(ctx context.Context, js jetstream.JetStream, top jsutil.Topology) (m migration, agents []string, err error) {
	m = migration{To: jsutil.TopologyVersion, Changes: []jsutil.Difference{}, Blocked: []jsutil.Difference{}}
	if m.From, err = jsutil.StandingVersion(ctx, js); err != nil {
		return m, nil, err
	}
	m.Newer = m.From > m.To
	found, err := jsutil.VerifyTopology(ctx, js, top)
	if err != nil {
		return m, nil, err
	}
	if !slices.ContainsFunc(found, func(d jsutil.Difference) bool {
		return d.Setting == jsutil.SettingExistence && strings.HasPrefix(d.Object, "stream ")
	}) {
		c, err := client.New(js.Conn())
		if err != nil {
			return m, nil, err
		}
		registered, err := c.Agents(ctx)
		if err != nil {
			return m, nil, err
		}
		for _, ag := range registered {
			if len(ag.Queues) == 0 {
				continue // its first worker makes them
			}
			queues, err := jsutil.VerifyWorkConsumers(ctx, js, ag.AgentKey)
			if err != nil {
				return m, nil, fmt.Errorf("look at the queues of agent %s: %w", ag.AgentKey, err)
			}
			found, agents = append(found, queues...), append(agents, ag.AgentKey)
		}
	}
	for _, d := range found {
		if d.Fixable {
			m.Changes = append(m.Changes, d)
		} else {
			m.Blocked = append(m.Blocked, d)
		}
	}
	return m, agents, nil
}

// migrate does what was planned, and what has come to differ since.
func migrate(ctx context.Context, js jetstream.JetStream, top jsutil.Topology, agents []string) error {
	if err := jsutil.EnsureTopology(ctx, js, top); err != nil {
		return err
	}
	for _, key := range agents {
		if err := jsutil.EnsureWorkConsumers(ctx, js, key, defaultLease); err != nil {
			return fmt.Errorf("bring the queues of agent %s up to date: %w", key, err)
		}
	}
	return nil
}

func (a *app) showMigration(m migration) {
	a.out.printf("The broker's topology is %s; this longhaul makes version %d.\n", versionWords(m.From), m.To)
	if m.Newer {
		a.out.printf("%s A newer longhaul made it, and nothing is changed back: older services run beside it as they are. Migrate with the newer one.\n", a.out.red("✗"))
		for _, d := range m.Blocked {
			a.out.printf("  %s is missing\n", d.Object)
		}
		return
	}
	did, change := "create", "change"
	if !m.DryRun && len(m.Blocked) == 0 {
		did, change = "created", "changed"
	}
	for _, d := range m.Changes {
		if d.Setting == jsutil.SettingExistence {
			a.out.printf("  %s %s\n", did, d.Object)
		} else {
			a.out.printf("  %s %s: %s from %s to %s\n", change, d.Object, d.Setting, d.Have, d.Want)
		}
	}
	switch {
	case len(m.Blocked) > 0:
		a.showBlocked(m.Blocked)
	case len(m.Changes) == 0:
		a.out.printf("%s There is nothing to do.\n", a.out.green("✓"))
	case m.DryRun:
		a.out.next("do it", "longhaul topology migrate")
	default:
		a.out.printf("%s It is of version %d now.\n", a.out.green("✓"), m.To)
	}
}

func versionWords(version int) string {
	if version == 0 {
		return "of no version, from before there were any"
	}
	return fmt.Sprintf("of version %d", version)
}

// showBlocked says what can't be changed in place, and how it is done instead.
func (a *app) showBlocked(blocked []jsutil.Difference) {
	objects := map[string]bool{}
	for _, d := range blocked {
		a.out.printf("  %s %s: %s must be %s, is %s\n", a.out.red("cannot change"), d.Object, d.Setting, d.Want, d.Have)
		objects[d.Object] = true
	}
	a.out.printf("%s Nothing was changed. What to do:\n", a.out.red("✗"))
	for _, object := range slices.Sorted(maps.Keys(objects)) {
		stream, ok := strings.CutPrefix(object, "stream ")
		if ok {
			a.out.printf("  %s: it is most likely somebody else's: give Longhaul a NATS account of its own. If it is Longhaul's, changed by hand: "+
				"stop all services, make a backup (longhaul backup DIR), delete it (nats stream rm %s), migrate again, and publish again what it held.\n", object, stream)
			continue
		}
		consumer, of, _ := strings.Cut(strings.TrimPrefix(object, "consumer "), " of ")
		a.out.printf("  %s: delete it (nats consumer rm %s %s) and migrate again at once. No message is lost by it; what was handed out and not acknowledged comes once more, "+
			"which the services settle by the run logs. Where you can, let the services that use it rest meanwhile.\n", object, of, consumer)
	}
}
