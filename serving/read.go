package serving

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"unsafe"

	"github.com/redis/go-redis/v9"

	"millrace/features"
	"millrace/features/keyspace"
	"millrace/windows"
)

// store reads states from Redis and merges them.
type store struct {
	rdb   redis.UniversalClient
	auto  redis.Cmdable // gathers the commands of requests that come at the same time; nil where the client cannot
	bound *features.Bound
	space keyspace.Space
	ready *readiness
	runs  sync.Map // run id -> *features.Run; a run never changes

	readers sync.Map // version id -> *sync.Pool of *windows.Reader
}

// answer is what a plan reads: results by view, then row, then feature of the view.
type answer struct {
	views []viewAnswer
	at    []windows.Time // the moment of the read, by row
}

type viewAnswer struct {
	results []windows.Result // rows × features of the view
	rows    []rowAnswer
}

// rowAnswer is what is known of one entity in one view besides its values.
type rowAnswer struct {
	newest windows.Time
	known  bool   // an event was folded
	reason string // why the results are INVALID
}

// The reasons of INVALID.
const (
	reasonBuilding = "the view's history is still being built"
	reasonEarly    = "as_of is not after the entity's newest event"
	reasonState    = "the stored state cannot be read"
)

// entityState is the hash of one entity.
type entityState struct {
	hash   string
	cmd    *redis.MapStringStringCmd
	fields map[string]string
}

// read answers a plan with one round trip for all entities and views. All rows are read at their own moment: as_of, or now, or
// just after the newest event of the row's views if that is later.
func (s *store) read(ctx context.Context, p *plan, now windows.Time) (*answer, error) {
	states, at, err := s.fetch(ctx, p)
	if err != nil {
		return nil, err
	}
	a := &answer{views: make([]viewAnswer, len(p.views)), at: make([]windows.Time, p.rows)}
	readers := make([]*windows.Reader, len(p.views))
	pools := make([]*sync.Pool, len(p.views))
	for i, v := range p.views {
		a.views[i] = viewAnswer{results: make([]windows.Result, 0, p.rows*len(v.view.Features)), rows: make([]rowAnswer, p.rows)}
		pools[i] = s.pool(v.view)
		readers[i] = pools[i].Get().(*windows.Reader) //nolint:forcetypeassert // the pool holds nothing else
		defer pools[i].Put(readers[i])
	}
	for row := range p.rows {
		t := now
		for i, v := range p.views {
			r := readers[i]
			r.Reset()
			answer := &a.views[i].rows[row]
			if !s.ready.complete(v.view.Version.ID) {
				answer.reason = reasonBuilding
			} else if state := at[row*len(p.views)+i]; state >= 0 {
				if err := s.load(ctx, r, v.view, states[state].fields); err != nil {
					answer.reason = reasonState
				}
			}
			if answer.newest, answer.known = r.Newest(); answer.known && answer.newest >= t {
				t = answer.newest.Add(1)
			}
		}
		if p.asOf != nil {
			t = *p.asOf
		}
		a.at[row] = t
		for i, v := range p.views {
			answer := &a.views[i].rows[row]
			if answer.reason == "" {
				var err error
				before := len(a.views[i].results)
				if a.views[i].results, err = readers[i].At(a.views[i].results, t); err != nil {
					a.views[i].results = a.views[i].results[:before]
					answer.reason = reasonState
					if errors.Is(err, windows.ErrBeforeNewest) {
						answer.reason = reasonEarly
					}
				}
			}
			if answer.reason != "" {
				answer.known = false
				for range v.view.Features {
					a.views[i].results = append(a.views[i].results, windows.Result{Status: windows.StatusInvalid})
				}
			}
		}
	}
	return a, nil
}

// fetch reads the hash of each distinct entity once. at holds, for each row and view, the index of its entity, or -1 where a
// key is null.
func (s *store) fetch(ctx context.Context, p *plan) (states []entityState, at []int, err error) {
	at = make([]int, 0, p.rows*len(p.views))
	var index map[string]int
	if p.rows > 1 {
		index = make(map[string]int, p.rows)
	}
	var key, name []byte
	values := make([]windows.Value, 0, 4)
	for row := range p.rows {
		for i, v := range p.views {
			values = values[:0]
			for _, k := range v.keys {
				values = append(values, p.keys[k].values[row])
			}
			var ok bool
			if key, ok = v.view.Entity.AppendKey(key[:0], values); !ok {
				at = append(at, -1)
				continue
			}
			name = s.space.AppendEntity(name[:0], keyspace.BucketOf(key, s.bound.Registry.Buckets), v.view.EntityID, key)
			found := -1
			if index != nil {
				if n, ok := index[string(name)]; ok {
					found = n
				}
			} else if i > 0 && len(states) > 0 && states[len(states)-1].hash == string(name) {
				found = len(states) - 1
			}
			if found < 0 {
				found = len(states)
				states = append(states, entityState{hash: string(name)})
				if index != nil {
					index[states[found].hash] = found
				}
			}
			at = append(at, found)
		}
	}
	var token *redis.StringCmd
	if len(states) == 1 && s.auto != nil {
		// The two commands travel together, and with those of other requests; their results wait until they have arrived.
		token, states[0].cmd = s.auto.Get(ctx, s.space.Incarnation()), s.auto.HGetAll(ctx, states[0].hash)
	} else {
		pipe := s.rdb.Pipeline()
		token = pipe.Get(ctx, s.space.Incarnation())
		for i := range states {
			states[i].cmd = pipe.HGetAll(ctx, states[i].hash)
		}
		_, _ = pipe.Exec(ctx) // each command has its own error
	}
	incarnation, err := token.Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, nil, unavailableError{fmt.Errorf("read states: %w", err)}
	}
	for i := range states {
		if states[i].fields, err = states[i].cmd.Result(); err != nil {
			return nil, nil, unavailableError{fmt.Errorf("read states: %w", err)}
		}
	}
	// A store that was lost, or is another, must not answer for what it has not rebuilt.
	if err := s.ready.seen(ctx, incarnation); err != nil {
		return nil, nil, unavailableError{err}
	}
	return states, at, nil
}

func (s *store) pool(v *features.BoundView) *sync.Pool {
	if p, ok := s.readers.Load(v.Version.ID); ok {
		return p.(*sync.Pool) //nolint:forcetypeassert // the map holds nothing else
	}
	p, _ := s.readers.LoadOrStore(v.Version.ID, &sync.Pool{New: func() any { return v.NewReader() }})
	return p.(*sync.Pool) //nolint:forcetypeassert // the map holds nothing else
}

// load gives a reader the base of a view and the deltas that the base does not cover.
func (s *store) load(ctx context.Context, r *windows.Reader, v *features.BoundView, fields map[string]string) error {
	var run *features.Run
	var name [16]byte
	if base, ok := fields[string(keyspace.AppendBase(name[:0], v.Version.ID))]; ok {
		value := bytesOf(base)
		id, err := windows.BaseRun(value)
		if err != nil {
			return err
		}
		if run, err = s.run(ctx, id); err != nil {
			return err
		}
		if err := r.AddBase(value); err != nil {
			return err
		}
	}
	for name, value := range fields {
		f, err := keyspace.ParseField(name)
		if err != nil {
			return err
		}
		if f.Version != v.Version.ID || f.Base || run != nil && run.Covers(f.Log, f.Partition, f.Epoch) {
			continue
		}
		if err := r.AddDelta(f.Block, bytesOf(value)); err != nil {
			return err
		}
	}
	return nil
}

// bytesOf shows a text as bytes without a copy; a reader only reads them.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// run returns the positions of a batch run.
func (s *store) run(ctx context.Context, id uint64) (*features.Run, error) {
	if r, ok := s.runs.Load(id); ok {
		return r.(*features.Run), nil //nolint:forcetypeassert // the map holds nothing else
	}
	document, err := s.rdb.HGet(ctx, s.space.Runs(), strconv.FormatUint(id, 10)).Bytes()
	if err != nil {
		return nil, fmt.Errorf("positions of run %d: %w", id, err)
	}
	r := &features.Run{}
	if err := json.Unmarshal(document, r); err != nil {
		return nil, fmt.Errorf("positions of run %d: %w", id, err)
	}
	s.runs.Store(id, r)
	return r, nil
}
