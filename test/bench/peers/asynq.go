package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
)

// taskType is that of the job.
const taskType = "bench"

// asynqQueue is asynq on a redis-server of its own.
type asynqQueue struct {
	client    *asynq.Client
	inspector *asynq.Inspector
	at        asynq.RedisClientOpt
	inFlight  int
}

// measureAsynq starts a redis-server and measures asynq on it.
func measureAsynq(ctx context.Context, concurrency int, file bool, jobs int) (_ sample, err error) {
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		return sample{}, &missingError{"redis-server", "Debian has it as the package redis-server"}
	}
	dir, err := os.MkdirTemp("", "longhaul-peers-redis-")
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	port, err := freePort()
	if err != nil {
		return sample{}, err
	}
	appendOnly := map[bool]string{true: "yes", false: "no"}[file]
	// As its package has it, but for the snapshots, which would come at a random moment.
	cmd := exec.Command(binary, "--bind", "127.0.0.1", "--port", fmt.Sprint(port), "--dir", dir, "--save", "", "--appendonly", appendOnly, "--appendfsync", "everysec")
	redis, err := startProcess(cmd, filepath.Join(dir, "redis.log"))
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, redis.stop()) }()
	q := &asynqQueue{at: asynq.RedisClientOpt{Addr: fmt.Sprintf("127.0.0.1:%d", port)}, inFlight: concurrency}
	q.client, q.inspector = asynq.NewClient(q.at), asynq.NewInspector(q.at)
	defer func() { err = errors.Join(err, q.close()) }()
	if err := redis.up(ctx, func() error { return q.client.Ping() }); err != nil {
		return sample{}, err
	}
	w := workerConfig{Kind: "asynq", Address: q.at.Addr, Concurrency: concurrency, Dir: dir}
	return compete(ctx, q, w, jobs, func() (time.Duration, error) { return cpuTime(redis.pid()) })
}

func (q *asynqQueue) submit(ctx context.Context, jobs int) error {
	payload := make([]byte, jobBytes)
	return many(q.inFlight, jobs, func() error {
		_, err := q.client.EnqueueContext(ctx, asynq.NewTask(taskType, payload))
		return err
	})
}

// many calls do n times, some at a time, until the first error.
func many(inFlight, n int, do func() error) error {
	var next atomic.Int64
	var all sync.WaitGroup
	failed := make(chan error, inFlight)
	for range inFlight {
		all.Go(func() {
			for next.Add(1) <= int64(n) {
				if err := do(); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(failed)
	return <-failed
}

func (q *asynqQueue) left(context.Context) (int, error) {
	info, err := q.inspector.GetQueueInfo("default")
	if err != nil {
		return 0, err
	}
	if info.Retry+info.Archived > 0 {
		return 0, fmt.Errorf("%d jobs have failed", info.Retry+info.Archived)
	}
	return info.Size, nil
}

func (q *asynqQueue) close() error { return errors.Join(q.client.Close(), q.inspector.Close()) }

// workAsynq is the worker process. What it is given is done at once.
func workAsynq(ctx context.Context, w workerConfig, ready func()) error {
	server := asynq.NewServer(asynq.RedisClientOpt{Addr: w.Address}, asynq.Config{
		Concurrency: w.Concurrency, LogLevel: asynq.ErrorLevel,
		TaskCheckInterval: 10 * time.Millisecond, // how long it sleeps when it finds nothing; 1 s as shipped
	})
	err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { return nil }))
	if err != nil {
		return err
	}
	ready()
	<-ctx.Done()
	server.Shutdown()
	return nil
}
