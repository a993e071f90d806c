package produce

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"millrace/features"
	"millrace/windows"
)

// event is a line of the input, made ready to be published.
type event struct {
	line       int64
	value, key []byte
	odd        string // why it cannot become a record
	rejection  *features.Rejection
	time       windows.Time // if there is no rejection
	read       int64        // bytes of the input up to its end
}

// batchSize is how many events are handed over at once: enough that the hand-over costs nothing.
const batchSize = 256

// nextFunc returns the next line as a JSON object, or why it is odd; io.EOF behind the last. Both are good until it is called again.
type nextFunc func() (line int64, value []byte, odd string, err error)

// reader turns the input into events.
type reader struct {
	cfg     Config
	target  target
	decoder *features.Decoder
	row     []windows.Value
	arena   []byte
}

func newReader(cfg Config, t target) *reader {
	return &reader{cfg: cfg, target: t, decoder: features.NewDecoder(t.source), row: make([]windows.Value, len(t.source.Fields))}
}

// read sends the events of the whole input in batches, and then closes out. It returns nil when ctx ends.
func (r *reader) read(ctx context.Context, out chan<- []event) error {
	defer close(out)
	for from := r.cfg.FromLine; ; from = 1 {
		n, err := r.round(ctx, out, from)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("%w: %w", ErrInput, err)
		case !r.cfg.Repeat:
			return nil
		case n == 0:
			return fmt.Errorf("%w: it has no lines to repeat", ErrInput)
		}
	}
}

// round reads the input once and returns how many lines it found.
func (r *reader) round(ctx context.Context, out chan<- []event, from int64) (lines int64, err error) {
	input, err := r.cfg.Open()
	if err != nil {
		return 0, err
	}
	// A pending read of a pipe ends when it is closed, where the system can do that.
	closeInput := context.AfterFunc(ctx, func() { _ = input.Close() })
	defer func() {
		if closeInput() {
			_ = input.Close()
		}
	}()
	counted := &countingReader{from: input}
	buffered := bufio.NewReaderSize(counted, features.MaxRecord+2) // a line of MaxRecord and its end
	next, err := r.format(buffered)
	if err != nil {
		return 0, err
	}
	batch := make([]event, 0, batchSize)
	send := func() bool {
		if len(batch) == 0 {
			return true
		}
		select {
		case out <- batch:
			batch = make([]event, 0, batchSize)
			return true
		case <-ctx.Done():
			return false
		}
	}
	for {
		line, value, odd, err := next()
		if errors.Is(err, io.EOF) {
			send()
			return lines, nil
		}
		if err != nil {
			send()
			return lines, err
		}
		lines++
		if line < from {
			continue
		}
		batch = append(batch, r.event(line, value, odd, counted.n-int64(buffered.Buffered())))
		// What waits for more input must not wait here.
		if (len(batch) == batchSize || buffered.Buffered() == 0) && !send() {
			return lines, nil
		}
	}
}

func (r *reader) format(input *bufio.Reader) (nextFunc, error) {
	switch r.cfg.Format {
	case CSV:
		return csvRecords(input, r.target.source)
	case Combined:
		var dst []byte
		return lines(input, func(line []byte) (value []byte, odd string) {
			dst, odd = appendCombined(dst[:0], line)
			return dst, odd
		}), nil
	default:
		return lines(input, func(line []byte) ([]byte, string) { return line, "" }), nil
	}
}

// event keeps what the publisher needs of a line.
func (r *reader) event(line int64, value []byte, odd string, read int64) event {
	e := event{line: line, odd: odd, read: read}
	if odd != "" {
		return e
	}
	e.value = r.keep(value)
	// The record gets its timestamp a moment later, so that this judgement is the speed layer's, but for an event that is within
	// that moment of the bound.
	e.time, e.rejection = r.decoder.Decode(e.value, windows.Time(time.Now().UnixMilli()), r.row)
	if r.target.key >= 0 {
		e.key = r.keyText(r.row[r.target.key])
	}
	return e
}

// keyText is the text of a key's field; nil, for any partition, if there is none.
func (r *reader) keyText(v windows.Value) []byte {
	var number [20]byte
	switch v.Kind {
	case windows.Text:
		return r.keep([]byte(v.Str))
	case windows.Integer:
		return r.keep(strconv.AppendInt(number[:0], v.Int(), 10))
	case windows.Boolean:
		return r.keep(strconv.AppendBool(number[:0], v.Bool()))
	default:
		return nil
	}
}

// keep copies b into a large piece of memory that many events share: the client holds them until Kafka has them.
func (r *reader) keep(b []byte) []byte {
	const piece = 256 << 10
	if len(b) > cap(r.arena)-len(r.arena) {
		r.arena = make([]byte, 0, max(piece, len(b)))
	}
	start := len(r.arena)
	r.arena = append(r.arena, b...)
	return r.arena[start:len(r.arena):len(r.arena)]
}

// lines cuts the input into lines, without their ends, and converts each.
func lines(input *bufio.Reader, convert func([]byte) (value []byte, odd string)) nextFunc {
	var n int64
	return func() (int64, []byte, string, error) {
		line, err := input.ReadSlice('\n')
		if len(line) == 0 {
			return 0, nil, "", err
		}
		n++
		if errors.Is(err, bufio.ErrBufferFull) {
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = input.ReadSlice('\n')
			}
			return n, nil, tooLong, ignoreEOF(err)
		}
		line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
		switch {
		case len(line) == 0:
			return n, nil, "the line is empty", ignoreEOF(err)
		case len(line) > features.MaxRecord:
			return n, nil, tooLong, ignoreEOF(err)
		}
		value, odd := convert(line)
		return n, value, odd, ignoreEOF(err)
	}
}

const tooLong = "longer than 1 MiB"

// ignoreEOF: a last line without an end is a line. The end comes with the next call.
func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

type countingReader struct {
	from io.Reader
	n    int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.n += int64(n)
	return n, err
}
