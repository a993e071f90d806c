package produce

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"millrace/features"
)

// Config says what to publish where.
type Config struct {
	// Brokers are Kafka's addresses, host:port.
	Brokers []string
	// Definitions hold the source.
	Definitions *features.Compiled
	// Source is the name of the source whose topic gets the events.
	Source string
	// Topic is one of the source's topics; "" for the first.
	Topic string
	// Open opens the input, again for each round of Repeat. What it returns is closed when the input is no longer read.
	Open func() (io.ReadCloser, error)
	// Size is the input's length in bytes, for the time left; 0 if unknown.
	Size int64
	// Format is how events are written in the input. Default JSONLines.
	Format Format
	// Speed is how many times faster than the events' own times they are published; 0 for as fast as possible.
	Speed Speed
	// Limit is how many records to publish at most; 0 for all.
	Limit int64
	// FromLine is the line of the input to begin at; the first is 1, the default. A CSV's header is read all the same.
	FromLine int64
	// Repeat begins again at the input's first line when it ends, until Limit or a stop.
	Repeat bool
	// Progress, if not nil, is told how far it is: every ProgressEvery, default 5 seconds.
	Progress      func(Progress)
	ProgressEvery time.Duration
	// Odd, if not nil, is told of each line that cannot become a record. It is called from one goroutine at a time.
	Odd func(OddLine)

	Meter  metric.MeterProvider // nil: off
	Tracer trace.TracerProvider // nil: off; else every record carries a W3C traceparent
}

// Speed is a pace: 1 for the events' own.
type Speed float64

// UnmarshalText reads max, 1x, 0.5x, 100x.
func (s *Speed) UnmarshalText(text []byte) error {
	if string(text) == "max" {
		*s = 0
		return nil
	}
	digits, ok := strings.CutSuffix(string(text), "x")
	v, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || !(v > 0 && v <= 1e9) {
		return fmt.Errorf("speed %q: write max, or a factor such as 1x, 0.5x or 100x", text)
	}
	*s = Speed(v)
	return nil
}

// Format is how events are written in a file.
type Format string

// The formats.
const (
	JSONLines Format = "jsonl"    // an object a line, published as it is
	CSV       Format = "csv"      // a header, then a record a line
	Combined  Format = "combined" // Apache's and nginx' access log
)

// FormatOf guesses a file's format from its name.
func FormatOf(name string) Format {
	switch {
	case strings.HasSuffix(name, ".csv"):
		return CSV
	case strings.HasSuffix(name, ".log"):
		return Combined
	default:
		return JSONLines
	}
}

// ErrUnknownSource says that no source has the configured name.
var ErrUnknownSource = errors.New("unknown source")

// ErrUnknownTopic says that the source does not have the configured topic.
var ErrUnknownTopic = errors.New("unknown topic")

// ErrNoTopic says that the broker has no such topic.
var ErrNoTopic = errors.New("no such topic")

// ErrInput says that the input cannot be read in its format.
var ErrInput = errors.New("cannot read the input")

func (c Config) withDefaults() Config {
	if c.Format == "" {
		c.Format = JSONLines
	}
	if c.FromLine == 0 {
		c.FromLine = 1
	}
	if c.ProgressEvery == 0 {
		c.ProgressEvery = 5 * time.Second
	}
	if c.Meter == nil {
		c.Meter = metricnoop.NewMeterProvider()
	}
	if c.Tracer == nil {
		c.Tracer = tracenoop.NewTracerProvider()
	}
	return c
}

// target is what the configuration names, found.
type target struct {
	source *features.Source
	topic  string
	key    int // index of the field that is a record's key, -1 for none
}

func (c Config) target() (target, error) {
	switch {
	case len(c.Brokers) == 0:
		return target{}, errors.New("no brokers")
	case c.Open == nil:
		return target{}, errors.New("no input")
	case c.FromLine < 1 || c.Limit < 0:
		return target{}, errors.New("lines are counted from 1, and a limit is positive")
	case !slices.Contains([]Format{JSONLines, CSV, Combined}, c.Format):
		return target{}, fmt.Errorf("format %q: there are jsonl, csv and combined", c.Format)
	}
	source := c.Definitions.Source(c.Source)
	if source == nil {
		var names []string
		for _, s := range c.Definitions.Sources {
			names = append(names, s.Name)
		}
		return target{}, fmt.Errorf("%w %q: %s", ErrUnknownSource, c.Source, oneOf(c.Source, names))
	}
	t := target{source, c.Topic, keyField(c.Definitions, source)}
	if t.topic == "" {
		t.topic = source.Topics[0]
	}
	if !slices.Contains(source.Topics, t.topic) {
		return target{}, fmt.Errorf("%w %q of source %s: %s", ErrUnknownTopic, t.topic, source.Name, oneOf(t.topic, source.Topics))
	}
	return t, nil
}

func oneOf(name string, names []string) string {
	if near := features.Nearest(name, names); near != "" {
		return "did you mean " + near + "?"
	}
	return "there are " + strings.Join(names, ", ")
}

// keyField finds the field that keeps an entity in one partition: that of the first key of the first entity with a view over
// the source. Any other choice is as right: an entity may have events in every partition.
func keyField(c *features.Compiled, source *features.Source) int {
	for _, e := range c.Entities {
		for _, v := range c.Views {
			if v.Source == source && v.Entity == e {
				return v.KeyFields[0]
			}
		}
	}
	return -1
}
