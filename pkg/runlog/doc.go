// Package runlog is the run log: append, head, read, follow. It is the only
// code that touches the stream RUNS_LOG.
package runlog
