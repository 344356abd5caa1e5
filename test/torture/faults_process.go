package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"longhaul/test/cluster"
	"longhaul/test/torture/history"
)

// processFaults harm the services' processes. Each service is harmed by one
// lane alone; only an agent that ends its worker comes between.
func processFaults() []fault {
	return []fault{
		{name: "kill-worker", lane: laneProcesses, weight: 5, do: killing(kindWorker)},
		{name: "kill-worker-at", lane: laneProcesses, weight: 4, do: killWorkerAt},
		{name: "stop-worker", lane: laneProcesses, weight: 4, do: stopping(kindWorker)},
		{name: "drain-worker", lane: laneProcesses, weight: 2, do: draining(kindWorker)},
		{name: "rolling", lane: laneProcesses, weight: 1, do: rolling},
		{name: "kill-dispatcher", lane: laneProcesses, weight: 3, do: killing(kindDispatcher)},
		{name: "stop-dispatcher", lane: laneProcesses, weight: 2, do: stopping(kindDispatcher)},
		{name: "kill-statekeeper", lane: laneProcesses, weight: 2, do: killing(kindStatekeeper)},
		{name: "stop-statekeeper", lane: laneProcesses, weight: 2, do: stopping(kindStatekeeper)},
		{name: clockSkew, lane: laneProcesses, weight: 2, do: skewing},
		{name: "kill-reader", lane: laneProcesses, weight: 1, do: killing(kindReader)},
	}
}

// one is a service of a kind, by chance.
func (h *harm) one(k kind) *service {
	all := h.s.of(k)
	return all[h.rng.IntN(len(all))]
}

// killing is kill -9 of one service; it is back at once or after seconds, a
// worker now and then under the same id.
func killing(k kind) func(context.Context, *harm) error {
	return func(ctx context.Context, h *harm) error {
		sv := h.one(k)
		p := sv.process()
		sv.next(h.between(0, 3*time.Second), h.rng.IntN(4) == 0)
		h.info(history.FaultKill, sv.who(), p.PID(), "")
		return errors.Join(p.Kill(), h.await(ctx, sv, p))
	}
}

// await returns when a service has a life after that of p.
func (h *harm) await(ctx context.Context, sv *service, p *cluster.Process) error {
	err := cluster.WaitFor(ctx, upTime, sv.name+" to be started again", func() bool { return sv.process() != p })
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// killWorkerAt kills a worker at the moment when something of weight passes
// between it and the broker: a delivery, an append, a checkpoint; before it has
// passed, or after, with the answer lost.
func killWorkerAt(ctx context.Context, h *harm) error {
	moments := []cluster.Trap{
		{Way: cluster.Down, Pattern: []byte("MSG runs.work.")},
		{Way: cluster.Up, Pattern: []byte(".log ")},
		{Way: cluster.Up, Pattern: []byte("PUB $KV.runs.checkpoint.")},
		{Way: cluster.Up, Pattern: []byte("+ACK")},
	}
	sv, t := h.one(kindWorker), moments[h.rng.IntN(len(moments))]
	p := sv.process()
	t.Before = h.rng.IntN(2) == 0
	sv.next(h.between(0, 2*time.Second), false)
	sprung := h.trap(ctx, sv.links, t, 3*time.Second, func() {
		h.info(history.FaultKill, sv.who(), p.PID(), "")
		_ = p.Kill() // it is gone in any case
	})
	if !sprung {
		return fmt.Errorf("nothing of the kind passed at %s", sv.name)
	}
	return h.await(ctx, sv, p)
}

// trap lays the same trap on all of the links and waits until one has sprung,
// for a while. then is called once.
func (h *harm) trap(ctx context.Context, links []*cluster.Link, t cluster.Trap, patience time.Duration, then func()) bool {
	sprung := make(chan struct{})
	turn := make(chan struct{}, 1)
	turn <- struct{}{}
	for _, l := range links {
		one := t
		one.Then = func() {
			select {
			case <-turn:
				then()
				close(sprung)
			default: // another link was first
			}
		}
		l.Set(&one)
	}
	defer func() {
		for _, l := range links {
			l.Set(nil)
		}
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-sprung:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	select {
	case <-turn: // nobody will any more
		return false
	default: // somebody is at it
		<-sprung
		return true
	}
}

// stopping is SIGSTOP and, after less than a lease or more than one, SIGCONT.
func stopping(k kind) func(context.Context, *harm) error {
	return func(ctx context.Context, h *harm) error {
		sv := h.one(k)
		d := h.between(200*time.Millisecond, h.s.o.lease/2)
		if h.rng.IntN(2) == 0 {
			d = h.between(h.s.o.lease, h.s.o.lease+4*time.Second)
		}
		defer h.begin(history.FaultStop, sv.who(), sv.process().PID())()
		if err := sv.signal(syscall.SIGSTOP); err != nil {
			return err
		}
		_ = cluster.Sleep(ctx, d) // over earlier if the torture is
		return sv.wake()
	}
}

// wake is SIGCONT, which does nothing to a process that runs.
func (s *service) wake() error { return s.signal(syscall.SIGCONT) }

// draining is an operator's restart.
func draining(k kind) func(context.Context, *harm) error {
	return func(ctx context.Context, h *harm) error { return h.drain(ctx, h.one(k)) }
}

func (h *harm) drain(ctx context.Context, sv *service) error {
	p := sv.process()
	end := h.begin(history.FaultDrain, sv.who(), p.PID())
	err := sv.signal(syscall.SIGTERM)
	if err == nil {
		// It may take its time, also when the torture is over meanwhile.
		err = cluster.WaitFor(context.WithoutCancel(ctx), upTime, sv.name+" to end", func() bool { return !p.Running() })
	}
	end()
	return errors.Join(err, h.await(ctx, sv, p))
}

// rolling restarts all services, one after the other.
func rolling(ctx context.Context, h *harm) error {
	for _, sv := range h.s.all {
		if ctx.Err() != nil {
			return nil
		}
		if err := h.drain(ctx, sv); err != nil {
			return err
		}
	}
	return nil
}
