// Package shell is what a program around a service needs, whichever it is: the
// flags that say how the broker is reached and where the service shows itself,
// its log, metrics, health and traces, and the settings of a worker. The longhaul
// command parses them from its command line, pkg/host from the environment alone,
// by the same names.
package shell

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/agent"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/seal"
)

// usageError is an error in how a program was called.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Usage marks err as an error in how the program was called.
func Usage(err error) error { return usageError{err} }

// IsUsage reports whether err, or what it wraps, is so marked.
func IsUsage(err error) bool { return errors.As(err, new(usageError)) }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// Broker are the flags that say how the broker is reached.
type Broker struct {
	NATS     string `name:"nats" group:"global" placeholder:"URL" help:"Broker to connect to (default nats://127.0.0.1:4222)."`
	Context  string `group:"global" placeholder:"NAME" help:"NATS context to connect with, as made by the nats command."`
	Creds    string `group:"global" placeholder:"FILE" help:"Credentials file."`
	NKey     string `name:"nkey" group:"global" placeholder:"FILE" help:"File with the seed of the user's nkey."`
	TLSCA    string `name:"tls-ca" group:"global" placeholder:"FILE" help:"Certificates that vouch for the broker's (default: the system's)."`
	TLSCert  string `name:"tls-cert" group:"global" placeholder:"FILE" help:"Certificate to show the broker, if it asks for one."`
	TLSKey   string `name:"tls-key" group:"global" placeholder:"FILE" help:"Key of that certificate."`
	Inbox    string `name:"inbox-prefix" group:"global" placeholder:"SUBJECT" help:"Where answers are received (default _INBOX, with --nkey _INBOX.<public key>)."`
	SealKeys string `group:"global" placeholder:"FILE" help:"Keys of longhaul security key: submit and read, or execute, runs that nobody else can read."`
}

// Reach is how the broker is reached, by a connection of that name; flags that
// contradict one another are an error of usage.
func (b Broker) Reach(name string) (jsutil.ConnectConfig, error) {
	cfg := jsutil.ConnectConfig{URL: b.NATS, Context: b.Context, Creds: b.Creds, NKey: b.NKey, TLSCA: b.TLSCA, TLSCert: b.TLSCert, TLSKey: b.TLSKey,
		InboxPrefix: b.Inbox, Name: name}
	switch {
	case b.Creds != "" && b.NKey != "":
		return cfg, usage("--creds and --nkey are both given; give one")
	case (b.TLSCert == "") != (b.TLSKey == ""):
		return cfg, usage("--tls-cert and --tls-key go together; one of them is missing")
	case b.NATS != "" && b.Context != "":
		return cfg, usage("--nats and --context are both given, or LONGHAUL_NATS and LONGHAUL_CONTEXT are both set; give one")
	}
	return cfg, nil
}

// Shown names the broker as the flags do, without secrets.
func (b Broker) Shown() string {
	switch {
	case b.Context != "":
		return "context " + b.Context
	case b.NATS == "":
		return nats.DefaultURL
	}
	var shown []string
	for _, u := range strings.Split(b.NATS, ",") {
		shown = append(shown, WithoutSecrets(strings.TrimSpace(u)))
	}
	return strings.Join(shown, ",")
}

// WithoutSecrets returns a URL as it may be logged: without user, password or token.
func WithoutSecrets(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return "(not shown)"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// Keys are those of --seal-keys, nil without.
func (b Broker) Keys() (*seal.Keys, error) {
	if b.SealKeys == "" {
		return nil, nil //nolint:nilnil // which is keys too: nothing is sealed
	}
	keys, err := seal.LoadKeys(b.SealKeys)
	if err != nil {
		return nil, usage("--seal-keys: %w; make one with longhaul security key", err)
	}
	return keys, nil
}

// Sealed returns the agents behind --seal-keys, or as they are without.
func (b Broker) Sealed(agents []agent.Agent) ([]agent.Agent, error) {
	keys, err := b.Keys()
	if err != nil || keys == nil {
		return agents, err
	}
	all := make([]agent.Agent, len(agents))
	for i, a := range agents {
		if all[i], err = agent.Sealed(a, keys); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Topology are the flags that say how streams are made that are missing.
type Topology struct {
	Replicas int    `default:"1" placeholder:"N" help:"Replicas of each stream that is created: 1, 3 or 5."`
	Storage  string `enum:"file,memory" default:"file" placeholder:"KIND" help:"Storage of each stream that is created: file or memory."`
}

// Options are the same, as services have them.
func (f Topology) Options() jsutil.TopologyOptions {
	o := jsutil.TopologyOptions{Replicas: f.Replicas, Storage: jetstream.FileStorage}
	if f.Storage == "memory" {
		o.Storage = jetstream.MemoryStorage
	}
	return o
}
