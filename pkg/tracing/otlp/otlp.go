// Package otlp sends spans to a collector, by OTLP over HTTP, as the standard
// variables of the environment say. It is apart from package tracing so that who
// only makes spans links no exporter.
package otlp

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"

	"longhaul/pkg/tracing"
)

// Exporter makes spans and sends them.
type Exporter struct {
	*tracing.Tracer
	provider *sdk.TracerProvider
}

// FromEnv makes an Exporter as getenv says; nil, and no error, where that names no
// collector. service and version are what spans are marked with, unless
// OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say otherwise. It connects to nobody yet.
//
// OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT turn it on,
// OTEL_SDK_DISABLED=true and OTEL_TRACES_EXPORTER=none off. Whatever else the SDK
// and its exporter know is theirs to read, from the process's environment:
// OTEL_EXPORTER_OTLP_HEADERS, _TIMEOUT, _COMPRESSION, _CERTIFICATE, OTEL_TRACES_SAMPLER, OTEL_BSP_*.
func FromEnv(ctx context.Context, getenv func(string) string, service, version string) (*Exporter, error) {
	kind := getenv("OTEL_TRACES_EXPORTER")
	endpoint := cmp.Or(getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), getenv("OTEL_EXPORTER_OTLP_ENDPOINT"))
	protocol := cmp.Or(getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), getenv("OTEL_EXPORTER_OTLP_PROTOCOL"), "http/protobuf")
	switch {
	case getenv("OTEL_SDK_DISABLED") == "true", kind == "none", kind == "" && endpoint == "":
		return nil, nil
	case kind != "" && kind != "otlp":
		return nil, fmt.Errorf("OTEL_TRACES_EXPORTER must be otlp or none, not %q", kind)
	case protocol != "http/protobuf":
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf, not %q", protocol)
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("set up the exporter of traces: %w", err)
	}
	own := resource.NewSchemaless(attribute.String("service.name", service), attribute.String("service.version", version))
	said, err := resource.New(ctx, resource.WithFromEnv(), resource.WithHost(), resource.WithProcessPID())
	if err == nil || errors.Is(err, resource.ErrPartialResource) {
		own, err = resource.Merge(own, said) // the second wins
	}
	if err != nil {
		return nil, fmt.Errorf("describe this process for traces: %w", err)
	}
	provider := sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(own), sdk.WithIDGenerator(tracing.IDs{}))
	return &Exporter{tracing.New(provider), provider}, nil
}

// Close sends what is left, as long as ctx lasts, and stops. A nil Exporter has nothing to do.
func (e *Exporter) Close(ctx context.Context) error {
	if e == nil {
		return nil
	}
	return e.provider.Shutdown(ctx)
}
