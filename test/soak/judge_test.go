package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

// made is a record of n samples, 10 s apart, made by change from a flat one.
func made(n int, change func(i int, s *sample)) record {
	var r record
	for i := range n {
		s := sample{
			Seconds: float64(10 * i), RSS: map[string]float64{"broker": 200, "worker-1": 40}, Goroutines: map[string]float64{"worker-1": 60},
			DiskMiB: 300, Messages: map[string]uint64{"RUNS_LOG": 90_000}, Submitted: int64(i), Ended: int64(i),
		}
		change(i, &s)
		r = append(r, s)
	}
	return r
}

func TestJudge(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(i int, s *sample)
		grows  string // "" if all is well
	}{
		"flat":                   {func(int, *sample) {}, ""},
		"fills until retention":  {func(i int, s *sample) { s.DiskMiB = float64(min(i, 40)) * 10 }, ""},
		"sawtooth":               {func(i int, s *sample) { s.RSS["broker"] = 200 + float64(i%7)*20 }, ""},
		"memory leaks":           {func(i int, s *sample) { s.RSS["worker-1"] = 40 + float64(i)/4 }, "worker-1 memory"},
		"the broker's leaks":     {func(i int, s *sample) { s.RSS["broker"] = 200 + float64(i) }, "broker memory"},
		"goroutines leak":        {func(i int, s *sample) { s.Goroutines["worker-1"] = 60 + float64(i)/5 }, "worker-1 goroutines"},
		"retention does nothing": {func(i int, s *sample) { s.DiskMiB = float64(i) * 10 }, "broker disk"},
		"a log is left":          {func(i int, s *sample) { s.Messages["RUNS_LOG"] = uint64(1000 * i) }, "RUNS_LOG messages"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			ok := made(160, tc.change).judge(&out)
			if ok != (tc.grows == "") {
				t.Errorf("judged %v:\n%s", ok, &out)
			}
			for line := range strings.Lines(out.String()) {
				if strings.Contains(line, "GROWS") != (tc.grows != "" && strings.Contains(line, tc.grows)) {
					t.Errorf("wrong verdict on this line: %s", line)
				}
			}
		})
	}
}

func TestJudgeWantsAllRunsEnded(t *testing.T) {
	if made(160, func(_ int, s *sample) { s.Waiting = 1 }).judge(io.Discard) {
		t.Error("a run without an end passes")
	}
	if made(leastSamples-1, func(int, *sample) {}).judge(io.Discard) {
		t.Error("too few samples pass")
	}
}

func TestDrawIsWellFormed(t *testing.T) {
	picture := made(160, func(int, *sample) {}).draw()
	dec := xml.NewDecoder(strings.NewReader(picture))
	lines := 0
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "polyline" {
			lines++
		}
	}
	if want := len(made(1, func(int, *sample) {}).series()); lines != want {
		t.Errorf("%d lines are drawn, not %d", lines, want)
	}
}
