package serving

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/features"
	"millrace/features/keyspace"
)

// readiness knows which view versions have their whole history in the store. A version is not served before, and not after
// the store was lost until it is rebuilt: part of a history is a wrong answer.
type readiness struct {
	rdb   redis.UniversalClient
	bound *features.Bound
	space keyspace.Space

	state atomic.Pointer[readyState]
	mu    sync.Mutex // one check at a time
}

// readyState is the outcome of a check. It is replaced, never changed.
type readyState struct {
	incarnation string
	done        map[uint32]bool
	missing     map[string]string // view -> what it waits for
	at          time.Time
}

// recheckEvery is how often an incomplete store is looked at again.
const recheckEvery = 250 * time.Millisecond

func (r *readiness) complete(version uint32) bool {
	s := r.state.Load()
	return s != nil && s.done[version]
}

// missing says what views that are not complete wait for.
func (r *readiness) missing() map[string]string {
	if s := r.state.Load(); s != nil {
		return s.missing
	}
	return map[string]string{"*": "the store was not looked at yet"}
}

// seen compares the incarnation that a read found with the one that was checked, and checks again if need be, before the read
// is answered.
func (r *readiness) seen(ctx context.Context, incarnation string) error {
	s := r.state.Load()
	if s != nil && s.incarnation == incarnation && (len(s.missing) == 0 || time.Since(s.at) < recheckEvery) {
		return nil
	}
	return r.check(ctx, incarnation)
}

// check looks at all units of all views.
func (r *readiness) check(ctx context.Context, incarnation string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.state.Load(); s != nil && s.incarnation == incarnation && time.Since(s.at) < recheckEvery {
		return nil // another request has just checked
	}
	next := &readyState{incarnation: incarnation, done: map[uint32]bool{}, missing: map[string]string{}, at: time.Now()}
	counts, err := r.rdb.HGetAll(ctx, r.space.Partitions()).Result()
	if err != nil {
		return fmt.Errorf("check the store: %w", err)
	}
	headers, err := r.headers(ctx)
	if err != nil {
		return err
	}
	units := map[uint32][]unitState{} // by log
	for _, v := range r.bound.Views {
		waits := ""
		if incarnation == "" {
			waits = "no speed layer has written to the store"
		}
		for _, topic := range v.Source.Topics {
			log := r.bound.Logs[topic].ID
			if _, read := units[log]; !read {
				partitions, _ := strconv.Atoi(counts[strconv.FormatUint(uint64(log), 10)])
				if units[log], err = r.units(ctx, log, partitions); err != nil {
					return err
				}
			}
			if waits == "" {
				waits = incomplete(v, topic, units[log], headers)
			}
		}
		if waits == "" {
			next.done[v.Version.ID] = true
		} else {
			next.missing[v.Definition.Name] = waits
		}
	}
	r.state.Store(next)
	return nil
}

// unitState is what the store says of one unit.
type unitState struct {
	log       uint32
	partition int32
	bucket    keyspace.Bucket
	marker    string
	starts    map[string]string
}

// units reads the units of a log.
func (r *readiness) units(ctx context.Context, log uint32, partitions int) ([]unitState, error) {
	var list []unitState
	for partition := range int32(partitions) {
		pipe := r.rdb.Pipeline()
		var markers []*redis.StringCmd
		var starts []*redis.MapStringStringCmd
		for b := range r.bound.Registry.Buckets {
			markers = append(markers, pipe.Get(ctx, r.space.Marker(keyspace.Bucket(b), log, partition)))
			starts = append(starts, pipe.HGetAll(ctx, r.space.Starts(keyspace.Bucket(b), log, partition)))
		}
		if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
			return nil, fmt.Errorf("check the store: %w", err)
		}
		for b := range r.bound.Registry.Buckets {
			list = append(list, unitState{log, partition, keyspace.Bucket(b), markers[b].Val(), starts[b].Val()})
		}
	}
	return list, nil
}

func (r *readiness) headers(ctx context.Context) ([]map[string]string, error) {
	pipe := r.rdb.Pipeline()
	var cmds []*redis.MapStringStringCmd
	for b := range r.bound.Registry.Buckets {
		cmds = append(cmds, pipe.HGetAll(ctx, r.space.Header(keyspace.Bucket(b))))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("check the store: %w", err)
	}
	headers := make([]map[string]string, len(cmds))
	for i, cmd := range cmds {
		headers[i] = cmd.Val()
	}
	return headers, nil
}

// incomplete says what a view waits for in a log, or nothing.
func incomplete(v *features.BoundView, topic string, units []unitState, headers []map[string]string) string {
	if len(units) == 0 {
		return fmt.Sprintf("topic %s is not folded yet", topic)
	}
	id := strconv.FormatUint(uint64(v.Version.ID), 10)
	for _, u := range units {
		text, ok := u.starts[id]
		marker, markerErr := keyspace.ParseMarker(u.marker)
		start, startErr := keyspace.ParseStart(text)
		switch {
		case !ok || markerErr != nil || startErr != nil:
			return fmt.Sprintf("%s/%d is not folded yet", topic, u.partition)
		case marker.Next < start.Until:
			return fmt.Sprintf("%s/%d is folded up to %d of %d", topic, u.partition, marker.Next, start.Until)
		case start.From > 0:
			var run features.Run
			if json.Unmarshal([]byte(headers[u.bucket][id]), &run) != nil || !reaches(&run, u.log, u.partition, start.From) {
				return fmt.Sprintf("%s/%d is folded from %d on, and no batch run has written what lies before: run `millrace batch`", topic, u.partition, start.From)
			}
		}
	}
	return ""
}

func reaches(run *features.Run, log uint32, partition int32, from int64) bool {
	for _, p := range run.Positions {
		if p.Log == log && p.Partition == partition && p.Offset >= from {
			return true
		}
	}
	return false
}
