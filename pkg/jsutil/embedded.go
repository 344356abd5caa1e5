package jsutil

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// EmbeddedConfig says where the embedded broker keeps its data and listens.
type EmbeddedConfig struct {
	Dir    string // "" keeps everything in memory
	Host   string // default 127.0.0.1
	Port   int    // 0 is a random one
	Logger *slog.Logger
}

// Embedded is a broker inside this process.
type Embedded struct {
	srv     *server.Server
	temp    string
	storage jetstream.StorageType
}

const readyTimeout = 10 * time.Second

// StartEmbedded starts a broker and returns when it takes connections.
func StartEmbedded(cfg EmbeddedConfig) (*Embedded, error) {
	e := &Embedded{storage: jetstream.FileStorage}
	dir := cfg.Dir
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "longhaul-"); err != nil {
			return nil, fmt.Errorf("start the embedded broker: %w", err)
		}
		e.temp, e.storage = dir, jetstream.MemoryStorage
	}
	if cfg.Host == "" {
		cfg.Host = "127.0.0.1"
	}
	if cfg.Port == 0 {
		cfg.Port = server.RANDOM_PORT
	}
	srv, err := server.NewServer(&server.Options{
		Host: cfg.Host, Port: cfg.Port, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true, DisableJetStreamBanner: true,
	})
	if err != nil {
		return nil, fmt.Errorf("start the embedded broker: %w", err)
	}
	e.srv = srv
	srv.Start()
	if !srv.ReadyForConnections(readyTimeout) {
		e.Shutdown()
		return nil, errors.New("start the embedded broker: not ready in time")
	}
	return e, nil
}

// URL is where clients connect to.
func (e *Embedded) URL() string { return e.srv.ClientURL() }

// Storage is what the streams should be kept in.
func (e *Embedded) Storage() jetstream.StorageType { return e.storage }

// Shutdown stops the broker and waits until it has stopped.
func (e *Embedded) Shutdown() {
	e.srv.Shutdown()
	e.srv.WaitForShutdown()
	if e.temp != "" {
		os.RemoveAll(e.temp)
	}
}
