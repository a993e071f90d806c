package speed

import (
	"errors"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"millrace/features"
)

// Config is what a Folder is made of.
type Config struct {
	// Brokers are the seed brokers of Kafka, host:port.
	Brokers []string
	// Redis is the online store. Its client must not retry (MaxRetries -1): a retried flush is an unknown outcome, which the
	// folder resolves by the marker.
	Redis redis.UniversalClient
	// Bound is the applied definitions.
	Bound *features.Bound
	// Logger, Meter and Tracer may be nil: then nothing is said.
	Logger *slog.Logger
	Meter  metric.MeterProvider
	Tracer trace.TracerProvider
	// FlushEvery is how long changes may wait under load, where waiting makes many changes of a key one; default 1 s.
	FlushEvery time.Duration
	// FlushAfter is how long changes wait when the folder has caught up; default 5 ms.
	FlushAfter time.Duration
	// CompareEvery is how often markers of quiet units are compared and advanced; default 1 s.
	CompareEvery time.Duration
	// MaxPoll bounds the records of one poll, so that a batch ends well within the rebalance timeout; default 20,000.
	MaxPoll int
	// MaxEntities bounds the entities in memory; past it memory is given up and read again on demand. Default 1,000,000.
	MaxEntities int
	// StopWithin bounds the last flush of partitions that are given away, at a stop or to another member; it must be less
	// than the rebalance timeout of 10 s. Default 5 s.
	StopWithin time.Duration
	// ClientOptions are added to the Kafka client's, for tests that bring their own network.
	ClientOptions []kgo.Opt
}

func (c Config) withDefaults() (Config, error) {
	if len(c.Brokers) == 0 || c.Redis == nil || c.Bound == nil {
		return c, errors.New("speed: Brokers, Redis and Bound are needed")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Meter == nil {
		c.Meter = metricnoop.NewMeterProvider()
	}
	if c.Tracer == nil {
		c.Tracer = tracenoop.NewTracerProvider()
	}
	setDefault(&c.FlushEvery, time.Second)
	setDefault(&c.FlushAfter, 5*time.Millisecond)
	setDefault(&c.CompareEvery, time.Second)
	setDefault(&c.StopWithin, 5*time.Second)
	setDefault(&c.MaxPoll, 20_000)
	setDefault(&c.MaxEntities, 1_000_000)
	return c, nil
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}
