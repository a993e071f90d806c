package batch

import (
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// metrics are the runner's instruments.
type metrics struct {
	runs, entities, deltas metric.Int64Counter
	duration               metric.Float64Histogram
}

func newMetrics(provider metric.MeterProvider) (m metrics, err error) {
	meter := provider.Meter("millrace/batch")
	var e1, e2, e3, e4 error
	m.runs, e1 = meter.Int64Counter("millrace_runs", metric.WithDescription("batch runs by kind and state"))
	m.entities, e2 = meter.Int64Counter("millrace_batch_entities", metric.WithDescription("entities by view and result: written, or newer where a later run had been there"))
	m.deltas, e3 = meter.Int64Counter("millrace_batch_deltas_removed", metric.WithDescription("delta fields removed because a base covers them"))
	m.duration, e4 = meter.Float64Histogram("millrace_run_duration_seconds", metric.WithUnit("s"), metric.WithDescription("time of one batch run"),
		metric.WithExplicitBucketBoundaries(1, 5, 15, 60, 300, 900, 3600, 4*3600))
	if err := errors.Join(e1, e2, e3, e4); err != nil {
		return m, fmt.Errorf("instruments: %w", err)
	}
	return m, nil
}

func viewAttr(view string) attribute.KeyValue { return attribute.String("view", view) }

func resultAttr(result string) attribute.KeyValue { return attribute.String("result", result) }

// kindAttr tells base uploads from other runs that share an instrument.
var kindAttr = attribute.String("kind", "base")

func stateAttr(state string) attribute.KeyValue { return attribute.String("state", state) }
