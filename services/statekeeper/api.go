package statekeeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/metrics"
)

// api is the NATS micro service. The endpoints' queue group makes the
// instances share the requests.
type api struct {
	folding
	nc      *nats.Conn
	feed    *feed
	records *records
	sweeper *sweeper
	version string
}

const (
	// apiQueue is the queue group that the instances share.
	apiQueue = "statekeeper"
	// apiLanes is how many gets, and how many lists, one instance works on at once.
	apiLanes = 4
	// apiWait bounds one request.
	apiWait = 5 * time.Second
	// sweepWait bounds a sweep that was asked for.
	sweepWait = time.Minute
	// headerRoom is what an answer's headers may take.
	headerRoom = 4 << 10
)

// apiError is an answer that is not the one asked for. Code is an HTTP status.
type apiError struct {
	code int
	text string
}

func (e *apiError) Error() string { return e.text }

func badRequest(f contracts.Faults) error { return &apiError{code: 400, text: f.Error()} }

// run serves until ctx ends, then finishes the requests at hand.
func (a *api) run(ctx context.Context) error {
	service, err := micro.AddService(a.nc, micro.Config{
		Name: contracts.ServiceName, Version: a.version, QueueGroup: apiQueue,
		Description:  "Longhaul's runs: get one, list them by filter, count them.",
		StatsHandler: func(*micro.Endpoint) any { return a.counters.stats() },
		ErrorHandler: func(_ micro.Service, e *micro.NATSError) {
			a.logger.Warn("api service", "subject", e.Subject, "error", e.Description)
		},
	})
	if err != nil {
		return fmt.Errorf("add the api service: %w", err)
	}
	var serving sync.RWMutex // by requests to read, by the end to write
	for _, e := range []struct {
		name   string
		lanes  int
		wait   time.Duration
		handle func(context.Context, []byte) (any, error)
	}{
		{contracts.EndpointGet, apiLanes, apiWait, a.get}, {contracts.EndpointList, apiLanes, apiWait, a.list},
		{contracts.EndpointStats, 1, apiWait, a.stats}, {contracts.EndpointLoad, 1, apiWait, a.load},
		{contracts.EndpointSweep, 1, sweepWait, a.sweeper.now},
	} {
		// The library calls an endpoint's handler for one request after the other,
		// and counts and times it by its return: so nothing is answered behind its
		// back. Several endpoints of the same name are several requests at once.
		handler := micro.HandlerFunc(func(r micro.Request) {
			serving.RLock()
			defer serving.RUnlock()
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.wait)
			defer cancel()
			a.serve(ctx, e.name, e.handle, r)
		})
		for range e.lanes {
			if err := service.AddEndpoint(e.name, handler, micro.WithEndpointSubject(contracts.APISubject(e.name))); err != nil {
				return errors.Join(fmt.Errorf("add endpoint %s: %w", e.name, err), service.Stop())
			}
		}
	}
	<-ctx.Done()
	err = service.Stop()
	serving.Lock() // waits for those at hand
	defer serving.Unlock()
	if err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		a.logger.Debug("stop the api service", "error", err)
	}
	return nil
}

// serve answers one request.
func (a *api) serve(ctx context.Context, name string, handle func(context.Context, []byte) (any, error), r micro.Request) {
	response, err := handle(ctx, r.Data())
	var data []byte
	if err == nil {
		data, err = contracts.Encode(response)
	}
	if limit := int(a.nc.MaxPayload()) - headerRoom; err == nil && len(data) > limit {
		err = &apiError{code: 413, text: fmt.Sprintf("the answer has %d bytes, and the broker carries %d; "+
			"the result of a run is the payload of the last event on runs.<run_id>.events", len(data), limit)}
	}
	code := 200
	if err == nil {
		err = r.Respond(data)
	} else {
		e := a.describe(name, err)
		code = e.code
		err = r.Error(strconv.Itoa(e.code), e.text, nil)
	}
	a.counters.meters.Answered(name, code)
	if err != nil {
		a.logger.Warn("cannot answer an api request", "endpoint", name, "error", err)
	}
}

// describe turns an error into what the caller is told.
func (a *api) describe(name string, err error) *apiError {
	var known *apiError
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, jsutil.ErrUnavailable), errors.Is(err, jsutil.ErrNoTopology):
		return &apiError{code: 503, text: "the run store is unavailable, try again: " + err.Error()}
	}
	a.logger.Error("api request failed", "endpoint", name, "error", err)
	return &apiError{code: 500, text: "internal error: " + err.Error()}
}

// stats answers endpoint stats.
func (a *api) stats(_ context.Context, data []byte) (any, error) {
	if body := string(bytes.TrimSpace(data)); body != "" && body != "{}" {
		return nil, &apiError{code: 400, text: "the request must be an empty JSON object, or empty"}
	}
	x, err := a.ready()
	if err != nil {
		return nil, err
	}
	return x.stats(), nil
}

// load answers endpoint load.
func (a *api) load(ctx context.Context, _ []byte) (any, error) {
	x, err := a.ready()
	if err != nil {
		return nil, err
	}
	r := contracts.LoadResponse{Workers: make(map[string]int)}
	for _, id := range x.workers() {
		r.Workers[id] = len(x.heldBy(id))
	}
	r.Queues, err = metrics.Queues(ctx, a.sweeper.js)
	return r, err
}

// ready returns the index, or the error that says it is not there yet.
func (a *api) ready() (*index, error) {
	if x := a.feed.current(); x != nil {
		return x, nil
	}
	return nil, &apiError{code: 503, text: "the list of runs is being loaded, try again in a second"}
}
