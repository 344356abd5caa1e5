package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"longhaul/pkg/client"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
	"longhaul/test/cluster"
	"longhaul/test/torture/history"
)

// beReader is the first argument of a process of readers. They have one of
// their own so that it can be killed, and be of another build than the harness.
const beReader = "-be-reader"

// readerFlags are the command line of such a process.
type readerFlags struct {
	name, nats, history string
	seed                uint64
}

func (f readerFlags) args() []string {
	return []string{beReader, "-name", f.name, "-nats", f.nats, "-history", f.history, "-seed", fmt.Sprint(f.seed)}
}

// readersAtOnce is how many runs such a process follows at a time.
const readersAtOnce = 4

// serveReaders follows runs, leaves them and comes back, until it is told to stop.
func serveReaders(args []string) error {
	var f readerFlags
	set := flag.NewFlagSet("torture "+beReader, flag.ContinueOnError)
	set.StringVar(&f.name, "name", "", "of the actor")
	set.StringVar(&f.nats, "nats", "", "the broker's addresses")
	set.StringVar(&f.history, "history", "", "the file that takes what is seen")
	set.Uint64Var(&f.seed, "seed", 1, "what chance is made from")
	if err := set.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	out, err := history.Open(f.history, f.name)
	if err != nil {
		return err
	}
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: f.nats, Name: f.name, Retry: true, Logger: stderrLogger()})
	if err != nil {
		return errors.Join(err, out.Close())
	}
	defer nc.Close()
	c, err := client.New(nc)
	if err != nil {
		return errors.Join(err, out.Close())
	}
	runs := newBook()
	var all sync.WaitGroup
	all.Go(func() { runs.follow(ctx, c) })
	errs := make([]error, readersAtOnce)
	for i := range readersAtOnce {
		r := &reader{c: c, out: out, book: runs, rng: rand.New(rand.NewPCG(f.seed, uint64(2000+i)))}
		all.Go(func() { errs[i] = r.run(ctx) })
	}
	all.Wait()
	return errors.Join(append(errs, out.Close())...)
}

// reader follows one run at a time.
type reader struct {
	c    *client.Client
	out  *history.Writer
	book *book
	rng  *rand.Rand
}

// run reads until ctx ends.
func (r *reader) run(ctx context.Context) error {
	run, from := "", uint64(1)
	for ctx.Err() == nil {
		if run == "" {
			suits := anyRun
			if r.rng.IntN(2) == 0 {
				suits = alive // of the others most have ended, and there is nothing to miss
			}
			head, _, ok := r.book.any(r.rng, suits)
			if !ok {
				if cluster.Sleep(ctx, 50*time.Millisecond) != nil {
					return nil
				}
				continue
			}
			run, from = head.RunID, 1
			if r.rng.IntN(3) == 0 {
				from = 1 + r.rng.Uint64N(head.Seq+1)
			}
		}
		next, ended, err := r.follow(ctx, run, from)
		if err != nil {
			return err
		}
		from = next
		if ended || r.rng.IntN(4) == 0 {
			run = ""
		}
		if cluster.Sleep(ctx, time.Duration(r.rng.IntN(100))*time.Millisecond) != nil {
			return nil // else a run that has ended is read without end
		}
	}
	return nil
}

// follow reads a run from one event on, for a while, and returns where to go on.
func (r *reader) follow(ctx context.Context, run string, from uint64) (next uint64, ended bool, err error) {
	id := r.out.NextID()
	note := func(op history.Op, read history.Read, cause error) {
		e := history.Entry{Kind: history.KindRead, Op: op, ID: id, Run: run, Read: &read}
		if cause != nil {
			e.Error = cause.Error()
		}
		err = errors.Join(err, r.out.Write(e))
	}
	note(history.OpBegin, history.Read{From: from}, nil)
	leave, cancel := context.WithTimeout(ctx, time.Duration(200+r.rng.IntN(5000))*time.Millisecond)
	defer cancel()
	next = from
	var seqs []uint64
	gap := error(nil)
	for e, followErr := range r.c.Follow(leave, run, runlog.FollowOptions{From: from, UntilEnd: true}) {
		switch {
		case errors.Is(followErr, runlog.ErrGap):
			gap = followErr
			continue
		case leave.Err() != nil && followErr != nil: // it left by itself
			continue
		case followErr != nil:
			note(history.OpInfo, history.Read{Seqs: seqs}, followErr)
			seqs = nil
			continue
		}
		if gap != nil {
			note(history.OpInfo, history.Read{Seqs: seqs, Gap: true, Next: e.Seq}, gap)
			seqs, gap = nil, nil
		}
		seqs, next, ended = append(seqs, e.Seq), e.Seq+1, e.Type.Terminal()
		if len(seqs) == 20 {
			note(history.OpInfo, history.Read{Seqs: seqs}, nil)
			seqs = nil
		}
		if r.rng.IntN(50) == 0 { // a slow reader
			_ = cluster.Sleep(leave, time.Duration(r.rng.IntN(300))*time.Millisecond)
		}
		if r.rng.IntN(40) == 0 {
			break
		}
	}
	note(history.OpEnd, history.Read{Seqs: seqs, Terminal: ended}, nil)
	return next, ended, err
}
