package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// history returns what was said in the run's conversation before it; false if
// the run before it has not ended. What a run began with is in its first
// run.started: so all attempts begin with the same, whatever becomes of the
// runs before it, and who follows one that left nothing behind need not look
// farther back than that.
func (w *Worker) history(ctx context.Context, wk *work, at contracts.Head) (history []contracts.Message, turn bool, err error) {
	if at.Epoch > 0 {
		_, history, err = w.opening(ctx, at)
		return history, true, err
	}
	for id := wk.follows; id != ""; {
		// Asked first: who knows of this run, as far as its work message does, knows of
		// those that were queued before it, or they were removed. A new leader that is
		// behind knows of neither, or of a delayed run no more than that it was scheduled.
		own, behind := w.leaderHead(ctx, at.RunID)
		if behind == nil && own.Seq < at.Seq {
			behind = fmt.Errorf("%w: the leader does not know all of run %s yet", jsutil.ErrUnavailable, at.RunID)
		}
		last, err := w.runs.LastFromLeader(ctx, id)
		switch {
		case errors.Is(err, jsutil.ErrNotFound):
			return nil, true, behind
		case err != nil || !last.Status.Terminal():
			return nil, false, err
		case last.Type == contracts.TypeSucceeded:
			var p contracts.Succeeded
			if err := json.Unmarshal(last.Payload, &p); err != nil || len(p.FinalMessages) > 0 {
				return w.newest(p.FinalMessages), true, err
			}
		}
		if id, history, err = w.opening(ctx, last.Event.Head()); err != nil || last.Epoch > 0 {
			return w.newest(history), true, err
		}
	}
	return nil, true, nil
}

// opening returns the run that another one follows, and what that began with.
func (w *Worker) opening(ctx context.Context, of contracts.Head) (follows string, history []contracts.Message, err error) {
	for e, err := range w.runs.Read(ctx, of.RunID, 1) {
		var p struct { // of their payloads
			Follows string              `json:"follows"`
			History []contracts.Message `json:"history"`
		}
		if err == nil && (e.Type == contracts.TypeQueued || e.Type == contracts.TypeRequeued || e.Type == contracts.TypeStarted) {
			err = json.Unmarshal(e.Payload, &p)
			follows = cmp.Or(p.Follows, follows) // by run.queued, or else by the newest redrive
		}
		if err != nil || e.Type == contracts.TypeStarted || e.Seq == of.Seq {
			return follows, p.History, err
		}
	}
	return "", nil, fmt.Errorf("read the begin of run %s: %w: a replica lags", of.RunID, jsutil.ErrUnavailable)
}

// newest returns the end of messages: at most HistoryLimit of them, and half of
// what an event may hold, from one on that begins something. An answer of a tool
// without its call is refused by models.
func (w *Worker) newest(messages []contracts.Message) []contracts.Message {
	room, from := w.payloadLimit()/2, len(messages)
	for i := len(messages) - 1; i >= max(0, len(messages)-w.cfg.HistoryLimit); i-- {
		raw, err := contracts.Encode(messages[i])
		if room -= len(raw); err != nil || room < 0 {
			break
		}
		if role := messages[i].Role; role != contracts.RoleTool && role != contracts.RoleAssistant {
			from = i
		}
	}
	if from == len(messages) && w.cfg.HistoryLimit > 1 {
		return w.gist(messages)
	}
	return messages[from:]
}

// gist is what is left of one long loop of tools, whose newest messages begin
// nothing: what was asked last, and the answer to it.
func (w *Worker) gist(messages []contracts.Message) (short []contracts.Message) {
	size := 0
	for i, m := range messages {
		switch asks := m.Role != contracts.RoleTool && m.Role != contracts.RoleAssistant; {
		case asks:
			short = messages[i : i+1 : i+1]
		case m.Role == contracts.RoleAssistant && len(m.ToolCalls) == 0 && len(short) > 0:
			short = append(short[:1:1], m)
		}
	}
	for _, m := range short {
		raw, err := contracts.Encode(m)
		if size += len(raw); err != nil || size > w.payloadLimit()/2 {
			return nil
		}
	}
	return short
}

// turnPause is how long a run that has waited for some time waits before it is
// looked at again whether the run before it has ended.
func turnPause(waited time.Duration) time.Duration {
	return min(max(waited/8, 100*time.Millisecond), 2*time.Second)
}
