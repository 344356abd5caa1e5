package statekeeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// api is the NATS micro service. The endpoints' queue group makes the
// instances share the requests.
type api struct {
	nc       *nats.Conn
	feed     *feed
	records  *records
	log      *runlog.Log
	counters *counters
	version  string
	logger   *slog.Logger
}

const (
	// apiQueue is the queue group that the instances share.
	apiQueue = "statekeeper"
	// apiRequests bounds the requests that one instance works on at once.
	apiRequests = 64
	// apiWait bounds one request.
	apiWait = 5 * time.Second
)

// apiError is an answer that is not the one asked for. Code is an HTTP status.
type apiError struct {
	code int
	text string
	body []byte // sent along; may be nil
}

func (e *apiError) Error() string { return e.text }

func badRequest(f contracts.Faults) error {
	return &apiError{code: 400, text: f.Error()}
}

// run serves until ctx ends, then finishes the requests at hand.
func (a *api) run(ctx context.Context) error {
	service, err := micro.AddService(a.nc, micro.Config{
		Name: contracts.ServiceName, Version: a.version, QueueGroup: apiQueue,
		Description:  "Longhaul's runs: get one, list them by filter, count them.",
		StatsHandler: func(*micro.Endpoint) any { return a.counters.snapshot() },
		ErrorHandler: func(_ micro.Service, e *micro.NATSError) {
			a.logger.Warn("api service", "subject", e.Subject, "error", e.Description)
		},
	})
	if err != nil {
		return fmt.Errorf("add the api service: %w", err)
	}
	var requests sync.WaitGroup
	slots := make(chan struct{}, apiRequests)
	for name, handle := range map[string]func(context.Context, []byte) (any, error){
		contracts.EndpointGet: a.get, contracts.EndpointList: a.list, contracts.EndpointStats: a.stats,
	} {
		handler := func(r micro.Request) {
			slots <- struct{}{} // the endpoint's subscription queues what is above
			requests.Go(func() {
				defer func() { <-slots }()
				a.serve(context.WithoutCancel(ctx), name, handle, r)
			})
		}
		if err := service.AddEndpoint(name, micro.HandlerFunc(handler), micro.WithEndpointSubject(contracts.APISubject(name))); err != nil {
			return errors.Join(fmt.Errorf("add endpoint %s: %w", name, err), service.Stop())
		}
	}
	<-ctx.Done()
	err = service.Stop()
	requests.Wait()
	if err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		a.logger.Debug("stop the api service", "error", err)
	}
	return nil
}

// serve answers one request.
func (a *api) serve(ctx context.Context, name string, handle func(context.Context, []byte) (any, error), r micro.Request) {
	ctx, cancel := context.WithTimeout(ctx, apiWait)
	defer cancel()
	data, err := a.answer(ctx, handle, r.Data())
	if err == nil {
		err = r.Respond(data)
	} else {
		code, text, body := a.describe(name, err)
		err = r.Error(strconv.Itoa(code), text, body)
	}
	if err != nil {
		a.logger.Warn("cannot answer an api request", "endpoint", name, "error", err)
	}
}

func (a *api) answer(ctx context.Context, handle func(context.Context, []byte) (any, error), request []byte) ([]byte, error) {
	response, err := handle(ctx, request)
	if err != nil {
		return nil, err
	}
	data, err := contracts.Encode(response)
	if err != nil {
		return nil, fmt.Errorf("encode the answer: %w", err)
	}
	return data, nil
}

// describe turns an error into what the caller is told.
func (a *api) describe(name string, err error) (code int, text string, body []byte) {
	var known *apiError
	switch {
	case errors.As(err, &known):
		return known.code, known.text, known.body
	case errors.Is(err, jsutil.ErrUnavailable), errors.Is(err, jsutil.ErrNoTopology):
		return 503, "the run store is unavailable, try again: " + err.Error(), nil
	}
	a.logger.Error("api request failed", "endpoint", name, "error", err)
	return 500, "internal error: " + err.Error(), nil
}

// stats answers endpoint stats.
func (a *api) stats(_ context.Context, data []byte) (any, error) {
	if f := decodeRequest(data, nil); f != nil {
		return nil, badRequest(f)
	}
	x, err := a.ready()
	if err != nil {
		return nil, err
	}
	return x.stats(), nil
}

// ready returns the index, or the error that says it is not there yet.
func (a *api) ready() (*index, error) {
	if x := a.feed.current(); x != nil {
		return x, nil
	}
	return nil, &apiError{code: 503, text: "the list of runs is being loaded, try again in a second"}
}
