// Command longhaul is all of Longhaul in one binary: the services, a
// development setup of all of them in one process, and the client.
//
// The map: main.go and cli.go parse and dispatch; app.go is what every command
// is given; exit.go turns errors into exit codes; one file holds each command
// or family of commands; console.go, events.go and times.go turn things into
// words. No command decides anything about a run: what this package knows of
// runs it has from pkg/client.
package main

import (
	"context"
	"os"
)

// version, commit and date (of the commit, in UTC) are set with -ldflags "-X
// main.version=v1.2.3 …". What is not set is taken from the Go tool's own
// record, if there is one.
var version, commit, date string

func main() {
	ctx, stop := interruptible(context.Background(), os.Exit)
	code := run(ctx, newApp(os.Stdin, os.Stdout, os.Stderr, os.Getenv), os.Args[1:])
	stop()
	os.Exit(code)
}
