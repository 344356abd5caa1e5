// Package mcp gives an agent the tools of MCP servers: programs that are run
// by the worker, or services that are called over HTTP.
//
//	files, err := mcp.New(mcp.Config{Name: "files", Command: []string{"files-server", "/data"}, Allow: []string{"read_file"}})
//	defer files.Close()
//	tools, err := files.Tools(ctx)          // []agent.Tool, for agent.NewTools
//
// A Server is connected to when it is first needed and again when it has gone;
// its tools stay the same meanwhile. One program, or one session, serves all
// runs of the worker.
//
// What may go wrong: the server is not there, dies or hangs in the midst of a
// call. A call that has certainly not been made is made again, within its
// timeout. One that may have been made is made again only if the tool has no
// side effects; else the model is told that nobody knows.
//
// Nothing here is trusted with more than the tools' own words: names and
// schemas are checked, answers are bounded, and what a server says of its tools
// (read-only, destructive) is a default that Config overrides.
package mcp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/internal/remote"
)

// Server is an MCP server. It may be used by several goroutines.
type Server struct {
	cfg Config

	// turn holds one token, with whoever connects or lists; it guards the fields below.
	turn     chan struct{}
	current  *link
	closed   bool
	failures int       // of connecting, one after the other
	notTill  time.Time // when to connect again, after failures
	lastFail error
	listed   []agent.Tool // of current
	listedAt time.Time

	links sync.WaitGroup // those that have not ended
}

// ErrClosed is what calls come to when the Server was closed.
var ErrClosed = errors.New("it is closed")

// New checks a configuration. Nothing is started or called. Its error lists
// every fault, each as a contracts.Fault.
func New(cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	if faults := cfg.check(); len(faults) > 0 {
		return nil, fmt.Errorf("MCP server %s: %w", cfg.Name, faults)
	}
	return &Server{cfg: cfg, turn: make(chan struct{}, 1)}, nil
}

// Name returns the server's name.
func (s *Server) Name() string { return s.cfg.Name }

// Close ends the program, or the session, and returns when it has ended. Calls
// that are under way fail, and so do all later ones.
func (s *Server) Close() {
	s.turn <- struct{}{}
	s.closed = true
	if s.current != nil {
		s.current.leave()
		s.current = nil
	}
	<-s.turn
	s.links.Wait()
}

// take waits for the turn.
func (s *Server) take(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if s.closed {
		<-s.turn
		return ErrClosed
	}
	return nil
}

const (
	// maxTries is how often a call connects before it gives up.
	maxTries = 3
	// firstPause and mostPause are between two failures to connect, of whichever calls.
	firstPause = time.Second
	mostPause  = 30 * time.Second
)

// connected returns the link that there is, or a new one.
func (s *Server) connected(ctx context.Context) (*link, error) {
	if err := s.take(ctx); err != nil {
		return nil, err
	}
	defer func() { <-s.turn }()
	return s.connect(ctx)
}

// connect is connected for who has the turn.
func (s *Server) connect(ctx context.Context) (*link, error) {
	if l := s.current; l != nil {
		if err := l.sound(ctx); err == nil {
			return l, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		s.current, s.listed = nil, nil
	}
	for try := 1; ; try++ {
		if err := s.pause(ctx); err != nil {
			return nil, err
		}
		l, err := s.open(ctx)
		switch {
		case err == nil:
			s.current, s.failures, s.lastFail = l, 0, nil
			return l, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
		s.notTill, s.lastFail = time.Now().Add(min(firstPause<<min(s.failures, 10), mostPause)), err
		s.failures++
		s.cfg.Log.Warn("cannot connect to the mcp server", "failures", s.failures, "error", err)
		var f *remote.Failure
		if try == maxTries || errors.As(err, &f) && !f.Info.Retriable {
			return nil, err
		}
	}
}

// pause waits until it is time to connect again. It does not wait for what ctx
// does not last for.
func (s *Server) pause(ctx context.Context) error {
	d := time.Until(s.notTill)
	if s.failures == 0 || d <= 0 {
		return nil
	}
	if deadline, ok := ctx.Deadline(); ok && time.Now().Add(d).After(deadline) {
		return fmt.Errorf("%w (it is tried again in %v)", s.lastFail, d.Round(time.Second))
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// failed says what became of a call or a connection, as a failure of this
// server, unless ctx is over: then that is the reason.
func (s *Server) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	text := s.cfg.hide(err.Error())
	if s.cfg.URL != "" {
		text = strings.ReplaceAll(text, s.cfg.URL, "the server") // whose query may hold a secret
	}
	text = fmt.Sprintf("MCP server %s: %s", s.cfg.Name, text)
	var f *remote.Failure
	if errors.As(err, &f) {
		named := *f
		named.Info.Message = text
		return &named
	}
	return errors.New(text)
}
