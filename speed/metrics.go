package speed

import (
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// metrics are the folder's instruments.
type metrics struct {
	events, fields, conflicts, rewinds metric.Int64Counter
	flush                              metric.Float64Histogram
	lag                                metric.Int64Gauge
}

func newMetrics(provider metric.MeterProvider) (m metrics, err error) {
	meter := provider.Meter("millrace/speed")
	counter := func(name, text string) metric.Int64Counter {
		c, e := meter.Int64Counter(name, metric.WithDescription(text))
		if e != nil && err == nil {
			err = e
		}
		return c
	}
	m.events = counter("millrace_speed_events", "records by topic and result: folded, or the reason of the rejection")
	m.fields = counter("millrace_speed_flush_fields", "fields written to Redis")
	m.conflicts = counter("millrace_speed_flush_conflicts", "flushes refused because the marker was another's")
	m.rewinds = counter("millrace_speed_rewinds", "partitions read again from their markers")
	var e1, e2 error
	m.flush, e1 = meter.Float64Histogram("millrace_speed_flush_duration_seconds", metric.WithUnit("s"), metric.WithDescription("time of one flush of all units that need it"))
	m.lag, e2 = meter.Int64Gauge("millrace_speed_consumer_lag_records", metric.WithDescription("records of a partition that are not folded yet"))
	for _, e := range []error{e1, e2} {
		if err == nil {
			err = e
		}
	}
	if err != nil {
		return m, fmt.Errorf("instruments: %w", err)
	}
	return m, nil
}

func topicAttr(topic string) attribute.KeyValue { return attribute.String("topic", topic) }

func resultAttr(result string) attribute.KeyValue { return attribute.String("result", result) }
