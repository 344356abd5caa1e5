package jsutil

import (
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
)

// failureInterval is how often failed attempts to connect are told: there are
// four a second.
const failureInterval = 10 * time.Second

// connLog tells a connection's ups and downs. nats.go calls it from one
// goroutine of the connection, so it needs no lock. Addresses are told as host
// and port: the URL may hold a password, or a token in place of a user.
type connLog struct {
	logger     *slog.Logger
	lastFailed time.Time // when a failed attempt was told
}

func (l *connLog) connected(nc *nats.Conn) {
	l.logger.Info("connected to the broker", "address", nc.ConnectedAddr(), "server", nc.ConnectedServerName())
}

func (l *connLog) disconnected(nc *nats.Conn, err error) {
	if nc.IsClosed() {
		return // by ourselves
	}
	l.lastFailed = time.Now() // the outage has been told
	l.logger.Warn("disconnected from the broker", "error", err)
}

func (l *connLog) reconnected(nc *nats.Conn) {
	l.logger.Info("reconnected to the broker", "address", nc.ConnectedAddr(), "server", nc.ConnectedServerName())
}

func (l *connLog) failed(_ *nats.Conn, err error) {
	if time.Since(l.lastFailed) >= failureInterval {
		l.lastFailed = time.Now()
		l.logger.Warn("broker out of reach", "error", err)
	}
}

// asyncError tells what no call could return: permissions that are missing,
// subscriptions that are too slow.
func (l *connLog) asyncError(_ *nats.Conn, sub *nats.Subscription, err error) {
	subject := ""
	if sub != nil {
		subject = sub.Subject
	}
	l.logger.Error("broker reported an error", "error", err, "subject", subject)
}
