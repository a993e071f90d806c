package archive

import (
	"errors"
	"log/slog"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"millrace/features"
)

// Config is what an Archiver is made of.
type Config struct {
	// Brokers are the seed brokers of Kafka, host:port.
	Brokers []string
	// Bound is the applied definitions.
	Bound *features.Bound
	// ClickHouse is a connection to the project's database.
	ClickHouse driver.Conn
	// Logger, Meter and Tracer may be nil: then nothing is said.
	Logger *slog.Logger
	Meter  metric.MeterProvider
	Tracer trace.TracerProvider
	// ChunkRows is how many records are written together at most; default 50,000. It is also how many raw records are decoded
	// together for a new clean table.
	ChunkRows int
	// ChunkBytes is how many bytes of records make a chunk full; one fetch more may be in hand. Default 32 MiB.
	ChunkBytes int
	// ChunkWait is how long a record waits for others at most; default 250 ms.
	ChunkWait time.Duration
	// StopWithin bounds the last write of records in hand, at a stop or when partitions go to another member; it must be less
	// than the rebalance timeout of 10 s. Default 5 s. What is not written by then is read again by the next owner.
	StopWithin time.Duration
	// ClientOptions are added to the Kafka clients', for tests that bring their own network.
	ClientOptions []kgo.Opt
}

func (c Config) withDefaults() (Config, error) {
	if len(c.Brokers) == 0 || c.Bound == nil || c.ClickHouse == nil {
		return c, errors.New("archive: Brokers, Bound and ClickHouse are needed")
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
	if c.ChunkRows == 0 {
		c.ChunkRows = 50_000
	}
	if c.ChunkBytes == 0 {
		c.ChunkBytes = 32 << 20
	}
	if c.ChunkWait == 0 {
		c.ChunkWait = 250 * time.Millisecond
	}
	if c.StopWithin == 0 {
		c.StopWithin = 5 * time.Second
	}
	return c, nil
}
