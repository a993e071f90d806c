// Package kafka holds how the speed layer's consumer groups talk to Kafka: every client option in one file, each with the
// failure that it prevents, and the few questions that both groups ask of a broker.
package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/features"
	"millrace/internal/recordpool"
)

// Group names a consumer group and what it consumes.
type Group struct {
	Brokers []string
	Name    string
	Topics  []string
}

// OpenAdmin returns a client for questions, once the topics of b are those that were applied: a member that joined its group
// before that check would take over partitions that it must not read. The caller closes it.
func OpenAdmin(ctx context.Context, brokers []string, b *features.Bound, more ...kgo.Opt) (*kadm.Client, error) {
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(brokers...)}, more...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	admin := kadm.NewClient(client)
	if err := CheckTopics(ctx, admin, b); err != nil {
		admin.Close()
		return nil, err
	}
	return admin, nil
}

// GroupOptions returns the client options of a member. The caller adds AdjustFetchOffsetsFn and the callbacks.
func GroupOptions(g Group) []kgo.Opt {
	return []kgo.Opt{
		kgo.SeedBrokers(g.Brokers...),
		kgo.ConsumerGroup(g.Name),
		kgo.ConsumeTopics(g.Topics...),
		// A member that joins or leaves moves its own partitions only. The broker-side protocol would wait 45 s for a dead one.
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		// The least that brokers allow: a crashed member's partitions are served again after it, not after kgo's 45 s.
		kgo.SessionTimeout(6 * time.Second),
		kgo.HeartbeatInterval(time.Second),
		kgo.RebalanceTimeout(10 * time.Second),
		// No partition is taken away in the middle of a batch.
		kgo.BlockRebalanceOnPoll(),
		// Positions live with the state; the group's offsets are for lag tools.
		kgo.DisableAutoCommit(),
		// By default the client moves by itself when an offset is out of range: a gap or a repeat that nobody sees.
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(500 * time.Millisecond),
		kgo.FetchMaxBytes(16 << 20),
		kgo.FetchMaxPartitionBytes(4 << 20),
		kgo.MaxDecompressBatchBytes(64 << 20), // one batch must not exhaust memory
		kgo.WithPools(recordpool.New()),
	}
}
