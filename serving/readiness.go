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
	mu    sync.Mutex // one look at a time
}

// readyState is the outcome of a look at the store. It is replaced, never changed.
type readyState struct {
	incarnation string
	done        map[uint32]bool   // by version
	missing     map[string]string // view -> what it waits for
	at          time.Time
	again       time.Duration // after which the store is looked at again
}

// How often the store is looked at again: soon while views are being built, more seldom the longer that takes, and seldom
// once all are complete, when only newer definitions can change anything.
const (
	recheckFirst = 250 * time.Millisecond
	recheckLast  = 2 * time.Second
	recheckDone  = 5 * time.Second
	checkTimeout = 10 * time.Second
)

func (r *readiness) complete(version uint32) bool {
	s := r.state.Load()
	return s != nil && s.done[version]
}

// missing says what views that are not complete wait for.
func (r *readiness) missing() map[string]string {
	if s := r.state.Load(); s != nil {
		return s.missing
	}
	return nil
}

// judge says what is complete in states that were read after before was known, together with that incarnation: before itself
// if the store is still the one that it speaks of, else what a look at the store finds now, and the states must be read
// again. What changed otherwise is found out beside the request.
func (r *readiness) judge(ctx context.Context, before *readyState, incarnation string) (*readyState, error) {
	if before == nil || before.incarnation != incarnation {
		return r.check(ctx, before)
	}
	if time.Since(before.at) > before.again && r.mu.TryLock() {
		go func() {
			defer r.mu.Unlock()
			detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout)
			defer cancel()
			_ = r.look(detached) // a store that is away is told by the reads themselves
		}()
	}
	return before, nil
}

// check looks at the store, unless somebody did since before.
func (r *readiness) check(ctx context.Context, before *readyState) (*readyState, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state.Load() == before {
		if err := r.look(ctx); err != nil {
			return nil, err
		}
	}
	return r.state.Load(), nil
}

// refresh looks at the store if the last look is old enough, and returns what is known then.
func (r *readiness) refresh(ctx context.Context) (*readyState, error) {
	s := r.state.Load()
	if s != nil && time.Since(s.at) <= recheckFirst {
		return s, nil
	}
	return r.check(ctx, s)
}

// look reads all that says how whole the views' histories are. The caller holds mu.
func (r *readiness) look(ctx context.Context) error {
	before := r.state.Load()
	next := &readyState{done: map[uint32]bool{}, missing: map[string]string{}, at: time.Now(), again: recheckFirst}
	pipe := r.rdb.Pipeline()
	incarnation, document := pipe.Get(ctx, r.space.Incarnation()), pipe.Get(ctx, r.space.Registry())
	counts := pipe.HGetAll(ctx, r.space.Partitions())
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("look at the store: %w", err)
	}
	next.incarnation = incarnation.Val()
	same := before != nil && before.incarnation == next.incarnation
	retired, err := r.retired(document.Val())
	if err != nil {
		return err
	}
	units := map[uint32][]unitState{} // by log
	var headers []map[string]string
	for _, v := range r.bound.Views {
		id, name := v.Version.ID, v.Definition.Name
		switch {
		case next.incarnation == "":
			next.missing[name] = "no speed layer has written to the store"
			continue
		case retired[id]:
			next.missing[name] = "the view was defined anew: restart this server with the definitions that were applied"
			continue
		case same && before.done[id]: // for good, in this incarnation
			next.done[id] = true
			continue
		}
		if headers == nil {
			if headers, err = r.headers(ctx); err != nil {
				return err
			}
		}
		waits := ""
		for _, topic := range v.Source.Topics {
			log := r.bound.Logs[topic].ID
			if _, read := units[log]; !read {
				partitions, _ := strconv.Atoi(counts.Val()[strconv.FormatUint(uint64(log), 10)])
				if units[log], err = r.units(ctx, log, partitions); err != nil {
					return err
				}
			}
			if waits == "" {
				waits = incomplete(v, topic, units[log], headers)
			}
		}
		if waits == "" {
			next.done[id] = true
		} else {
			next.missing[name] = waits
		}
	}
	switch {
	case len(next.missing) == 0:
		next.again = recheckDone
	case same && len(before.done) == len(next.done):
		next.again = min(2*before.again, recheckLast)
	}
	r.state.Store(next)
	return nil
}

// retired returns the served versions that are no longer the definition of their view: nobody folds them any more. A store
// without a registry has lost it, and says nothing.
func (r *readiness) retired(document string) (map[uint32]bool, error) {
	if document == "" {
		return nil, nil
	}
	registry, err := features.ParseRegistry([]byte(document))
	if err != nil {
		return nil, fmt.Errorf("look at the store: %w", err)
	}
	if registry.Generation == r.bound.Registry.Generation {
		return nil, nil
	}
	retired := map[uint32]bool{}
	for _, v := range registry.Versions {
		retired[v.ID] = !v.Active
	}
	return retired, nil
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
			return nil, fmt.Errorf("look at the store: %w", err)
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
		return nil, fmt.Errorf("look at the store: %w", err)
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
