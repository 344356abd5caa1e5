package worker

import "sync/atomic"

// Stats says what a worker does and has done since it was made.
type Stats struct {
	// Executing is how many attempts are under way. One whose agent was
	// abandoned is not, for the run goes on without it.
	Executing int
	// Abandoned is how many agents have not returned although CancelGrace is
	// over since their context ended. Each takes a slot until it does.
	Abandoned int
	// AbandonedTotal counts them, also those that have returned since.
	AbandonedTotal uint64
	// Takeovers counts runs begun whose holder was found to be gone.
	Takeovers uint64
	// Fenced counts attempts given up without a last event: the run had gone
	// on elsewhere, or the broker was out of reach for a lease.
	Fenced uint64
}

// counts are what Stats adds up.
type counts struct {
	abandoned                         atomic.Int64
	abandonedTotal, takeovers, fenced atomic.Uint64
}

// Stats may be called at any time, from any goroutine. It asks nobody.
func (w *Worker) Stats() Stats {
	return Stats{
		Executing: len(w.attempts()), Abandoned: int(w.counts.abandoned.Load()),
		AbandonedTotal: w.counts.abandonedTotal.Load(), Takeovers: w.counts.takeovers.Load(), Fenced: w.counts.fenced.Load(),
	}
}
