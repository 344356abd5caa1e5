package main

import (
	"context"
	"slices"
	"time"

	"go.opentelemetry.io/otel"

	"longhaul/pkg/tracing/otlp"
)

// traceFlush is how long the last spans of a process may take to leave.
const traceFlush = 3 * time.Second

// trace has a command that makes spans send them where the environment says, if it
// names a collector. The function sends what is left.
func (a *app) trace(ctx context.Context, command string) (flush func(), err error) {
	if !slices.Contains([]string{"dispatcher", "worker", "dev", "submit"}, command) {
		return func() {}, nil
	}
	e, err := otlp.FromEnv(ctx, a.getenv, "longhaul-"+command, buildVersion().Version)
	if err != nil {
		return nil, &codedError{code: exitUsage, err: err, hint: "see docs/operations.md, Traces"}
	}
	if e == nil {
		return func() {}, nil
	}
	log := a.log
	if command == "submit" {
		log = a.warnings
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("spans could not be sent", "error", err) }))
	a.tracer = e.Tracer
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), traceFlush)
		defer cancel()
		if err := e.Close(ctx); err != nil {
			log.Warn("the last spans could not be sent", "error", err)
		}
	}, nil
}
