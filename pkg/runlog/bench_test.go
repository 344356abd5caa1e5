package runlog

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil/jstest"
)

func benchEvent(b *testing.B) (*run, contracts.Event) {
	b.Helper()
	r := newRun(newLog(b, jstest.StartFile(b)))
	e := r.event(b, contracts.TypeQueued)
	e.Payload = json.RawMessage(`{"text":"` + strings.Repeat("x", 256) + `"}`)
	return r, e
}

// One append after the other, each waited for.
func BenchmarkAppend(b *testing.B) {
	r, e := benchEvent(b)
	b.ReportAllocs()
	for b.Loop() {
		e.RunID = contracts.NewRunID()
		if _, err := r.log.Append(b.Context(), Head{}, e); err != nil {
			b.Fatal(err)
		}
	}
}

// 256 appends of different runs in flight, as dispatcher and worker have them.
// The broker is in the same process: its time and allocations are counted in.
func BenchmarkAppendAsync(b *testing.B) {
	r, e := benchEvent(b)
	flights := make(chan *Pending, 256)
	done := make(chan error, 1)
	go func() {
		var first error
		for p := range flights {
			if _, err := p.Wait(b.Context()); err != nil && first == nil {
				first = err
			}
		}
		done <- first
	}()
	b.ReportAllocs()
	for b.Loop() {
		e.RunID = contracts.NewRunID()
		p, err := r.log.AppendAsync(Head{}, e)
		if err != nil {
			b.Fatal(err)
		}
		flights <- p
	}
	close(flights)
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// The floor under BenchmarkAppendAsync: the same bytes by the publisher alone.
func BenchmarkPublishAsync(b *testing.B) {
	r, e := benchEvent(b)
	flights := make(chan interface{ Err() <-chan error }, 256)
	acks := make(chan struct{})
	data, err := contracts.Encode(e)
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		defer close(acks)
		for range flights {
		}
	}()
	b.ReportAllocs()
	for b.Loop() {
		f, err := r.log.js.PublishAsync(contracts.LogSubject(contracts.NewRunID()), data)
		if err != nil {
			b.Fatal(err)
		}
		flights <- f
	}
	close(flights)
	<-acks
	<-r.log.js.PublishAsyncComplete()
}

// History: events of one long log per second.
func BenchmarkRead(b *testing.B) {
	r, _ := benchEvent(b)
	r.mustStart(b).mustDelta(b, 10_000)
	b.ReportAllocs()
	events := 0
	for began := time.Now(); b.Loop(); b.ReportMetric(float64(events)/time.Since(began).Seconds(), "events/s") {
		for _, err := range r.log.Read(b.Context(), r.id, 1) {
			if err != nil {
				b.Fatal(err)
			}
			events++
		}
	}
}

// Live: from the append to the follower that has got the event.
func BenchmarkFollow(b *testing.B) {
	r, _ := benchEvent(b)
	r.mustStart(b)
	next, stop := follow(b, newLogOn(b, r.log.nc), r.id, FollowOptions{From: 3})
	defer stop()
	b.ReportAllocs()
	for b.Loop() {
		r.mustDelta(b, 1)
		next()
	}
}
