// Package contracts is what Longhaul says on the wire: subjects, messages,
// statuses and the rules by which a run moves from one to the next. Every
// other package speaks through it, and a client in another language needs
// nothing that is not stated here (docs/protocol.md puts it in prose).
//
// The map:
//
//   - subjects.go builds and parses every subject; ids.go checks what may
//     become a subject token.
//   - submission.go, message.go, command.go, holder.go, agents.go, record.go
//     and api.go are the messages, encode.go writes them.
//   - decode.go and decode_submission.go read what others send: scan.go takes
//     the JSON apart, fields.go reads its values, rules.go judges them, and
//     faults.go is the list of everything that is wrong.
//   - event.go and payload.go are the run log's entries; status.go the table
//     of transitions; apply.go the one pure function that folds an event into
//     a head, and its counterpart that makes the next event.
//
// Nothing here does I/O, reads a clock or starts a goroutine; every function
// may be called from several goroutines at once. It imports the standard
// library and google/uuid alone.
package contracts
