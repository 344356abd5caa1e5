package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"longhaul/pkg/agent"
	"longhaul/pkg/jsutil"
	"longhaul/services/worker"
	"longhaul/test/cluster"
)

// performer is a worker in a process of its own, this program once more, whose
// agents note each execution in a file before they do anything: what is noted
// outlives a kill.
type performer struct {
	ID    string `json:"id"`
	NATS  string `json:"nats"`
	Notes string `json:"notes"` // the file; further lives of the worker append to it
	Slots int    `json:"slots"`
	// Replicas is what it would create.
	Replicas int `json:"replicas"`
}

const (
	bePerformer = "-be-performer"
	// agentShort returns at once. agentLong takes steps, each with deltas and a checkpoint.
	agentShort = "short"
	agentLong  = "long"
)

// perform makes this process a performer if it was started as one, and returns
// true when that has been told to stop.
func perform() (bool, error) {
	if len(os.Args) != 3 || os.Args[1] != bePerformer {
		return false, nil
	}
	var p performer
	if err := json.Unmarshal([]byte(os.Args[2]), &p); err != nil {
		return true, fmt.Errorf("be a performer: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	notes, err := os.OpenFile(p.Notes, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return true, err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: p.NATS, Name: p.ID, Retry: true, Logger: log})
	if err != nil {
		return true, errors.Join(err, notes.Close())
	}
	defer nc.Close()
	w, err := worker.New(nc, worker.Config{
		WorkerID: p.ID, Agents: p.agents(notes), Concurrency: p.Slots, Logger: log, Topology: jsutil.TopologyOptions{Replicas: p.Replicas},
	})
	if err == nil {
		err = w.Run(ctx)
	}
	return true, errors.Join(err, notes.Close())
}

func (p performer) agents(notes *os.File) []agent.Agent {
	note := func(run *agent.Run) error {
		_, err := fmt.Fprintf(notes, "%s %s\n", run.ID, p.ID) // one write, so that lines stay whole
		return err
	}
	return []agent.Agent{
		{Key: agentShort, Run: func(_ context.Context, run *agent.Run) (agent.Result, error) {
			return agent.Result{FinalOutput: "done"}, note(run)
		}},
		{Key: agentLong, Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
			if err := note(run); err != nil {
				return agent.Result{}, err
			}
			var params struct {
				Steps int `json:"steps"`
			}
			if err := run.Params(&params); err != nil {
				return agent.Result{}, err
			}
			return steady(ctx, run, params.Steps)
		}},
	}
}

// startPerformer starts one and returns when it answers to its name.
func (s *stage) startPerformer(ctx context.Context, id string, slots int) (*cluster.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(performer{ID: id, NATS: s.url, Notes: filepath.Join(s.dir, "notes-"+id), Slots: slots, Replicas: max(1, len(s.nodes))})
	if err != nil {
		return nil, err
	}
	p, err := cluster.StartProcess(exec.Command(self, bePerformer, string(config)), id, s.dir)
	if err != nil {
		return nil, err
	}
	s.others = append(s.others, p)
	return p, s.awaitWorker(ctx, id)
}

// performances reads what all performers have noted: for each run the workers
// that began to execute it.
func (s *stage) performances() (map[string][]string, error) {
	files, err := filepath.Glob(filepath.Join(s.dir, "notes-*"))
	if err != nil {
		return nil, err
	}
	all := map[string][]string{}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if run, id, ok := strings.Cut(lines.Text(), " "); ok {
				all[run] = append(all[run], id)
			}
		}
		if err := errors.Join(lines.Err(), f.Close()); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
	}
	return all, nil
}
