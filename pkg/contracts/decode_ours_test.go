package contracts

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestDecodeCommands(t *testing.T) {
	long := strings.Repeat("x", MaxReason+1)
	cancel := func(data string) (any, Faults) { return DecodeCancel([]byte(data)) }
	signal := func(data string) (any, Faults) { return DecodeSignal([]byte(data)) }
	redrive := func(data string) (any, Faults) { return DecodeRedrive([]byte(data)) }
	holder := func(data string) (any, Faults) { return DecodeHolderRequest([]byte(data)) }
	for _, c := range []struct {
		decode func(string) (any, Faults)
		doc    string
		want   any
		faults []string
	}{
		{cancel, ``, CancelCommand{}, nil},
		{cancel, "\n", CancelCommand{}, nil},
		{cancel, `{}`, CancelCommand{}, nil},
		{cancel, `{"reason":"why","by":"me"}`, CancelCommand{Reason: "why", By: "me"}, nil},
		{cancel, `{"reason":null}`, CancelCommand{}, nil},
		{cancel, `{"reason":1,"force":true,"by":"` + long + `"}`, CancelCommand{}, []string{
			"reason: must be a string, not 1", "force: is no field here; there are reason, by", "by: must be 0 to 1024 bytes, not 1025"}},
		{cancel, `{"by":"a","by":"b"}`, CancelCommand{By: "b"}, []string{"by: is given twice"}},
		{cancel, `stop`, CancelCommand{}, []string{`is not JSON: invalid character 's' looking for beginning of value at byte 1`}},
		{cancel, strings.Repeat(" ", MaxCommand+1), CancelCommand{}, []string{"must be at most 16384 bytes, not 16385"}},
		{redrive, ``, RedriveCommand{}, nil},
		{redrive, `{"by":"me","from_start":true}`, RedriveCommand{By: "me", FromStart: true}, nil},
		{redrive, `{"from_start":false}`, RedriveCommand{}, nil},
		{redrive, `{"from_start":"yes","reason":""}`, RedriveCommand{}, []string{
			`from_start: must be true or false, not "yes"`, "reason: is no field here; there are by, from_start"}},
		{redrive, `[]`, RedriveCommand{}, []string{"must be an object, not an array"}},
		{signal, `{"name":"go on","payload":[1,{"a":null}],"by":"me"}`, SignalCommand{Name: "go on", Payload: []byte(`[1,{"a":null}]`), By: "me"}, nil},
		{signal, `{"name":"x","payload":null}`, SignalCommand{Name: "x"}, nil},
		{signal, ``, SignalCommand{}, []string{"name: is required"}},
		{signal, `{"name":"*","data":1}`, SignalCommand{}, []string{`name: must be a name without control characters, other than *, not "*"`, "data: is no field here; there are name, payload, by"}},
		{signal, `{"name":"a\n"}`, SignalCommand{}, []string{`name: must be a name without control characters, other than *, not "a\n"`}},
		{signal, `{"name":""}`, SignalCommand{}, []string{"name: must be 1 to 100 bytes, not 0"}},
		{signal, `{"name":"x","payload":"` + strings.Repeat("x", MaxSignal) + `"}`, SignalCommand{}, []string{"must be at most 262144 bytes, not 262169"}},
		{holder, `{"op":"ping","new_field":1}`, HolderRequest{Op: HolderPing}, nil},
		{holder, `{"op":"cancel","run_id":"` + testRun + `","epoch":3,"reason":"why","by":"me"}`,
			HolderRequest{Op: HolderCancel, RunID: testRun, Epoch: 3, Reason: "why", By: "me"}, nil},
		{holder, ``, HolderRequest{}, []string{"is empty, expected a JSON object"}},
		{holder, `{}`, HolderRequest{}, []string{"op: is required"}},
		{holder, `{"op":"holds"}`, HolderRequest{Op: HolderHolds}, []string{"run_id: is required"}},
		{holder, `{"op":"kill","run_id":"x","epoch":-1}`, HolderRequest{}, []string{
			`op: must be ping, holds or cancel, not "kill"`, `run_id: must be a UUID in lower case, such as 0198c0de-7a11-7abc-8def-0123456789ab, not "x"`,
			"epoch: must be a whole number from 0 to 18446744073709551615, not -1"}},
	} {
		got, faults := c.decode(c.doc)
		if !reflect.DeepEqual(got, c.want) || !slices.Equal(lines(faults), c.faults) {
			t.Errorf("%.80s\n got %+v, %q\nwant %+v, %q", c.doc, got, lines(faults), c.want, c.faults)
		}
	}
}

func TestDecodeEventFaults(t *testing.T) {
	good := map[string]string{
		"run_id": `"` + testRun + `"`, "seq": "1", "type": `"tool.call"`, "time": `"2026-11-22T10:00:00Z"`, "agent_key": `"echo"`,
		"status": `"running"`, "epoch": "1", "attempt": "1", "max_attempts": "3", "visibility": `"user"`, "payload": "{}",
	}
	doc := func(field, value string) []byte {
		fields := maps.Clone(good)
		fields[field] = value
		var b strings.Builder
		for _, k := range slices.Sorted(maps.Keys(fields)) {
			if fields[k] != "" {
				fmt.Fprintf(&b, `,%q:%s`, k, fields[k])
			}
		}
		return []byte("{" + b.String()[1:] + "}")
	}
	for field := range good {
		for _, absent := range []string{"", "null"} {
			if field == "payload" && absent == "null" {
				continue
			}
			_, err := DecodeEvent(doc(field, absent))
			if want := "decode event: " + field + ": is required"; err == nil || err.Error() != want {
				t.Errorf("%s %q: got %v, want %s", field, absent, err, want)
			}
		}
	}
	for _, c := range []struct{ field, value, want string }{
		{"run_id", `"x"`, "must be a UUID"},
		{"seq", "0", "must be a whole number from 1 to 18446744073709551615, not 0"},
		{"seq", "1.5", "must be a whole number"},
		{"seq", "-1", "must be a whole number"},
		{"seq", "1e99", "must be a whole number"},
		{"type", `"Tool.Call"`, "must be dotted words"},
		{"type", `"*"`, "must be dotted words"},
		{"type", `"` + strings.Repeat("a", 129) + `"`, "must be dotted words"},
		{"time", `"now"`, "must be a time"},
		{"agent_key", `"a.b"`, "must be 1 to 63"},
		{"priority", `""`, "must be high"},
		{"status", `"done"`, "must be a status"},
		{"status", `""`, "must be a status"},
		{"epoch", "-1", "must be a whole number"},
		{"attempt", "-1", "must be a whole number"},
		{"attempt", "2147483648", "must be a whole number"},
		{"max_attempts", "-1", "must be a whole number"},
		{"worker_id", `"a.b"`, "must be 1 to 63"},
		{"worker_id", `"events"`, "is reserved"},
		{"checkpoint", `1`, "must hold n, epoch and revision"},
		{"checkpoint", `{"n":0,"epoch":1,"revision":1}`, "must hold n, epoch and revision"},
		{"checkpoint", `{"n":1,"epoch":-1,"revision":1}`, "must hold n, epoch and revision"},
		{"checkpoint", `{"n":1,"epoch":1}`, "must hold n, epoch and revision"},
		{"not_before", `1`, "must be a string"},
		{"waits_for", `1`, "must be a string"},
		{"usage", `{"input_tokens":-1}`, "must hold input_tokens, output_tokens and cost"},
		{"usage", `{"cost":-0.5}`, "must hold input_tokens, output_tokens and cost"},
		{"visibility", `"public"`, "must be internal"},
	} {
		_, err := DecodeEvent(doc(c.field, c.value))
		if err == nil || !strings.Contains(err.Error(), "decode event: "+c.field+": ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: got %v, want %s", c.field, c.value, err, c.want)
		}
	}
	_, err := DecodeEvent([]byte(strings.NewReplacer(`"seq":1`, `"seq":0`, `"echo"`, `"a.b"`).Replace(string(doc("", "")))))
	var faults Faults
	if !errors.As(err, &faults) || len(faults) != 2 {
		t.Errorf("two faults: got %v", err)
	}
	// What a newer binary may write.
	for field, value := range map[string]string{
		"new": `{"a":[1e999,{"a":1,"a":2}]}`, "payload": `{"a":1,"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `,"b":1e999,"c":"\ud800"}`,
		"type": `"run.invented_later"`, "checkpoint": `{"n":1,"epoch":1,"revision":1,"new":1}`, "seq": "1.0", "agent_key": `""`,
	} {
		e, err := DecodeEvent(doc(field, value))
		if err != nil {
			t.Errorf("%s %s: %v", field, value, err)
		}
		if field == "payload" && string(e.Payload) != value {
			t.Errorf("payload became %s", e.Payload)
		}
	}
	for _, bad := range []string{"", "x", "[]", `{"seq":1,"seq":2}`, string(doc("seq", "1")) + "x", `{"payload":{`} {
		if e, err := DecodeEvent([]byte(bad)); err == nil || !reflect.DeepEqual(e, Event{}) {
			t.Errorf("%q: got %+v, %v", bad, e, err)
		}
	}
}
