package shell

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/metrics"
)

const (
	// stallAfter is when a loop that does not turn is taken for stuck. The
	// slowest turns after 15 s while the broker is in trouble.
	stallAfter = time.Minute
	// maxLag is the age of an event up to which statuses count as kept up.
	maxLag = 30 * time.Second
	// topologyAge is for how long a look at the topology is good, topologyWait how long it may take.
	topologyAge, topologyWait = 2 * time.Second, 2 * time.Second
)

// lagMetric is by which the projection is judged, as an alarm does.
const lagMetric = "longhaul_statekeeper_projection_lag_seconds"

// health answers probes. Alive means that restarting the process would not
// help: a broker that is gone is no reason. Ready means able to work.
type health struct {
	gatherer prometheus.Gatherer

	mu    sync.Mutex // guards the next two; held for no longer than that
	sets  []*metrics.Set
	links []link

	looking sync.Mutex // held while the broker is asked, it guards the rest
	asked   time.Time  // when the topology was looked at
	wrong   []string   // what was found
}

// link is a service's way to the broker.
type link struct {
	service  string
	js       jetstream.JetStream
	topology jsutil.Topology
}

// verdict is the answer to a probe.
type verdict struct {
	OK bool `json:"ok"`
	// Faults say what is wrong, one sentence each.
	Faults []string `json:"faults"`
}

func answer(w http.ResponseWriter, faults []string) {
	code := http.StatusOK
	if len(faults) > 0 {
		code = http.StatusServiceUnavailable
	}
	body, err := contracts.Encode(verdict{len(faults) == 0, append([]string{}, faults...)})
	if err != nil {
		code = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // whoever asked has gone
}

// alive answers /healthz. It asks nobody else, so that it is never slow.
func (h *health) alive(w http.ResponseWriter, _ *http.Request) {
	sets, _ := h.parts()
	_, stuck := loopsOf(sets, time.Now())
	answer(w, stuck)
}

// loopsOf says which loops do not run, and which run and do not turn.
func loopsOf(sets []*metrics.Set, now time.Time) (idle, stuck []string) {
	for _, s := range sets {
		for name, turned := range s.Loops() {
			switch {
			case turned.IsZero():
				idle = append(idle, fmt.Sprintf("%s: loop %s does not run", s.Service(), name))
			case now.Sub(turned) > stallAfter:
				stuck = append(stuck, fmt.Sprintf("%s: loop %s has not turned for %s", s.Service(), name, now.Sub(turned).Round(time.Second)))
			}
		}
	}
	slices.Sort(idle)
	return idle, stuck
}

// parts are what there is to judge by.
func (h *health) parts() ([]*metrics.Set, []link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.sets), slices.Clone(h.links)
}

// ready answers /readyz.
func (h *health) ready(w http.ResponseWriter, r *http.Request) {
	h.looking.Lock()
	defer h.looking.Unlock()
	sets, links := h.parts()
	if len(sets) == 0 || len(sets) != len(links) {
		answer(w, []string{"the process is starting"})
		return
	}
	var faults []string
	for _, l := range links {
		if !l.js.Conn().IsConnected() {
			faults = append(faults, l.service+": no connection to the broker")
		}
	}
	if len(faults) == 0 {
		if time.Since(h.asked) > topologyAge {
			h.wrong, h.asked = look(r.Context(), links), time.Now()
		}
		faults = slices.Clone(h.wrong)
	} else {
		h.asked = time.Time{}
	}
	idle, stuck := loopsOf(sets, time.Now())
	faults = append(append(faults, idle...), stuck...)
	if len(faults) == 0 {
		faults = h.lag(links)
	}
	answer(w, faults)
}

// look compares the topology of each service with what stands on the broker.
func look(ctx context.Context, links []link) (wrong []string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), topologyWait) // it is kept for others who ask
	defer cancel()
	for _, l := range links {
		differences, err := jsutil.VerifyTopology(ctx, l.js, l.topology)
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: cannot look at the topology: %v", l.service, err))
		}
		for _, d := range differences {
			wrong = append(wrong, fmt.Sprintf("%s: %s: %s must be %s, is %s", l.service, d.Object, d.Setting, d.Want, d.Have))
		}
	}
	return wrong
}

// lag says whether statuses are kept up, if there is a statekeeper here.
func (h *health) lag(links []link) []string {
	if !slices.ContainsFunc(links, func(l link) bool { return l.service == "statekeeper" }) {
		return nil
	}
	families, err := h.gatherer.Gather()
	for _, f := range families {
		if f.GetName() != lagMetric || len(f.GetMetric()) == 0 {
			continue
		}
		lag := time.Duration(f.GetMetric()[0].GetGauge().GetValue() * float64(time.Second))
		if lag > maxLag {
			return []string{fmt.Sprintf("statekeeper: statuses are %s behind the log, more than %s", lag.Round(time.Second), maxLag)}
		}
		return nil
	}
	return []string{fmt.Sprintf("statekeeper: the broker does not tell how far statuses are behind the log (%v)", err)}
}
