// Package history is what the torture test writes down: one JSON object per
// line, one line per thing that somebody began, ended or did. The checker
// judges the run logs by it.
//
// Each actor (a submitter, a reader, an agent inside a worker process, the
// nemesis) appends to a file of its own, or shares one: a line is one write
// with O_APPEND, so lines of several processes do not mix. What a killed
// process did not get to write is missing, and the last line of its file may be
// torn; the checker takes a missing outcome for an unknown one.
//
// The package stands on the standard library alone: the checker must not share
// code with what it checks.
package history
