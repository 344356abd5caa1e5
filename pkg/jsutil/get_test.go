package jsutil_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

func TestGet(t *testing.T) {
	b := jstest.Start(t)
	for n := range 5 {
		mustPublish(t, b.JS, message(contracts.LogSubject(runA), fmt.Sprint("a", n)))
		mustPublish(t, b.JS, message(contracts.LogSubject(runB), fmt.Sprint("b", n)))
	}
	a, all := contracts.EventsSubject(runA), contracts.SubjectAllEvents
	last, err := jsutil.GetLast(t.Context(), b.NC, contracts.StreamLog, a)
	if err != nil || string(last.Data) != "a4" || last.Sequence != 9 || last.Subject != a {
		t.Errorf("last is %+v, %v", last, err)
	}
	for name, get := range map[string]func(r jsutil.GetRequest) (jsutil.Stored, error){
		"replica": func(r jsutil.GetRequest) (jsutil.Stored, error) {
			return jsutil.Get(t.Context(), b.NC, contracts.StreamLog, r)
		},
		"leader": func(r jsutil.GetRequest) (jsutil.Stored, error) {
			return jsutil.GetFromLeader(t.Context(), b.NC, contracts.StreamLog, r)
		},
	} {
		for want, r := range map[string]jsutil.GetRequest{"b4": {LastFor: all}, "a1": {Seq: 2, NextFor: a}, "b0": {Seq: 2, NextFor: all}} {
			if m, err := get(r); err != nil || string(m.Data) != want {
				t.Errorf("%s: %+v is %+v, %v; want %s", name, r, m, err, want)
			}
		}
		if _, err := get(jsutil.GetRequest{Seq: 10, NextFor: a}); !errors.Is(err, jsutil.ErrNotFound) {
			t.Errorf("%s: past the end: %v", name, err)
		}
	}
	for _, c := range []struct {
		request jsutil.GetRequest
		want    string
		more    bool
	}{
		{jsutil.GetRequest{Seq: 2, NextFor: a, Batch: 9}, "[a1 a2 a3 a4]", false},
		{jsutil.GetRequest{Seq: 2, NextFor: a, Batch: 2}, "[a1 a2]", true},
		{jsutil.GetRequest{Seq: 1, NextFor: all, Batch: 9, MaxBytes: 1}, "[a0]", true},
		{jsutil.GetRequest{MultiLast: []string{all}}, "[a4 b4]", false},
		{jsutil.GetRequest{Seq: 10, NextFor: a, Batch: 9}, "[]", false},
	} {
		got, more, err := jsutil.GetBatch(t.Context(), b.NC, contracts.StreamLog, c.request)
		var texts []string
		for _, m := range got {
			texts = append(texts, string(m.Data))
		}
		if err != nil || fmt.Sprint(texts) != c.want || more != c.more {
			t.Errorf("%+v: %v, more %t, %v; want %s, %t", c.request, texts, more, err, c.want, c.more)
		}
	}
	if _, _, err := jsutil.GetBatch(t.Context(), b.NC, "NONE", jsutil.GetRequest{Seq: 1, NextFor: a, Batch: 9}); !errors.Is(err, jsutil.ErrUnavailable) {
		t.Errorf("no such stream: %v", err)
	}
}

// Over a reconnect any message of a batch can get lost, the first and the last
// ones too: what is left must not pass for the whole.
func TestGetBatchLosesNothingUnseen(t *testing.T) {
	s := mustServer(t, &server.Options{})
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	// The name of the stream says which answer never arrives.
	const api = "$JS.API.DIRECT.GET."
	if _, err := nc.Subscribe(api+"*", func(m *nats.Msg) {
		for i := range 4 {
			answer := nats.NewMsg(m.Reply)
			answer.Header.Set("Nats-Last-Sequence", fmt.Sprint(i))
			if i < 3 {
				answer.Data = []byte("data")
				answer.Header.Set("Nats-Sequence", fmt.Sprint(i+1))
			} else {
				answer.Header.Set("Status", "204")
				answer.Header.Set("Nats-Num-Pending", "0")
			}
			if m.Subject != api+fmt.Sprint(i) {
				if err := nc.PublishMsg(answer); err != nil {
					t.Error(err)
				}
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	for lost := range 5 {
		got, _, err := jsutil.GetBatch(t.Context(), nc, fmt.Sprint(lost), jsutil.GetRequest{Seq: 1, NextFor: ">", Batch: 3})
		if lost < 4 && !errors.Is(err, jsutil.ErrUnavailable) || lost == 4 && (err != nil || len(got) != 3) {
			t.Errorf("answer %d lost: %d messages, %v", lost, len(got), err)
		}
	}
}
