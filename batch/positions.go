package batch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/redis/go-redis/v9"

	"millrace/features"
	"millrace/features/keyspace"
	"millrace/features/tables"
)

// ErrNotReady is returned for a view whose base cannot be written yet, because the archive does not reach far enough. Waiting
// helps, as long as the archiver runs.
var ErrNotReady = errors.New("the archive does not reach far enough yet")

// ErrArchiveBehind is returned where the archive reaches less far than a base that an earlier run wrote: it has lost events
// whose deltas are gone. Waiting does not help until the archiver has caught up with what it lost.
var ErrArchiveBehind = errors.New("the archive reaches less far than an earlier run")

// positions returns how far a base of the view can reach: in each partition the archive's progress, down to a whole epoch.
// Partitions without a whole epoch are left out.
func (r *Runner) positions(ctx context.Context, v *features.BoundView) ([]features.Position, error) {
	clean := tables.Clean(v.Source, v.Entity).Name
	rows, err := r.cfg.ClickHouse.Query(ctx, "SELECT log, partition, max(next) FROM "+tables.Quote(tables.Progress().Name)+
		" WHERE table_name = "+text(clean)+" GROUP BY log, partition ORDER BY log, partition")
	if err != nil {
		return nil, fmt.Errorf("read the archive's progress: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var list []features.Position
	for rows.Next() {
		var p features.Position
		if err := rows.Scan(&p.Log, &p.Partition, &p.Offset); err != nil {
			return nil, fmt.Errorf("read the archive's progress: %w", err)
		}
		log, ok := r.cfg.Bound.Registry.Log(p.Log)
		if !ok || !slices.Contains(v.Source.Topics, log.Topic) {
			continue
		}
		if p.Offset = log.Epoch(p.Offset); p.Offset > 0 {
			list = append(list, p)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the archive's progress: %w", err)
	}
	return list, nil
}

// checkStarts makes sure that a base at those positions leaves no gap before what the speed layer folds: in every unit it must
// reach at least to where folding of the version began, or, where it has not begun, to where it will.
func (r *Runner) checkStarts(ctx context.Context, v *features.BoundView, positions []features.Position) error {
	counts, err := r.cfg.Redis.HGetAll(ctx, r.space.Partitions()).Result()
	if err != nil {
		return fmt.Errorf("read the numbers of partitions: %w", err)
	}
	for _, log := range r.cfg.Bound.Registry.Logs {
		if !slices.Contains(v.Source.Topics, log.Topic) {
			continue
		}
		n, _ := strconv.ParseInt(counts[strconv.FormatUint(uint64(log.ID), 10)], 10, 32) // absent: no folder has been there
		partitions := int32(n)
		for _, p := range positions {
			if p.Log == log.ID {
				partitions = max(partitions, p.Partition+1)
			}
		}
		for partition := range partitions {
			if err := r.checkPartition(ctx, v, log, partition, offsetOf(positions, log.ID, partition)); err != nil {
				return err
			}
		}
	}
	return nil
}

func offsetOf(positions []features.Position, log uint32, partition int32) int64 {
	for _, p := range positions {
		if p.Log == log && p.Partition == partition {
			return p.Offset
		}
	}
	return 0
}

func (r *Runner) checkPartition(ctx context.Context, v *features.BoundView, log features.Log, partition int32, reached int64) error {
	buckets := r.cfg.Bound.Registry.Buckets
	version := strconv.FormatUint(uint64(v.Version.ID), 10)
	pipe := r.cfg.Redis.Pipeline()
	starts, markers := make([]*redis.StringCmd, buckets), make([]*redis.StringCmd, buckets)
	for b := range buckets {
		starts[b] = pipe.HGet(ctx, r.space.Starts(keyspace.Bucket(b), log.ID, partition), version)
		markers[b] = pipe.Get(ctx, r.space.Marker(keyspace.Bucket(b), log.ID, partition))
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("read the units of %s/%d: %w", log.Topic, partition, err)
	}
	var need int64
	for b := range buckets {
		from, err := beginning(starts[b], markers[b])
		if err != nil {
			return fmt.Errorf("unit of %s/%d, bucket %d: %w", log.Topic, partition, b, err)
		}
		need = max(need, from)
	}
	if epoch := log.Epoch(need); epoch < need {
		need = epoch + 1<<log.EpochBits
	}
	if reached < need {
		return fmt.Errorf("view %s: %w: in %s/%d it must reach offset %d, where folding of the view began, and reaches %d",
			v.Definition.Name, ErrNotReady, log.Topic, partition, need, reached)
	}
	return nil
}

// beginning is the offset from which on a unit holds, or will hold, deltas of the version. A unit that does not know the
// version yet goes on from its marker; one without a marker starts at the bases.
func beginning(start, marker *redis.StringCmd) (int64, error) {
	text, err := start.Result()
	if err == nil {
		s, err := keyspace.ParseStart(text)
		return s.From, err
	}
	if !errors.Is(err, redis.Nil) {
		return 0, err
	}
	if text, err = marker.Result(); errors.Is(err, redis.Nil) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	m, err := keyspace.ParseMarker(text)
	return m.Next, err
}

// behind reports whether a reaches less far than b in some partition.
func behind(a, b []features.Position) bool {
	return slices.ContainsFunc(b, func(p features.Position) bool { return offsetOf(a, p.Log, p.Partition) < p.Offset })
}
