package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// leastServer is the oldest nats-server that has what Longhaul builds on, message schedules above all.
var leastServer = [2]int{2, 12}

// tooOld says whether a server's version is below leastServer; one that can't be read is not.
func tooOld(version string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major < leastServer[0] || major == leastServer[0] && minor < leastServer[1]
}

func (x *examination) broker(context.Context) error {
	version := x.nc.ConnectedServerVersion()
	if tooOld(version) {
		x.say("broker", findingWrong, fmt.Sprintf("nats-server %s answers: at least %d.%d is needed, update it", version, leastServer[0], leastServer[1]))
	} else {
		x.say("broker", findingOK, fmt.Sprintf("nats-server %s answers", version))
	}
	return nil
}

func (x *examination) topology(ctx context.Context) error {
	top := jsutil.NewTopology(x.Options())
	differences, err := jsutil.VerifyTopology(ctx, x.js, top)
	if err != nil {
		return err
	}
	version, err := jsutil.StandingVersion(ctx, x.js)
	if err != nil {
		return err
	}
	var names []string
	for _, d := range differences {
		names = append(names, fmt.Sprintf("%s %s is %s, wanted %s", d.Object, d.Setting, d.Have, d.Want))
	}
	switch {
	case len(names) == 0 && version > jsutil.TopologyVersion:
		x.say("topology", findingOK, fmt.Sprintf("version %d, of a newer longhaul; this one knows version %d, lacks nothing in it and leaves it alone", version, jsutil.TopologyVersion))
		return nil
	case len(names) == 0:
		x.say("topology", findingOK, fmt.Sprintf("version %d, streams and consumers are as they should be", version))
		return nil
	}
	state := findingWrong
	if x.Fix {
		if err := jsutil.EnsureTopology(ctx, x.js, top); err != nil {
			return err
		}
		state = findingFixed
	}
	x.say("topology", state, plural(len(names), "setting")+" of streams and consumers differ; longhaul topology migrate --dry-run says what to do", names...)
	return nil
}

// hear notes the broker's time, which it told between sent and got: the offset
// of its clock from ours is within half of that span.
func (x *examination) hear(theirs, sent, got time.Time) {
	if theirs.IsZero() {
		return
	}
	half := got.Sub(sent) / 2
	if offset := theirs.Sub(sent.Add(half)); x.heard == 0 || half < x.within {
		x.offset, x.within = offset, half
	}
	x.heard++
}

const (
	// muchOffset is by how much clocks may differ. Delays and schedules are
	// compared with more than one clock, and are off by as much.
	muchOffset = 2 * time.Second
	// lastEvents is how many of the newest events tell of the clocks of those who wrote them.
	lastEvents = 500
)

// clocks compares the broker's clock with ours, and those of workers and
// dispatchers with the broker's: an event bears the time of its writer, and the
// broker notes when it stored it.
func (x *examination) clocks(ctx context.Context) error {
	if x.heard == 0 {
		x.say("clocks", findingUnknown, "the broker has no stream of ours that could tell its time")
		return nil
	}
	var bad []string
	if abs(x.offset)-x.within > muchOffset {
		bad = append(bad, fmt.Sprintf("the broker's clock is %s from this machine's", signed(x.offset)))
	}
	s, err := x.js.Stream(ctx, contracts.StreamLog)
	if err != nil {
		return jsutil.Translate(err)
	}
	last := s.CachedInfo().State.LastSeq
	events, _, err := jsutil.GetBatch(ctx, x.nc, contracts.StreamLog, jsutil.GetRequest{
		Seq: max(1, last-min(last, lastEvents)+1), NextFor: contracts.SubjectAllEvents, Batch: lastEvents, MaxBytes: reportLimit})
	if err != nil && !errors.Is(err, jsutil.ErrNotFound) {
		return fmt.Errorf("read the newest events: %w", err)
	}
	// What was held up on its way is stored late: the least says what the clock is.
	least := make(map[string]time.Duration)
	for _, m := range events {
		e, err := contracts.DecodeEvent(m.Data)
		stored, timeErr := time.Parse(time.RFC3339Nano, m.Header.Get(nats.JSTimeStamp))
		if err != nil || timeErr != nil || e.WorkerID == "" || e.Type == contracts.TypeCancelRequested {
			continue // the dispatcher writes that one, too
		}
		ahead := e.Time.Sub(stored)
		if was, seen := least[e.WorkerID]; !seen || abs(ahead) < abs(was) {
			least[e.WorkerID] = ahead
		}
	}
	for _, id := range slices.Sorted(maps.Keys(least)) {
		if abs(least[id]) > muchOffset {
			bad = append(bad, fmt.Sprintf("worker %s's clock is %s from the broker's", id, signed(least[id])))
		}
	}
	if len(bad) > 0 {
		x.say("clocks", findingWrong, "they differ, and delays, schedules and ages by as much: let all machines take their time from NTP", bad...)
	} else {
		x.say("clocks", findingOK, fmt.Sprintf("the broker's is %s from this machine's (give or take %s); those of %s agree with it",
			signed(x.offset), short(x.within), plural(len(least), "worker")))
	}
	return nil
}

func abs(d time.Duration) time.Duration { return max(d, -d) }

// signed is a duration with its sign.
func signed(d time.Duration) string {
	if d < 0 {
		return short(d)
	}
	return "+" + short(d)
}

// account looks at the limits of the account that we are in.
func (x *examination) account(ctx context.Context) error {
	info, err := x.js.AccountInfo(ctx)
	if err != nil {
		return jsutil.Translate(err)
	}
	used, limit := float64(info.Store), float64(info.Limits.MaxStore)
	words := fmt.Sprintf("%s stored", byteSize(int(info.Store))) //nolint:gosec // a size
	switch {
	case limit > 0 && used > fullAt*limit:
		x.say("account", findingWrong, fmt.Sprintf("%s of at most %s: when it is full, submissions and events are refused. Raise the account's limit, or shorten --retention-days",
			words, byteSize(int(limit))))
	case limit > 0:
		x.say("account", findingOK, fmt.Sprintf("%s of at most %s", words, byteSize(int(limit))))
	default:
		x.say("account", findingOK, words+", without a limit of the account's own")
	}
	return nil
}

// permissions tells whether the broker asks for names, and what it has refused
// us; it comes last.
func (x *examination) permissions(context.Context) error {
	if err := x.refused(); err != nil {
		x.say("permissions", findingWrong, "the broker has refused this user something, and the doctor has stopped there; it needs the operator's user: "+strings.TrimPrefix(err.Error(), "nats: "))
		return nil
	}
	if !x.nc.AuthRequired() {
		x.say("permissions", findingOK, "the broker asks nobody who they are: well on a machine or a network of one's own. longhaul security init makes a secured one")
		return nil
	}
	x.say("permissions", findingOK, "the broker asks who one is, and let this user look at everything")
	return nil
}

// keeper is what a statekeeper tells of itself.
type keeper struct {
	ID        string `json:"id"`
	Version   string `json:"version"`
	Endpoints []struct {
		Data json.RawMessage `json:"data"`
	} `json:"endpoints"`
}

// versions compares those of the statekeepers with ours.
func (x *examination) versions(keepers []keeper) {
	found := map[string]int{}
	for _, k := range keepers {
		found[k.Version]++
	}
	var names []string
	for _, v := range slices.Sorted(maps.Keys(found)) {
		names = append(names, fmt.Sprintf("%s of version %s", plural(found[v], "statekeeper"), v))
	}
	words := "this is longhaul " + buildVersion().Version
	if len(found) > 1 {
		words += "; statekeepers of several versions run side by side, as during an upgrade: complete it, or go back"
	}
	x.say("versions", findingOK, words, names...)
}
