package batch

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"millrace/features"
	"millrace/features/keyspace"
)

// Config is what a Runner is made of.
type Config struct {
	// ClickHouse is a connection to the project's database.
	ClickHouse driver.Conn
	// Redis is the online store. All that the runner writes to it may be written twice, so that its client may retry.
	Redis redis.UniversalClient
	// Bound is the applied definitions.
	Bound *features.Bound
	// Logger, Meter and Tracer may be nil: then nothing is said.
	Logger *slog.Logger
	Meter  metric.MeterProvider
	Tracer trace.TracerProvider
	// Progress, if not nil, is called about once a second during a run and once at its end, by the goroutine that uploads.
	Progress func(Progress)
}

// Progress is how far a run has come.
type Progress struct {
	View    string              `json:"view"`
	Version uint32              `json:"version"`
	Run     uint64              `json:"run"`
	State   string              `json:"state"`             // running or success
	Resumed bool                `json:"resumed,omitempty"` // the run was begun earlier
	At      []features.Position `json:"positions"`         // what the bases reach to
	// Entities are those whose base is written or was left to a newer run; Newer are the latter.
	Entities uint64 `json:"entities"`
	Newer    uint64 `json:"newer"`
	// Deltas are the fields removed because the bases cover them.
	Deltas uint64 `json:"deltas_removed"`
	// Events is about how many of Total events have been read.
	Events  uint64        `json:"events"`
	Total   uint64        `json:"total_events"`
	Elapsed time.Duration `json:"elapsed_ns"`
	Left    time.Duration `json:"left_ns,omitempty"` // an estimate
}

// Rate is how many entities are written in a second.
func (p Progress) Rate() float64 {
	if p.Elapsed <= 0 {
		return 0
	}
	return float64(p.Entities) / p.Elapsed.Seconds()
}

// Runner writes the bases of views.
type Runner struct {
	cfg     Config
	space   keyspace.Space
	metrics metrics
	tracer  trace.Tracer
	sizes   sizes
}

// sizes are the units of work. Tests make them small.
type sizes struct {
	span     uint64        // events of one query
	pipeline int           // entities of one exchange with Redis
	record   uint64        // entities between two records of how far a run is …
	every    time.Duration // … which are at least this far apart
}

// New returns a Runner.
func New(cfg Config) (*Runner, error) {
	if cfg.ClickHouse == nil || cfg.Redis == nil || cfg.Bound == nil {
		return nil, errors.New("batch: ClickHouse, Redis and Bound are needed")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Meter == nil {
		cfg.Meter = metricnoop.NewMeterProvider()
	}
	if cfg.Tracer == nil {
		cfg.Tracer = tracenoop.NewTracerProvider()
	}
	m, err := newMetrics(cfg.Meter)
	if err != nil {
		return nil, fmt.Errorf("batch: %w", err)
	}
	return &Runner{
		cfg: cfg, space: keyspace.Space{Project: cfg.Bound.Registry.Project}, metrics: m, tracer: cfg.Tracer.Tracer("millrace/batch"),
		// A record is one row; more of them than one a second would be many small parts for the engine to merge.
		sizes: sizes{span: eventsPerSpan, pipeline: 300, record: 5000, every: time.Second},
	}, nil
}
