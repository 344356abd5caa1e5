package mcp

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"longhaul/pkg/agent/internal/remote"
)

// door is the way of a link to a service: each request gets the configured
// headers, ends with the link, and takes in no more than is good.
type door struct {
	cfg  Config
	life context.Context //nolint:containedctx // that of the link
	base *http.Transport
}

func newDoor(life context.Context, cfg Config) *door {
	d := &door{cfg: cfg, life: life, base: http.DefaultTransport.(*http.Transport).Clone()}
	context.AfterFunc(life, d.base.CloseIdleConnections)
	return d
}

// RoundTrip sends a request. Statuses that say "not now" and "not you" are
// errors, since the SDK would leave nothing of them but a text.
func (d *door) RoundTrip(r *http.Request) (*http.Response, error) {
	headers, err := d.cfg.headers()
	if err != nil {
		return nil, remote.Fail(remote.TypeUnauthorized, true, "%v", err) // a file may come back
	}
	ctx, stop := context.WithCancelCause(r.Context())
	unhook := context.AfterFunc(d.life, func() { stop(context.Cause(d.life)) })
	done := func() { unhook(); stop(nil) }
	r = r.Clone(ctx)
	for name, values := range headers {
		r.Header[name] = values
	}
	r.Header.Set("User-Agent", "longhaul")
	res, err := d.base.RoundTrip(r)
	if err != nil {
		done()
		if d.life.Err() != nil {
			return nil, context.Cause(d.life)
		}
		return nil, err
	}
	switch code := res.StatusCode; {
	case code == http.StatusUnauthorized, code == http.StatusForbidden, code == http.StatusTooManyRequests, code >= http.StatusInternalServerError,
		code >= 300 && code < 400:
		said, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10)) // as much as there is
		_ = res.Body.Close()
		done()
		return nil, &refusal{status: code, after: remote.RetryAfter(res.Header, time.Now()), said: strings.TrimSpace(strings.ToValidUTF8(string(said), "\uFFFD"))}
	}
	res.Body = &body{Reader: &io.LimitedReader{R: res.Body, N: maxStream}, closer: res.Body, done: sync.OnceFunc(done)}
	return res, nil
}

// body is an answer's, which the request's context lasts for.
type body struct {
	io.Reader
	closer io.Closer
	done   func()
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if limited := b.Reader.(*io.LimitedReader); limited.N <= 0 && err == io.EOF { //nolint:errorlint // as Read returns it
		err = fmt.Errorf("it has answered with more than %d bytes", maxStream)
	}
	return n, err
}

func (b *body) Close() error {
	defer b.done()
	return b.closer.Close()
}

// refusal is a request that the service has answered with a status that stands for no answer.
type refusal struct {
	status int
	after  float64 // seconds, from which on it may go better
	said   string
}

// Error says the status.
func (r *refusal) Error() string {
	text := fmt.Sprintf("status %d %s", r.status, http.StatusText(r.status))
	if r.said != "" {
		text += ": " + r.said
	}
	return text
}

// notBegun reports whether the service has certainly not done anything.
func (r *refusal) notBegun() bool {
	return r.status < http.StatusInternalServerError || r.status == http.StatusServiceUnavailable
}

// failure is what it means for a run.
func (r *refusal) failure() *remote.Failure {
	header := http.Header{}
	if r.after > 0 {
		header.Set("Retry-After", fmt.Sprint(r.after))
	}
	f := remote.Status(r.status, header, r.said)
	return f
}
