package worker

import "longhaul/pkg/metrics"

// Stats says what a worker does and has done since it was made.
type Stats = metrics.WorkerStats

// Stats may be called at any time, from any goroutine. It asks nobody.
func (w *Worker) Stats() Stats { return w.counts.Stats(len(w.attempts())) }
