package produce

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"millrace/internal/telemetry"
)

// grace is how long a stopped run waits for the acknowledgement of what it has handed to the client.
const grace = 10 * time.Second

// Run publishes the input and returns what it did, also beside an error. A stop by ctx is no error: what the client has is
// still acknowledged, within 10 seconds, and the summary says where to go on.
func Run(ctx context.Context, cfg Config) (Summary, error) {
	cfg = cfg.withDefaults()
	t, err := cfg.target()
	if err != nil {
		return Summary{}, err
	}
	client, err := newClient(cfg, t.topic)
	if err != nil {
		return Summary{}, err
	}
	defer client.Close()
	if err := checkTopic(ctx, client, t.topic); err != nil {
		return Summary{}, err
	}
	p := &publisher{
		cfg: cfg, client: client, topic: t.topic, started: time.Now(), pace: pace{speed: cfg.Speed}, rejected: map[string]Rejected{},
	}
	if _, off := cfg.Tracer.(tracenoop.TracerProvider); !off {
		p.tracer = cfg.Tracer.Tracer("millrace/speed/produce")
	}
	return p.run(ctx, newReader(cfg, t))
}

// publisher is one run.
type publisher struct {
	cfg     Config
	client  *kgo.Client
	topic   string
	tracer  trace.Tracer // nil: off
	started time.Time
	pace    pace

	published int64 // records handed to the client
	next      int64 // the line behind the last one that was seen
	rejected  map[string]Rejected
	records   sync.Pool

	acknowledged, odd, read atomic.Int64

	mu       sync.Mutex // the client's goroutine tells of results
	oddLines []OddLine
	failed   error
	failLine int64 // the least one
}

func (p *publisher) run(ctx context.Context, r *reader) (Summary, error) {
	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	batches := make(chan []event, 8)
	ended := make(chan error, 1)
	go func() { ended <- r.read(reading, batches) }()

	// Records outlive ctx by the time of grace.
	sending, stopSending := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSending()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(grace, stopSending) })()

	telling, stopTelling := context.WithCancel(ctx)
	var told sync.WaitGroup
	told.Go(func() { p.tell(telling) })

	finished := p.publishAll(ctx, sending, batches)
	stopReading()
	err := p.client.Flush(sending)
	if err != nil {
		p.client.AbortBufferedRecords(context.WithoutCancel(ctx)) //nolint:errcheck // waits for promises; the summary has their results
	}
	stopTelling()
	told.Wait()
	var readErr error
	if finished {
		readErr = <-ended // the channel is closed: it is there
	}
	return p.summary(finished && readErr == nil, ctx.Err() != nil, readErr)
}

// publishAll returns whether it came to the input's end; otherwise to the limit, a stop or a failure.
func (p *publisher) publishAll(ctx, sending context.Context, batches <-chan []event) bool {
	for {
		var batch []event
		var more bool
		select {
		case batch, more = <-batches:
		case <-ctx.Done():
			return false
		}
		if !more {
			return ctx.Err() == nil
		}
		for i := range batch {
			e := &batch[i]
			if e.odd == "" && e.rejection == nil {
				p.pace.wait(ctx, e.time)
			}
			if ctx.Err() != nil || p.failure() != nil {
				return false
			}
			p.next = e.line + 1
			p.read.Store(e.read)
			if e.odd != "" {
				p.sawOdd(OddLine{e.line, e.odd})
				continue
			}
			if e.rejection != nil {
				c, known := p.rejected[e.rejection.Reason]
				if !known {
					c = Rejected{FirstLine: e.line, Field: e.rejection.Field, Detail: e.rejection.Detail}
				}
				c.Records++
				p.rejected[e.rejection.Reason] = c
			}
			p.publish(sending, e)
			if p.published++; p.published == p.cfg.Limit {
				return false
			}
		}
	}
}

func (p *publisher) publish(ctx context.Context, e *event) {
	r, _ := p.records.Get().(*kgo.Record)
	if r == nil {
		r = &kgo.Record{}
	}
	*r = kgo.Record{Key: e.key, Value: e.value}
	line := e.line
	if p.tracer == nil {
		p.client.Produce(ctx, r, func(r *kgo.Record, err error) { p.done(r, line, err) })
		return
	}
	spanCtx, span := p.tracer.Start( //nolint:spancheck // it ends when Kafka has answered
		context.WithoutCancel(ctx), "publish "+p.topic, trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(attribute.String("messaging.system", "kafka"), attribute.String("messaging.destination.name", p.topic)))
	telemetry.Inject(spanCtx, r)
	p.client.Produce(ctx, r, func(r *kgo.Record, err error) {
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
		p.done(r, line, err)
	})
} //nolint:spancheck // so says the promise

// done hears from Kafka about a record.
func (p *publisher) done(r *kgo.Record, line int64, err error) {
	*r = kgo.Record{} // lets go of its piece of memory
	p.records.Put(r)
	switch {
	case err == nil:
		p.acknowledged.Add(1)
	case errors.Is(err, kerr.MessageTooLarge):
		p.sawOdd(OddLine{line, "too large for the topic: raise its max.message.bytes"})
	default:
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.failed == nil {
			p.failed = err
		}
		if p.failLine == 0 || line < p.failLine {
			p.failLine = line
		}
	}
}

func (p *publisher) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

func (p *publisher) sawOdd(o OddLine) {
	p.odd.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.oddLines) < maxOddLines {
		p.oddLines = append(p.oddLines, o)
	}
	if p.cfg.Odd != nil {
		p.cfg.Odd(o)
	}
}

// tell reports progress until ctx ends.
func (p *publisher) tell(ctx context.Context) {
	if p.cfg.Progress == nil {
		return
	}
	ticker := time.NewTicker(p.cfg.ProgressEvery)
	defer ticker.Stop()
	var before int64
	last := p.started
	for {
		select {
		case now := <-ticker.C:
			acknowledged := p.acknowledged.Load()
			rate := float64(acknowledged-before) / now.Sub(last).Seconds()
			before, last = acknowledged, now
			p.cfg.Progress(p.progress(acknowledged, rate, now.Sub(p.started)))
		case <-ctx.Done():
			return
		}
	}
}

func (p *publisher) progress(acknowledged int64, rate float64, elapsed time.Duration) Progress {
	pr := Progress{Acknowledged: acknowledged, Odd: p.odd.Load(), Rate: rate, Left: -1, Share: -1}
	switch {
	case p.cfg.Limit > 0:
		pr.Share = float64(acknowledged) / float64(p.cfg.Limit)
	case p.cfg.Size > 0 && !p.cfg.Repeat:
		pr.Share = min(1, float64(p.read.Load())/float64(p.cfg.Size))
	}
	if pr.Share > 0 {
		pr.Left = time.Duration(float64(elapsed) * (1 - pr.Share) / pr.Share)
	}
	return pr
}

func (p *publisher) summary(finished, stopped bool, readErr error) (Summary, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	elapsed := time.Since(p.started).Seconds()
	s := Summary{
		Source: p.cfg.Source, Topic: p.topic, Records: p.acknowledged.Load(), Seconds: elapsed,
		Odd: p.odd.Load(), OddLines: p.oddLines, Rejected: p.rejected,
	}
	s.Rate = float64(s.Records) / elapsed
	s.Stopped = !finished && (stopped || p.failed != nil || readErr != nil)
	if !finished {
		s.NextLine = max(p.next, p.cfg.FromLine)
	}
	if p.failLine > 0 {
		s.Stopped, s.NextLine = true, p.failLine
	}
	switch {
	case readErr != nil:
		return s, readErr
	case p.failed != nil && !stopped:
		return s, fmt.Errorf("publish to %s: %w", s.Topic, p.failed)
	default:
		return s, nil
	}
}
