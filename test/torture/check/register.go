package check

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"longhaul/test/torture/history"
)

// porcupineTime bounds the search of one register.
const porcupineTime = 10 * time.Second

// cas is an operation on a register: the stream sequence of a subject's last
// message, which an append replaces if it is the one expected.
type cas struct {
	value    string
	expected uint64
	read     bool // of the last sequence, in place of an append
}

// answer is what came of it.
type answer struct {
	ok  bool
	seq uint64 // the message's own, or what was read
}

// checkRegisters: the broker's compare-and-set, which all else stands on. Raw
// appenders race for subjects of their own; per subject their operations and
// the dump are linearizable as a register (Porcupine), every stored message was
// sent by one of them, and on the sequence that it expected. What became of an
// unknown append, the dump tells: an append that is not in it never happened,
// one that is may have happened at any time from its invoke on. On one broker a
// refusal says that the register held something else; with replicas it may
// also be due to an append that was under way and came to nothing. It needs
// KindAppend with a value of its own for each.
func checkRegisters(j *jury, s *stories, log []Message) {
	if len(s.appends) == 0 {
		return
	}
	bySubject := map[string][]*operation{}
	for _, o := range s.appends {
		id := runOf(o.Append.Subject)
		bySubject[id] = append(bySubject[id], o)
	}
	stored := map[string][]Message{}
	for _, m := range log {
		if id := runOf(m.Subject); bySubject[id] != nil {
			stored[id] = append(stored[id], m)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(bySubject)) {
		j.exercised(logIsRegister, len(bySubject[id]))
		if fault := chain(bySubject[id], stored[id]); fault != "" {
			j.breach(logIsRegister, id, "%s", fault)
			continue
		}
		ops := operations(bySubject[id], stored[id])
		switch result := porcupine.CheckOperationsTimeout(register(s.config.Nodes <= 1), ops, porcupineTime); result {
		case porcupine.Illegal:
			j.breach(logIsRegister, id, "%d operations are not linearizable", len(ops))
		case porcupine.Unknown:
			s.notes = append(s.notes, fmt.Sprintf("register %s: %d operations took too long to judge", id, len(ops)))
		}
	}
}

// valueOf is the value in a stored append: the body is its JSON object.
func valueOf(m Message) string {
	var a history.Append
	if json.Unmarshal(m.Data, &a) != nil {
		return ""
	}
	return a.Value
}

// chain says what is wrong with the stored messages by themselves, "" if nothing.
func chain(ops []*operation, stored []Message) string {
	byValue := map[string]*operation{}
	for _, o := range ops {
		byValue[o.Append.Value] = o
	}
	before := uint64(0)
	found := map[string]uint64{}
	for _, m := range stored {
		value := valueOf(m)
		o := byValue[value]
		switch {
		case o == nil:
			return fmt.Sprintf("message %d was sent by nobody: %.100s", m.Seq, m.Data)
		case found[value] != 0:
			return fmt.Sprintf("%s is stored twice, at %d and %d", value, found[value], m.Seq)
		case o.outcome == history.OpFail:
			return fmt.Sprintf("%s was refused, and is stored at %d", value, m.Seq)
		case o.Append.Expected != before:
			return fmt.Sprintf("%s expected %d, and is stored at %d, behind %d", value, o.Append.Expected, m.Seq, before)
		}
		found[value], before = m.Seq, m.Seq
	}
	for _, o := range ops {
		if o.acked() && o.answer.Append != nil && found[o.Append.Value] != o.answer.Append.Seq {
			return fmt.Sprintf("%s was acknowledged at %d, and the log has it at %d", o.Append.Value, o.answer.Append.Seq, found[o.Append.Value])
		}
	}
	return ""
}

// operations are those of one register, for Porcupine, with a read of the dump behind them.
func operations(ops []*operation, stored []Message) []porcupine.Operation {
	at := map[string]uint64{}
	last := uint64(0)
	for _, m := range stored {
		at[valueOf(m)], last = m.Seq, m.Seq
	}
	clients := map[string]int{}
	var all []porcupine.Operation
	for _, o := range ops {
		seq, there := at[o.Append.Value]
		op := porcupine.Operation{
			Input: cas{value: o.Append.Value, expected: o.Append.Expected},
			Call:  o.Time.UnixNano(), Return: o.answer.Time.UnixNano(), Output: answer{ok: there, seq: seq},
		}
		if o.outcome == history.OpUnknown {
			if !there {
				continue
			}
			op.Return = math.MaxInt64 - 2
		}
		if _, known := clients[o.Actor]; !known {
			clients[o.Actor] = len(clients)
		}
		op.ClientId = clients[o.Actor]
		all = append(all, op)
	}
	return append(all, porcupine.Operation{
		ClientId: len(clients), Input: cas{read: true}, Output: answer{seq: last}, Call: math.MaxInt64 - 1, Return: math.MaxInt64,
	})
}

// register is the model. strict: a refusal tells that another value was there.
func register(strict bool) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return uint64(0) },
		Step: func(state, input, output any) (bool, any) {
			at, in, out := state.(uint64), input.(cas), output.(answer)
			switch {
			case in.read:
				return at == out.seq, at
			case out.ok:
				return at == in.expected, out.seq
			}
			return !strict || at != in.expected, at
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v → %+v", input, output) },
	}
}
