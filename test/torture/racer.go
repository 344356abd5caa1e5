package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/test/cluster"
	"longhaul/test/torture/history"
)

// track is a log of no run, for which racers race: the broker's compare-and-set
// alone, without our services' part in it. What they append is no event, and
// must trouble nobody who meets it in RUNS_LOG.
type track struct {
	subject string
	read    string // where the stream stores it
}

// lap is how many appends each racer makes on a track: judging a register
// takes time that grows with what goes on beside one another.
const lap = 60

func newTrack() track {
	id := contracts.NewRunID()
	return track{contracts.LogSubject(id), contracts.EventsSubject(id)}
}

// race has a client append to the tracks, one after the other, until ctx ends.
func (c *submitter) race(ctx context.Context, tracks <-chan track) {
	for t := range tracks {
		last := uint64(0)
		for n := range lap {
			if cluster.Sleep(ctx, time.Duration(c.rng.Int64N(int64(60*time.Millisecond)))) != nil {
				return
			}
			op, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
			last = c.append(op, t, last, fmt.Sprintf("%s/%d", c.name, n))
			cancel()
		}
	}
}

// append appends on what is believed to be the last message, and returns what
// is then.
func (c *submitter) append(ctx context.Context, t track, expected uint64, value string) uint64 {
	a := history.Append{Subject: t.subject, Expected: expected, Value: value}
	body, err := json.Marshal(a)
	if err != nil {
		return expected // it always encodes
	}
	id := c.invoke(history.Entry{Kind: history.KindAppend, Append: &a})
	ack, err := c.js.Publish(ctx, t.subject, body, jetstream.WithExpectLastSequencePerSubject(expected), jetstream.WithRetryAttempts(0))
	e := history.Entry{Kind: history.KindAppend, ID: id, Append: &a}
	if err == nil {
		done := a
		done.Seq, done.Duplicate = ack.Sequence, ack.Duplicate
		e.Append = &done
	}
	if err = jsutil.Translate(err); errors.Is(err, jsutil.ErrConflict) {
		e.Op, e.Error = history.OpFail, err.Error()
		c.write(e)
	} else {
		c.outcome(e, err)
	}
	if err == nil {
		return ack.Sequence
	}
	m, err := jsutil.GetFromLeader(ctx, c.nc, contracts.StreamLog, jsutil.GetRequest{LastFor: t.read})
	if err == nil {
		return m.Sequence
	}
	return expected
}

// tracksFor makes tracks that all racers run on at about the same time.
func tracksFor(racers int, d time.Duration) []<-chan track {
	n := int(d/(lap*30*time.Millisecond)) + 1
	all := make([]chan track, racers)
	for i := range all {
		all[i] = make(chan track, n)
	}
	for range n {
		t := newTrack()
		for _, c := range all {
			c <- t
		}
	}
	out := make([]<-chan track, racers)
	for i, c := range all {
		close(c)
		out[i] = c
	}
	return out
}

// racers is how many race.
const racers = 3

// newRacer is a client that races and does nothing else.
func (s *system) newRacer(i int) (*submitter, error) {
	return s.newClient(fmt.Sprintf("racer-%d", i+1), rand.New(rand.NewPCG(s.o.seed, uint64(3000+i))))
}
