package mcp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"longhaul/pkg/agent/internal/remote"
)

const (
	// maxMessage bounds one message of a server, maxStream all of one answer over HTTP.
	maxMessage = 8 << 20
	maxStream  = 64 << 20
	// probeTimeout is how long a server that has let a call time out may take to
	// give any sign of life.
	probeTimeout = 5 * time.Second
	// leaveTimeout bounds taking leave of a server.
	leaveTimeout = 2 * time.Second
	// reasonTimeout is how long to wait for the reason of an end.
	reasonTimeout = 2 * time.Second
)

// link is one connection to a server: a program that runs, or a session over
// HTTP. It is not repaired; another one takes its place.
type link struct {
	session *sdk.ClientSession
	process *process // nil over HTTP

	// life ends with the link, and its cause says why. Everything that the link
	// does ends with it, also what the SDK does behind our back.
	life context.Context //nolint:containedctx // the link's own lifetime
	end  context.CancelCauseFunc
	gone chan struct{} // closed to have the link end in good order

	leaving atomic.Bool
	suspect atomic.Bool // a call has timed out
}

var (
	errLeft   = errors.New("the connection was closed")
	errHungUp = errors.New("it has closed the connection")
)

// open makes a link. It belongs to the server's WaitGroup until it has ended.
func (s *Server) open(ctx context.Context) (*link, error) {
	l := &link{gone: make(chan struct{})}
	l.life, l.end = context.WithCancelCause(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(ctx, func() { l.end(context.Cause(ctx)) })
	late := time.AfterFunc(s.cfg.ConnectTimeout, func() {
		l.end(remote.Fail(remote.TypeUnreachable, true, "it has not answered within %v", s.cfg.ConnectTimeout))
	})
	transport, err := s.transport(l)
	if err != nil {
		l.end(err)
		return nil, err
	}
	client := sdk.NewClient(&sdk.Implementation{Name: "longhaul", Version: "1"}, &sdk.ClientOptions{
		Logger: s.cfg.Log, Capabilities: &sdk.ClientCapabilities{}, // neither files of ours, nor questions to us
	})
	l.session, err = client.Connect(l.life, transport, &sdk.ClientSessionOptions{ProtocolVersion: s.cfg.ProtocolVersion})
	if !late.Stop() || !unhook() {
		err = context.Cause(l.life)
	}
	if err != nil {
		err = l.why(err)
		l.end(err)
		if l.process != nil {
			l.process.end()
		}
		if l.session != nil {
			_ = l.session.Close() // which is over
		}
		return nil, unreachable(err)
	}
	s.links.Go(func() { l.attend(s) })
	info := l.session.InitializeResult()
	attrs := []any{"protocol_version", info.ProtocolVersion}
	if info.ServerInfo != nil {
		attrs = append(attrs, "server_name", info.ServerInfo.Name, "server_version", info.ServerInfo.Version)
	}
	s.cfg.Log.Info("connected to the mcp server", attrs...)
	return l, nil
}

func (s *Server) transport(l *link) (sdk.Transport, error) {
	if s.cfg.URL != "" {
		client := &http.Client{
			Transport:     newDoor(l.life, s.cfg),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // secrets stay here
		}
		// No stream that stands open between calls: nothing on it is of interest.
		return &sdk.StreamableClientTransport{Endpoint: s.cfg.URL, HTTPClient: client, MaxRetries: 2, DisableStandaloneSSE: true, MaxEventSize: maxMessage}, nil
	}
	p, err := startProcess(s.cfg, l.end)
	if err != nil {
		return nil, remote.Fail(remote.TypeUnreachable, true, "it does not start: %v", err)
	}
	l.process = p
	context.AfterFunc(l.life, p.kill) // a link that is over has no use for it
	return &sdk.IOTransport{Reader: p.stdout, Writer: p.stdin, MaxLineLength: maxMessage}, nil
}

// attend stays with the link until it has ended, and cleans up.
func (l *link) attend(s *Server) {
	var broken error
	over := make(chan struct{})
	go func() {
		defer close(over)
		broken = l.session.Wait()
	}()
	select {
	case <-l.gone: // in good order: Close waits for the program, or tells the service
		late := time.AfterFunc(leaveTimeout, func() { l.end(errLeft) })
		_ = l.session.Close() // however it ends
		late.Stop()
		if l.process != nil {
			l.process.end()
		}
		l.end(errLeft)
		<-over
	case <-l.life.Done():
		_ = l.session.Close()
		<-over
	case <-over:
		l.end(l.why(cmp.Or(broken, errHungUp)))
	}
	if l.process != nil {
		l.process.end()
	}
	if !l.leaving.Load() {
		s.cfg.Log.Warn("the mcp server is gone", "error", s.cfg.hide(context.Cause(l.life).Error()))
	}
}

// leave has the link end in good order.
func (l *link) leave() {
	if l.leaving.CompareAndSwap(false, true) {
		close(l.gone)
	}
}

// why is the reason of the link's end. err is how it was noticed, which says
// little where a program has died.
func (l *link) why(err error) error {
	if l.process == nil {
		if l.life.Err() != nil {
			return context.Cause(l.life)
		}
		return err
	}
	select {
	case <-l.life.Done():
		return context.Cause(l.life)
	case <-time.After(reasonTimeout):
		return err
	}
}

// sound reports whether the link can be used. A server that has let a call time
// out is asked for a sign of life first, and given up without one.
func (l *link) sound(ctx context.Context) error {
	if l.life.Err() != nil {
		return context.Cause(l.life)
	}
	if !l.suspect.Load() {
		return nil
	}
	within, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err := l.session.Ping(within, nil)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case within.Err() == nil && l.life.Err() == nil: // any answer will do, also that there is no such method
		l.suspect.Store(false)
		return nil
	}
	err = fmt.Errorf("it let a call time out, and then gave no sign of life for %v: %w", probeTimeout, err)
	l.end(err)
	return err
}

// within is ctx that ends with the link as well.
func (l *link) within(ctx context.Context) (context.Context, func()) {
	within, stop := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(l.life, func() { stop(context.Cause(l.life)) })
	return within, func() { unhook(); stop(nil) }
}
