package dispatcher

import (
	"context"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/jsutil"
)

// repairPause keeps a broker that is in trouble from being asked all the time.
const repairPause = time.Second

// repair makes missing streams and consumers again. Whoever meets an error
// that may come from a missing one says so by suspect: a publish to a stream
// that is gone looks just like one to a broker without a leader.
type repair struct {
	js       jetstream.JetStream
	topology jsutil.Topology
	logger   *slog.Logger
	wanted   chan struct{}
}

func newRepair(js jetstream.JetStream, t jsutil.Topology, logger *slog.Logger) *repair {
	return &repair{js: js, topology: t, logger: logger, wanted: make(chan struct{}, 1)}
}

// suspect asks for a look at the topology, soon. It never blocks.
func (r *repair) suspect() {
	select {
	case r.wanted <- struct{}{}:
	default:
	}
}

// run serves suspect until ctx ends.
func (r *repair) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wanted:
		}
		if r.js.Conn().IsConnected() {
			r.ensure(ctx)
		}
		pause(ctx, repairPause)
	}
}

func (r *repair) ensure(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	if err := jsutil.EnsureTopology(ctx, r.js, r.topology); err != nil {
		r.logger.Warn("topology could not be ensured", "error", err)
	}
}
