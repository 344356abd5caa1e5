package cluster

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if is, err := ServeBroker(); is { // this program is its own broker
		if err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// patience bounds what has to happen, and brief is how long something that
// must not happen is waited for.
const (
	patience = 10 * time.Second
	brief    = 100 * time.Millisecond
)

// newEcho is a server that says every line again, and a link to it.
func newEcho(t *testing.T) *Link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			})
		}
	})
	link, err := NewLink(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		link.Close()
		_ = l.Close()
		serving.Wait()
	})
	return link
}

// end is one end of a link.
type end struct {
	t *testing.T
	net.Conn
	lines *bufio.Reader
}

func dial(t *testing.T, l *Link) end {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return end{t, c, bufio.NewReader(c)}
}

func (e end) say(line string) {
	e.t.Helper()
	if _, err := e.Write([]byte(line + "\n")); err != nil {
		e.t.Fatal(err)
	}
}

// hear returns the next line, or the error in place of it.
func (e end) hear(wait time.Duration) (string, error) {
	if err := e.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return "", err
	}
	line, err := e.lines.ReadString('\n')
	return line, err
}

func (e end) mustHear(want string) {
	e.t.Helper()
	if got, err := e.hear(patience); err != nil || got != want+"\n" {
		e.t.Fatalf("heard %q, %v, expected %q", got, err, want)
	}
}

func (e end) mustHearNothing() {
	e.t.Helper()
	if got, err := e.hear(brief); !errors.Is(err, os.ErrDeadlineExceeded) {
		e.t.Fatalf("heard %q, %v, expected nothing", got, err)
	}
}

func (e end) mustBeClosed() {
	e.t.Helper()
	if got, err := e.hear(patience); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		e.t.Fatalf("heard %q, %v, expected the end", got, err)
	}
}

func TestLinkHold(t *testing.T) {
	l := newEcho(t)
	c := dial(t, l)
	c.say("a")
	c.mustHear("a")
	for _, ways := range [][]Direction{{Up}, {Down}, {Up, Down}} {
		l.Hold(ways...)
		c.say("held")
		c.mustHearNothing()
		l.Heal()
		c.mustHear("held")
	}
}

func TestLinkCutAndDrop(t *testing.T) {
	l := newEcho(t)
	c := dial(t, l)
	c.say("a")
	c.mustHear("a")
	l.Cut()
	c.mustBeClosed()
	dial(t, l).mustBeClosed()
	l.Heal()
	c = dial(t, l)
	c.say("b")
	c.mustHear("b")
	l.Drop()
	c.mustBeClosed()
	c = dial(t, l)
	c.say("c")
	c.mustHear("c")
}

func TestLinkSlow(t *testing.T) {
	l := newEcho(t)
	c := dial(t, l)
	l.Slow(brief)
	begun := time.Now()
	c.say("a")
	c.mustHear("a")
	if took := time.Since(begun); took < 2*brief {
		t.Errorf("there and back took %s", took)
	}
}

func TestLinkTrap(t *testing.T) {
	for _, before := range []bool{true, false} {
		l := newEcho(t)
		c := dial(t, l)
		sprung, release := make(chan struct{}), make(chan struct{})
		free := sync.OnceFunc(func() { close(release) })
		t.Cleanup(free) // before the link's own
		l.Set(&Trap{Way: Up, Pattern: []byte("PUB"), Before: before, Then: func() {
			close(sprung)
			<-release
		}})
		c.say("a")
		c.mustHear("a")
		c.say("PUB")
		select {
		case <-sprung:
		case <-time.After(patience):
			t.Fatal("the trap did not spring")
		}
		c.mustHearNothing() // though, if it has passed, there is an answer
		free()
		c.mustBeClosed()
		c = dial(t, l)
		c.say("PUB")
		c.mustHear("PUB") // once
	}
}

// A broker that is killed and started again at its port has what it had, and
// one that does not come up says why.
func TestBroker(t *testing.T) {
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cfg := BrokerConfig{Dir: dir, Port: port}
	for range 2 {
		b, err := StartBroker(cfg, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := StartBroker(cfg, t.TempDir()); err == nil {
			t.Error("a second broker took the same directory")
		}
		if err := b.Kill(); err != nil || b.Running() {
			t.Fatalf("running: %t, %v", b.Running(), err)
		}
	}
	b, err := StartBroker(cfg, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Terminate(patience); err != nil {
		t.Error(err)
	}
}

func TestWaitFor(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	if err := WaitFor(ctx, patience, "three", func() bool { n++; return n == 3 }); err != nil {
		t.Error(err)
	}
	if err := WaitFor(ctx, time.Nanosecond, "never", func() bool { return false }); err == nil {
		t.Error("never came")
	}
	cancel()
	if err := WaitFor(ctx, patience, "never", func() bool { return false }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
