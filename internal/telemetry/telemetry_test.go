package telemetry

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

func setup(t *testing.T, getenv func(string) string) *Telemetry {
	t.Helper()
	tel, err := Setup(t.Context(), Config{Role: "serve", Version: "v1.2.3", Commit: "abc", GoVersion: "go1.26", Getenv: getenv})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tel.Shutdown(context.WithoutCancel(t.Context())) })
	return tel
}

func scrape(t *testing.T, tel *Telemetry, accept string) string {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	tel.MetricsHandler().ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("metrics: status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func wantLines(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			var near []string // the whole text is long
			for line := range strings.Lines(text) {
				if name, _, _ := strings.Cut(w, "{"); strings.HasPrefix(line, name) {
					near = append(near, line)
				}
			}
			t.Errorf("metrics without %q; of that name there is:\n%s", w, strings.Join(near, ""))
		}
	}
}

func TestPrometheus(t *testing.T) {
	tel := setup(t, nil)
	meter := tel.Meter.Meter("test")
	for _, name := range []string{
		"http.server.request.duration", "db.client.operation.duration",
		"millrace_speed_flush_duration_seconds", "millrace.serve.request.duration",
	} {
		h, err := meter.Float64Histogram(name, metric.WithUnit("s"))
		if err != nil {
			t.Fatal(err)
		}
		h.Record(t.Context(), 0.0049)
	}
	c, err := meter.Int64Counter("millrace_speed_events")
	if err != nil {
		t.Fatal(err)
	}
	c.Add(t.Context(), 7)

	text := scrape(t, tel, "text/plain")
	wantLines(t, text,
		`millrace_build_info{commit="abc",go_version="go1.26",version="v1.2.3"} 1`,
		"go_goroutines ", "process_start_time_seconds ", "millrace_speed_events_total 7\n",
		`target_info{`, `service_name="millrace"`, `millrace_role="serve"`, `service_version="v1.2.3"`, `service_instance_id="`)
	for _, name := range []string{
		"http_server_request_duration_seconds", "db_client_operation_duration_seconds",
		"millrace_speed_flush_duration_seconds", "millrace_serve_request_duration_seconds",
	} {
		// The objective's own edge, and the next one below it.
		wantLines(t, text, name+`_bucket{le="0.005"} 1`, name+`_bucket{le="0.004"} 0`, name+`_bucket{le="1"} 1`)
		if strings.Contains(text, name+`_bucket{le="5"}`) {
			t.Errorf("%s has the SDK's default edges", name)
		}
	}
}

func TestExemplar(t *testing.T) {
	tel := setup(t, nil)
	h, err := tel.Meter.Meter("test").Float64Histogram("http.server.request.duration", metric.WithUnit("s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, span := sdktrace.NewTracerProvider().Tracer("test").Start(t.Context(), "read")
	h.Record(ctx, 0.003)
	span.End()
	wantLines(t, scrape(t, tel, "application/openmetrics-text"), `trace_id="`+span.SpanContext().TraceID().String()+`"`, "# EOF")
}

func TestOffByDefault(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"nothing set":  {},
		"SDK disabled": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
		"no exporter":  {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
	} {
		tel := setup(t, func(name string) string { return env[name] })
		if _, off := tel.Tracer.(tracenoop.TracerProvider); !off {
			t.Errorf("%s: traces are on", name)
		}
		if err := tel.Shutdown(t.Context()); err != nil {
			t.Errorf("%s: shutdown: %v", name, err)
		}
	}
}

func TestOTLP(t *testing.T) {
	var (
		mu    sync.Mutex
		paths = map[string]string{}
	)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		paths[r.URL.Path] += string(body)
	}))
	defer collector.Close()

	for _, test := range []struct {
		env  map[string]string
		want []string
	}{
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector.URL + "/"}, []string{"/v1/traces", "/v1/metrics"}},
		{map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collector.URL + "/own"}, []string{"/own"}},
	} {
		clear(paths)
		tel := setup(t, func(name string) string { return test.env[name] })
		c, err := tel.Meter.Meter("test").Int64Counter("millrace_test")
		if err != nil {
			t.Fatal(err)
		}
		c.Add(t.Context(), 1)
		_, span := tel.Tracer.Tracer("test").Start(t.Context(), "some span")
		span.End()
		if err := tel.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		if len(paths) != len(test.want) {
			t.Errorf("%v: collector got %d paths, want %v", test.env, len(paths), test.want)
		}
		for _, path := range test.want {
			if content := paths[path]; !strings.Contains(content, "millrace") {
				t.Errorf("%v: collector got %q at %s", test.env, content, path)
			}
		}
		mu.Unlock()
	}
}
