package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/alecthomas/kong"

	"longhaul/internal/shell"
)

// cli is the grammar: one field for each command.
type cli struct {
	globals

	Demo demoCmd `cmd:"" group:"try" help:"See what Longhaul does, in a quarter of a minute, with a worker killed on the way."`
	Dev  devCmd  `cmd:"" group:"try" help:"Run a broker, all services and the built-in agents in this process."`

	Submit      submitCmd      `cmd:"" group:"runs" help:"Submit a run, or many."`
	Watch       watchCmd       `cmd:"" group:"runs" help:"Follow a run's events, or those of many runs."`
	Get         getCmd         `cmd:"" group:"runs" help:"Show a run and its result."`
	List        listCmd        `cmd:"" group:"runs" help:"List runs, newest first."`
	Cancel      cancelCmd      `cmd:"" group:"runs" help:"Cancel runs."`
	Redrive     redriveCmd     `cmd:"" group:"runs" help:"Run again what failed, timed out or was cancelled."`
	Signal      signalCmd      `cmd:"" group:"runs" help:"Send a run a signal that it waits for."`
	Confirm     confirmCmd     `cmd:"" group:"runs" help:"See what a run asks before it acts, and say yes or no."`
	Checkpoints checkpointsCmd `cmd:"" group:"runs" help:"List, show and delete a run's checkpoints."`
	Agents      agentsCmd      `cmd:"" group:"runs" help:"List the agents that workers have registered."`
	Stats       statsCmd       `cmd:"" group:"runs" help:"Count runs by agent and status."`

	Dispatcher  dispatcherCmd  `cmd:"" group:"services" help:"Run a dispatcher: takes in submissions and commands."`
	Worker      workerCmd      `cmd:"" group:"services" help:"Run a worker: executes runs."`
	Statekeeper statekeeperCmd `cmd:"" group:"services" help:"Run a statekeeper: keeps statuses and watches over runs."`
	Topology    topologyCmd    `cmd:"" group:"services" help:"Show, verify or create the broker's streams and consumers."`
	Security    securityCmd    `cmd:"" group:"services" help:"Make keys, certificates and the broker's configuration for a secured deployment."`
	Doctor      doctorCmd      `cmd:"" group:"services" help:"Look for what is wrong, and put it right."`
	Top         topCmd         `cmd:"" group:"services" help:"Watch queues, workers, runs and rates."`
	Pause       pauseCmd       `cmd:"" group:"services" help:"Pause an agent's queue: no more of its runs are begun."`
	Resume      resumeCmd      `cmd:"" group:"services" help:"Let a paused queue go on."`
	Backup      backupCmd      `cmd:"" group:"services" help:"Save all that Longhaul has on the broker, while it runs."`
	Restore     restoreCmd     `cmd:"" group:"services" help:"Put a backup back on a broker that is empty."`
	Bench       benchCmd       `cmd:"" group:"services" help:"Measure your broker, and Longhaul on it."`

	Version    versionCmd    `cmd:"" group:"other" help:"Show the version."`
	Completion completionCmd `cmd:"" group:"other" help:"Print a script that completes commands in your shell."`
}

const description = `Longhaul runs long jobs durably on NATS JetStream. To begin with:

    longhaul demo
    longhaul dev
    longhaul submit echo --message "hello" --wait`

// moreHelp stands below the commands and flags.
const moreHelp = `
Every flag can be set in the environment: the global flags and those of the
services as LONGHAUL_<FLAG>, such as LONGHAUL_NATS; those of any other command
as LONGHAUL_<COMMAND>_<FLAG>, such as LONGHAUL_SUBMIT_PRIORITY. A flag wins over
the environment, also --context over LONGHAUL_NATS and --nats over
LONGHAUL_CONTEXT.

Exit codes:
    0  the run succeeded; or what was asked is done
    1  another error
    2  usage: a flag, an argument or a submission is wrong
    3  the run failed
    4  the run timed out
    5  the run was cancelled
    6  the run was rejected
    7  the broker cannot be reached
    8  not found
  130  interrupted; a run that was followed goes on
`

// printHelp prints the help of a command, or of all of them.
func printHelp(o kong.HelpOptions, k *kong.Context) error {
	if err := kong.DefaultHelpPrinter(o, k); err != nil || k.Selected() != nil {
		return err
	}
	_, err := fmt.Fprint(k.Stdout, moreHelp)
	return err
}

// newParser builds the command line parser for grammar, writing to a's streams.
func newParser(grammar *cli, a *app, ctx context.Context) (*kong.Kong, error) { //nolint:revive // the context is an argument of the commands
	return kong.New(grammar,
		kong.Name("longhaul"),
		kong.Description(description),
		kong.Writers(a.stdout, a.stderr),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(a),
		kong.Help(printHelp),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, WrapUpperBound: 100, NoExpandSubcommands: true}),
		kong.ValueFormatter(func(v *kong.Value) string { return v.Help }),
		kong.ExplicitGroups([]kong.Group{
			{Key: "try", Title: "Try it:"},
			{Key: "runs", Title: "Runs:"},
			{Key: "services", Title: "Services:"},
			{Key: "other", Title: "Other:"},
			{Key: "global", Title: "Global flags:"},
		}),
		kong.PostBuild(func(k *kong.Kong) error {
			k.Model.HelpFlag.Help = "Show this help."
			return shell.NameEnvironment(k)
		}),
		kong.Resolvers(fileSettings{}),
	)
}

// run parses args, runs the command and returns the exit code.
func run(ctx context.Context, a *app, args []string) int {
	var grammar cli
	parser, err := newParser(&grammar, a, ctx)
	if err != nil {
		return a.fail(fmt.Errorf("build the command line: %w", err))
	}
	if len(args) > 0 && args[0] == completeCommand {
		a.printLines(candidates(parser.Model.Node, args[1:]))
		return exitOK
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if parsed != nil {
		grammar.preferFlags(parsed)
	}
	a.globals = grammar.globals
	a.setUp()
	if err != nil {
		return a.fail(usageError(err))
	}
	flush, err := a.trace(ctx, parsed.Selected().Name)
	if err != nil {
		return a.fail(err)
	}
	defer flush()
	return a.fail(parsed.Run())
}

// usageError turns an error of the parser into one that says where help is.
func usageError(err error) error {
	help := "longhaul --help"
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil {
		if node := parse.Context.Selected(); node != nil {
			help = "longhaul " + strings.Join(commandPath(node), " ") + " --help"
		}
	}
	return &codedError{code: exitUsage, err: err, hint: "see " + help}
}

func commandPath(node *kong.Node) []string {
	var path []string
	for ; node != nil && node.Type == kong.CommandNode; node = node.Parent {
		path = append([]string{node.Name}, path...)
	}
	return path
}

// hostname names this machine in what is shown to people; empty if unknown.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}
