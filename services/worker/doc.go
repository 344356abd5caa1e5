// Package worker takes runs from the work queue and executes their agents.
//
// The map:
//
//   - worker.go: a worker's life: start, run, drain, stop. register.go makes
//     its agents known and their queues exist.
//   - intake.go: how many messages are asked for, and of which priority.
//   - take.go: a work message in hand, what now? decide.go is the pure part of
//     the answer, takeover.go the question to another holder.
//   - attempt.go: one execution of an agent, from run.started to the terminal
//     event; outcome.go says which event its end is worth.
//   - writer.go: the attempt's turn at the run log, one append at a time.
//   - heartbeat.go: leases kept, fencing noticed. holder.go: answers to those
//     who ask about a run that is held here. stats.go: what a metrics
//     collector reads.
//
// What may die where: a worker that is killed leaves its run's message
// unacknowledged and the log saying running; whoever is handed the message
// next asks runs.worker.<id>, hears nothing, and starts the next epoch. Every
// write of a worker goes through the log's compare-and-set, so a worker that
// was only thought dead finds its next append refused (DESIGN, ideas 3 and 4).
package worker
