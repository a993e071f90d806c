package archive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"millrace/features"
	"millrace/speed/kafka"
	"millrace/windows"
)

// Archiver archives a project's records, as one member of a consumer group.
type Archiver struct {
	cfg        Config
	log        *slog.Logger
	tracer     trace.Tracer
	rowsTotal  metric.Int64Counter
	rejected   metric.Int64Counter
	chunkTime  metric.Float64Histogram
	client     *kgo.Client
	admin      *kadm.Client
	sources    map[string][]*sourceRows // by topic
	quarantine *quarantineRows
	dead       []*kgo.Record

	ranges map[place]*extent // of the chunk in hand
	bytes  int
	n      int
	opened time.Time
}

// place is a partition of a topic.
type place struct {
	topic string
	id    int32
}

// extent is the offsets of one partition that a chunk holds: [first, next).
type extent struct{ first, next int64 }

// New checks the configuration.
func New(cfg Config) (*Archiver, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	a := &Archiver{
		cfg: cfg, log: cfg.Logger, tracer: cfg.Tracer.Tracer("millrace/archive"), sources: map[string][]*sourceRows{},
		quarantine: newQuarantineRows(), ranges: map[place]*extent{},
	}
	for _, s := range cfg.Bound.Sources {
		r := newSourceRows(cfg.Bound, s)
		for _, t := range s.Topics {
			a.sources[t] = append(a.sources[t], r)
		}
	}
	meter := cfg.Meter.Meter("millrace/archive")
	var errs [3]error
	a.rowsTotal, errs[0] = meter.Int64Counter("millrace_archive_records", metric.WithDescription("records archived, by topic"))
	a.rejected, errs[1] = meter.Int64Counter("millrace_quarantine_records", metric.WithDescription("records quarantined, by source and reason"))
	a.chunkTime, errs[2] = meter.Float64Histogram("millrace_archive_chunk_duration_seconds", metric.WithUnit("s"), metric.WithDescription("time to write one chunk"))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("instruments: %w", err)
	}
	return a, nil
}

// Run archives until ctx ends, then writes the chunk in hand. It returns nil on a requested stop.
func (a *Archiver) Run(ctx context.Context) error {
	topics := make([]string, 0, len(a.sources))
	for t := range a.sources {
		topics = append(topics, t)
	}
	opts := kafka.GroupOptions(kafka.Group{Brokers: a.cfg.Brokers, Name: "millrace." + a.cfg.Bound.Project + ".archive", Topics: topics})
	opts = append(opts, kgo.AdjustFetchOffsetsFn(a.assigned),
		// A repeated dead letter has the same headers, and its reader can tell.
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.Lz4Compression(), kgo.NoCompression()))
	client, err := kgo.NewClient(append(opts, a.cfg.ClientOptions...)...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	a.client, a.admin = client, kadm.NewClient(client)
	defer client.CloseAllowingRebalance()
	if err := kafka.CheckTopics(ctx, a.admin, a.cfg.Bound); err != nil {
		return err
	}
	if err := a.createDeadLetterTopics(ctx); err != nil {
		return err
	}
	if err := a.backfill(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := a.step(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return a.write(last)
}

// step polls once and writes the chunk if it is full or has waited long enough.
func (a *Archiver) step(ctx context.Context) error {
	wait := time.Second
	if a.n > 0 {
		wait = max(time.Until(a.opened.Add(a.cfg.ChunkWait)), time.Millisecond)
	}
	poll, cancel := context.WithTimeout(ctx, wait)
	fetches := a.client.PollRecords(poll, min(10_000, a.cfg.ChunkRows))
	cancel()
	defer a.client.AllowRebalance()
	var failed error
	fetches.EachError(func(topic string, id int32, err error) {
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			if topic == "" {
				failed = fmt.Errorf("poll: %w", err)
				return
			}
			a.log.Warn("fetch", "topic", topic, "partition", id, "error", err.Error())
		}
	})
	if failed != nil {
		return failed
	}
	received := time.Now()
	fetches.EachPartition(func(fp kgo.FetchTopicPartition) { a.take(ctx, fp, received) })
	if a.n >= a.cfg.ChunkRows || a.bytes >= a.cfg.ChunkBytes || a.n > 0 && time.Since(a.opened) >= a.cfg.ChunkWait {
		return a.write(ctx)
	}
	return nil
}

// take adds the records of one partition to the chunk in hand.
func (a *Archiver) take(ctx context.Context, fp kgo.FetchTopicPartition, received time.Time) {
	if len(fp.Records) == 0 {
		return
	}
	if a.n == 0 {
		a.opened = received
	}
	at := place{fp.Topic, fp.Partition}
	r := a.ranges[at]
	if r == nil {
		r = &extent{first: fp.Records[0].Offset}
		a.ranges[at] = r
	}
	log := a.cfg.Bound.Logs[fp.Topic].ID
	for _, rec := range fp.Records {
		position := windows.Position{Log: log, Partition: fp.Partition, Offset: rec.Offset}
		for _, s := range a.sources[fp.Topic] {
			if why := s.add(rec, position, received); why != nil {
				a.quarantine.add(s.source.Name, rec, position, received, why)
				a.dead = append(a.dead, deadLetter(rec, s.source.Name, why))
				a.rejected.Add(ctx, 1, metric.WithAttributes(attribute.String("source", s.source.Name), attribute.String("reason", why.Reason)))
			}
		}
		r.next = max(r.next, rec.Offset+1)
		a.bytes += len(rec.Key) + len(rec.Value) + 64
		a.n++
		rec.Recycle()
	}
	a.rowsTotal.Add(ctx, int64(len(fp.Records)), metric.WithAttributes(attribute.String("topic", fp.Topic)))
}

// write writes the chunk in hand: rows, then dead letters, then how far the tables reach. Each step is repeated until it
// succeeds, with the same token; after a crash between two steps the next run does all of it again, and the rows collapse.
func (a *Archiver) write(ctx context.Context) error {
	if a.n == 0 {
		return nil
	}
	start := time.Now()
	ctx, span := a.tracer.Start(ctx, "archive chunk", trace.WithAttributes(attribute.Int("messaging.batch.message_count", a.n)))
	defer span.End()
	token := a.token()
	progress := newProgress()
	done := map[*sourceRows]bool{}
	for topic, list := range a.sources {
		for _, s := range list {
			for at, r := range a.ranges {
				if at.topic == topic {
					for _, t := range s.all() {
						progress.add(t.table.Name, a.cfg.Bound.Logs[topic].ID, at.id, r.next)
					}
				}
			}
			if done[s] {
				continue // a source of several topics has one set of rows
			}
			done[s] = true
			for _, t := range s.all() {
				if err := a.insert(ctx, t, token); err != nil {
					return err
				}
			}
		}
	}
	if err := a.insert(ctx, &a.quarantine.rows, token); err != nil {
		return err
	}
	if err := a.produceDead(ctx); err != nil {
		return err
	}
	if err := a.insert(ctx, &progress.rows, token); err != nil {
		return err
	}
	a.commit(ctx)
	for s := range done {
		for _, t := range s.all() {
			t.reset()
		}
	}
	a.quarantine.reset()
	clear(a.ranges)
	a.dead, a.n, a.bytes = a.dead[:0], 0, 0
	a.chunkTime.Record(ctx, time.Since(start).Seconds())
	return nil
}

// token names the chunk by what it holds.
func (a *Archiver) token() string {
	var parts []string
	for at, r := range a.ranges {
		parts = append(parts, fmt.Sprintf("%d/%d:%d-%d", a.cfg.Bound.Logs[at.topic].ID, at.id, r.first, r.next))
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

// insert sends rows until ClickHouse takes them: the outcome of a failed insert is unknown, and the token settles it.
func (a *Archiver) insert(ctx context.Context, r *rows, token string) error {
	if r.n == 0 {
		return nil
	}
	for backoff := 100 * time.Millisecond; ; backoff = min(2*backoff, 5*time.Second) {
		err := r.send(ctx, a.cfg.ClickHouse, token)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		a.log.Warn("archive waits for ClickHouse", "table", r.table.Name, "rows", r.n, "error", err.Error())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(backoff/2 + rand.N(backoff/2)):
		}
	}
}

// commit commits group offsets, which only lag tools read.
func (a *Archiver) commit(ctx context.Context) {
	offsets := map[string]map[int32]kgo.EpochOffset{}
	for at, r := range a.ranges {
		if offsets[at.topic] == nil {
			offsets[at.topic] = map[int32]kgo.EpochOffset{}
		}
		offsets[at.topic][at.id] = kgo.EpochOffset{Epoch: -1, Offset: r.next}
	}
	a.client.CommitOffsets(ctx, offsets, nil)
}

// assigned tells the client where to read each partition from: where the tables end.
func (a *Archiver) assigned(ctx context.Context, given map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	reached, err := a.readProgressPatiently(ctx)
	if err != nil {
		return nil, err
	}
	for topic, ids := range given {
		for id := range ids {
			have, _, err := kafka.Bounds(ctx, a.admin, topic, id)
			if err != nil {
				return nil, err
			}
			from := a.reach(reached, topic, id)
			if from < have.Start {
				a.log.Error("records are gone that were not archived", "topic", topic, "partition", id, "lost_records", have.Start-from, "from", from, "log_start", have.Start)
				from = have.Start
			}
			if from > have.End {
				return nil, fmt.Errorf("%s/%d: the archive reaches to %d, the log ends at %d: it was cut", topic, id, from, have.End)
			}
			ids[id] = kgo.NewOffset().At(from).WithEpoch(-1)
		}
	}
	return given, nil
}

// reach is the least offset that all tables of a topic's sources have reached in a partition.
func (a *Archiver) reach(reached map[progressKey]int64, topic string, id int32) int64 {
	least := int64(-1)
	for _, s := range a.sources[topic] {
		for _, t := range s.all() {
			at := reached[progressKey{t.table.Name, a.cfg.Bound.Logs[topic].ID, id}]
			if least < 0 || at < least {
				least = at
			}
		}
	}
	return max(least, 0)
}

// createDeadLetterTopics makes the dead-letter topics that do not exist.
func (a *Archiver) createDeadLetterTopics(ctx context.Context) error {
	for topic := range a.sources {
		details, err := a.admin.ListTopics(ctx, topic)
		if err != nil {
			return fmt.Errorf("partitions of %s: %w", topic, err)
		}
		created, err := a.admin.CreateTopics(ctx, int32(len(details[topic].Partitions)), -1, nil, DeadLetterTopic(topic))
		if err != nil {
			return fmt.Errorf("create %s: %w", DeadLetterTopic(topic), err)
		}
		for _, c := range created.Sorted() {
			if c.Err != nil && !strings.Contains(c.Err.Error(), "TOPIC_ALREADY_EXISTS") {
				return fmt.Errorf("create %s: %w", c.Topic, c.Err)
			}
		}
	}
	return nil
}

// DeadLetterTopic is where the rejected records of a topic go.
func DeadLetterTopic(topic string) string { return topic + ".dlq" }

// deadLetter is a record's copy on the dead-letter topic: key, value and headers as they came, and why it is there.
func deadLetter(r *kgo.Record, source string, why *features.Rejection) *kgo.Record {
	d := &kgo.Record{Topic: DeadLetterTopic(r.Topic), Partition: r.Partition, Timestamp: r.Timestamp, Key: slices.Clone(r.Key), Value: slices.Clone(r.Value)}
	for _, h := range r.Headers {
		d.Headers = append(d.Headers, kgo.RecordHeader{Key: string([]byte(h.Key)), Value: slices.Clone(h.Value)})
	}
	for _, h := range [][2]string{
		{"millrace.source", source}, {"millrace.topic", r.Topic}, {"millrace.partition", strconv.Itoa(int(r.Partition))},
		{"millrace.offset", strconv.FormatInt(r.Offset, 10)}, {"millrace.reason", why.Reason}, {"millrace.field", why.Field}, {"millrace.detail", why.Detail},
	} {
		d.Headers = append(d.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
	}
	return d
}

// produceDead sends dead letters until the broker has acknowledged all of them.
func (a *Archiver) produceDead(ctx context.Context) error {
	if len(a.dead) == 0 {
		return nil
	}
	if err := a.client.ProduceSync(ctx, a.dead...).FirstErr(); err != nil {
		return fmt.Errorf("dead letters: %w", err)
	}
	return nil
}
