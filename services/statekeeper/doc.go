// Package statekeeper makes the run logs readable at a glance and notices dead
// workers. It is a service of which any number of instances may run at once.
//
// What lives here:
//
//   - The projector (projector.go, session.go, folding.go, records.go) folds the
//     events of RUNS_LOG into one status record per run in bucket runs. One
//     instance is active, by the pinned priority group of its consumer; the
//     others stand by.
//   - The feed (feed.go) keeps the index (index.go, query.go) of all runs in
//     every instance, active or not.
//   - The API (api.go, get.go, list.go) answers get, list and stats as a NATS
//     micro service; the replicas share the requests.
//   - The watchdog (watchdog.go, suspicion.go, release.go) pings workers that
//     hold runs and gives back the leases of those that died.
//   - The sweeper (sweeper.go, audit.go, retention.go) finds what has been lost,
//     and removes what is kept no longer; of runs that go on history.go removes
//     old checkpoints.
//
// What must never live here: a decision about a run. Nothing in this package
// appends to a log; a record or an index that lags or is lost costs nobody more
// than a look at the log.
//
// What can crash where: an instance may be killed at any moment. Events that it
// had not acknowledged come to the next active one, which reads what lies
// between the consumer's ack floor and its first delivery from the stream, and
// whose writes are compare-and-set on the record's revision and ordered by log
// sequence; so two projectors at once do no harm either. The index is rebuilt
// from the bucket at start. The watchdog holds nothing that is not in index and log.
package statekeeper
