package serving

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// TestTraceReachesRedis: a caller's trace goes on through the request to its round trip to Redis.
func TestTraceReachesRedis(t *testing.T) {
	f := newFixture(t, `project: traced
sources:
  s:
    topic: t
    fields: {user: string, at: int64}
    event_time: {field: at, unit: ms}
entities:
  user: {keys: {user: string}}
views:
  v:
    entity: user
    source: s
    window: {type: lifetime}
    features:
      n: {aggregate: count}
`)
	f.complete("one")
	spans := tracetest.NewSpanRecorder()
	server, err := New(Config{Redis: f.rdb, Bound: f.bound, Tracer: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))})
	if err != nil {
		t.Fatal(err)
	}
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	for _, body := range []string{
		`{"features":["v:n"],"entities":{"user":["a"]}}`,
		`{"features":["v:n"],"entities":{"user":["a","b","c"]}}`,
	} {
		r := httptest.NewRequest(http.MethodPost, "http://localhost/get-online-features", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("traceparent", "00-"+trace+"-00f067aa0ba902b7-01")
		w := httptest.NewRecorder()
		server.Handler().ServeHTTP(w, r)
		if w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	parents := map[string]string{} // span id -> name
	for _, s := range spans.Ended() {
		parents[s.SpanContext().SpanID().String()] = s.Name()
	}
	found := 0
	for _, s := range spans.Ended() {
		if s.Name() == "PIPELINE" && s.SpanContext().TraceID().String() == trace && parents[s.Parent().SpanID().String()] == "POST /get-online-features" {
			found++
		}
	}
	if found < 2 {
		t.Fatalf("%d spans of Redis under the two requests, of %v", found, parents)
	}
}
