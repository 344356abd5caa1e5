package dispatcher

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil/jstest"
)

func withSchema(s string) contracts.AgentRecord {
	return contracts.AgentRecord{AgentKey: "echo", TimeoutSeconds: 42, MaxAttempts: 7, InputSchema: json.RawMessage(s)}
}

const (
	wantsNumber = `{"type":"object","properties":{"n":{"type":"integer","minimum":1}},"required":["n"],"additionalProperties":false}`
	wantsText   = `{"type":"object","properties":{"n":{"type":"string"}},"required":["n"]}`
)

func params(p string) contracts.Submission {
	return contracts.Submission{RunID: contracts.NewRunID(), AgentKey: "echo", Input: contracts.Input{Params: json.RawMessage(p)}}
}

func TestInputIsHeldAgainstTheSchema(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, withSchema(wantsNumber))
	b.start(t, Config{})
	for p, want := range map[string][]contracts.Fault{
		`{"n":3}`:         nil,
		`{"n":0,"m":"x"}`: {{Field: "input.params.m", Message: "is no field here"}, {Field: "input.params.n", Message: "must be at least 1, not 0"}},
		`{"n":"3"}`:       {{Field: "input.params.n", Message: "must be integer, not string"}},
		``:                {{Field: "input.params.n", Message: "is required"}}, // left out: as if it were {}
	} {
		later := time.Time{}
		for _, delayed := range []bool{false, true} {
			s := params(p)
			if delayed { // on the slow lane
				later = time.Now().Add(time.Hour)
			}
			s.NotBefore = later
			b.submit(t, s)
			if want == nil {
				b.waitHistory(t, s.RunID, map[bool]string{false: "run.queued", true: "run.scheduled"}[delayed])
				continue
			}
			got := b.checkRejected(t, s.RunID)
			slices.SortFunc(got, func(a, b contracts.Fault) int { return strings.Compare(a.Field, b.Field) })
			if !slices.Equal(got, want) {
				t.Errorf("%s: faults %v, want %v", p, got, want)
			}
		}
	}
	b.waitEmpty(t)
}

// The dispatcher's copy may be of yesterday: it refuses nobody whom the
// agent's schema of today admits.
func TestNobodyIsRefusedByAnOldSchema(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, withSchema(wantsNumber))
	b.start(t, Config{})
	first := params(`{"n":1}`)
	b.submit(t, first)
	b.checkQueued(t, first.RunID) // by now there is a copy
	b.register(t, withSchema(wantsText))
	s := params(`{"n":"one"}`)
	b.submit(t, s)
	b.checkQueued(t, s.RunID)
	s = params(`{"n":1}`) // the copy is that of today now
	b.submit(t, s)
	b.checkRejected(t, s.RunID)
}

// A schema that is none, which only a foreign worker registers, stops nobody.
func TestSchemaThatIsNone(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, withSchema(`{"type":"strnig"}`))
	b.start(t, Config{})
	s := params(`{"x":1}`)
	b.submit(t, s)
	if got := b.checkQueued(t, s.RunID); got.MaxAttempts != 7 {
		t.Errorf("the rest of the record was dropped: %+v", got)
	}
}

// A schema is compiled when its record changes, and not every few seconds.
func TestSchemaIsCompiledOnce(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, withSchema(wantsNumber))
	a := b.dispatcher().agents
	a.refresh(t.Context(), time.Now())
	first, ok := a.cached("echo")
	if !ok || first.input == nil {
		t.Fatal("not read")
	}
	a.refresh(t.Context(), time.Now())
	if again, _ := a.cached("echo"); again.input != first.input {
		t.Error("the same record was compiled again")
	}
	b.register(t, withSchema(wantsText))
	a.refresh(t.Context(), time.Now())
	if again, _ := a.cached("echo"); again.input == first.input || again.misfit(params(`{"n":"x"}`)) != nil {
		t.Error("a new record was not")
	}
}
