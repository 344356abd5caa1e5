package jsutil

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
)

// TopologyVersion is that of NewTopology and of the work consumers. It rises
// with every change that older services must not undo: they leave alone what
// is stamped with a version above their own, and so can run beside it. 0 is
// what stood before there were stamps.
const TopologyVersion = 1

// versionKey is where the stamp stands in the metadata of RUNS_LOG.
const versionKey = "longhaul.topology"

// StandingVersion returns the version that the broker's topology is stamped
// with; 0 if it has no stamp, or there is no topology.
func StandingVersion(ctx context.Context, js jetstream.JetStream) (int, error) {
	s, err := js.Stream(ctx, contracts.StreamLog)
	if err = Translate(err); errors.Is(err, ErrNoTopology) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the topology's version: %w", err)
	}
	version, _ := strconv.Atoi(s.CachedInfo().Config.Metadata[versionKey]) // what is no number is no stamp of ours
	return version, nil
}

// spare leaves a topology of a newer version alone: what is missing in it is
// all that counts, and can't be made here.
func (in *inspection) spare(version int) {
	in.fixes = nil
	in.diffs = slices.DeleteFunc(in.diffs, func(d Difference) bool { return d.Setting != SettingExistence })
	for i := range in.diffs {
		in.newer, in.diffs[i].Fixable = version, false
	}
}
