package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// progress tells a person how it goes.
type progress struct {
	mu    sync.Mutex
	w     io.Writer
	begun time.Time
}

func newProgress(w io.Writer) *progress { return &progress{w: w, begun: time.Now()} }

func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, "%6.1fs  %s\n", time.Since(p.begun).Seconds(), fmt.Sprintf(format, args...))
}

// header says what is about to happen, so that it can be done again.
func (p *progress) header(o options) {
	c := o.config()
	var settings []string
	for _, k := range slices.Sorted(maps.Keys(c.Settings)) {
		settings = append(settings, k+" "+c.Settings[k])
	}
	fmt.Fprintf(p.w, "seed %d, %d broker(s), nats-server %s, longhaul %s, lease %s, %s\n",
		o.seed, o.brokers, c.Server, c.Version, c.Lease, strings.Join(settings, ", "))
	fmt.Fprintf(p.w, "again: %s\n", c.Command)
}
