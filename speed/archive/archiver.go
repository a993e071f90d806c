package archive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"millrace/speed/kafka"
)

// Archiver archives a project's records, as one member of a consumer group.
type Archiver struct {
	cfg     Config
	log     *slog.Logger
	tracer  trace.Tracer
	metrics metrics
	client  *kgo.Client
	admin   *kadm.Client
	dead    *deadLetters

	all     []*sourceRows
	sources map[string][]*sourceRows // by topic; a source of several topics has one set of rows

	// busy is held by whoever works on the chunk in hand: the loop, or a rebalance that takes partitions away. It is a
	// channel because the rebalance waits for it only so long.
	busy      chan struct{}
	chunk     *chunk
	committed time.Time

	mu    sync.Mutex // the group's callbacks come on the client's goroutines
	parts map[place]*part

	// fault, in tests, is asked before and after each step of a write, and ends the archiver there as a crash would.
	fault func(step string) error
}

// New checks the configuration.
func New(cfg Config) (*Archiver, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	a := &Archiver{
		cfg: cfg, log: cfg.Logger, tracer: cfg.Tracer.Tracer("millrace/archive"), sources: map[string][]*sourceRows{},
		busy: make(chan struct{}, 1), parts: map[place]*part{}, chunk: newChunk(cfg.Tracer),
	}
	if a.metrics, err = newMetrics(cfg.Meter); err != nil {
		return nil, err
	}
	for _, s := range cfg.Bound.Sources {
		r := newSourceRows(cfg.Bound, s)
		a.all = append(a.all, r)
		for _, t := range s.Topics {
			a.sources[t] = append(a.sources[t], r)
		}
	}
	return a, nil
}

// Run archives until ctx ends, then writes what is in hand and leaves the group. It returns nil on a requested stop, also
// where ClickHouse did not take the last records in time: the next run reads them again.
func (a *Archiver) Run(ctx context.Context) error {
	topics := make([]string, 0, len(a.sources))
	for t := range a.sources {
		topics = append(topics, t)
	}
	opts := kafka.GroupOptions(kafka.Group{Brokers: a.cfg.Brokers, Name: "millrace." + a.cfg.Bound.Project + ".archive", Topics: topics})
	opts = append(opts,
		// Commits and aborts have offsets too: unseen, a log that ends in one would never be archived to its end.
		kgo.KeepControlRecords(),
		kgo.AdjustFetchOffsetsFn(a.assigned),
		kgo.OnPartitionsRevoked(a.revoked),
		kgo.OnPartitionsLost(a.lost))
	var err error
	if a.admin, err = kafka.OpenAdmin(ctx, a.cfg.Brokers, a.cfg.Bound, a.cfg.ClientOptions...); err != nil {
		return err
	}
	defer a.admin.Close()
	if a.dead, err = newDeadLetters(a.cfg.Brokers, a.log, a.cfg.ClientOptions); err != nil {
		return err
	}
	defer a.dead.client.Close()
	if err := a.persist(ctx, "tables", func(ctx context.Context) error { return CheckTables(ctx, a.cfg.ClickHouse, a.cfg.Bound.Compiled) }); err != nil {
		return stopped(ctx, err)
	}
	a.mu.Lock() // callbacks may come before the client is ours to keep
	a.client, err = kgo.NewClient(append(opts, a.cfg.ClientOptions...)...)
	a.mu.Unlock()
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer a.client.CloseAllowingRebalance()
	for ctx.Err() == nil {
		if err := a.step(ctx); err != nil {
			if ctx.Err() == nil || isFatal(err) {
				a.abandon()
				return err
			}
		}
	}
	a.finish(ctx)
	return nil
}

// stopped is what Run returns for an error that may come of its context's end.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && !isFatal(err) {
		return nil
	}
	return err
}

// finish writes what is in hand. It has a time of its own: the one that ended is the caller's.
func (a *Archiver) finish(ctx context.Context) {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.cfg.StopWithin)
	defer cancel()
	a.busy <- struct{}{}
	err := a.write(last)
	<-a.busy
	if err != nil {
		a.log.Warn("records in hand are left to the next run", "error", err.Error())
	} else if offsets := a.reached(); len(offsets) > 0 {
		if err := kafka.CommitSync(last, a.client, offsets); err != nil { // nothing rests on it
			a.log.Debug("last commit", "error", err.Error())
		}
	}
	a.abandon()
}

// abandon forgets everything, so that leaving the group writes nothing more.
func (a *Archiver) abandon() {
	a.busy <- struct{}{}
	defer func() { <-a.busy }()
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.parts)
	a.chunk = newChunk(a.cfg.Tracer)
	a.resetRows()
}

func (a *Archiver) resetRows() {
	for _, s := range a.all {
		for _, t := range s.all() {
			t.reset()
		}
	}
}

// step polls once, and writes what is due. Rebalances wait until the poll's records are taken, never for a store.
func (a *Archiver) step(ctx context.Context) error {
	a.repair(ctx)
	wait, most := a.ahead()
	poll, cancel := context.WithTimeout(ctx, wait)
	fetches := a.client.PollRecords(poll, most)
	cancel()
	if err := a.take(ctx, fetches); err != nil {
		return err
	}
	a.busy <- struct{}{}
	defer func() { <-a.busy }()
	if a.due() {
		if err := a.write(ctx); err != nil {
			return err
		}
	}
	return a.backfill(ctx)
}

// due says whether the chunk in hand is full or has waited long enough.
func (a *Archiver) due() bool {
	c := a.chunk
	return c.n >= a.cfg.ChunkRows || c.bytes >= a.cfg.ChunkBytes || !c.opened.IsZero() && time.Since(c.opened) >= a.cfg.ChunkWait
}

// ahead is how long the next poll may last, and how many records it may bring.
func (a *Archiver) ahead() (wait time.Duration, most int) {
	a.busy <- struct{}{}
	defer func() { <-a.busy }()
	wait, most = time.Second, max(a.cfg.ChunkRows-a.chunk.n, 1)
	switch {
	case a.backfilling():
		wait = time.Millisecond
	case !a.chunk.opened.IsZero():
		wait = max(time.Until(a.chunk.opened.Add(a.cfg.ChunkWait)), time.Millisecond)
	}
	return wait, most
}

// take adds what was polled to the chunk in hand.
func (a *Archiver) take(ctx context.Context, fetches kgo.Fetches) error {
	defer a.client.AllowRebalance()
	a.busy <- struct{}{}
	defer func() { <-a.busy }()
	a.mu.Lock()
	defer a.mu.Unlock()
	var failed error
	fetches.EachError(func(topic string, id int32, err error) {
		if e := a.fetchError(ctx, a.parts[place{topic, id}], topic, id, err); e != nil && failed == nil {
			failed = e
		}
	})
	if failed != nil {
		return failed
	}
	received := time.Now()
	fetches.EachPartition(func(fp kgo.FetchTopicPartition) {
		if p := a.parts[place{fp.Topic, fp.Partition}]; p != nil {
			p.end = max(p.end, fp.HighWatermark)
			a.chunk.take(p, fp.Records, received)
		}
	})
	for _, p := range a.parts {
		if p.next > p.written || len(p.gaps) > 0 { // a log that begins above 0 has no record to say so
			a.chunk.open(received)
		}
		a.metrics.lag.Record(ctx, max(p.end-max(p.written, 0), 0), placeAttrs(p.place))
	}
	return nil
}

// fetchError decides what an error of a fetch means. What it returns ends the archiver.
func (a *Archiver) fetchError(ctx context.Context, p *part, topic string, id int32, err error) error {
	var cut *kgo.ErrDataLoss
	var bomb *kgo.ErrDecompressTooLarge
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return nil
	case errors.Is(err, kgo.ErrClientClosed):
		return err
	case errors.As(err, &cut):
		return fmt.Errorf("%s/%d: the log was cut from %d to %d: records are archived that no longer exist: %w", topic, id, cut.ConsumedTo, cut.ResetTo, err)
	case errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.InconsistentTopicID):
		if e := kafka.CheckTopics(ctx, a.admin, a.cfg.Bound); errors.Is(e, kafka.ErrOtherTopic) {
			return e
		}
	case p != nil && (errors.Is(err, kerr.OffsetOutOfRange) || errors.As(err, &bomb)):
		p.broken = err
		return nil
	}
	a.log.Warn("fetch", "topic", topic, "partition", id, "error", err.Error())
	return nil
}

// fatal marks an error that repetition does not mend.
type fatal struct{ error }

func (f fatal) Unwrap() error { return f.error }

func isFatal(err error) bool {
	var f fatal
	return errors.As(err, &f) || errors.Is(err, ErrTable)
}

// How long one attempt of a step may take, and how long the pauses between attempts grow.
const (
	attemptWithin = 60 * time.Second
	firstPause    = 50 * time.Millisecond
	longestPause  = 5 * time.Second
)

// persist repeats a step until it succeeds or ctx ends. The outcome of a failed attempt is unknown: it may have been done, or
// may still be; so every step is one that may be done twice.
func (a *Archiver) persist(ctx context.Context, name string, step func(context.Context) error) error {
	if err := a.fail("before " + name); err != nil {
		return err
	}
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		attempt, cancel := context.WithTimeout(ctx, attemptWithin)
		err := step(attempt)
		cancel()
		if err == nil {
			return a.fail("after " + name)
		}
		if ctx.Err() != nil || isFatal(err) {
			return err
		}
		a.metrics.retries.Add(ctx, 1)
		a.log.Warn("archive waits", "step", name, "pause", pause, "error", err.Error())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
	}
}

func (a *Archiver) fail(at string) error {
	if a.fault == nil {
		return nil
	}
	if err := a.fault(at); err != nil {
		return fatal{err}
	}
	return nil
}
