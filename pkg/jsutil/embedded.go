package jsutil

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// EmbeddedConfig says where the embedded broker keeps its data and listens.
// Its zero value is a broker in memory on a free port of the loopback address.
type EmbeddedConfig struct {
	// Dir holds the streams; it is made if need be. Empty: all is kept in
	// memory and gone with the broker.
	Dir string
	// Host is what it listens on; default 127.0.0.1, since it asks nobody for a password.
	Host string
	// Port is the TCP port; 0 is any free one.
	Port int
	// Logger takes what the server says: warnings and errors as warnings, the
	// rest as debug. Default: none.
	Logger *slog.Logger
}

const (
	// readyTimeout bounds the start. Large streams are read first: 200,000
	// runs take about a second.
	readyTimeout = 10 * time.Second
	readyPoll    = 50 * time.Millisecond
	// maxMemory bounds the streams of a broker in memory, in bytes. The
	// server's own default, three quarters of the machine, would let tests and
	// trials take it all.
	maxMemory = 2 << 30
	// memoryMaxStore keeps such a broker from measuring a disk that it does not use.
	memoryMaxStore = 64 << 20
)

// Embedded is a broker inside this process: the same nats-server that would
// run beside it. Its methods may be called from several goroutines.
type Embedded struct {
	srv     *server.Server
	url     string
	storage jetstream.StorageType
	lock    *os.File // nil in memory
	temp    string   // to be removed; "" unless in memory
}

// StartEmbedded starts a broker and returns when it takes connections, or an
// error that says why it does not. It installs no signal handlers. The caller
// calls Shutdown.
func StartEmbedded(cfg EmbeddedConfig) (_ *Embedded, err error) {
	e := &Embedded{}
	defer func() {
		if err != nil {
			e.Shutdown()
			err = fmt.Errorf("start the embedded broker: %w", err)
		}
	}()
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	opts, err := e.prepare(cfg)
	if err != nil {
		return nil, err
	}
	if e.srv, err = server.NewServer(opts); err != nil {
		return nil, err
	}
	log := &serverLog{logger: cfg.Logger, fatal: make(chan error, 1)}
	e.srv.SetLoggerV2(log, false, false, false)
	e.srv.Start()
	if err := e.waitReady(log.fatal); err != nil {
		return nil, err
	}
	os.RemoveAll(e.temp) // now, so that nothing is left behind if we are killed
	return e, nil
}

// prepare makes and locks the directory, and returns the server's options.
func (e *Embedded) prepare(cfg EmbeddedConfig) (*server.Options, error) {
	opts := &server.Options{
		ServerName: "longhaul-embedded", Host: cmp.Or(cfg.Host, "127.0.0.1"), Port: cmp.Or(cfg.Port, server.RANDOM_PORT),
		JetStream: true, StoreDir: cfg.Dir,
		NoLog: true, NoSigs: true, DisableJetStreamBanner: true,
	}
	var err error
	if cfg.Dir == "" {
		// The server wants a directory even so, to start with. What somebody's own
		// streams keep in files it makes anew.
		e.storage = jetstream.MemoryStorage
		if e.temp, err = os.MkdirTemp("", "longhaul-memory-"); err != nil {
			return nil, err
		}
		opts.StoreDir, opts.JetStreamMaxMemory, opts.JetStreamMaxStore = e.temp, maxMemory, memoryMaxStore
		return opts, nil
	}
	e.storage = jetstream.FileStorage
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	// Two servers on one directory would destroy it, and the server does not look.
	e.lock, err = lockFile(filepath.Join(cfg.Dir, "longhaul.lock"))
	return opts, err
}

func (e *Embedded) waitReady(fatal <-chan error) error {
	for deadline := time.Now().Add(readyTimeout); time.Now().Before(deadline); {
		ready := e.srv.ReadyForConnections(readyPoll)
		select {
		case err := <-fatal:
			return err
		default:
		}
		if addr, ok := e.srv.Addr().(*net.TCPAddr); ok && ready && e.srv.JetStreamEnabled() {
			host := addr.IP.String()
			if addr.IP.IsUnspecified() {
				host = "127.0.0.1"
			}
			e.url = "nats://" + net.JoinHostPort(host, strconv.Itoa(addr.Port))
			return nil
		}
	}
	return fmt.Errorf("not ready within %s", readyTimeout)
}

// URL is where clients connect to. A broker that listens on every interface is
// named by the loopback address.
func (e *Embedded) URL() string { return e.url }

// Storage is what TopologyOptions.Storage has to be on this broker.
func (e *Embedded) Storage() jetstream.StorageType { return e.storage }

// Shutdown stops the broker, and returns when it has stopped and let go of its
// directory. It may be called more than once.
func (e *Embedded) Shutdown() {
	if e.srv != nil {
		e.srv.Shutdown()
		e.srv.WaitForShutdown()
	}
	if e.lock != nil {
		e.lock.Close() //nolint:errcheck // nothing was written that could be lost; it may be closed already
	}
	os.RemoveAll(e.temp) // a rest in the temporary directory harms nobody; without a name it does nothing
}

// serverLog hands the server's log on. Its fatal errors, which would end a
// server's own process, go to the channel.
type serverLog struct {
	logger *slog.Logger
	fatal  chan error // buffered: the first one counts
}

func (l *serverLog) Noticef(format string, v ...any) { l.say(slog.LevelDebug, format, v) }
func (l *serverLog) Debugf(format string, v ...any)  { l.say(slog.LevelDebug, format, v) }
func (l *serverLog) Tracef(format string, v ...any)  { l.say(slog.LevelDebug, format, v) }
func (l *serverLog) Warnf(format string, v ...any)   { l.say(slog.LevelWarn, format, v) }
func (l *serverLog) Errorf(format string, v ...any)  { l.say(slog.LevelWarn, format, v) }

func (l *serverLog) Fatalf(format string, v ...any) {
	l.say(slog.LevelWarn, format, v)
	select {
	case l.fatal <- fmt.Errorf(format, v...):
	default:
	}
}

func (l *serverLog) say(level slog.Level, format string, v []any) {
	l.logger.Log(context.Background(), level, "embedded broker", "text", fmt.Sprintf(format, v...))
}
