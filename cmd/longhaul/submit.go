package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/runlog"
	"longhaul/pkg/tracing"
)

// submitCmd submits a run, or every line of a file or of stdin.
type submitCmd struct {
	Agent string `arg:"" optional:"" name:"agent" help:"The agent's key; - reads submissions from stdin."`
	Stdin string `arg:"" optional:"" name:"stdin" help:"- reads submissions from stdin, which need not name the agent."`

	Message        []string              `short:"m" sep:"none" placeholder:"TEXT" help:"A message from the user; may be repeated. - reads it from stdin."`
	Param          []string              `short:"p" sep:"none" placeholder:"NAME=VALUE" help:"A parameter; the value is JSON, or else a string. May be repeated."`
	ParamJSON      string                `name:"param-json" placeholder:"JSON" help:"All parameters, as a JSON object; --param adds to them. - reads them from stdin."`
	Metadata       map[string]string     `mapsep:"none" placeholder:"NAME=VALUE" help:"Metadata to find the run by; may be repeated."`
	RunID          string                `name:"run-id" placeholder:"UUID" help:"The run's id. Submitting it twice makes one run."`
	IdempotencyKey string                `placeholder:"KEY" help:"Submitting this key twice makes one run."`
	Conversation   string                `placeholder:"ID" help:"The conversation that the run belongs to."`
	OnConflict     *contracts.OnConflict `enum:"enqueue,reject,interrupt" placeholder:"WHAT" help:"While the conversation has a run that has not ended: enqueue (the default), reject, or interrupt, which cancels it."`
	Priority       *contracts.Priority   `enum:"high,normal,low" placeholder:"PRIORITY" help:"high, normal or low."`
	Timeout        string                `placeholder:"DURATION" help:"Time for one attempt, such as 90s or 5m."`
	StartTimeout   string                `placeholder:"DURATION" help:"Time to wait for the first attempt to begin; past it the run times out."`
	MaxAttempts    int                   `placeholder:"N" help:"Attempts in all."`
	NotBefore      string                `placeholder:"TIME" help:"Start no earlier: a time, or a duration from now, such as 10m."`
	File           string                `short:"f" type:"path" placeholder:"FILE" help:"Read submissions from a file: one JSON document, or one a line."`

	Follow  bool `xor:"after" help:"Show the run's events until it has ended."`
	Wait    bool `short:"w" xor:"after" help:"Wait for the end, and print the output."`
	Verbose bool `short:"v" help:"With --follow, show internal and debug events as well."`
}

// Help is shown below the command's summary.
func (submitCmd) Help() string {
	return `A run is submitted once the broker has stored the request durably.

Examples:

    longhaul submit echo --message "hi" --wait
    longhaul submit count --param n=5 --param pause_ms=300 --follow
    longhaul submit report --param-json '{"month": "2026-11"}' --metadata user=u1 --idempotency-key report-2026-11
    longhaul submit --file submission.json
    cat question.txt | longhaul submit echo --message - --wait
    jq -c .params order.json | longhaul submit report --param-json -
    generate-submissions | longhaul submit -
    generate-submissions | longhaul submit report --priority low -

A submission in JSON is described in docs/schemas; only agent_key is required, and an AGENT on the command line, like the other flags, stands in for what it leaves out.`
}

// Validate checks what the grammar cannot say.
func (s *submitCmd) Validate() error {
	readers := 0 // of stdin
	for _, from := range append([]string{s.Agent, s.Stdin, s.File, s.ParamJSON}, s.Message...) {
		if from == "-" {
			readers++
		}
	}
	switch {
	case s.Stdin != "" && s.Stdin != "-":
		return fmt.Errorf("one agent is enough; %q is too much (a message is given by --message, a parameter by --param)", s.Stdin)
	case s.Agent == "" && s.File == "":
		return errors.New("name an agent, or give --file FILE, or - to read from stdin")
	case (s.Agent == "-" || s.Stdin == "-") && s.File != "":
		return errors.New("either --file or -, not both")
	case readers > 1:
		return errors.New("stdin can be read once: give one - alone")
	}
	return nil
}

// Run runs the command.
func (s *submitCmd) Run(ctx context.Context, a *app) error {
	ctx = tracing.FromEnviron(ctx, a.getenv)
	if err := s.readStdin(a.stdin); err != nil {
		return err
	}
	base, err := s.submission(a.now())
	if err != nil {
		return err
	}
	if s.Agent != "-" && s.Stdin == "" && s.File == "" {
		return s.one(ctx, a, base)
	}
	in, closeInput, err := s.open(a)
	if err != nil {
		return err
	}
	defer closeInput()
	source, err := newSource(in, base)
	if faults := (contracts.Faults)(nil); s.Stdin == "-" && errors.As(err, &faults) {
		return &codedError{code: exitUsage, err: err, hint: "submissions are JSON; text for the agent is read by --message -"}
	}
	if err != nil {
		return err
	}
	if source.single != nil {
		return s.one(ctx, a, *source.single)
	}
	if s.Follow {
		return usagef("--follow is for one run; use --wait, or watch --agent KEY in another terminal")
	}
	return s.bulk(ctx, a, source)
}

// readStdin puts in the place of a flag's - what stdin holds.
func (s *submitCmd) readStdin(stdin io.Reader) error {
	into := &s.ParamJSON
	if i := slices.Index(s.Message, "-"); i >= 0 {
		into = &s.Message[i]
	}
	if *into != "-" {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(stdin, maxLine))
	if err != nil {
		return fmt.Errorf("read stdin: %w", err)
	}
	*into = strings.TrimRight(string(text), "\r\n")
	return nil
}

func (s *submitCmd) open(a *app) (io.Reader, func(), error) {
	if s.File == "" || s.File == "-" {
		return a.stdin, func() {}, nil
	}
	f, err := os.Open(s.File)
	if err != nil {
		return nil, nil, usagef("read submissions: %w", err)
	}
	return f, func() { _ = f.Close() }, nil
}

// submission is what the flags say.
func (s *submitCmd) submission(now time.Time) (contracts.Submission, error) {
	sub := contracts.Submission{
		RunID: s.RunID, IdempotencyKey: s.IdempotencyKey, ConversationID: s.Conversation, Metadata: s.Metadata,
		MaxAttempts: s.MaxAttempts,
	}
	if s.OnConflict != nil {
		sub.OnConflict = *s.OnConflict
	}
	if s.Priority != nil {
		sub.Priority = *s.Priority
	}
	if s.Agent != "-" {
		sub.AgentKey = s.Agent
	}
	for _, m := range s.Message {
		sub.Input.Messages = append(sub.Input.Messages, contracts.Text("user", m))
	}
	params, err := parseParams(s.ParamJSON, s.Param)
	if err != nil {
		return sub, &codedError{code: exitUsage, err: err}
	}
	sub.Input.Params = params
	for _, f := range []struct {
		name, value string
		into        *float64
	}{{"--timeout", s.Timeout, &sub.TimeoutSeconds}, {"--start-timeout", s.StartTimeout, &sub.StartTimeoutSeconds}} {
		if f.value == "" {
			continue
		}
		d, err := parseDuration(f.value)
		if err != nil {
			return sub, usagef("%s: %w", f.name, err)
		}
		*f.into = d.Seconds()
	}
	if s.NotBefore != "" {
		if sub.NotBefore, err = parseFuture(s.NotBefore, now); err != nil {
			return sub, usagef("--not-before: %w", err)
		}
		sub.NotBefore = sub.NotBefore.UTC()
	}
	return sub, nil
}

// parseParams puts the parameters together; nil if there are none.
func parseParams(object string, assignments []string) (json.RawMessage, error) {
	if object == "" && len(assignments) == 0 {
		return nil, nil
	}
	params := map[string]json.RawMessage{}
	if object != "" {
		if err := json.Unmarshal([]byte(object), &params); err != nil || params == nil {
			return nil, fmt.Errorf("--param-json: must be a JSON object, such as {\"n\": 5}, not %s", oneLine(object, 60))
		}
	}
	for _, assignment := range assignments {
		name, value, ok := cutAssignment(assignment)
		if !ok {
			return nil, fmt.Errorf("--param: must be NAME=VALUE, not %q", oneLine(assignment, 60))
		}
		if json.Valid([]byte(value)) {
			params[name] = json.RawMessage(value)
			continue
		}
		text, err := contracts.Encode(value)
		if err != nil {
			return nil, fmt.Errorf("--param %s: %w", name, err)
		}
		params[name] = text
	}
	return contracts.Encode(params)
}

// one submits one run and does with it what the flags say.
func (s *submitCmd) one(ctx context.Context, a *app, sub contracts.Submission) error {
	c, hangUp, err := a.dial()
	if err != nil {
		return err
	}
	defer hangUp()
	id, err := c.Submit(ctx, sub)
	if err != nil {
		return err
	}
	switch {
	case s.Follow:
		return s.followNew(ctx, a, c, id)
	case s.Wait:
		if !a.JSON {
			a.err.printf("%s\n", a.err.dim("run "+id))
		}
		return a.wait(ctx, c, id, 1)
	case a.JSON:
		return a.printJSON(struct {
			RunID string `json:"run_id"`
		}{id})
	}
	if !a.out.terminal {
		a.out.printf("%s\n", id) // for $(longhaul submit …)
		return nil
	}
	a.out.printf("Run %s is submitted.\n", a.out.bold(id))
	a.out.next("watch it", "longhaul watch "+id, "its state", "longhaul get "+id)
	return nil
}

func (s *submitCmd) followNew(ctx context.Context, a *app, c *client.Client, id string) error {
	if !a.JSON {
		a.err.printf("%s\n", a.err.dim("run "+id+" (^C leaves it running)"))
	}
	return a.follow(ctx, c, id, &eventPrinter{c: a.out, verbose: s.Verbose}, runlog.FollowOptions{UntilEnd: true})
}
