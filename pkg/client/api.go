package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/seal"
)

// Get returns one run as it stands now, with its result if it has ended;
// ErrNotFound if there is none.
func (c *Client) Get(ctx context.Context, runID string) (contracts.GetResponse, error) {
	if err := checkRunID(runID); err != nil {
		return contracts.GetResponse{}, err
	}
	var resp contracts.GetResponse
	if err := c.request(ctx, contracts.EndpointGet, contracts.GetRequest{RunID: runID}, &resp); err != nil {
		return resp, fmt.Errorf("get run %s: %w", runID, err)
	}
	var err error
	if resp.Run, err = c.openedRecord(resp.Run); err == nil {
		resp.Result, err = c.keys.OpenAll(resp.Result, runID, seal.KindOutput, seal.KindArtifact, seal.KindMessage, seal.KindError)
	}
	if err != nil {
		return resp, fmt.Errorf("get run %s: %w", runID, err)
	}
	return resp, nil
}

// List returns one page of runs, newest first. The next page is that of the
// same request with the Cursor that this one returned.
func (c *Client) List(ctx context.Context, req contracts.ListRequest) (contracts.ListResponse, error) {
	var resp contracts.ListResponse
	if err := c.request(ctx, contracts.EndpointList, req, &resp); err != nil {
		return resp, fmt.Errorf("list runs: %w", err)
	}
	for i, r := range resp.Runs {
		var err error
		if resp.Runs[i], err = c.openedRecord(r); err != nil {
			return resp, fmt.Errorf("list runs: run %s: %w", r.RunID, err)
		}
	}
	return resp, nil
}

// Stats counts the runs by status and agent.
func (c *Client) Stats(ctx context.Context) (contracts.StatsResponse, error) {
	var resp contracts.StatsResponse
	if err := c.request(ctx, contracts.EndpointStats, struct{}{}, &resp); err != nil {
		return resp, fmt.Errorf("count runs: %w", err)
	}
	return resp, nil
}

// Load returns what waits in every queue, and how much each worker holds.
func (c *Client) Load(ctx context.Context) (contracts.LoadResponse, error) {
	var resp contracts.LoadResponse
	if err := c.request(ctx, contracts.EndpointLoad, struct{}{}, &resp); err != nil {
		return resp, fmt.Errorf("ask for the load: %w", err)
	}
	return resp, nil
}

// Sweep has a statekeeper look at every run now, and put right what is wrong.
func (c *Client) Sweep(ctx context.Context, req contracts.SweepRequest) (contracts.SweepResponse, error) {
	var resp contracts.SweepResponse
	if err := c.request(ctx, contracts.EndpointSweep, req, &resp); err != nil {
		return resp, fmt.Errorf("sweep: %w", err)
	}
	return resp, nil
}

// APIError is an error that statekeeper answered with. It wraps ErrNotFound,
// ErrInvalid or ErrUnavailable where its code says so.
type APIError struct {
	Code    string // an HTTP status
	Message string

	kind error
}

// Error returns the message.
func (e *APIError) Error() string { return e.Message }

// Unwrap returns what the code means.
func (e *APIError) Unwrap() error { return e.kind }

func (c *Client) request(ctx context.Context, endpoint string, req, resp any) error {
	data, err := contracts.Encode(req)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	timeout := apiTimeout
	if endpoint == contracts.EndpointSweep {
		timeout = sweepTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	msg, err := c.nc.RequestWithContext(ctx, contracts.APISubject(endpoint), data)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return ErrNoStatekeeper
	case err != nil:
		return jsutil.Translate(err)
	}
	if code := msg.Header.Get(micro.ErrorCodeHeader); code != "" {
		return apiError(code, msg.Header.Get(micro.ErrorHeader))
	}
	if err := json.Unmarshal(msg.Data, resp); err != nil {
		return fmt.Errorf("decode the answer: %w", err)
	}
	return nil
}

func apiError(code, message string) error {
	e := &APIError{Code: code, Message: message}
	switch code {
	case "404":
		e.kind = ErrNotFound
	case "400", "422":
		e.kind = ErrInvalid
	case "503", "504":
		e.kind = ErrUnavailable
	}
	return e
}
