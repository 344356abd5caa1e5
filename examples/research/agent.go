package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/builtin/chat"
)

// input is what a submission says in its params.
type input struct {
	Topic string `json:"topic" jsonschema:"what to find out about"`
}

// research asks two models, which differ in what they are told and what they may do.
type research struct {
	reader *chat.Model // searches and reads
	writer *chat.Model // writes, and publishes if it may
}

// newResearch makes the agent. Which model it asks is in cfg.
func newResearch(cfg chat.Config, reports string) (agent.Agent, error) {
	library, err := libraryTools()
	if err != nil {
		return agent.Agent{}, err
	}
	desk, err := agent.NewTools(publishTool(reports))
	if err != nil {
		return agent.Agent{}, err
	}
	reading, writing := cfg, cfg
	reading.System, reading.Tools = "Answer from the library alone, in two sentences. Say so if it has none.", library
	writing.System, writing.Tools = "You write short reports for busy people.", desk

	var r research
	if r.reader, err = chat.NewModel(reading); err != nil {
		return agent.Agent{}, err
	}
	if r.writer, err = chat.NewModel(writing); err != nil {
		return agent.Agent{}, err
	}
	a := agent.New("research", "finds out about a topic, and publishes a report if you say so", r.run)
	a.OnError = chat.OnError // which knows what errors of a model are worth another attempt
	return a, nil
}

// run is called anew after a crash, and when somebody has answered. Whatever it
// asks a model, or has a tool do, is remembered by the name that it has here.
func (r research) run(ctx context.Context, run *agent.Run, in input) (string, error) {
	// The date stands in a question to the model, so that it must be the same in every attempt: a step.
	today, err := agent.Step(ctx, run, "today", func(context.Context) (string, error) {
		return time.Now().Format("2 January 2006"), nil
	})
	if err != nil {
		return "", err
	}

	plan, err := r.writer.Ask(ctx, run, "plan", "Plan a report on "+in.Topic+" as of "+today+": at most four questions, one a line, nothing else.")
	if err != nil {
		return "", err
	}
	notes, err := r.answer(ctx, run, strings.Split(strings.TrimSpace(plan), "\n"))
	if err != nil {
		return "", err
	}

	return r.writer.Ask(ctx, run, "report", "Write the report on "+in.Topic+" from these notes, and publish it:\n\n"+strings.Join(notes, "\n\n"))
}

// answer answers the questions side by side.
func (r research) answer(ctx context.Context, run *agent.Run, questions []string) ([]string, error) {
	if len(questions) > 4 {
		// The plan is remembered: another attempt would not see another one.
		return nil, agent.Permanent(fmt.Errorf("the model wants to ask %d questions, not 4 at most", len(questions)))
	}
	notes := make([]string, len(questions))
	group, ctx := errgroup.WithContext(ctx)
	for i, question := range questions {
		group.Go(func() error {
			answer, err := r.reader.Ask(ctx, run, fmt.Sprintf("answer-%d", i+1), question)
			notes[i] = question + "\n" + answer
			return err
		})
	}
	return notes, group.Wait()
}
