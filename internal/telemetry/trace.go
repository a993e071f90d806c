package telemetry

import (
	"context"
	"log/slog"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Propagator carries W3C trace context alone: baggage could hold anything, personal data too.
func Propagator() propagation.TextMapPropagator { return propagation.TraceContext{} }

// HeaderCarrier lets a propagator read and write the headers of a Kafka record. Like Kafka's own clients it takes the last
// header of a name; setting one replaces all of that name and leaves the others as they are.
type HeaderCarrier struct{ Headers *[]kgo.RecordHeader }

// Get returns the value of a header, "" without one.
func (c HeaderCarrier) Get(key string) string {
	for _, h := range slices.Backward(*c.Headers) {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// Set puts a header in the place of all others of its name.
func (c HeaderCarrier) Set(key, value string) {
	kept := make([]kgo.RecordHeader, 0, len(*c.Headers)+1) // a new slice: records of one batch may share theirs
	for _, h := range *c.Headers {
		if h.Key != key {
			kept = append(kept, h)
		}
	}
	kept = append(kept, kgo.RecordHeader{Key: key, Value: []byte(value)})
	*c.Headers = kept
}

// Keys returns the names of the headers.
func (c HeaderCarrier) Keys() []string {
	keys := make([]string, len(*c.Headers))
	for i, h := range *c.Headers {
		keys[i] = h.Key
	}
	return keys
}

// Inject writes ctx's trace into a record's headers, and nothing where ctx has none.
func Inject(ctx context.Context, r *kgo.Record) {
	if trace.SpanContextFromContext(ctx).IsValid() {
		Propagator().Inject(ctx, HeaderCarrier{&r.Headers})
	}
}

// Extract returns ctx with the trace of the record's producer, or ctx itself where the headers carry none.
func Extract(ctx context.Context, r *kgo.Record) context.Context {
	return Propagator().Extract(ctx, HeaderCarrier{&r.Headers})
}

// LogHandler adds trace_id and span_id to the lines that are logged inside a span.
func LogHandler(next slog.Handler) slog.Handler { return logHandler{next} }

type logHandler struct{ slog.Handler }

func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		r.AddAttrs(slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logHandler{h.Handler.WithAttrs(attrs)}
}

func (h logHandler) WithGroup(name string) slog.Handler { return logHandler{h.Handler.WithGroup(name)} }
