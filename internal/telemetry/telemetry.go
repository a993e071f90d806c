// Package telemetry gives the layers their meter and tracer providers: metrics for Prometheus always, traces and metrics
// to an OpenTelemetry collector where one is configured. It also holds the hooks for the clients of Redis and Kafka,
// whose own instrumentation emits names outside the semantic conventions. It sets no global provider and serves no port.
package telemetry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// Config says who emits the telemetry and where it goes.
type Config struct {
	// Role is the part of Millrace that this process plays: speed, serve, batch. It is the resource's millrace.role.
	Role string
	// InstanceID tells processes of one role apart. Empty: a random one.
	InstanceID string
	// Version, Commit and GoVersion say which build this is; they label millrace_build_info.
	Version, Commit, GoVersion string
	// Getenv reads OpenTelemetry's standard variables. Without OTEL_EXPORTER_OTLP_ENDPOINT (or its form for one signal),
	// with OTEL_SDK_DISABLED=true, or with a nil Getenv nothing leaves the process. Headers, timeouts, certificates, the
	// sampler and resource attributes are read from the process's environment by the SDK itself.
	Getenv func(string) string
}

// Telemetry holds the providers. Both are usable always: what is off costs next to nothing.
type Telemetry struct {
	Meter  metric.MeterProvider
	Tracer trace.TracerProvider

	registry *prometheus.Registry
	shutdown []func(context.Context) error
}

// Setup starts the exporters. It does not wait for the collector to answer.
func Setup(ctx context.Context, cfg Config) (*Telemetry, error) {
	res, err := newResource(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("telemetry: resource: %w", err)
	}
	t := &Telemetry{registry: newRegistry(cfg)}
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(t.registry), otelprometheus.WithoutScopeInfo())
	if err != nil {
		return nil, fmt.Errorf("telemetry: prometheus exporter: %w", err)
	}
	meterOptions := []sdkmetric.Option{sdkmetric.WithResource(res), sdkmetric.WithReader(exporter), sdkmetric.WithView(views()...)}
	if url := endpoint(cfg.Getenv, "METRICS", "/v1/metrics"); url != "" {
		otlp, err := otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpointURL(url))
		if err != nil {
			return nil, fmt.Errorf("telemetry: metrics to %s: %w", url, err)
		}
		meterOptions = append(meterOptions, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(otlp)))
	}
	meters := sdkmetric.NewMeterProvider(meterOptions...)
	t.Meter = meters
	t.shutdown = append(t.shutdown, meters.Shutdown)

	t.Tracer = tracenoop.NewTracerProvider()
	if url := endpoint(cfg.Getenv, "TRACES", "/v1/traces"); url != "" {
		otlp, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(url))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("telemetry: traces to %s: %w", url, err), t.Shutdown(ctx))
		}
		tracers := sdktrace.NewTracerProvider(sdktrace.WithResource(res), sdktrace.WithBatcher(otlp))
		t.Tracer = tracers
		t.shutdown = append(t.shutdown, tracers.Shutdown)
	}
	return t, nil
}

// MetricsHandler serves the metrics in Prometheus' text format, or in OpenMetrics, with exemplars, for who asks for it.
func (t *Telemetry) MetricsHandler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// Shutdown sends what is buffered and stops the exporters. It gives up when ctx ends.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	var errs []error
	for _, stop := range t.shutdown {
		errs = append(errs, stop(ctx))
	}
	t.shutdown = nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("telemetry: shutdown: %w", err)
	}
	return nil
}

// endpoint is the URL to which a signal goes, empty where it stays at home. A signal's own variable is used as it stands,
// the general one is a base URL: so the OTLP specification has it.
func endpoint(getenv func(string) string, signal, path string) string {
	if getenv == nil || strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") ||
		strings.EqualFold(getenv("OTEL_"+signal+"_EXPORTER"), "none") {
		return ""
	}
	if url := getenv("OTEL_EXPORTER_OTLP_" + signal + "_ENDPOINT"); url != "" {
		return url
	}
	if base := getenv("OTEL_EXPORTER_OTLP_ENDPOINT"); base != "" {
		return strings.TrimSuffix(base, "/") + path
	}
	return ""
}

func newResource(ctx context.Context, cfg Config) (*resource.Resource, error) {
	instance := cfg.InstanceID
	if instance == "" {
		instance = rand.Text()
	}
	// The environment comes last: who deploys may add attributes and set each of ours anew.
	return resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(
			attribute.String("service.name", "millrace"),
			attribute.String("service.version", cfg.Version),
			attribute.String("service.instance.id", instance),
			attribute.String("millrace.role", cfg.Role),
		),
		resource.WithFromEnv(),
	)
}

func newRegistry(cfg Config) *prometheus.Registry {
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "millrace_build_info",
		Help:        "Always 1; the labels say which build runs.",
		ConstLabels: prometheus.Labels{"version": cfg.Version, "commit": cfg.Commit, "go_version": cfg.GoVersion},
	})
	build.Set(1)
	registry := prometheus.NewRegistry()
	registry.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}
