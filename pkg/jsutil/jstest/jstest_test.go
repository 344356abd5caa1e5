package jstest_test

import (
	"testing"

	"go.uber.org/goleak"

	"longhaul/pkg/jsutil/jstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRestart(t *testing.T) {
	b := jstest.StartFile(t)
	if _, err := b.JS.Publish(t.Context(), "runs.submit", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	url := b.URL()
	b.Restart(t)
	if b.URL() != url {
		t.Fatalf("URL is %s after a restart, was %s", b.URL(), url)
	}
	s, err := b.JS.Stream(t.Context(), "RUNS_INBOX")
	if err != nil {
		t.Fatal(err)
	}
	if n := s.CachedInfo().State.Msgs; n != 1 {
		t.Fatalf("%d messages in the inbox after a restart, want 1", n)
	}
}

func TestStart(t *testing.T) {
	b := jstest.Start(t)
	if _, err := b.JS.KeyValue(t.Context(), "runs"); err != nil {
		t.Fatal(err)
	}
}
