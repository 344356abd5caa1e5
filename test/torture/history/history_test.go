package history_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"longhaul/test/torture/history"
)

func mustOpen(t *testing.T, path, actor string) *history.Writer {
	t.Helper()
	w, err := history.Open(path, actor)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "h.jsonl")
	w := mustOpen(t, path, "submitter-1")
	at := time.Date(2026, 11, 22, 10, 0, 0, 123456789, time.UTC)
	want := []history.Entry{
		{
			Time: at, Mono: 5, Actor: "submitter-1", Kind: history.KindSubmit, Op: history.OpInvoke, ID: w.NextID(), Run: "r", Key: "k",
			Submit: &history.Submit{Agent: "short", Priority: "high", NotBefore: at.Add(time.Second), StartTimeout: 3, MaxAttempts: 2, Garbage: true},
		},
		{Time: at.Add(1), Actor: "submitter-1", Kind: history.KindSubmit, Op: history.OpUnknown, ID: 1, Error: "timeout"},
		{Time: at.Add(2), Actor: "reader", Kind: history.KindRead, Op: history.OpInfo, Run: "r", Read: &history.Read{Seqs: []uint64{1, 2}, Gap: true, Next: 7}},
		{
			Time: at.Add(3), Actor: "w", Kind: history.KindExec, Op: history.OpEnd, Run: "r",
			Exec: &history.Exec{Agent: "short", Worker: "w-1", Epoch: 2, Attempt: 1, Resumed: &history.Stamp{Epoch: 1, Worker: "w-0", Step: 3, Serial: 2}, Step: 4, Outcome: history.OutcomeAbandoned, Cause: history.CauseLeaseLost},
		},
		{Time: at.Add(4), Actor: "nemesis", Kind: history.KindFault, Op: history.OpBegin, ID: 9, Fault: &history.Fault{Name: "kill", Target: "worker-1"}},
	}
	for _, e := range want {
		if err := w.Write(e); err != nil {
			t.Fatal(err)
		}
	}
	got, err := history.ReadFiles(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, want %+v", got, want)
	}
}

func TestWriterFillsInTimeAndActor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "h.jsonl")
	w := mustOpen(t, path, "nemesis")
	before := time.Now()
	if err := w.Write(history.Entry{Kind: history.KindNote, Op: history.OpInfo, Note: history.NoteHealed}); err != nil {
		t.Fatal(err)
	}
	got, err := history.ReadFiles(path)
	if err != nil || len(got) != 1 {
		t.Fatalf("%d entries, %v", len(got), err)
	}
	if got[0].Actor != "nemesis" || got[0].Time.Before(before.Add(-time.Millisecond)) {
		t.Errorf("entry %+v", got[0])
	}
}

// Several writers of one file, as several processes have it, leave whole lines.
func TestLinesOfSeveralWritersDoNotMix(t *testing.T) {
	const writers, each = 4, 500
	path := filepath.Join(t.TempDir(), "h.jsonl")
	var group sync.WaitGroup
	for range writers {
		w := mustOpen(t, path, "w")
		for range 2 {
			group.Go(func() {
				for range each {
					if err := w.Write(history.Entry{Kind: history.KindStep, ID: w.NextID(), Text: strings.Repeat("x", 300)}); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	group.Wait()
	got, err := history.ReadFiles(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2*writers*each {
		t.Errorf("%d entries, want %d", len(got), 2*writers*each)
	}
}

func TestTornLastLineIsDroppedAndNoOther(t *testing.T) {
	const line = `{"t":"2026-11-22T10:00:00Z","actor":"a","kind":"note","op":"info"}`
	for _, c := range []struct {
		name, text string
		entries    int
		fault      string
	}{
		{"whole", line + "\n" + line + "\n", 2, ""},
		{"torn at the end", line + "\n" + line[:40], 1, ""},
		{"whole but for the end of line", line + "\n" + line, 2, ""},
		{"torn in the middle", line[:40] + "\n" + line + "\n", 0, "line 1"},
		{"empty", "", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := history.Decode(strings.NewReader(c.text))
			if len(got) != c.entries {
				t.Errorf("%d entries, want %d", len(got), c.entries)
			}
			if (err != nil) != (c.fault != "") || (err != nil && !strings.Contains(err.Error(), c.fault)) {
				t.Errorf("error %v, want %q", err, c.fault)
			}
		})
	}
}

func TestFilesAreMergedByTime(t *testing.T) {
	dir := t.TempDir()
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	paths := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	for i, path := range paths {
		w := mustOpen(t, path, filepath.Base(path))
		for n := range 3 {
			if err := w.Write(history.Entry{Time: at.Add(time.Duration(2*n+i) * time.Second)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	got, err := history.ReadFiles(paths...)
	if err != nil {
		t.Fatal(err)
	}
	var order strings.Builder
	for _, e := range got {
		order.WriteString(e.Actor)
	}
	if order.String() != "ababab" {
		t.Errorf("order %s", order.String())
	}
	if _, err := history.ReadFiles(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}
