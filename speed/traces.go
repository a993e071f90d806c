package speed

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// traces carries a producer's trace from a record's header to the flush that makes the record visible.
type traces struct {
	tracer trace.Tracer
	on     bool
	spans  []trace.Span // of traced records that are not flushed yet
}

// maxTraced bounds the records of one flush that get a span.
const maxTraced = 32

func newTraces(provider trace.TracerProvider) *traces {
	_, off := provider.(tracenoop.TracerProvider)
	return &traces{tracer: provider.Tracer("millrace/speed"), on: !off}
}

// saw starts a span for a record that carries a sampled trace.
func (t *traces) saw(r *kgo.Record) {
	if !t.on || len(r.Headers) == 0 || len(t.spans) >= maxTraced {
		return
	}
	for _, h := range r.Headers {
		if h.Key != "traceparent" {
			continue
		}
		ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": string(h.Value)})
		if !trace.SpanContextFromContext(ctx).IsSampled() {
			return
		}
		_, span := t.tracer.Start(ctx, "process "+r.Topic, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes( //nolint:spancheck // ended by the flush that the record is in
			attribute.Int64("messaging.kafka.offset", r.Offset), attribute.Int("messaging.destination.partition.id", int(r.Partition))))
		t.spans = append(t.spans, span)
		return //nolint:spancheck // as above
	}
}

// flush starts the span of a flush, linked to those of the records in it; done ends them all.
func (t *traces) flush(ctx context.Context) (_ context.Context, done func()) {
	if len(t.spans) == 0 {
		return ctx, func() {}
	}
	links := make([]trace.Link, len(t.spans))
	for i, s := range t.spans {
		links[i] = trace.Link{SpanContext: s.SpanContext()}
	}
	// The flush itself belongs to the first record's trace, so that one trace shows the whole way.
	ctx = trace.ContextWithSpan(ctx, t.spans[0])
	ctx, span := t.tracer.Start(ctx, "flush", trace.WithLinks(links...))
	spans := t.spans
	t.spans = nil
	return ctx, func() {
		span.End()
		for _, s := range spans {
			s.End()
		}
	}
}
