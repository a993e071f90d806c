package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"millrace/speed/produce"
)

// produceCmd publishes events from a file.
type produceCmd struct {
	storeFlags
	Source   string        `arg:"" help:"Source whose topic gets the events."`
	File     string        `arg:"" help:"File with the events; - for standard input."`
	Format   string        `help:"Form of the file: jsonl, csv or combined (a web server's access log); told from its name if empty." enum:",jsonl,csv,combined" default:""`
	Speed    produce.Speed `help:"Pace: max, or a factor of the events' own times such as 1x or 100x." default:"max" placeholder:"PACE"`
	Topic    string        `help:"Topic, for a source that has several; the first if empty." placeholder:"NAME"`
	Limit    int64         `help:"Publish at most this many records; 0 for all." default:"0"`
	FromLine int64         `help:"Line of the file to begin at." default:"1"`
	Repeat   bool          `help:"Begin again when the file ends, until stopped or at the limit."`
	JSON     bool          `help:"Print the summary as JSON." name:"json"`
}

func (produceCmd) Help() string {
	return `Publishes a file of events into a source's topic, as fast as Kafka takes them or at the events' own pace. JSON lines go through
untouched; CSV needs a header and takes the types of the source's fields. A line that cannot become a record is reported with its
number. Ctrl-C waits for what is on its way and says where to go on.

  millrace produce access access.log
  millrace produce orders orders.csv --speed 100x
  zcat events.jsonl.gz | millrace produce events - --limit 100000
  millrace produce access access.log --from-line 6001`
}

// Run publishes.
func (c *produceCmd) Run(a *app) error {
	if c.FromLine < 1 || c.Limit < 0 {
		return usagef("--from-line counts from 1, and --limit is not negative")
	}
	compiled, err := c.compiled()
	if err != nil {
		return err
	}
	cfg := produce.Config{
		Brokers: c.Kafka, Definitions: compiled, Source: c.Source, Topic: c.Topic, Format: produce.Format(c.Format),
		Speed: c.Speed, Limit: c.Limit, FromLine: c.FromLine, Repeat: c.Repeat,
	}
	if c.Format == "" {
		cfg.Format = produce.FormatOf(c.File)
	}
	if cfg.Open, cfg.Size, err = c.input(a); err != nil {
		return err
	}
	o, err := observeFlags{}.observe(a, "produce")
	if err != nil {
		return err
	}
	defer o.stop()
	cfg.Meter, cfg.Tracer = o.Meter, o.Tracer

	show := newProgressLine(a.stderr)
	cfg.ProgressEvery, cfg.Progress, cfg.Odd = show.every, show.progress, show.odd
	summary, err := produce.Run(a.ctx, cfg)
	show.clear()
	if summary.Topic != "" {
		if err := c.print(a, summary); err != nil {
			return err
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, produce.ErrUnknownSource), errors.Is(err, produce.ErrUnknownTopic):
		return usageError{err}
	case errors.Is(err, produce.ErrNoTopic):
		return fmt.Errorf("%w: create it, or run `millrace apply --partitions 4`", err)
	case errors.Is(err, produce.ErrInput):
		return fmt.Errorf("%s: %w", c.File, err)
	default:
		return tryAgain(err)
	}
}

// input says how to open the events, and how large they are if that is known.
func (c *produceCmd) input(a *app) (open func() (io.ReadCloser, error), size int64, err error) {
	if c.File == "-" {
		if c.Repeat {
			return nil, 0, usagef("--repeat: standard input cannot be read again")
		}
		return func() (io.ReadCloser, error) { return io.NopCloser(a.stdin), nil }, 0, nil
	}
	info, err := os.Stat(c.File)
	switch {
	case err != nil:
		return nil, 0, usageError{err}
	case info.IsDir():
		return nil, 0, usagef("%s is a folder", c.File)
	case info.Mode().IsRegular():
		size = info.Size()
	}
	return func() (io.ReadCloser, error) { return os.Open(c.File) }, size, nil
}

func (c *produceCmd) print(a *app, s produce.Summary) error {
	if c.JSON {
		return json.NewEncoder(a.stdout).Encode(s)
	}
	for _, reason := range slices.Sorted(maps.Keys(s.Rejected)) {
		r := s.Rejected[reason]
		_, _ = fmt.Fprintf(a.stderr, "%s: %s records will be quarantined, the first is line %d: %s\n",
			reason, produce.Thousands(r.Records), r.FirstLine, strings.TrimPrefix(r.Field+": "+r.Detail, ": "))
	}
	_, err := fmt.Fprintln(a.stdout, s)
	return err
}

// progressLine shows how far a long command is: a line that is written over on a terminal, plain lines elsewhere.
type progressLine struct {
	w        io.Writer
	terminal bool
	every    time.Duration
	reported int
}

func newProgressLine(w io.Writer) *progressLine {
	l := &progressLine{w: w, every: 5 * time.Second}
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			l.terminal, l.every = true, 250*time.Millisecond
		}
	}
	return l
}

const eraseLine = "\r\x1b[K"

func (l *progressLine) progress(p produce.Progress) {
	if l.terminal {
		_, _ = fmt.Fprint(l.w, eraseLine, p)
		return
	}
	_, _ = fmt.Fprintln(l.w, p)
}

// odd reports the first lines that are no records; the summary counts them all.
func (l *progressLine) odd(o produce.OddLine) {
	const most = 20
	l.reported++
	l.clear()
	switch {
	case l.reported <= most:
		_, _ = fmt.Fprintf(l.w, "line %d is no record: %s\n", o.Line, o.Reason)
	case l.reported == most+1:
		_, _ = fmt.Fprintln(l.w, "more lines are no records: they are counted, but not shown")
	}
}

func (l *progressLine) clear() {
	if l.terminal {
		_, _ = fmt.Fprint(l.w, eraseLine)
	}
}
