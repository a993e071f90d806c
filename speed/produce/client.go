package produce

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/internal/telemetry"
)

// deliveryTimeout bounds how long a record is tried: past it the run ends with what is acknowledged.
const deliveryTimeout = 2 * time.Minute

// newClient returns a client for records of one topic. Every option says what happens without it.
func newClient(cfg Config, topic string) (*kgo.Client, error) {
	hooks, err := telemetry.KafkaHooks(cfg.Meter)
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(cfg.Brokers...),
		kgo.DefaultProduceTopic(topic),
		kgo.RequiredAcks(kgo.AllISRAcks()),                                      // idempotent too, by default: a retried batch is stored once
		kgo.ProducerBatchCompression(kgo.Lz4Compression(), kgo.NoCompression()), // a third of the bytes, and cheap to read
		kgo.ProducerLinger(10*time.Millisecond),                                 // else the first batches hold a record each
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),                    // murmur2 of the key, as Kafka's own clients
		kgo.MaxBufferedRecords(50_000),                                          // a second's worth; more only delays a stop
		kgo.MaxBufferedBytes(64<<20),                                            // large records would make that 50 GB
		kgo.RecordDeliveryTimeout(deliveryTimeout),                              // else a broker that is gone hangs the run
		// The timeout holds for what is in flight too: it may be in the log, and the next run may add it again, which the summary says.
		kgo.AllowIdempotentProduceCancellation(),
		kgo.WithHooks(hooks...),
	)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	return client, nil
}

// checkTopic fails if the topic does not exist: a producer would ask for it again and again.
func checkTopic(ctx context.Context, client *kgo.Client, topic string) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	details, err := kadm.NewClient(client).ListTopics(ctx, topic)
	if err != nil {
		return fmt.Errorf("look up topic %s: %w", topic, err)
	}
	switch err := details[topic].Err; {
	case !details.Has(topic):
		return fmt.Errorf("%w: %s", ErrNoTopic, topic)
	case err == kerr.UnknownTopicOrPartition: //nolint:errorlint // kerr's values are compared
		return fmt.Errorf("%w: %s", ErrNoTopic, topic)
	case err != nil:
		return fmt.Errorf("look up topic %s: %w", topic, err)
	}
	return nil
}
