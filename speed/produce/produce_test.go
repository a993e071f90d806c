package produce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"millrace/features"
	"millrace/internal/storetest"
	"millrace/internal/telemetry"
	"millrace/windows"
)

const topic = "web.access.v1"

func weblog(t testing.TB) *features.Compiled {
	t.Helper()
	c, err := features.Compile(&features.Definitions{
		Project: "weblog",
		Sources: []*features.Source{{
			Name: "access", Topics: []string{topic, "web.access.v2"},
			Fields: []features.Field{
				{Name: "client", Type: windows.String, MaxBytes: 64, Required: true},
				{Name: "at", Type: windows.Int64},
				{Name: "path", Type: windows.String, MaxBytes: 1024},
				{Name: "status", Type: windows.Int64},
				{Name: "bytes", Type: windows.Int64},
				{Name: "share", Type: windows.Float64},
				{Name: "bot", Type: windows.Bool},
			},
			EventTime: features.EventTime{Field: "at", Unit: features.Milliseconds, Min: 0, Max: windows.MaxTime},
			MaxFuture: 60_000, EpochBits: 4,
		}},
		Entities: []*features.Entity{{Name: "visitor", Keys: []features.Key{{Name: "client", Type: windows.String}}}},
		Views: []*features.View{{
			Name: "visits", Entity: "visitor", Source: "access", Features: []features.Feature{{
				Name: "hits", Kind: windows.Aggregated, Op: windows.Count, Window: windows.Window{Kind: windows.Lifetime},
			}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func text(s string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
}

// consume returns what the topic holds, in the order of partitions and offsets.
func consume(t testing.TB, brokers []string, n int) []*kgo.Record {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var records []*kgo.Record
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for len(records) < n {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("%d of %d records: %v", len(records), n, err)
		}
		records = append(records, fetches.Records()...)
	}
	if len(records) != n {
		t.Fatalf("got %d records, want %d", len(records), n)
	}
	return records
}

func TestWebLog(t *testing.T) {
	brokers, _ := storetest.Kafka(t, 4, topic)
	begun := time.Now().Add(-time.Second)
	s, err := Run(t.Context(), Config{
		Brokers: brokers, Definitions: weblog(t), Source: "access", Format: Combined,
		Open: func() (io.ReadCloser, error) { return os.Open("../../examples/weblog/access.log") },
		Odd:  func(o OddLine) { t.Errorf("odd: %v", o) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.Records != 10_000 || s.Odd != 0 || len(s.Rejected) != 0 || s.NextLine != 0 || s.Stopped {
		t.Errorf("got %+v", s)
	}
	partitions, clients := map[string]int32{}, 0
	for _, r := range consume(t, brokers, 10_000) {
		var event struct {
			Client string    `json:"client"`
			At     int64     `json:"at"`
			Time   time.Time `json:"time"`
			Status int       `json:"status"`
			Path   *string   `json:"path"`
		}
		if err := json.Unmarshal(r.Value, &event); err != nil {
			t.Fatalf("%s: %v", r.Value, err)
		}
		if string(r.Key) != event.Client || event.Time.UnixMilli() != event.At || event.Time.Year() != 2015 || event.Status < 200 || event.Path == nil {
			t.Fatalf("key %q of %s", r.Key, r.Value)
		}
		if r.Timestamp.Before(begun) {
			t.Fatalf("timestamp %v: not when it was published", r.Timestamp)
		}
		if p, known := partitions[event.Client]; !known {
			partitions[event.Client], clients = r.Partition, clients+1
		} else if p != r.Partition {
			t.Fatalf("client %s in partitions %d and %d", event.Client, p, r.Partition)
		}
	}
	if clients != 1753 {
		t.Errorf("got %d clients, want 1753", clients)
	}
}

func TestJSONLinesResumeAndReport(t *testing.T) {
	brokers, _ := storetest.Kafka(t, 1, topic)
	input := strings.Join([]string{
		`{"client":"a","at":1000,  "q":"as it was"}`,
		``,
		`{"client":"b","at":"x"}`,
		`not json`,
		`{"client":"c","at":99999999999999}` + "\r",
		`{"client":"d","at":1000}`,
	}, "\n")
	var odd []OddLine
	cfg := Config{Brokers: brokers, Definitions: weblog(t), Source: "access", Open: text(input), Odd: func(o OddLine) { odd = append(odd, o) }, Limit: 2}
	s, err := Run(t.Context(), cfg)
	if err != nil || s.Records != 2 || s.NextLine != 4 || s.Stopped || s.Odd != 1 || len(odd) != 1 || odd[0] != (OddLine{2, "the line is empty"}) {
		t.Fatalf("got %+v, %v, odd %v", s, err, odd)
	}
	cfg.FromLine, cfg.Limit = s.NextLine, 0
	if s, err = Run(t.Context(), cfg); err != nil || s.Records != 3 || s.NextLine != 0 {
		t.Fatalf("got %+v, %v", s, err)
	}
	for reason, line := range map[string]int64{features.ReasonUndecodable: 4, features.ReasonEventTimeFuture: 5} {
		if r := s.Rejected[reason]; r.Records != 1 || r.FirstLine != line {
			t.Errorf("%s: got %+v", reason, r)
		}
	}
	var got []string
	for _, r := range consume(t, brokers, 5) {
		got = append(got, fmt.Sprintf("%s %s", r.Key, r.Value))
	}
	want := []string{
		`a {"client":"a","at":1000,  "q":"as it was"}`, `b {"client":"b","at":"x"}`, ` not json`,
		`c {"client":"c","at":99999999999999}`, `d {"client":"d","at":1000}`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

func TestRepeat(t *testing.T) {
	brokers, _ := storetest.Kafka(t, 1, topic)
	s, err := Run(t.Context(), Config{
		Brokers: brokers, Definitions: weblog(t), Source: "access", Open: text("{\"at\":1}\n{\"at\":2}\n"), Repeat: true, Limit: 5, FromLine: 2,
	})
	if err != nil || s.Records != 5 || s.Rejected[features.ReasonMissingField].Records != 5 {
		t.Fatalf("got %+v, %v", s, err)
	}
	_, err = Run(t.Context(), Config{Brokers: brokers, Definitions: weblog(t), Source: "access", Open: text(""), Repeat: true})
	if !errors.Is(err, ErrInput) {
		t.Errorf("repeat nothing: got %v", err)
	}
}

func TestErrors(t *testing.T) {
	brokers, _ := storetest.Kafka(t, 1, topic)
	for _, test := range []struct {
		change func(*Config)
		want   error
		text   string
	}{
		{func(c *Config) { c.Source = "acess" }, ErrUnknownSource, `unknown source "acess": did you mean access?`},
		{func(c *Config) { c.Source = "orders" }, ErrUnknownSource, `unknown source "orders": there are access`},
		{func(c *Config) { c.Topic = "web.access.v3" }, ErrUnknownTopic, `unknown topic "web.access.v3" of source access: did you mean web.access.v1?`},
		{func(c *Config) { c.Topic = "web.access.v2" }, ErrNoTopic, `no such topic: web.access.v2`},
		{func(c *Config) { c.Format = CSV }, ErrInput, `cannot read the input: it has no header`},
		{func(c *Config) { c.Open = func() (io.ReadCloser, error) { return nil, os.ErrNotExist } }, ErrInput, `cannot read the input: file does not exist`},
	} {
		cfg := Config{Brokers: brokers, Definitions: weblog(t), Source: "access", Open: text("")}
		test.change(&cfg)
		if _, err := Run(t.Context(), cfg); !errors.Is(err, test.want) || err.Error() != test.text {
			t.Errorf("got %v, want %s", err, test.text)
		}
	}
}

// pipe gives one chunk after the other and then blocks until it is closed.
type pipe struct {
	chunks chan string
	closed chan struct{}
}

func (p *pipe) Read(b []byte) (int, error) {
	select {
	case c := <-p.chunks:
		return copy(b, c), nil
	case <-p.closed:
		return 0, os.ErrClosed
	}
}

func (p *pipe) Close() error {
	close(p.closed)
	return nil
}

func TestStop(t *testing.T) {
	brokers, cluster := storetest.Kafka(t, 1, topic)
	var stored atomic.Int64
	stop := make(chan struct{})
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if stored.Add(1) == 1 {
			close(stop)
		}
		return nil, nil, false
	})
	ctx, cancel := context.WithCancel(t.Context())
	p := &pipe{chunks: make(chan string, 1), closed: make(chan struct{})}
	p.chunks <- "{\"client\":\"a\",\"at\":1}\n{\"client\":\"b\",\"at\":2}\n"
	go func() {
		<-stop // the events of a pipe that says nothing more do not wait for others
		cancel()
	}()
	s, err := Run(ctx, Config{Brokers: brokers, Definitions: weblog(t), Source: "access", Open: func() (io.ReadCloser, error) { return p, nil }})
	if err != nil || s.Records != 2 || !s.Stopped || s.NextLine != 3 {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestTooLargeForTopic(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	long := `{"client":"a","at":1,"q":"` + strings.Repeat("x", 1_020_000) + `"}`
	s, err := Run(t.Context(), Config{
		Brokers: cluster.ListenAddrs(), Definitions: weblog(t), Source: "access",
		Open: text(long + "\n" + strings.Repeat("y", features.MaxRecord+1) + "\n" + `{"client":"b","at":2}`),
	})
	if err != nil || s.Records != 1 || s.Odd != 2 {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestTraceparent(t *testing.T) {
	brokers, _ := storetest.Kafka(t, 1, topic)
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	_, err := Run(t.Context(), Config{
		Brokers: brokers, Definitions: weblog(t), Source: "access", Open: text(`{"client":"a","at":1}` + "\n" + `{"client":"a","at":2}`), Tracer: provider,
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range consume(t, brokers, 2) {
		got := trace.SpanContextFromContext(telemetry.Extract(t.Context(), r))
		if len(spans.GetSpans()) != 2 || !got.IsSampled() || got.TraceID() != spans.GetSpans()[i].SpanContext.TraceID() {
			t.Errorf("record %d: headers %v", i, r.Headers)
		}
	}
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		p := pace{speed: 10}
		for _, step := range []struct {
			at   windows.Time
			want time.Duration
		}{
			{5000, 0},
			{6000, 100 * time.Millisecond},
			{5500, 100 * time.Millisecond},
			{6000, 100 * time.Millisecond},
			{25_000, 2 * time.Second},
			{24_000, 2 * time.Second},
			{25_010, 2001 * time.Millisecond},
		} {
			p.wait(t.Context(), step.at)
			if got := time.Since(begun); got != step.want {
				t.Errorf("event at %d: published after %v, want %v", step.at, got, step.want)
			}
		}
		time.Sleep(time.Minute) // whoever is late does not wait
		late := time.Now()
		p.wait(t.Context(), 30_000)
		if time.Since(late) != 0 {
			t.Errorf("a late event waited %v", time.Since(late))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p.wait(ctx, windows.MaxTime)
		if got := time.Since(late); got != time.Second {
			t.Errorf("a stop took %v", got)
		}
		p = pace{speed: 1, begun: time.Now(), first: windows.MinTime, newest: windows.MinTime}
		p.wait(ctx, windows.MaxTime)
	})
}

func TestSpeed(t *testing.T) {
	for in, want := range map[string]Speed{"max": 0, "1x": 1, "0.5x": 0.5, "100x": 100} {
		var s Speed
		if err := s.UnmarshalText([]byte(in)); err != nil || s != want {
			t.Errorf("%s: got %v, %v", in, s, err)
		}
	}
	for _, in := range []string{"", "x", "0x", "-1x", "1", "NaNx", "Infx", "fast"} {
		var s Speed
		if err := s.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("%s: got %v", in, s)
		}
	}
}

func TestProgressText(t *testing.T) {
	p := Progress{Acknowledged: 1234567, Rate: 4115.4, Left: 5400 * time.Millisecond, Share: 0.414, Odd: 3}
	if got, want := p.String(), "1,234,567 records, 4,115 a second, 41 %, 5s left, 3 odd lines"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := (Progress{Left: -1, Share: -1}).String(), "0 records, 0 a second"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
