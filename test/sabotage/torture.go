package main

import (
	"fmt"

	"longhaul/internal/sabotage"
)

// tortures are torture's trials. A seed fixes which faults come, not how they
// fall between the steps of the processes: those here have many of the faults
// that need the guarantee, and load for it.
func tortures() (all []trial) {
	for _, c := range []struct {
		args  []string
		tries []trial
	}{
		// The one of `make check`.
		{torture("11", "15s", "all,-clock-skew"), []trial{
			noticed(sabotage.Fencing, 2, 6),
			noticed(sabotage.Attempts, 4),
			noticed(sabotage.Checkpoint, 7),
			noticed(sabotage.NotBefore, 9),
			noticed(sabotage.Turns, 16),
		}},
		// Workers that wake up behind their lease.
		{torture("98", "15s", "stop-worker"), []trial{noticed(sabotage.Fencing, 5)}},
		// Leases given back under holders that are well. Faults of processes and
		// links would be a reason to take their runs over.
		{torture("24", "12s", "false-alarm,kill-broker"), []trial{noticed(sabotage.AskFirst, 8)}},
		// What is lost would be restored after ten quiet seconds.
		{torture("17", "8s", "delete-schedule,delete-work", "-settle", "20s"), []trial{noticed(sabotage.Sweeper, 1)}},
		// Readers that are off while workers write.
		{torture("208", "15s", "kill-broker,cut,drop"), []trial{noticed(sabotage.GapFilling, 13)}},
	} {
		all = append(all, trial{without: whole, args: c.args})
		for _, t := range c.tries {
			t.args = c.args
			all = append(all, t)
		}
	}
	return all
}

func torture(seed, duration, faults string, more ...string) []string {
	return append([]string{"-cluster", "1", "-seed", seed, "-duration", duration, "-faults", faults}, more...)
}

// noticed is a trial in which one of the invariants at least has to be violated.
func noticed(s sabotage.Switch, invariants ...int) trial {
	t := trial{without: s.String()}
	for _, i := range invariants {
		t.red = append(t.red, fmt.Sprintf("%3d  violated ", i)) // as check.Report prints it
	}
	return t
}
