package telemetry

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// TestKafka sends one record through a broker: the hooks count it, and the producer's trace arrives with it.
func TestKafka(t *testing.T) {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "shop.orders.v1"))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	tel := setup(t, nil)
	hooks, err := KafkaHooks(tel.Meter)
	if err != nil {
		t.Fatal(err)
	}
	counted := make(countedHook, 1) // ProduceSync may return before the hooks have run
	client, err := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...), kgo.ConsumeTopics("shop.orders.v1"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.WithHooks(append(hooks, counted)...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	producing, span := sdktrace.NewTracerProvider().Tracer("test").Start(ctx, "send")
	sent := &kgo.Record{Topic: "shop.orders.v1", Value: []byte("{}"), Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte("application/json")}}}
	Inject(producing, sent)
	span.End()
	if err := client.ProduceSync(ctx, sent).FirstErr(); err != nil {
		t.Fatal(err)
	}
	fetches := client.PollFetches(ctx)
	if err := fetches.Err(); err != nil {
		t.Fatal(err)
	}
	got := fetches.Records()
	if len(got) != 1 {
		t.Fatalf("got %d records, want 1", len(got))
	}
	if c := (HeaderCarrier{&got[0].Headers}); c.Get("content-type") != "application/json" {
		t.Errorf("a foreign header did not pass: %v", got[0].Headers)
	}
	arrived := trace.SpanContextFromContext(Extract(t.Context(), got[0]))
	if arrived.TraceID() != span.SpanContext().TraceID() || arrived.SpanID() != span.SpanContext().SpanID() || !arrived.IsSampled() || !arrived.IsRemote() {
		t.Errorf("trace context: got %v, sent %v", arrived, span.SpanContext())
	}
	<-counted
	wantLines(t, scrape(t, tel, "text/plain"),
		`messaging_client_sent_messages_total{messaging_destination_name="shop.orders.v1",messaging_operation_name="send",messaging_system="kafka"} 1`,
		`messaging_client_consumed_messages_total{messaging_destination_name="shop.orders.v1",messaging_operation_name="poll",messaging_system="kafka"} 1`,
		"millrace_kafka_produce_size_bytes_total{", "millrace_kafka_fetch_size_bytes_total{",
		`millrace_kafka_request_duration_seconds_count{request="Produce"} 1`)
}

// countedHook stands behind the hooks under test and says when they have counted a produced batch.
type countedHook chan struct{}

func (c countedHook) OnProduceBatchWritten(kgo.BrokerMetadata, string, int32, kgo.ProduceBatchMetrics) {
	c <- struct{}{}
}

func TestKafkaHooksOff(t *testing.T) {
	if _, err := KafkaHooks(nil); err != nil {
		t.Error(err)
	}
}

func TestHeaderCarrier(t *testing.T) {
	shared := []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "traceparent", Value: []byte("old")}, {Key: "b", Value: []byte("2")}}
	headers := shared
	c := HeaderCarrier{&headers}
	c.Set("traceparent", "new")
	if got := c.Get("traceparent"); got != "new" {
		t.Errorf("after Set: got %q", got)
	}
	if got := strings.Join(c.Keys(), ","); got != "a,b,traceparent" {
		t.Errorf("keys: got %s", got)
	}
	if got := string(shared[1].Value); got != "old" {
		t.Errorf("Set wrote into a slice that another record may hold: %q", got)
	}
	if got := c.Get("gone"); got != "" {
		t.Errorf("missing header: got %q", got)
	}

	// No trace: no header, and Extract leaves the context alone.
	r := &kgo.Record{}
	Inject(t.Context(), r)
	if len(r.Headers) != 0 {
		t.Errorf("Inject without a trace wrote %v", r.Headers)
	}
	if trace.SpanContextFromContext(Extract(t.Context(), r)).IsValid() {
		t.Error("Extract found a trace in no headers")
	}
	r.Headers = []kgo.RecordHeader{{Key: "traceparent", Value: []byte("00-nonsense")}}
	if trace.SpanContextFromContext(Extract(t.Context(), r)).IsValid() {
		t.Error("Extract took a malformed traceparent")
	}
}

func TestLogHandler(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(LogHandler(slog.NewJSONHandler(&out, nil))).With("role", "speed")
	log.InfoContext(t.Context(), "outside")
	if strings.Contains(out.String(), "trace_id") {
		t.Errorf("outside a span: %s", out.String())
	}
	out.Reset()
	ctx, span := sdktrace.NewTracerProvider().Tracer("test").Start(t.Context(), "x")
	log.InfoContext(ctx, "inside")
	for _, want := range []string{`"trace_id":"` + span.SpanContext().TraceID().String(), `"span_id":"` + span.SpanContext().SpanID().String(), `"role":"speed"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("inside a span: %s lacks %s", out.String(), want)
		}
	}
}
