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
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"millrace/features"
	"millrace/features/keyspace"
	"millrace/windows"
)

// store reads states from Redis and merges them.
type store struct {
	rdb    redis.UniversalClient
	auto   *redis.AutoPipeliner // gathers the commands of requests that come at the same time; nil for a cluster
	bound  *features.Bound
	space  keyspace.Space
	ready  *readiness
	tracer trace.Tracer
	runs   sync.Map // run id -> *features.Run; a run never changes

	readers  map[*features.BoundView]*sync.Pool // of *windows.Reader
	readings sync.Pool                          // of *reading
}

func newStore(rdb redis.UniversalClient, bound *features.Bound, tracer trace.Tracer) *store {
	space := keyspace.Space{Project: bound.Project}
	s := &store{
		rdb: rdb, bound: bound, space: space, tracer: tracer, readers: map[*features.BoundView]*sync.Pool{},
		ready: &readiness{rdb: rdb, bound: bound, space: space},
	}
	s.readings.New = func() any { return &reading{index: map[string]int{}} }
	for _, v := range bound.Views {
		s.readers[v] = &sync.Pool{New: func() any { return v.NewReader() }}
	}
	return s
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

// reading is an answer with what was used to find it; it is used again by later requests.
type reading struct {
	answer
	states  []entityState
	at      []int          // by row and view: the entity's place in states, or -1 where a key is null
	index   map[string]int // hash -> place in states
	fields  []storedField
	values  []windows.Value
	readers []*windows.Reader
	key     []byte
	name    []byte
}

// entityState is the hash of one entity.
type entityState struct {
	hash     string
	cmd      *redis.MapStringStringCmd
	from, to int  // its fields, in reading.fields
	corrupt  bool // it has a field that no layer of ours writes
}

// storedField is a parsed field of an entity's hash.
type storedField struct {
	keyspace.Field
	value []byte
}

// maxReadings is how often a read is tried that finds the store changing under it.
const maxReadings = 3

// read answers a plan with one round trip for all entities and views. All rows are read at their own moment: as_of, or now, or
// just after the newest event of the row's views if that is later. The caller releases the answer once it is written.
func (s *store) read(ctx context.Context, p *plan, now windows.Time) (*reading, error) {
	r := s.readings.Get().(*reading) //nolint:forcetypeassert // the pool holds nothing else
	r.locate(s, p)
	// What was complete before the states were read is complete in them; what a look at the store finds complete afterwards
	// may have become so in between, and the states are read again.
	var known *readyState
	for try := 0; ; try++ {
		before := s.ready.state.Load()
		incarnation, err := s.fetch(ctx, r)
		if err == nil {
			known, err = s.ready.judge(ctx, before, incarnation)
		}
		if err != nil {
			s.release(r)
			return nil, unavailableError{fmt.Errorf("read states: %w", err)}
		}
		if known == before && known != nil {
			break
		}
		if try == maxReadings {
			known = &readyState{} // a store that is lost again and again answers for nothing
			break
		}
	}
	s.merge(ctx, p, r, known, now)
	return r, nil
}

// release takes an answer back.
func (s *store) release(r *reading) {
	if len(r.states) > 1000 {
		return // a rare giant must not stay
	}
	clear(r.states) // the values lie in Redis' answers, which must not live on
	clear(r.fields)
	for i := range r.views {
		clear(r.views[i].results)
	}
	s.readings.Put(r)
}

// merge reads the features of all rows from the states.
func (s *store) merge(ctx context.Context, p *plan, r *reading, known *readyState, now windows.Time) {
	r.readers = r.readers[:0]
	for _, v := range p.views {
		reader := s.readers[v.view].Get().(*windows.Reader) //nolint:forcetypeassert // the pool holds nothing else
		r.readers = append(r.readers, reader)
	}
	for row := range p.rows {
		t := now
		for i, v := range p.views {
			reader, answer := r.readers[i], &r.views[i].rows[row]
			reader.Reset()
			if !known.done[v.view.Version.ID] {
				answer.reason = reasonBuilding
			} else if state := r.at[row*len(p.views)+i]; state >= 0 {
				if err := s.load(ctx, reader, v.view, r, &r.states[state]); err != nil {
					reader.Reset()
					answer.reason = reasonState
				}
			}
			if answer.newest, answer.known = reader.Newest(); answer.known && answer.newest >= t {
				t = answer.newest.Add(1)
			}
		}
		if p.asOf != nil {
			t = *p.asOf
		}
		r.answer.at[row] = t
		for i, v := range p.views {
			r.views[i].finish(row, r.readers[i], v.view, t)
		}
	}
	for i, v := range p.views {
		r.readers[i].Reset()
		s.readers[v.view].Put(r.readers[i])
		r.readers[i] = nil
	}
}

// finish appends the results of one row.
func (a *viewAnswer) finish(row int, reader *windows.Reader, v *features.BoundView, t windows.Time) {
	answer := &a.rows[row]
	if answer.reason == "" {
		before := len(a.results)
		var err error
		if a.results, err = reader.At(a.results, t); err == nil {
			return
		}
		a.results = a.results[:before]
		answer.reason = reasonState
		if errors.Is(err, windows.ErrBeforeNewest) {
			answer.reason = reasonEarly
		}
	}
	answer.known = false
	for range v.Features {
		a.results = append(a.results, windows.Result{Status: windows.StatusInvalid})
	}
}

// locate names the hash of each distinct entity.
func (r *reading) locate(s *store, p *plan) {
	r.states, r.at, r.fields = r.states[:0], r.at[:0], r.fields[:0]
	clear(r.index)
	for len(r.views) < len(p.views) {
		r.views = append(r.views, viewAnswer{})
	}
	r.views = r.views[:len(p.views)]
	for i := range r.views {
		a := &r.views[i]
		a.results = a.results[:0]
		a.rows = append(a.rows[:0], make([]rowAnswer, p.rows)...)
	}
	r.answer.at = append(r.answer.at[:0], make([]windows.Time, p.rows)...)
	for row := range p.rows {
		for i, v := range p.views {
			if i > 0 && sameKeys(&v, &p.views[i-1]) {
				r.at = append(r.at, r.at[len(r.at)-1])
				continue
			}
			r.values = r.values[:0]
			for _, k := range v.keys {
				r.values = append(r.values, p.keys[k].values[row])
			}
			var ok bool
			if r.key, ok = v.view.Entity.AppendKey(r.key[:0], r.values); !ok {
				r.at = append(r.at, -1)
				continue
			}
			r.name = s.space.AppendEntity(r.name[:0], keyspace.BucketOf(r.key, s.bound.Registry.Buckets), v.view.EntityID, r.key)
			state, found := r.index[string(r.name)]
			if !found {
				state = len(r.states)
				r.states = append(r.states, entityState{hash: string(r.name)})
				r.index[r.states[state].hash] = state
			}
			r.at = append(r.at, state)
		}
	}
}

// sameKeys reports whether two views of a plan are about the same entity of a row.
func sameKeys(a, b *planView) bool {
	if a.view.EntityID != b.view.EntityID || len(a.keys) != len(b.keys) {
		return false
	}
	for i := range a.keys {
		if a.keys[i] != b.keys[i] {
			return false
		}
	}
	return true
}

// fetch reads the hash of each entity and, behind them, the store's incarnation: if it is the one that is known, the store
// was not lost before the states were read.
func (s *store) fetch(ctx context.Context, r *reading) (incarnation string, err error) {
	if trace.SpanFromContext(ctx).IsRecording() {
		var span trace.Span
		ctx, span = s.tracer.Start(ctx, "PIPELINE", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
			attribute.String("db.system.name", "redis"), attribute.String("db.operation.name", "PIPELINE"),
			attribute.Int("db.operation.batch.size", len(r.states)+1)))
		defer span.End()
	}
	var token *redis.StringCmd
	if len(r.states) == 1 && s.auto != nil {
		// The two commands travel together, and with those of other requests; Result waits until they are answered.
		r.states[0].cmd = s.auto.HGetAll(ctx, r.states[0].hash)
		token = s.auto.Get(ctx, s.space.Incarnation())
	} else {
		pipe := s.rdb.Pipeline()
		for i := range r.states {
			r.states[i].cmd = pipe.HGetAll(ctx, r.states[i].hash)
		}
		token = pipe.Get(ctx, s.space.Incarnation())
		_, _ = pipe.Exec(ctx) // each command has its own error
	}
	r.fields = r.fields[:0]
	for i := range r.states {
		state := &r.states[i]
		hash, hashErr := state.cmd.Result()
		if hashErr != nil {
			err = hashErr
			continue // all are waited for: none may be written to once the request is over
		}
		state.from, state.corrupt = len(r.fields), false
		for name, value := range hash {
			f, parseErr := keyspace.ParseField(name)
			state.corrupt = state.corrupt || parseErr != nil
			r.fields = append(r.fields, storedField{f, bytesOf(value)})
		}
		state.to = len(r.fields)
	}
	incarnation, tokenErr := token.Result()
	if tokenErr != nil && !errors.Is(tokenErr, redis.Nil) {
		err = tokenErr
	}
	return incarnation, err
}

// bytesOf shows a text as bytes without a copy; a reader only reads them.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

var errCorrupt = errors.New("the entity's hash has a field that nobody writes")

// load gives a reader the base of a view and the deltas that the base does not cover.
func (s *store) load(ctx context.Context, reader *windows.Reader, v *features.BoundView, r *reading, state *entityState) error {
	if state.corrupt {
		return errCorrupt
	}
	fields := r.fields[state.from:state.to]
	var run *features.Run
	for i := range fields {
		f := &fields[i]
		if !f.Base || f.Version != v.Version.ID {
			continue
		}
		id, err := windows.BaseRun(f.value)
		if err != nil {
			return err
		}
		if run, err = s.run(ctx, id); err != nil {
			return err
		}
		if err := reader.AddBase(f.value); err != nil {
			return err
		}
	}
	for i := range fields {
		f := &fields[i]
		if f.Base || f.Version != v.Version.ID || run != nil && run.Covers(f.Log, f.Partition, f.Epoch) {
			continue
		}
		if err := reader.AddDelta(f.Block, f.value); err != nil {
			return err
		}
	}
	return nil
}

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
