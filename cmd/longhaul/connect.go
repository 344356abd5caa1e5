package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/client"
	"longhaul/pkg/jsutil"
)

// preferFlags lets a flag that names a broker win over the environment that
// names one in another way.
func (g *globals) preferFlags(parsed *kong.Context) {
	given := map[string]bool{}
	for _, p := range parsed.Path {
		if p.Flag != nil && !p.Resolved {
			given[p.Flag.Name] = true
		}
	}
	switch {
	case given["context"] && !given["nats"]:
		g.NATS = ""
	case given["nats"] && !given["context"]:
		g.Context = ""
	}
}

// reach says how to reach the broker. What is wrong with the flags is a usageError.
func (a *app) reach(name string) (jsutil.ConnectConfig, error) {
	cfg, err := a.Reach("longhaul " + name + " " + hostname())
	cfg.Logger = a.warnings
	switch {
	case err != nil:
		return cfg, err
	case a.Context == "" || strings.ContainsRune(a.Context, os.PathSeparator) || strings.HasSuffix(a.Context, ".json"):
		return cfg, nil // not a context's name
	}
	known, dir, err := knownContexts()
	if err != nil {
		return cfg, fmt.Errorf("look for the context %s: %w", a.Context, err)
	}
	if slices.Contains(known, a.Context) {
		return cfg, nil
	}
	list := "there are none in " + dir
	if len(known) > 0 {
		list = "known are " + strings.Join(known, ", ")
	}
	return cfg, &codedError{code: exitUsage, err: fmt.Errorf("there is no NATS context %q; %s", a.Context, list),
		hint: "make one with nats context add, or name the broker: --nats URL"}
}

// knownContexts lists the contexts of the nats command, and where it keeps them.
func knownContexts() (names []string, dir string, err error) {
	parent := os.Getenv("XDG_CONFIG_HOME")
	if parent == "" {
		u, err := user.Current()
		if err != nil {
			return nil, "", err
		}
		parent = filepath.Join(u.HomeDir, ".config")
	}
	dir = filepath.Join(parent, "nats", "context")
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, dir, err
	}
	for _, f := range files {
		if name, ok := strings.CutSuffix(f.Name(), ".json"); ok {
			names = append(names, name)
		}
	}
	return names, dir, nil
}

// connect connects a client command: it fails within seconds if there is no broker.
func (a *app) connect() (*nats.Conn, error) {
	cfg, err := a.reach("cli")
	if err != nil {
		return nil, err
	}
	return jsutil.Connect(cfg)
}

// connectService connects a service: it goes on trying for ever.
func (a *app) connectService(name string, log *slog.Logger) (*nats.Conn, error) {
	cfg, err := a.reach(name)
	if err != nil {
		return nil, err
	}
	cfg.Retry, cfg.Logger = true, log
	return jsutil.Connect(cfg)
}

// dial connects and returns a client, with what closes its connection.
func (a *app) dial() (c *client.Client, hangUp func(), err error) {
	keys, err := a.Keys()
	if err != nil {
		return nil, nil, err
	}
	nc, err := a.connect()
	if err != nil {
		return nil, nil, err
	}
	c, err = client.New(nc, client.WithKeys(keys), client.WithTracer(a.tracer))
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return c, nc.Close, nil
}

// jetStream connects a command that looks at the broker itself; the connection,
// js.Conn(), is the caller's to close.
func (a *app) jetStream() (jetstream.JetStream, error) {
	nc, err := a.connect()
	if err != nil {
		return nil, err
	}
	js, err := jsutil.JetStream(nc)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return js, nil
}
