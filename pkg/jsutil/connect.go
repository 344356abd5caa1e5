package jsutil

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/natscontext"
)

// ConnectConfig says how to reach the broker. Its zero value means the broker
// on this machine, at the port that NATS has by default.
type ConnectConfig struct {
	// URL is one address or several with commas between them. Not together with Context.
	URL string
	// Context is a context of the nats CLI: its name, or the path of its file.
	Context string
	// Creds is a credentials file, NKey one that holds the seed of an nkey; they
	// go before what Context says, and so does the rest.
	Creds, NKey string
	// TLSCA is a file with the certificates that the broker's is to be vouched for
	// by, in place of the system's; TLSCert and TLSKey are our own, if it asks.
	TLSCA, TLSCert, TLSKey string
	// Name is how the broker shows the connection; default "longhaul".
	Name string
	// InboxPrefix is where answers are received; default "_INBOX", with NKey
	// "_INBOX.<public key>". A role that may subscribe to nothing but its own
	// prefix can't read along with others.
	InboxPrefix string
	// Retry is for services: Connect succeeds without a broker, and goes on
	// trying, for ever, until the connection is closed.
	Retry  bool
	Logger *slog.Logger // default: none
}

const (
	// dialTimeout bounds one attempt at one address. A person at a terminal waits for it.
	dialTimeout = 2 * time.Second
	// A silent broker is given up after two to three pings without an answer:
	// 3 to 4.5 s, well within a lease of 30 s.
	pingInterval = 1500 * time.Millisecond
	maxPingsOut  = 2
	// After a restart of the broker everyone comes back at about the same
	// time; the jitter keeps that from being the very same moment.
	reconnectWait   = 250 * time.Millisecond
	reconnectJitter = 100 * time.Millisecond
	// ackTimeout bounds the wait for the answer to an asynchronous publish.
	// Without it an answer that was lost would be waited for for ever.
	ackTimeout = 5 * time.Second
)

// Connect connects to the broker. Once connected, it reconnects for ever. The
// caller closes the connection.
//
// Without Retry it fails, within about two seconds for each address, with an
// error that names them and wraps ErrUnavailable, or ErrRefused if the broker does not
// want us. With Retry only a faulty configuration is an error. Neither errors
// nor log lines show a password or a token.
func Connect(cfg ConnectConfig) (*nats.Conn, error) {
	cfg.Name, cfg.Logger = cmp.Or(cfg.Name, "longhaul"), cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	if cfg.URL != "" && cfg.Context != "" {
		return nil, errors.New("connect to the broker: both a URL and a context are given; give one")
	}
	opts, err := options(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to the broker: %w", err)
	}
	if cfg.Context != "" {
		nc, err := connectContext(cfg.Context, opts)
		if err != nil {
			return nil, fmt.Errorf("connect by the context %s: %w", cfg.Context, explain(err))
		}
		return nc, nil
	}
	cfg.URL = cmp.Or(cfg.URL, nats.DefaultURL)
	hosts, err := hostsOf(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("connect to the broker: %w", err)
	}
	nc, err := nats.Connect(cfg.URL, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to the broker at %s: %w", strings.Join(hosts, ", "), explain(err))
	}
	return nc, nil
}

func connectContext(name string, opts []nats.Option) (*nats.Conn, error) {
	if strings.ContainsRune(name, os.PathSeparator) || strings.HasSuffix(name, ".json") {
		var err error
		if name, err = filepath.Abs(name); err != nil { // the library takes absolute paths for files
			return nil, err
		}
	}
	nc, settings, err := natscontext.Connect(name, opts...)
	if err == nil && (settings.JSDomain != "" || settings.JSAPIPrefix != "") {
		nc.Close()
		return nil, errors.New("it names a JetStream domain or API prefix, which Longhaul does not follow; " +
			"connect to a server of that domain instead")
	}
	return nc, err
}

// options are the connection's settings. A file that can't be read is an error
// now, not a reason to try for ever.
func options(cfg ConnectConfig) ([]nats.Option, error) {
	for what, file := range map[string]string{"credentials": cfg.Creds, "nkey": cfg.NKey, "TLS CA": cfg.TLSCA, "TLS certificate": cfg.TLSCert, "TLS key": cfg.TLSKey} {
		if _, err := os.ReadFile(file); file != "" && err != nil {
			return nil, fmt.Errorf("read the %s file: %w", what, err)
		}
	}
	if (cfg.TLSCert == "") != (cfg.TLSKey == "") {
		return nil, errors.New("a TLS certificate and its key go together; one of them is missing")
	}
	log := &connLog{logger: cfg.Logger}
	opts := []nats.Option{
		nats.Name(cfg.Name),
		nats.Timeout(dialTimeout),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(maxPingsOut),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectJitter, reconnectJitter),
		// The operator may be about to put the user's permission right.
		nats.IgnoreAuthErrorAbort(),
		// A synchronous subscription, which GetBatch makes for every batch, has a
		// channel of 65,536 places otherwise: half a megabyte each time.
		nats.SyncQueueLen(2 * maxLasts),
		nats.RetryOnFailedConnect(cfg.Retry),
		nats.ConnectHandler(log.connected),
		nats.DisconnectErrHandler(log.disconnected),
		nats.ReconnectHandler(log.reconnected),
		nats.ReconnectErrHandler(log.failed),
		nats.ErrorHandler(log.asyncError),
	}
	if cfg.NKey != "" {
		key, err := nats.NkeyOptionFromSeed(cfg.NKey)
		var set nats.Options
		if err != nil || key(&set) != nil {
			return nil, fmt.Errorf("the nkey file %s holds no seed of a user's key", cfg.NKey) // err may repeat what it holds
		}
		opts, cfg.InboxPrefix = append(opts, key), cmp.Or(cfg.InboxPrefix, nats.InboxPrefix+set.Nkey)
	}
	if cfg.InboxPrefix != "" {
		opts = append(opts, nats.CustomInboxPrefix(cfg.InboxPrefix))
	}
	if cfg.Creds != "" {
		opts = append(opts, nats.UserCredentials(cfg.Creds))
	}
	if cfg.TLSCA != "" {
		opts = append(opts, nats.RootCAs(cfg.TLSCA))
	}
	if cfg.TLSCert != "" {
		opts = append(opts, nats.ClientCert(cfg.TLSCert, cfg.TLSKey))
	}
	return opts, nil
}

// hostsOf returns the hosts of a list of URLs, without user and password.
func hostsOf(list string) ([]string, error) {
	var hosts []string
	for i, s := range strings.Split(list, ",") {
		s = strings.TrimSpace(s)
		if s != "" && !strings.Contains(s, "://") {
			s = "nats://" + s // as nats.go does
		}
		u, err := url.Parse(s)
		if err != nil || u.Hostname() == "" {
			// Not the error itself: it repeats the URL, and the password in it.
			return nil, fmt.Errorf("address %d of the URL is none; it should read like nats://host:4222", i+1)
		}
		hosts = append(hosts, u.Host)
	}
	return hosts, nil
}

// explain makes an error of nats.Connect fit to be shown, and translates it.
func explain(err error) error {
	if urlErr := (*url.Error)(nil); errors.As(err, &urlErr) {
		return errors.New("its URL is none; it should read like nats://host:4222") // urlErr shows the password
	}
	return Translate(err)
}

// WaitConnected returns nil once nc is connected; an error if ctx ends first
// or nc has been closed.
func WaitConnected(ctx context.Context, nc *nats.Conn) error {
	changed := nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer nc.RemoveStatusListener(changed)
	for {
		switch nc.Status() {
		case nats.CONNECTED:
			return nil
		case nats.CLOSED:
			return fmt.Errorf("wait for the broker: %w", Translate(nats.ErrConnectionClosed))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for the broker: %w", context.Cause(ctx))
		}
	}
}

// JetStream returns the JetStream interface of nc. An asynchronous publish
// that gets no answer within five seconds fails.
func JetStream(nc *nats.Conn) (jetstream.JetStream, error) {
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncTimeout(ackTimeout))
	if err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	return js, nil
}

// Sleep waits for d, or until ctx ends.
func Sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
