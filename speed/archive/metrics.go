package archive

import (
	"context"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// metrics are the archiver's instruments. Records are counted once they are durable.
type metrics struct {
	rows, quarantined, lost, retries metric.Int64Counter
	chunk                            metric.Float64Histogram
	lag                              metric.Int64Gauge
}

func newMetrics(provider metric.MeterProvider) (m metrics, err error) {
	meter := provider.Meter("millrace/archive")
	keep := func(e error) {
		if err == nil && e != nil {
			err = fmt.Errorf("instruments: %w", e)
		}
	}
	counter := func(name, text string) metric.Int64Counter {
		c, e := meter.Int64Counter(name, metric.WithDescription(text))
		keep(e)
		return c
	}
	m.rows = counter("millrace_archive_rows", "records archived by source and result: admitted, quarantined, or backfilled into a new clean table")
	m.quarantined = counter("millrace_quarantine_records", "records quarantined by source and reason")
	m.lost = counter("millrace_archive_lost_records", "offsets by topic that the broker removed before they were archived")
	m.retries = counter("millrace_archive_retries", "steps of a chunk that had to be repeated")
	var e error
	m.chunk, e = meter.Float64Histogram("millrace_archive_chunk_duration_seconds", metric.WithUnit("s"), metric.WithDescription("time to write one chunk"))
	keep(e)
	m.lag, e = meter.Int64Gauge("millrace_archive_lag_records", metric.WithDescription("records of a partition that are not archived yet"))
	keep(e)
	return m, err
}

// tally counts what a chunk holds, by source and reason; the empty reason is for admitted records.
type tally map[[2]string]int64

func (m *metrics) archived(ctx context.Context, counts tally) {
	quarantined := map[string]int64{}
	for k, n := range counts {
		if k[1] == "" {
			m.rows.Add(ctx, n, metric.WithAttributes(attribute.String("source", k[0]), attribute.String("result", "admitted")))
			continue
		}
		quarantined[k[0]] += n
		m.quarantined.Add(ctx, n, metric.WithAttributes(attribute.String("source", k[0]), attribute.String("reason", k[1])))
	}
	for source, n := range quarantined {
		m.rows.Add(ctx, n, metric.WithAttributes(attribute.String("source", source), attribute.String("result", "quarantined")))
	}
}

func (m *metrics) backfilled(ctx context.Context, source string, n int64) {
	m.rows.Add(ctx, n, metric.WithAttributes(attribute.String("source", source), attribute.String("result", "backfilled")))
}

func topicAttrs(topic string) metric.MeasurementOption {
	return metric.WithAttributes(attribute.String("topic", topic))
}

func placeAttrs(p place) metric.MeasurementOption {
	return metric.WithAttributes(attribute.String("topic", p.topic), attribute.String("partition", strconv.Itoa(int(p.id))))
}

// links gathers the producers' traces that the span of a chunk points to.
type links struct {
	on     bool
	looked int
	list   []trace.Link
}

// A chunk's span links to so many traces at most, found in so many records at most.
const (
	maxLinks  = 32
	maxLooked = 512
)

func newLinks(provider trace.TracerProvider) links {
	_, off := provider.(tracenoop.TracerProvider)
	return links{on: !off}
}

func (l *links) saw(r *kgo.Record) {
	if !l.on || len(r.Headers) == 0 || len(l.list) >= maxLinks || l.looked >= maxLooked {
		return
	}
	for _, h := range r.Headers {
		if h.Key != "traceparent" {
			continue
		}
		l.looked++
		ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": string(h.Value)})
		if span := trace.SpanContextFromContext(ctx); span.IsSampled() {
			l.list = append(l.list, trace.Link{SpanContext: span})
		}
		return
	}
}

func (l *links) take() []trace.Link {
	list := l.list
	l.list, l.looked = nil, 0
	return list
}
