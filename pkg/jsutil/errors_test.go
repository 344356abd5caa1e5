package jsutil_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

// translates checks that err becomes want, and no other sentinel, and is kept.
func translates(t *testing.T, err, want error) {
	t.Helper()
	if err == nil {
		t.Errorf("there is no error; want one that means %q", want)
		return
	}
	got := jsutil.Translate(err)
	for _, s := range []error{jsutil.ErrConflict, jsutil.ErrNotFound, jsutil.ErrPresent, jsutil.ErrUnavailable, jsutil.ErrNoTopology, jsutil.ErrRefused} {
		if errors.Is(got, s) != errors.Is(s, want) {
			t.Errorf("%v: is %q: %t", got, s, errors.Is(got, s))
		}
	}
	if !errors.Is(got, err) {
		t.Errorf("%v does not wrap the original %v", got, err)
	}
	if again := jsutil.Translate(fmt.Errorf("do something: %w", got)); again.Error() != "do something: "+got.Error() {
		t.Errorf("translated twice: %v", again)
	}
}

func TestTranslateLeavesOthers(t *testing.T) {
	if err := jsutil.Translate(nil); err != nil {
		t.Errorf("nil became %v", err)
	}
	for _, err := range []error{errors.New("ours"), context.Canceled, fmt.Errorf("call: %w", context.Canceled)} {
		if got := jsutil.Translate(err); got != err { //nolint:errorlint // the very same is wanted
			t.Errorf("%v became %v", err, got)
		}
	}
}

// What a single embedded server can't be brought to answer.
func TestTranslateCodes(t *testing.T) {
	for _, tc := range []struct {
		code   jetstream.ErrorCode
		status int
		text   string
		want   error
	}{
		{10164, 400, "wrong last sequence", jsutil.ErrConflict},
		{10008, 503, "JetStream system temporarily unavailable", jsutil.ErrUnavailable},
		{10009, 500, "JetStream cluster can not handle request", jsutil.ErrUnavailable},
		{10118, 500, "stream is offline", jsutil.ErrUnavailable},
		{10163, 503, "expected last sequence per subject temporarily unavailable", jsutil.ErrUnavailable},
		{10167, 429, "too many requests", jsutil.ErrUnavailable},
		{10077, 503, "maximum messages per subject exceeded", jsutil.ErrPresent},
		{10077, 503, "maximum bytes exceeded", jsutil.ErrUnavailable},
		{10077, 503, "message to large", jsutil.ErrRefused},
		{10077, 503, "no space left on device", jsutil.ErrUnavailable},
	} {
		err := error(&jetstream.APIError{ErrorCode: tc.code, Code: tc.status, Description: tc.text})
		translates(t, fmt.Errorf("nats: %w", err), tc.want)
	}
	translates(t, jetstream.ErrKeyExists, jsutil.ErrConflict)
	translates(t, jetstream.ErrKeyDeleted, jsutil.ErrNotFound)
}

func TestTranslateMissing(t *testing.T) {
	b := jstest.Start(t)
	_, err := b.JS.Stream(t.Context(), "NONE")
	translates(t, err, jsutil.ErrNoTopology)
	_, err = b.JS.Consumer(t.Context(), contracts.StreamWork, "none")
	translates(t, err, jsutil.ErrNoTopology)
	_, err = b.JS.KeyValue(t.Context(), "none")
	translates(t, err, jsutil.ErrNoTopology)
	s, err := b.JS.Stream(t.Context(), contracts.StreamLog)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.GetLastMsgForSubject(t.Context(), contracts.EventsSubject(runA))
	translates(t, err, jsutil.ErrNotFound)
	_, err = s.GetMsg(t.Context(), 77)
	translates(t, err, jsutil.ErrNotFound)
	inbox, err := b.JS.Stream(t.Context(), contracts.StreamInbox) // without direct get, so from the leader
	if err != nil {
		t.Fatal(err)
	}
	_, err = inbox.GetMsg(t.Context(), 77)
	translates(t, err, jsutil.ErrNotFound)
	kv, err := b.JS.KeyValue(t.Context(), contracts.BucketRuns)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Create(t.Context(), "a", nil); err != nil {
		t.Fatal(err)
	}
	_, err = kv.Update(t.Context(), "a", nil, 9)
	translates(t, err, jsutil.ErrConflict)
	if err := kv.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	_, err = kv.Get(t.Context(), "a")
	translates(t, err, jsutil.ErrNotFound)
}

// A stream that is full is not one that holds the message already.
func TestTranslateFullAndTooLarge(t *testing.T) {
	b := jstest.Start(t)
	work := mustStreamConfig(t, b.JS, contracts.StreamWork)
	work.MaxMsgs, work.MaxMsgSize = 1, 100
	if _, err := b.JS.UpdateStream(t.Context(), work); err != nil {
		t.Fatal(err)
	}
	subject := func(run string) string { return contracts.WorkSubject("echo", contracts.PriorityNormal, run) }
	mustPublish(t, b.JS, message(subject(runA), ""))
	_, err := b.JS.Publish(t.Context(), subject(runB), nil)
	translates(t, err, jsutil.ErrUnavailable)
	_, err = b.JS.Publish(t.Context(), subject(runA), nil)
	translates(t, err, jsutil.ErrPresent)
	_, err = b.JS.Publish(t.Context(), subject(runB), make([]byte, 101))
	translates(t, err, jsutil.ErrRefused)
	_, err = b.JS.Publish(t.Context(), subject(runB), make([]byte, 2<<20))
	translates(t, err, jsutil.ErrRefused)
}

func TestTranslateOutage(t *testing.T) {
	b := jstest.Start(t)
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	other := b.Connect(t)
	closedJS, err := jsutil.JetStream(other)
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	_, err = closedJS.Publish(t.Context(), contracts.SubjectSubmit, nil)
	translates(t, err, jsutil.ErrUnavailable)

	b.Stop(t)
	waitFor(t, "the connection to notice", func() bool { return b.NC.Status() != nats.CONNECTED })
	_, err = b.JS.Publish(short(), contracts.SubjectSubmit, nil)
	translates(t, err, jsutil.ErrUnavailable)
	_, err = b.JS.Stream(short(), contracts.StreamInbox)
	translates(t, err, jsutil.ErrUnavailable)
	_, err = b.NC.Request("runs.worker.w", nil, 50*time.Millisecond)
	translates(t, err, jsutil.ErrUnavailable)
	_, err = nats.Connect(b.URL(), nats.Timeout(time.Second))
	translates(t, err, jsutil.ErrUnavailable)
}

// An answer that is outstanding when the connection breaks is an error, not a wait.
func TestTranslateLostAnswer(t *testing.T) {
	b := jstest.Start(t)
	sub, err := b.NC.SubscribeSync("hole") // takes the publish and never answers
	if err != nil {
		t.Fatal(err)
	}
	future, err := b.JS.PublishAsync("hole", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sub.NextMsg(patience); err != nil {
		t.Fatal(err)
	}
	b.Stop(t)
	select {
	case err := <-future.Err():
		translates(t, err, jsutil.ErrUnavailable)
	case <-time.After(patience):
		t.Fatalf("waited %s for the publish to fail", patience)
	}
}

// mustServer starts a server that is not ours: without JetStream, with users.
func mustServer(t *testing.T, opts *server.Options) *server.Server {
	t.Helper()
	opts.Host, opts.Port, opts.NoLog, opts.NoSigs = "127.0.0.1", server.RANDOM_PORT, true, true
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatalf("waited %s for the server", patience)
	}
	return s
}

func TestTranslateWithoutJetStream(t *testing.T) {
	s := mustServer(t, &server.Options{})
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: s.ClientURL()})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jsutil.JetStream(nc)
	if err != nil {
		t.Fatal(err)
	}
	_, err = js.Publish(t.Context(), contracts.SubjectSubmit, nil, jetstream.WithRetryAttempts(0))
	translates(t, err, jsutil.ErrUnavailable)
	_, err = js.Stream(t.Context(), contracts.StreamInbox)
	translates(t, err, jsutil.ErrUnavailable)
	_, err = nc.Request("nobody", nil, time.Second)
	translates(t, err, jsutil.ErrUnavailable)
	translates(t, jsutil.EnsureTopology(t.Context(), js, jsutil.NewTopology(jsutil.TopologyOptions{})), jsutil.ErrUnavailable)
}

func TestTranslatePermission(t *testing.T) {
	s := mustServer(t, &server.Options{Users: []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
		Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
	}}}})
	nc, err := nats.Connect(s.ClientURL(), nats.UserInfo("u", "p"), nats.PermissionErrOnSubscribe(true),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	sub, err := nc.SubscribeSync("secret")
	if err != nil {
		t.Fatal(err)
	}
	_, err = sub.NextMsg(patience)
	translates(t, err, jsutil.ErrRefused)

	_, err = nats.Connect(s.ClientURL(), nats.UserInfo("u", "wrong"))
	translates(t, err, jsutil.ErrRefused)
}
