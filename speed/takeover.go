package speed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"millrace/features"
	"millrace/features/keyspace"
)

// errGivenUp is returned for a partition that this worker must not fold: what the markers say cannot be continued from the
// log, or newer definitions own the units.
var errGivenUp = errors.New("partition given up")

// bounds is the part of a partition's log that the broker holds.
type bounds struct{ start, end int64 }

// takeOver makes every unit of p this worker's own: it replaces each marker by one with a fresh token, in a compare-and-set
// against the marker that it read, before it reads a field or folds a record. It leaves p ready to fold and returns the offset
// from which the partition must be read.
func (s *store) takeOver(ctx context.Context, p *partition, log bounds) (from int64, err error) {
	registry := p.bound.Registry
	token := newToken()
	todo := make([]*unit, len(p.units))
	for i := range p.units {
		todo[i] = &p.units[i]
	}
	for attempt := 0; len(todo) > 0; attempt++ {
		if attempt > 0 { // others are here too: give one of us time to finish
			select {
			case <-ctx.Done():
				return 0, ctx.Err()
			case <-time.After(time.Duration(1+rand.IntN(50*attempt)) * time.Millisecond):
			}
		}
		all, err := s.inspect(ctx, p.plan.log.ID, p.id, len(p.units))
		if err != nil {
			return 0, err
		}
		calls := make([]call, len(todo))
		for i, u := range todo {
			next, starts, err := claim(all[u.bucket], p, log)
			if err != nil {
				return 0, fmt.Errorf("take over %s/%d, bucket %d: %w", p.topic, p.id, u.bucket, err)
			}
			u.marker = keyspace.Marker{Next: next, Generation: registry.Generation, Token: token}
			calls[i] = call{
				keys: []string{s.space.Marker(u.bucket, p.plan.log.ID, p.id), s.space.Starts(u.bucket, p.plan.log.ID, p.id)},
				args: append([]any{all[u.bucket].marker, u.marker.String()}, starts...),
			}
		}
		found, err := s.run(ctx, takeoverScript, calls)
		if err != nil {
			return 0, fmt.Errorf("take over %s/%d: %w", p.topic, p.id, err)
		}
		var lost []*unit
		for i, u := range todo {
			if found[i] != u.marker.String() {
				lost = append(lost, u)
			}
		}
		todo = lost
	}
	return p.restart(), nil
}

// claim decides from what Redis holds of a unit where its folding goes on, and where the history of versions that are new to
// it starts.
func claim(have stored, p *partition, log bounds) (next int64, starts []any, err error) {
	versions := p.plan.versions()
	if have.marker != "" {
		m, err := keyspace.ParseMarker(have.marker)
		if err != nil {
			return 0, nil, err
		}
		switch {
		case m.Generation > p.bound.Registry.Generation:
			return 0, nil, fmt.Errorf("%w: generation %d is applied, this worker has %d: restart it with the applied definitions", errGivenUp, m.Generation, p.bound.Registry.Generation)
		case m.Next > log.end:
			return 0, nil, fmt.Errorf("%w: the marker is at %d, the log ends at %d: it was cut, and the state holds records that no longer exist", errGivenUp, m.Next, log.end)
		case m.Next < log.start:
			return 0, nil, fmt.Errorf("%w: the marker is at %d, the log starts at %d: retention removed %d records that were not folded", errGivenUp, m.Next, log.start, log.start-m.Next)
		}
		next = m.Next
	} else if next, err = firstOffset(have.header, versions, p, log); err != nil {
		return 0, nil, err
	}
	for _, v := range versions {
		id := strconv.FormatUint(uint64(v.Version.ID), 10)
		if _, known := have.starts[id]; !known {
			starts = append(starts, id, keyspace.Start{From: next, Until: log.end}.String())
		}
	}
	return next, starts, nil
}

// firstOffset is where a unit without a marker starts: the least position that the bases of its versions reach to, which is
// the start of the log unless all of them have one.
func firstOffset(header map[string]string, versions []*features.BoundView, p *partition, log bounds) (int64, error) {
	least := int64(-1)
	for _, v := range versions {
		position := int64(0)
		if document, ok := header[strconv.FormatUint(uint64(v.Version.ID), 10)]; ok {
			var run features.Run
			if err := json.Unmarshal([]byte(document), &run); err != nil {
				return 0, fmt.Errorf("header of version %d: %w", v.Version.ID, err)
			}
			for _, at := range run.Positions {
				if at.Log == p.plan.log.ID && at.Partition == p.id {
					position = at.Offset
				}
			}
		}
		if least < 0 || position < least {
			least = position
		}
	}
	return min(max(least, log.start), log.end), nil
}
