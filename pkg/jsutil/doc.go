// Package jsutil is the JetStream adapter: how Longhaul reaches the broker,
// what must stand there, and what the broker's errors mean. It knows the wire
// (package contracts) and the broker, and nothing of runs.
//
// The map:
//
//   - connect.go makes connections that outlive outages; connlog.go says in
//     the log what happens to them.
//   - topology.go is the topology as data: every stream, bucket and consumer.
//     settings.go says setting by setting what Longhaul needs and what is the
//     operator's; ensure.go holds a broker against it, creates what is missing
//     and updates what may be updated.
//   - delivery.go and puller.go take messages from a pull consumer under a lease.
//   - get.go gets stored messages without a consumer, one or many.
//   - errors.go is the one table that translates the broker's errors.
//   - embedded.go is the broker inside this process, in memory or on a directory.
//   - jstest gives tests such a broker.
//
// Nothing here is kept on disk but by the embedded broker. Everything may be
// repeated: a process that is killed inside EnsureTopology leaves a part of
// the topology, and the next call adds the rest.
package jsutil
