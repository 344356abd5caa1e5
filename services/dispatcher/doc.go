// Package dispatcher turns what clients ask for into what stands in the run
// log: submissions into run.queued and a work message, delayed ones into
// run.scheduled and a schedule, commands into cancels and redrives. It keeps
// nothing: any number of replicas may run at once, and each may be killed at
// any moment.
//
// The map:
//
//   - dispatcher.go is the service: its configuration, Run, and what it tends
//     meanwhile. intake.go takes messages from a consumer and bounds how many
//     are handled beside one another; held.go keeps what is in hand from being
//     delivered again.
//   - submit.go is the fast lane of submissions, in order and pipelined;
//     admit.go is everything that is not plain about one, refusals included,
//     off the fast lane. agents.go knows the registered agents, claim.go holds
//     idempotency keys.
//   - commands.go reads commands and keeps those about one run in order,
//     cancel.go and redrive.go carry them out.
//   - schedule.go goes on with a run that has not begun, from what its log
//     shows: it keeps it until its not_before, queues it, and gives it up if
//     it is not begun in time.
//   - work.go makes, publishes and removes work messages.
//   - disposition.go alone decides what becomes of a message after an error.
//
// What makes a crash harmless: every step is an append that is compared with
// the log's head, or a publish that the broker refuses when it is there
// already, and the message that asked for it is acked last. A message that is
// delivered again finds by the log how far it got. The only state that is not
// in the log is the claim of an idempotency key, which names the run and is
// therefore the same when it is made again.
package dispatcher
