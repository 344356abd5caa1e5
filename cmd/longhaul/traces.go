package main

import (
	"context"
	"slices"

	"longhaul/internal/shell"
)

// trace has a command that makes spans send them where the environment says, if it
// names a collector. The function sends what is left.
func (a *app) trace(ctx context.Context, command string) (flush func(), err error) {
	if !slices.Contains([]string{"dispatcher", "worker", "dev", "submit"}, command) {
		return func() {}, nil
	}
	log := a.log
	if command == "submit" {
		log = a.warnings
	}
	if a.tracer, flush, err = shell.Trace(ctx, a.getenv, "longhaul-"+command, buildVersion().Version, log); err != nil {
		return nil, &codedError{code: exitUsage, err: err, hint: "see docs/operations.md, Traces"}
	}
	return flush, nil
}
