package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"longhaul/pkg/agent"
	"longhaul/pkg/jsutil"
	"longhaul/services/worker"
)

// host is a worker inside this process, for agents that note what they do and
// when. It has a connection and a log of its own, and default settings.
type host struct {
	cancel context.CancelFunc
	done   chan error
}

// startHost starts one and returns when it answers to its name.
func (s *stage) startHost(ctx context.Context, id string, slots int, a agent.Agent) (*host, error) {
	file, err := os.Create(filepath.Join(s.dir, id+".log"))
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(file, nil))
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: s.url, Name: id, Retry: true, Logger: log})
	if err != nil {
		return nil, err
	}
	w, err := worker.New(nc, worker.Config{WorkerID: id, Agents: []agent.Agent{a}, Concurrency: slots, Logger: log})
	if err != nil {
		nc.Close()
		return nil, err
	}
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	h := &host{cancel: cancel, done: make(chan error, 1)}
	go func() {
		err := w.Run(serving)
		nc.Close()
		_ = file.Close()
		h.done <- err
	}()
	if err := s.awaitWorker(ctx, id); err != nil {
		_ = h.stop()
		return nil, err
	}
	return h, nil
}

// stop drains the worker.
func (h *host) stop() error {
	h.cancel()
	if err := <-h.done; err != nil {
		return fmt.Errorf("worker in this process: %w", err)
	}
	return nil
}
