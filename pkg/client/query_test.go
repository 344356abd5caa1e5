package client_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

func TestAPI(t *testing.T) {
	c, b := newClient(t)
	ctx := soon(t)
	if _, err := c.Stats(ctx); !errors.Is(err, client.ErrNoStatekeeper) {
		t.Errorf("without statekeeper: %v", err)
	}
	serveAPI(t, b, contracts.EndpointList, func(m *nats.Msg) *nats.Msg {
		if string(m.Data) != `{"status":["failed"],"limit":2}` {
			t.Errorf("request %s", m.Data)
		}
		return &nats.Msg{Data: []byte(`{"runs":[{"run_id":"` + unknownRun + `","status":"failed"}],"cursor":"more"}`)}
	})
	page, err := c.List(ctx, contracts.ListRequest{Status: []contracts.Status{contracts.StatusFailed}, Limit: 2})
	if err != nil || len(page.Runs) != 1 || page.Runs[0].Status != contracts.StatusFailed || page.Cursor != "more" {
		t.Errorf("page %+v, %v", page, err)
	}
	serveAPI(t, b, contracts.EndpointStats, func(*nats.Msg) *nats.Msg { return &nats.Msg{Data: []byte(`{"total":`)} })
	if _, err := c.Stats(ctx); err == nil {
		t.Error("half an answer is taken")
	}
}

func TestAPIErrors(t *testing.T) {
	c, b := newClient(t)
	code := ""
	serveAPI(t, b, contracts.EndpointGet, func(*nats.Msg) *nats.Msg {
		return &nats.Msg{Header: nats.Header{micro.ErrorCodeHeader: {code}, micro.ErrorHeader: {"because"}}}
	})
	for _, tc := range []struct {
		code string
		want error
	}{{"404", client.ErrNotFound}, {"400", client.ErrInvalid}, {"503", client.ErrUnavailable}, {"500", nil}} {
		code = tc.code
		_, err := c.Get(soon(t), unknownRun)
		var api *client.APIError
		if !errors.As(err, &api) || api.Code != tc.code || api.Message != "because" {
			t.Errorf("%s: error %v", tc.code, err)
		}
		if tc.want != nil && !errors.Is(err, tc.want) {
			t.Errorf("%s: error %v is not %v", tc.code, err, tc.want)
		}
	}
	if _, err := c.Get(soon(t), "no id"); err == nil || errors.Is(err, client.ErrNotFound) {
		t.Errorf("get of a bad id: %v", err)
	}
}

// saveCheckpoint stores a checkpoint as a worker does, and names it in the log.
func saveCheckpoint(t *testing.T, b *jstest.Broker, s *script, n uint64, state string, named bool) {
	t.Helper()
	key := contracts.CheckpointKey(s.id, s.head.Epoch, n)
	ack, err := b.JS.Publish(t.Context(), contracts.KVSubject(contracts.BucketRuns, key), []byte(state))
	if err != nil {
		t.Fatal(err)
	}
	if named {
		s.append(contracts.Draft{Type: contracts.TypeCheckpoint, Payload: contracts.Checkpointed{N: n, Size: len(state)},
			Checkpoint: &contracts.CheckpointRef{N: n, Epoch: s.head.Epoch, Revision: ack.Sequence}})
	}
}

func TestCheckpoints(t *testing.T) {
	c, b := newClient(t)
	ctx := soon(t)
	if _, err := c.NextCheckpoint(ctx, unknownRun); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("next of an unknown run: %v", err)
	}
	s := newScript(t, b, contracts.NewRunID())
	s.append(queued(), started())
	if n, err := c.NextCheckpoint(ctx, s.id); n != 1 || err != nil {
		t.Errorf("next %d, %v, want 1", n, err)
	}
	if _, err := c.LatestCheckpoint(ctx, s.id); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("latest of a run without: %v", err)
	}
	saveCheckpoint(t, b, s, 1, `{"i":1}`, true)
	saveCheckpoint(t, b, s, 2, `{"i":2}`, true)
	s.append(started()) // taken over
	saveCheckpoint(t, b, s, 3, `{"i":3}`, true)
	saveCheckpoint(t, b, s, 4, `{"i":4}`, false) // stored, and its worker died

	other := newScript(t, b, contracts.NewRunID())
	other.append(queued(), started())
	saveCheckpoint(t, b, other, 1, `"other"`, true)

	var all string
	for cp, err := range c.Checkpoints(ctx, s.id) {
		if err != nil {
			t.Fatal(err)
		}
		if cp.Size != len(cp.State) || cp.Time.IsZero() {
			t.Errorf("checkpoint %+v", cp)
		}
		all += string(cp.State)
	}
	if all != `{"i":1}{"i":2}{"i":3}` {
		t.Errorf("history %s", all)
	}
	if cp, err := c.LatestCheckpoint(ctx, s.id); err != nil || cp.N != 3 || cp.Epoch != 2 || string(cp.State) != `{"i":3}` {
		t.Errorf("latest %+v, %v", cp, err)
	}
	if n, err := c.NextCheckpoint(ctx, s.id); n != 4 || err != nil {
		t.Errorf("next %d, %v, want 4", n, err)
	}
	if _, err := b.JS.Publish(ctx, contracts.KVSubject(contracts.BucketRuns, contracts.CheckpointKey(s.id, 1, 1)), []byte("by hand")); err != nil {
		t.Fatal(err)
	}
	for cp, err := range c.Checkpoints(ctx, s.id) {
		if err != nil || cp.N != 2 {
			t.Errorf("the first is %+v, %v; that of revision 1 has gone", cp, err)
		}
		break
	}
	if n, err := c.DeleteCheckpoints(ctx, s.id); n != 4 || err != nil {
		t.Errorf("deleted %d, %v, want 4", n, err)
	}
	for cp, err := range c.Checkpoints(ctx, s.id) {
		t.Errorf("still there: %+v, %v", cp, err)
	}
	if n, err := c.DeleteCheckpoints(ctx, s.id); n != 0 || err != nil {
		t.Errorf("deleted %d, %v, want 0", n, err)
	}
	if cp, err := c.LatestCheckpoint(ctx, other.id); err != nil || string(cp.State) != `"other"` {
		t.Errorf("another run's checkpoint: %+v, %v", cp, err)
	}
}

func TestAgents(t *testing.T) {
	c, b := newClient(t)
	ctx := soon(t)
	if agents, err := c.Agents(ctx); err != nil || len(agents) != 0 {
		t.Fatalf("agents %+v, %v, want none", agents, err)
	}
	kv, err := b.JS.KeyValue(ctx, contracts.BucketAgents)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"echo", "count"} {
		record, err := contracts.Encode(contracts.AgentRecord{AgentKey: key, Description: "what " + key + " does"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := kv.Put(ctx, key, record); err != nil {
			t.Fatal(err)
		}
	}
	if err := jsutil.EnsureWorkConsumers(ctx, b.JS, "echo", 30*time.Second); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := b.JS.Publish(ctx, contracts.WorkSubject("echo", contracts.PriorityNormal, contracts.NewRunID()), nil); err != nil {
			t.Fatal(err)
		}
	}
	normal, err := b.JS.Consumer(ctx, contracts.StreamWork, contracts.WorkConsumer("echo", contracts.PriorityNormal))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := normal.Next(); err != nil {
		t.Fatal(err)
	}
	agents, err := c.Agents(ctx)
	if err != nil || len(agents) != 2 || agents[0].AgentKey != "count" || agents[1].Description != "what echo does" {
		t.Fatalf("agents %+v, %v", agents, err)
	}
	// A consumer counts what was published a moment after the publish was acknowledged.
	for e := agents[1]; e.Queued != 2 || e.Held != 1 || e.Listening; e = agents[1] {
		if agents, err = c.Agents(ctx); err != nil || len(agents) != 2 {
			t.Fatalf("waited for 2 queued, 1 held and nobody listening, echo's queue is %+v; %v", e, err)
		}
	}
	high, err := b.JS.Consumer(ctx, contracts.StreamWork, contracts.WorkConsumer("echo", contracts.PriorityHigh))
	if err != nil {
		t.Fatal(err)
	}
	waiting, err := high.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Stop()
	go func() { _, _ = waiting.Next() }()
	for ctx.Err() == nil {
		if agents, err = c.Agents(ctx); err != nil {
			t.Fatal(err)
		}
		if agents[1].Listening {
			return
		}
	}
	t.Error("waited for echo to have a listener")
}
