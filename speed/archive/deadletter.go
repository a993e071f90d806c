package archive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/features"
)

// DeadLetterTopic is where the rejected records of a topic go.
func DeadLetterTopic(topic string) string { return topic + ".dlq" }

// The headers that a dead letter has beside its record's own. The first five are those of Kafka Streams, which viewers know.
const (
	headerTopic     = "__streams.errors.topic"
	headerPartition = "__streams.errors.partition"
	headerOffset    = "__streams.errors.offset"
	headerReason    = "__streams.errors.exception"
	headerMessage   = "__streams.errors.message"
	headerStage     = "millrace.dlq.stage"
	headerRule      = "millrace.dlq.rule"
	headerSeverity  = "millrace.dlq.severity"
	headerField     = "millrace.dlq.field"
	headerSource    = "millrace.dlq.source"
	headerAttempts  = "millrace.dlq.attempts"
	headerFirst     = "millrace.dlq.first_failed_at"
	headerLast      = "millrace.dlq.failed_at"
	headerOmitted   = "millrace.dlq.omitted" // what the topic was too small for; it is in the raw table
)

// ownHeaders is how many headers are added.
const ownHeaders = 13

// deadLetter is a record's copy on the dead-letter topic: key, value, timestamp and headers as they came, and why it is there.
func deadLetter(r *kgo.Record, source string, why *features.Rejection, at time.Time) *kgo.Record {
	d := &kgo.Record{Topic: DeadLetterTopic(r.Topic), Partition: r.Partition, Timestamp: r.Timestamp, Key: slices.Clone(r.Key), Value: slices.Clone(r.Value)}
	d.Headers = make([]kgo.RecordHeader, 0, len(r.Headers)+ownHeaders+1)
	for _, h := range r.Headers {
		d.Headers = append(d.Headers, kgo.RecordHeader{Key: string([]byte(h.Key)), Value: slices.Clone(h.Value)})
	}
	failed := at.UTC().Format(time.RFC3339Nano)
	for _, h := range [ownHeaders][2]string{
		{headerTopic, r.Topic},
		{headerPartition, strconv.Itoa(int(r.Partition))},
		{headerOffset, strconv.FormatInt(r.Offset, 10)},
		{headerReason, why.Reason},
		{headerMessage, why.Detail},
		{headerStage, "decode"},
		{headerRule, why.Reason},
		{headerSeverity, "critical"},
		{headerField, why.Field},
		{headerSource, source},
		{headerAttempts, "1"},
		{headerFirst, failed},
		{headerLast, failed},
	} {
		d.Headers = append(d.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
	}
	return d
}

// deadLetters writes dead letters. It has a client of its own: a slow producer must not hold up the consumer's requests.
type deadLetters struct {
	client *kgo.Client
	admin  *kadm.Client
	log    *slog.Logger

	mu     sync.Mutex
	topics map[string]deadTopic
}

// deadTopic is what must be known of a dead-letter topic.
type deadTopic struct {
	partitions int32
	maxBytes   int32 // of a batch
}

const (
	// kafkaBatchBytes is what topics take where nothing else is said.
	kafkaBatchBytes = 1_048_588
	// deadLetterRoom is how much larger a dead letter's batch may be than its record's: for our headers, and for batches that
	// were compressed.
	deadLetterRoom = 1 << 20
	// maxBatchBytes bounds a batch whatever the topic takes: less than what kgo writes in one request.
	maxBatchBytes = 64 << 20
)

func newDeadLetters(brokers []string, log *slog.Logger, more []kgo.Opt) (*deadLetters, error) {
	d := &deadLetters{log: log, topics: map[string]deadTopic{}}
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(brokers...),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), // the partition of the record itself
		kgo.RequiredAcks(kgo.AllISRAcks()),             // with the idempotent producer, kgo's default: no loss, no repetition by itself
		kgo.ProducerBatchMaxBytesFn(d.maxBytes),        // a batch that the topic refuses fails as a whole
		// A produce that hangs must end in an error at some time, so that it is seen and tried again.
		kgo.RecordDeliveryTimeout(30 * time.Second),
		kgo.MaxBufferedBytes(64 << 20),
	}, more...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	d.client, d.admin = client, kadm.NewClient(client)
	return d, nil
}

func (d *deadLetters) maxBytes(topic string) int32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t, ok := d.topics[topic]; ok {
		return max(t.maxBytes, 512)
	}
	return 1_000_012 // kgo's default
}

// topic finds or creates a dead-letter topic.
func (d *deadLetters) topic(ctx context.Context, name, source string) (deadTopic, error) {
	d.mu.Lock()
	t, ok := d.topics[name]
	d.mu.Unlock()
	if ok {
		return t, nil
	}
	details, err := d.admin.ListTopics(ctx, name, source)
	if err != nil {
		return t, fmt.Errorf("list topics: %w", err)
	}
	if errors.Is(details[name].Err, kerr.UnknownTopicOrPartition) || len(details[name].Partitions) == 0 {
		room := strconv.Itoa(int(d.configured(ctx, source)) + deadLetterRoom)
		_, err := d.admin.CreateTopic(ctx, int32(len(details[source].Partitions)), -1, map[string]*string{"max.message.bytes": &room}, name)
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return t, fmt.Errorf("create topic %s: %w", name, err)
		}
		d.log.Info("dead-letter topic created", "topic", name)
		if details, err = d.admin.ListTopics(ctx, name); err != nil {
			return t, fmt.Errorf("list topics: %w", err)
		}
	}
	if err := details[name].Err; err != nil {
		return t, fmt.Errorf("topic %s: %w", name, err)
	}
	t = deadTopic{int32(len(details[name].Partitions)), d.configured(ctx, name)}
	if t.partitions == 0 {
		return t, fmt.Errorf("topic %s: %w", name, kerr.UnknownTopicOrPartition)
	}
	d.mu.Lock()
	d.topics[name] = t
	d.mu.Unlock()
	return t, nil
}

// configured is the largest batch that a topic takes; Kafka's default where the broker does not say.
func (d *deadLetters) configured(ctx context.Context, topic string) int32 {
	configs, err := d.admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return kafkaBatchBytes
	}
	c, err := configs.On(topic, nil)
	if err != nil {
		return kafkaBatchBytes
	}
	for _, entry := range c.Configs {
		if entry.Key == "max.message.bytes" && entry.Value != nil {
			if n, err := strconv.ParseInt(*entry.Value, 10, 32); err == nil && n > 0 {
				return int32(min(n, maxBatchBytes))
			}
		}
	}
	return kafkaBatchBytes
}

// send writes dead letters and returns those that are not acknowledged. The order within a partition is kept.
func (d *deadLetters) send(ctx context.Context, letters []*kgo.Record) (left []*kgo.Record, err error) {
	out := make([]*kgo.Record, len(letters))
	for i, l := range letters {
		t, err := d.topic(ctx, l.Topic, l.Topic[:len(l.Topic)-len(DeadLetterTopic(""))])
		if err != nil {
			return letters, err
		}
		again := *l // kgo writes into what it is given
		again.Partition %= t.partitions
		out[i] = &again
	}
	// Results come in the order in which they end: find each letter by its record.
	failed := map[*kgo.Record]error{}
	for _, r := range d.client.ProduceSync(ctx, out...) {
		if r.Err != nil {
			failed[r.Record] = r.Err
		}
	}
	for i, l := range letters {
		e := failed[out[i]]
		if e == nil {
			continue
		}
		if errors.Is(e, kerr.MessageTooLarge) && omit(l) {
			d.log.Warn("dead letter without all of its record: the topic does not take it", "topic", l.Topic, "partition", l.Partition, "value_bytes", len(letters[i].Value))
		}
		if errors.Is(e, kerr.UnknownTopicOrPartition) {
			d.mu.Lock()
			delete(d.topics, l.Topic)
			d.mu.Unlock()
		}
		left = append(left, l)
		err = fmt.Errorf("dead letter to %s/%d: %w", l.Topic, l.Partition, e)
	}
	return left, err
}

// omit makes a letter smaller by what is largest: its value first, then key and headers. The record itself is in the raw
// table. It reports whether there was anything to leave out.
func omit(l *kgo.Record) bool {
	last := &l.Headers[len(l.Headers)-1]
	switch {
	case last.Key != headerOmitted:
		l.Headers = append(l.Headers, kgo.RecordHeader{Key: headerOmitted, Value: []byte("value of " + strconv.Itoa(len(l.Value)) + " bytes")})
		l.Value = nil
	case l.Key != nil || len(l.Headers) > ownHeaders+1:
		last.Value = append(last.Value, ", key, headers"...)
		l.Headers, l.Key = l.Headers[len(l.Headers)-ownHeaders-1:], nil
	default:
		return false
	}
	return true
}
