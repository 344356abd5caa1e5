package jsutil_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

func TestAskHolder(t *testing.T) {
	b := jstest.StartEmpty(t)
	listen := func(id string, answer func(m *nats.Msg) []byte) {
		if _, err := b.NC.Subscribe(contracts.WorkerSubject(id), func(m *nats.Msg) {
			if body := answer(m); body != nil {
				_ = m.Respond(body)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	question := contracts.HolderRequest{Op: contracts.HolderHolds, RunID: contracts.NewRunID(), Epoch: 7}
	listen("w-yes", func(m *nats.Msg) []byte {
		got, faults := contracts.DecodeHolderRequest(m.Data)
		body, err := json.Marshal(contracts.HolderReply{WorkerID: "w-yes", Holds: got == question && faults == nil})
		if err != nil {
			t.Error(err)
		}
		return body
	})
	listen("w-mute", func(*nats.Msg) []byte { return nil })
	listen("w-odd", func(*nats.Msg) []byte { return []byte("yes") })
	ask := func(id string) (contracts.HolderReply, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		return jsutil.AskHolder(ctx, b.NC, id, question)
	}
	if reply, err := ask("w-yes"); err != nil || !reply.Holds {
		t.Errorf("a holder answered %+v, %v", reply, err)
	}
	for id, is := range map[string]func(error) bool{
		"w-nobody": func(err error) bool { return errors.Is(err, nats.ErrNoResponders) },
		"w-mute":   func(err error) bool { return errors.Is(err, context.DeadlineExceeded) },
		"w-odd":    func(err error) bool { return err != nil && !errors.Is(err, context.DeadlineExceeded) },
		"":         func(err error) bool { return err != nil && !errors.Is(err, nats.ErrNoResponders) },
		"no name":  func(err error) bool { return err != nil && !errors.Is(err, nats.ErrNoResponders) },
	} {
		if _, err := ask(id); !is(err) {
			t.Errorf("worker %q: %v", id, err)
		}
	}
}
