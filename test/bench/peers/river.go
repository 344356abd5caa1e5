package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// riverMode is how River is used.
type riverMode struct {
	tuned bool // it fetches as soon as it can, and both sides have enough connections
	bulk  bool // jobs are inserted a thousand at a time
}

// Tuned settings. The number of connections is that of jobs under way in most
// advice; more than this gained nothing on two processors.
const (
	tunedCooldown, tunedPoll = 2 * time.Millisecond, 20 * time.Millisecond
	tunedConnections         = 32
	bulkJobs                 = 1000
)

// jobArgs is the job.
type jobArgs struct {
	Padding string `json:"padding"`
}

// Kind implements river.JobArgs.
func (jobArgs) Kind() string { return "bench" }

// riverQueue is River on a PostgreSQL of its own.
type riverQueue struct {
	pool     *pgxpool.Pool
	client   *river.Client[pgx.Tx]
	inFlight int
	bulk     bool
}

// measureRiver starts a PostgreSQL and measures River on it.
func measureRiver(ctx context.Context, concurrency int, mode riverMode, jobs int) (_ sample, err error) {
	dir, err := os.MkdirTemp("", "longhaul-peers-postgres-")
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	postgres, url, err := startPostgres(ctx, dir)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, postgres.stopBy(syscall.SIGINT)) }() // its fast shutdown
	if mode.tuned {
		url += fmt.Sprintf("&pool_max_conns=%d", tunedConnections)
	}
	q := &riverQueue{inFlight: concurrency, bulk: mode.bulk}
	if q.pool, err = pgxpool.New(ctx, url); err != nil {
		return sample{}, err
	}
	defer q.pool.Close()
	if err := postgres.up(ctx, func() error { return q.pool.Ping(ctx) }); err != nil {
		return sample{}, err
	}
	migrator, err := rivermigrate.New(riverpgxv5.New(q.pool), nil)
	if err != nil {
		return sample{}, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return sample{}, fmt.Errorf("make River's tables: %w", err)
	}
	if q.client, err = river.NewClient(riverpgxv5.New(q.pool), &river.Config{Logger: quiet()}); err != nil {
		return sample{}, err
	}
	w := workerConfig{Kind: "river", Address: url, Concurrency: concurrency, Tuned: mode.tuned, Dir: dir}
	return compete(ctx, q, w, jobs, func() (time.Duration, error) { return familyTime(postgres.pid()) })
}

// startPostgres makes a cluster in dir and starts it, with fsync off: what is
// committed survives its processes, not the machine, as with NATS by default.
func startPostgres(ctx context.Context, dir string) (_ *process, url string, err error) {
	initdb, err1 := exec.LookPath("initdb")
	binary, err2 := exec.LookPath("postgres")
	if err1 != nil || err2 != nil {
		return nil, "", &missingError{"postgres, or initdb", "Debian has them as the package postgresql, in /usr/lib/postgresql/*/bin"}
	}
	as, err := unprivileged(dir)
	if err != nil {
		return nil, "", err
	}
	data := filepath.Join(dir, "data")
	create := exec.CommandContext(ctx, initdb, "--pgdata", data, "--auth", "trust", "--username", "bench", "--no-sync", "--encoding", "UTF8", "--locale", "C")
	create.SysProcAttr = as
	if out, err := create.CombinedOutput(); err != nil {
		return nil, "", fmt.Errorf("initdb: %w: %s", err, out)
	}
	port, err := freePort()
	if err != nil {
		return nil, "", err
	}
	cmd := exec.Command(binary, "-D", data, "-c", "listen_addresses=127.0.0.1", "-p", fmt.Sprint(port), "-c", "unix_socket_directories=",
		"-c", "fsync=off", "-c", "shared_buffers=256MB", "-c", "max_connections=200")
	cmd.SysProcAttr = as
	p, err := startProcess(cmd, filepath.Join(dir, "postgres.log"))
	return p, fmt.Sprintf("postgres://bench@127.0.0.1:%d/postgres?sslmode=disable", port), err
}

// unprivileged gives dir to a user under whom a PostgreSQL starts: not root.
func unprivileged(dir string) (*syscall.SysProcAttr, error) {
	if os.Getuid() != 0 {
		return &syscall.SysProcAttr{}, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, &missingError{"a user for postgres, which does not run as root", "neither postgres nor nobody is a user"}
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2, os.Chown(dir, uid, gid)); err != nil {
		return nil, err
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
}

func quiet() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}

func (q *riverQueue) submit(ctx context.Context, jobs int) error {
	args := jobArgs{Padding: strings.Repeat("x", jobBytes-len(`{"padding":""}`))}
	if !q.bulk {
		return many(q.inFlight, jobs, func() error {
			_, err := q.client.Insert(ctx, args, nil)
			return err
		})
	}
	for jobs > 0 {
		batch := make([]river.InsertManyParams, min(jobs, bulkJobs))
		for i := range batch {
			batch[i].Args = args
		}
		if _, err := q.client.InsertManyFast(ctx, batch); err != nil {
			return err
		}
		jobs -= len(batch)
	}
	return nil
}

func (q *riverQueue) left(ctx context.Context) (left int, err error) {
	// All but those that have ended; an index has the states.
	err = q.pool.QueryRow(ctx, `SELECT count(*) FROM (SELECT 1 FROM river_job WHERE state IN ('available', 'running', 'retryable', 'scheduled', 'discarded') LIMIT 1) AS open`).Scan(&left)
	return left, err
}

func (q *riverQueue) close() error { return nil }

// noop is River's worker. What it is given is done at once.
type noop struct{ river.WorkerDefaults[jobArgs] }

// Work implements river.Worker.
func (noop) Work(context.Context, *river.Job[jobArgs]) error { return nil }

// workRiver is the worker process.
func workRiver(ctx context.Context, w workerConfig, ready func()) error {
	pool, err := pgxpool.New(ctx, w.Address)
	if err != nil {
		return err
	}
	defer pool.Close()
	cfg := &river.Config{Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: w.Concurrency}}, Workers: river.NewWorkers(), Logger: quiet()}
	if w.Tuned {
		cfg.FetchCooldown, cfg.FetchPollInterval = tunedCooldown, tunedPoll
	}
	river.AddWorker(cfg.Workers, noop{})
	client, err := river.NewClient(riverpgxv5.New(pool), cfg)
	if err != nil {
		return err
	}
	if err := client.Start(ctx); err != nil {
		return err
	}
	ready()
	<-ctx.Done()
	<-client.Stopped()
	return nil
}
