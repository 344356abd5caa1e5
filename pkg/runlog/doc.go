// Package runlog is the run log: append, head, read, follow. It is the only
// code that touches the stream RUNS_LOG.
//
// # The stream
//
// Every run has one log, the subject runs.<id>.events of RUNS_LOG. It is
// written to as runs.<id>.log: the stream transforms the subject first, then
// compares Nats-Expected-Last-Subject-Sequence with runs.<id>.events, stores,
// and republishes what it has stored on that subject, with the sequence of the
// event before it. So a subscriber sees committed events alone, and can tell
// when it has missed one.
//
// # Writing
//
// An append names the Head that it stands on. The broker stores it if that is
// still the last event, and refuses it otherwise: exactly one of several
// appenders gets each place (append.go). An answer can be lost between the two,
// and then a second try would be refused on account of the first. Pending.Wait
// (pending.go) therefore takes no refusal and no silence at its word, but asks
// the stream's leader for the event that follows the head:
//
//	the very bytes that were sent    it is stored, whatever has followed since
//	another event                    jsutil.ErrConflict; this one never will be
//	none                             sent again, since the compare-and-set makes that safe
//	no answer until ctx ends         jsutil.ErrUnavailable, outcome unknown
//
// That two appenders send the same bytes is out of the question: an event
// carries its appender's time in nanoseconds, and run.started its worker.
//
// Whether an event may follow a head is contracts.Apply's to say, not this
// package's.
//
// # Reading
//
// All reads but LastFromLeader are direct gets, which any replica answers, also
// one that lags (jsutil.GetBatch and its sisters; retry.go tries them again).
// They are for looking; whoever decides something decides it by appending.
//
// A follower is a core NATS subscription and direct gets, and costs the broker
// no consumer (tail.go). It subscribes, reads the history, and from then on
// takes a live message only if it is the very next one. Whatever else happens
// sends it back to the log from where it stands: a message further on, the end
// of an outage, messages dropped because its queue was full, and a slow check
// for an end that got lost without a trace. So a receiver may be as slow as it
// likes; what is kept for it is bounded. Follow tells the next message by the
// sequence of the one before it on the run's subject, FollowAll by the stream
// sequences of RUNS_LOG, which have no gap.
//
// A subscriber believes what arrives on runs.<id>.events. That only the broker
// publishes there is for the broker's permissions to see to.
//
// # What may fail
//
// Reading never ends because the broker is away; Read alone gives up after 10 s,
// so that a command at a terminal does not hang. A log may be damaged from
// outside: events removed, or a message stored that is no event. Readers report
// that (ErrGap, ErrMalformed) and can go on after it; one run's damage never
// hides another run's events. Nothing here logs, and nothing outlives its call:
// leaving a loop releases the subscription and its goroutine.
package runlog
