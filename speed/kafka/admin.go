package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/features"
)

// Extent is the part of a partition's log that the broker holds: [Start, End).
type Extent struct{ Start, End int64 }

// Bounds returns what the broker holds of a partition, and how many partitions its topic has.
func Bounds(ctx context.Context, admin *kadm.Client, topic string, id int32) (Extent, int, error) {
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return Extent{}, 0, fmt.Errorf("start of %s/%d: %w", topic, id, err)
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return Extent{}, 0, fmt.Errorf("end of %s/%d: %w", topic, id, err)
	}
	start, ok1 := starts.Lookup(topic, id)
	end, ok2 := ends.Lookup(topic, id)
	if !ok1 || !ok2 {
		return Extent{}, 0, fmt.Errorf("%s/%d: no such partition", topic, id)
	}
	return Extent{start.Offset, end.Offset}, len(ends[topic]), nil
}

// ErrOtherTopic is returned where a topic is missing, or is not the incarnation that was applied.
var ErrOtherTopic = errors.New("run `millrace apply`")

// CheckTopics fails unless each topic of b is the one whose id the registry holds: a topic that was deleted and made again
// is another log, and its offsets mean other records.
func CheckTopics(ctx context.Context, admin *kadm.Client, b *features.Bound) error {
	topics := make([]string, 0, len(b.Logs))
	for t := range b.Logs {
		topics = append(topics, t)
	}
	slices.Sort(topics)
	ids, err := TopicIDs(ctx, admin, topics)
	if err != nil {
		return err
	}
	for _, t := range topics {
		switch id, ok := ids[t]; {
		case !ok:
			return fmt.Errorf("topic %s does not exist: %w", t, ErrOtherTopic)
		case id != b.Logs[t].TopicID:
			return fmt.Errorf("topic %s was made again since it was applied (id %s, applied %s): %w", t, id, b.Logs[t].TopicID, ErrOtherTopic)
		}
	}
	return nil
}

// TopicIDs returns the id that the broker gives each of topics that exists.
func TopicIDs(ctx context.Context, admin *kadm.Client, topics []string) (map[string]string, error) {
	details, err := admin.ListTopics(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	ids := map[string]string{}
	for _, d := range details {
		if d.Err == nil {
			ids[d.Topic] = d.ID.String()
		}
	}
	return ids, nil
}

// CommitSync commits group offsets and returns the first error, also one that the broker gives for a partition: only a
// member that the group counts in gets none.
func CommitSync(ctx context.Context, client *kgo.Client, offsets map[string]map[int32]kgo.EpochOffset) error {
	var failed error
	client.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		if err != nil {
			failed = err
			return
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode != 0 && failed == nil {
					failed = fmt.Errorf("commit %s/%d: error code %d", t.Topic, p.Partition, p.ErrorCode)
				}
			}
		}
	})
	return failed
}
