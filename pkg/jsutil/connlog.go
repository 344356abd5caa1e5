package jsutil

import (
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// failureInterval is how often failed attempts to connect are told: there are
// four a second.
const failureInterval = 10 * time.Second

// connLog tells a connection's ups and downs. nats.go calls it from one
// goroutine of the connection. Addresses are told as host and port: the URL
// may hold a password, or a token in place of a user.
type connLog struct {
	logger *slog.Logger

	mu         sync.Mutex
	lastFailed time.Time // when a failed attempt was told
}

func (l *connLog) connected(nc *nats.Conn) {
	l.logger.Info("connected to the broker", "address", nc.ConnectedAddr(), "server", nc.ConnectedServerName())
}

func (l *connLog) disconnected(nc *nats.Conn, err error) {
	if nc.IsClosed() {
		return // by ourselves
	}
	l.mu.Lock()
	l.lastFailed = time.Now() // the outage has been told
	l.mu.Unlock()
	l.logger.Warn("disconnected from the broker", "error", err)
}

func (l *connLog) reconnected(nc *nats.Conn) {
	l.logger.Info("reconnected to the broker", "address", nc.ConnectedAddr(), "server", nc.ConnectedServerName())
}

func (l *connLog) failed(_ *nats.Conn, err error) {
	l.mu.Lock()
	tell := time.Since(l.lastFailed) >= failureInterval
	if tell {
		l.lastFailed = time.Now()
	}
	l.mu.Unlock()
	if tell {
		l.logger.Warn("broker out of reach", "error", err)
	}
}

// asyncError tells what no call could return: permissions that are missing,
// subscriptions that are too slow.
func (l *connLog) asyncError(_ *nats.Conn, sub *nats.Subscription, err error) {
	if sub != nil {
		l.logger.Error("broker reported an error", "error", err, "subject", sub.Subject)
		return
	}
	l.logger.Error("broker reported an error", "error", err)
}
