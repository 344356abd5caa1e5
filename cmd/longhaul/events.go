package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/runlog"
)

// eventPrinter shows events as they come: text as text, anything else in one
// line. One goroutine uses it.
type eventPrinter struct {
	c console
	// many says that events of several runs come: every line names its run.
	many bool
	// verbose shows internal and debug events as well.
	verbose bool
	// open says that the text shown last has not ended its line.
	open bool
}

const summaryWidth = 160 // characters of an event's line, of what the event says

// print shows one event.
func (p *eventPrinter) print(e runlog.Entry) {
	if e.Visibility != contracts.VisibilityUser && !p.verbose {
		return
	}
	if e.Type == contracts.TypeDelta && !p.many {
		var d contracts.Delta
		if json.Unmarshal(e.Payload, &d) == nil && d.Text != "" {
			p.c.printf("%s", printable(d.Text))
			p.open = !strings.HasSuffix(d.Text, "\n")
			return
		}
	}
	p.endLine()
	run := ""
	if p.many {
		run = p.c.dim(e.RunID) + "  " + fmt.Sprintf("%-10s  ", e.AgentKey)
	}
	p.c.printf("%s  %s%s  %s\n", p.c.dim(e.Time.Local().Format("15:04:05.000")), run,
		p.typeWord(e), oneLine(summary(e.Event, p.c), summaryWidth))
}

// endLine ends a line of text that is open.
func (p *eventPrinter) endLine() {
	if p.open {
		p.c.printf("\n")
		p.open = false
	}
}

func (p *eventPrinter) typeWord(e runlog.Entry) string {
	word := fmt.Sprintf("%-20s", e.Type)
	switch e.Type {
	case contracts.TypeSucceeded:
		return p.c.green(word)
	case contracts.TypeFailed, contracts.TypeTimedOut, contracts.TypeRejected, contracts.TypeError:
		return p.c.red(word)
	case contracts.TypeRetrying, contracts.TypeCancelRequested, contracts.TypeCancelled, contracts.TypeRequeued, contracts.TypeToolConfirm:
		return p.c.yellow(word)
	}
	if e.Type.Reserved() {
		return p.c.cyan(word)
	}
	return word
}

// summary says in a few words what an event says. A payload of an unexpected
// form is shown as it is.
func summary(e contracts.Event, c console) string {
	var say func() string
	var into any
	switch e.Type {
	case contracts.TypeQueued:
		p := &contracts.Queued{}
		into, say = p, func() string {
			return e.AgentKey + ", " + string(e.Priority) + " priority" + inputWords(p.Submission.Input)
		}
	case contracts.TypeScheduled:
		p := &contracts.Scheduled{}
		into, say = p, func() string {
			return e.AgentKey + ", not before " + p.NotBefore.Local().Format("2006-01-02 15:04:05") + " (" + c.ago(p.NotBefore) + ")"
		}
	case contracts.TypeRejected:
		p := &contracts.Rejected{}
		into, say = p, func() string { return p.Errors.Error() }
	case contracts.TypeStarted:
		p := &contracts.Started{}
		into, say = p, func() string { return startedWords(e, p) }
	case contracts.TypeHeartbeat:
		return "attempt " + fmt.Sprint(e.Attempt) + " goes on on " + e.WorkerID
	case contracts.TypeCheckpoint:
		p := &contracts.Checkpointed{}
		into, say = p, func() string { return checkpointWords(p) }
	default:
		return laterSummary(e)
	}
	if json.Unmarshal(e.Payload, into) != nil {
		return string(e.Payload)
	}
	return say()
}

// laterSummary is summary for what comes after a start.
func laterSummary(e contracts.Event) string {
	var say func() string
	var into any
	switch e.Type {
	case contracts.TypeRetrying:
		p := &contracts.Retrying{}
		into, say = p, func() string {
			return fmt.Sprintf("attempt %d of %d failed: %s; again in %s", e.Attempt, e.MaxAttempts, errorWords(p.Error),
				short(time.Duration(p.DelaySeconds*float64(time.Second))))
		}
	case contracts.TypeSleeping:
		p := &contracts.Sleeping{}
		into, say = p, func() string { return sleepWords(p) + ", until " + p.WakeAt.Local().Format("2006-01-02 15:04:05") }
	case contracts.TypeSignalled:
		p := &contracts.Signalled{}
		into, say = p, func() string { return strings.TrimSpace(p.Name + " " + string(p.Payload) + byWords(p.By)) }
	case contracts.TypeStepCompleted:
		p := &contracts.StepCompleted{}
		into, say = p, func() string { return p.Name + ": " + valueWords(p.Result) }
	case contracts.TypeRequeued:
		p := &contracts.Requeued{}
		into, say = p, func() string { return p.Reason + byWords(p.By) }
	case contracts.TypeCancelRequested:
		p := &contracts.CancelRequested{}
		into, say = p, func() string { return p.Reason + byWords(p.By) }
	case contracts.TypeCancelled:
		p := &contracts.Cancelled{}
		into, say = p, func() string { return p.Reason + byWords(p.By) }
	case contracts.TypeSucceeded:
		p := &contracts.Succeeded{}
		into, say = p, func() string { return valueWords(p.FinalOutput) }
	case contracts.TypeFailed:
		p := &contracts.Failed{}
		into, say = p, func() string {
			return errorWords(p.ErrorInfo) + fmt.Sprintf(" (after %s)", plural(p.Attempts, "attempt"))
		}
	case contracts.TypeTimedOut:
		p := &contracts.TimedOut{}
		into, say = p, func() string {
			if p.StartTimeoutSeconds > 0 {
				return fmt.Sprintf("no attempt was begun within %gs", p.StartTimeoutSeconds)
			}
			return fmt.Sprintf("an attempt took longer than %gs", p.TimeoutSeconds)
		}
	case contracts.TypeToolConfirm:
		p := &contracts.ToolConfirm{}
		into, say = p, func() string {
			return "longhaul confirm " + e.RunID + " " + shellWord(p.Call.ID) + " until " + p.Deadline.Local().Format("2006-01-02 15:04:05") + ": " + callWords(p.Call)
		}
	case contracts.TypeMessage:
		p := &contracts.Message{}
		into, say = p, func() string { return messageWords(*p) }
	case contracts.TypeToolCall, contracts.TypeToolResult:
		return toolWords(e)
	case contracts.TypeDelta:
		p := &contracts.Delta{}
		into, say = p, func() string { return p.Text }
	default:
		return string(e.Payload)
	}
	if json.Unmarshal(e.Payload, into) != nil {
		return string(e.Payload)
	}
	return say()
}

func inputWords(in contracts.Input) string {
	var s string
	if n := len(in.Messages); n > 0 {
		s += ", " + plural(n, "message")
	}
	if len(in.Params) > 0 {
		s += ", params " + string(in.Params)
	}
	return s
}

func startedWords(e contracts.Event, p *contracts.Started) string {
	s := fmt.Sprintf("attempt %d of %d on %s", e.Attempt, e.MaxAttempts, e.WorkerID)
	if p.ResumedFrom != nil {
		s += fmt.Sprintf(", resumes from checkpoint %d", p.ResumedFrom.N)
	}
	return s
}

func checkpointWords(p *contracts.Checkpointed) string {
	if p.Binary != nil {
		return fmt.Sprintf("%d, %s, binary", p.N, byteSize(p.Size))
	}
	if len(p.State) == 0 {
		return fmt.Sprintf("%d, %s", p.N, byteSize(p.Size))
	}
	return fmt.Sprintf("%d  %s", p.N, p.State)
}

func sleepWords(p *contracts.Sleeping) string {
	switch p.Signal {
	case "":
		return p.Name
	case contracts.AnySignal:
		return "waits for signals"
	}
	return "waits for signal " + p.Signal
}

func errorWords(info contracts.ErrorInfo) string {
	if info.Type == "" {
		return info.Message
	}
	return info.Type + ": " + info.Message
}

func byWords(by string) string {
	if by == "" {
		return ""
	}
	return " (by " + by + ")"
}

func messageWords(m contracts.Message) string {
	s := m.Text()
	for _, call := range m.ToolCalls {
		s += " " + call.Function.Name + "(" + call.Function.Arguments + ")"
	}
	return strings.TrimSpace(s)
}

// toolWords says what tool was called, or what it answered, if the payload has
// the form that agent.Tools gives it; a program may give it any other.
func toolWords(e contracts.Event) string {
	var call contracts.ToolCall
	var answer contracts.Message
	switch {
	case e.Type == contracts.TypeToolCall && json.Unmarshal(e.Payload, &call) == nil && call.Function.Name != "":
		return callWords(call)
	case e.Type == contracts.TypeToolResult && json.Unmarshal(e.Payload, &answer) == nil && answer.Text() != "":
		return answer.Text()
	}
	return string(e.Payload)
}

// valueWords shows a value of an agent's: a string as its text, anything else as JSON.
func valueWords(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return number(n) + " " + noun + "s"
}
