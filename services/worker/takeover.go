package worker

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/internal/sabotage"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// youngConnection is the age up to which our own connection says nothing about
// who else is there: after a broker restart we may be back before the holder.
const youngConnection = 10 * time.Second

// askAgain is the pause between two questions to a holder that is silent.
const askAgain = 100 * time.Millisecond

// askHolder asks the worker that the head names whether it holds the run
// (DESIGN "Ask before taking over"). False means that it is safe to take it
// over: the holder said no, or nobody listens under its name, or it is
// connected but has not answered for three times TakeoverGrace, which a worker
// that is stopped or stuck does. Should it come to, the log fences it.
func (w *Worker) askHolder(ctx context.Context, at runlog.Head) (bool, error) {
	if sabotage.Broken(sabotage.AskFirst) {
		return false, nil
	}
	question := contracts.HolderRequest{Op: contracts.HolderHolds, RunID: at.RunID, Epoch: at.Epoch}
	if at.WorkerID == w.cfg.WorkerID || at.WorkerID == "" { // a foreign worker may leave it out
		// Our own name from a life before this one, or from an attempt given up; or
		// from a start of this very moment, and this is the same message once more.
		return w.answerHolder(question).Holds, nil
	}
	// Three times that, and an append, must fit into our own time with the
	// message, or nobody would ever have asked a mute holder for long enough.
	grace := min(w.cfg.TakeoverGrace, w.cfg.Lease/4)
	begun := time.Now()
	for {
		once, cancel := context.WithTimeout(ctx, max(grace, askAgain))
		reply, err := jsutil.AskHolder(once, w.nc, at.WorkerID, question)
		cancel()
		waited := time.Since(begun)
		switch {
		case err == nil:
			return reply.Holds, nil
		case ctx.Err() != nil:
			return false, err
		case errors.Is(err, nats.ErrNoResponders):
			if time.Since(w.connected.Load().(time.Time)) > youngConnection || waited >= grace {
				return false, nil
			}
		case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout):
			if waited >= 3*grace {
				return false, nil
			}
		default:
			return false, err
		}
		jsutil.Sleep(ctx, askAgain)
	}
}
