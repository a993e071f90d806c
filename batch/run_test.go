package batch

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/redis/go-redis/v9"

	"millrace/features"
	"millrace/features/featurestest"
	"millrace/features/keyspace"
	"millrace/features/tables"
	"millrace/internal/storetest"
	"millrace/windows"
)

var seed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "seed of the random tests")

const partitions = 3

// bench is a project whose archive holds random events.
type bench struct {
	t      *testing.T
	conn   driver.Conn
	redis  *redis.Client
	bound  *features.Bound
	events []windows.Event // all that the source admits
}

func newBench(t *testing.T, rng *rand.Rand, views, records int) *bench {
	t.Helper()
	parsed, problems := features.Parse(map[string][]byte{"law.yaml": []byte(featurestest.RandomDefinitions(rng, views))})
	if problems.Fatal() {
		t.Fatal(problems)
	}
	compiled, err := features.Compile(parsed)
	if err != nil {
		t.Fatal(err)
	}
	registry, _, err := features.Apply(nil, compiled, map[string]string{"law.a": "a", "law.b": "b"})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, conn: storetest.ClickHouseConn(t), redis: redis.NewClient(&redis.Options{Addr: storetest.Redis(t)})}
	t.Cleanup(func() { _ = b.redis.Close() })
	if b.bound, err = registry.Bind(compiled); err != nil {
		t.Fatal(err)
	}
	for _, table := range tables.All(compiled) {
		if err := b.conn.Exec(t.Context(), table.Create()); err != nil {
			t.Fatal(err)
		}
	}
	source := compiled.Sources[0]
	decoder := features.NewDecoder(source)
	next := map[windows.Position]int64{}
	for range records {
		p := windows.Position{Log: uint32(1 + rng.IntN(2)), Partition: int32(rng.IntN(partitions))}
		at := next[p]
		next[p]++
		row := make([]windows.Value, len(source.Fields))
		when, rejection := decoder.Decode(featurestest.RandomEvent(rng), 0, row)
		if rejection != nil {
			continue
		}
		for i := range row {
			row[i].Str = strings.Clone(row[i].Str)
		}
		p.Offset = at
		b.events = append(b.events, windows.Event{Time: when, Position: p, Row: row})
	}
	done := map[string]bool{}
	for _, v := range b.bound.Views {
		table := tables.Clean(v.Source, v.Entity)
		if !done[table.Name] {
			done[table.Name] = true
			b.archive(v, table, next)
		}
	}
	return b
}

// archive writes the events as the archiver does: some twice, as after a retry.
func (b *bench) archive(v *features.BoundView, table tables.Table, next map[windows.Position]int64) {
	b.t.Helper()
	batch, err := b.conn.PrepareBatch(b.t.Context(), table.Insert())
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = batch.Close() }()
	for i, e := range b.events {
		key, ok := v.AppendKey(nil, e.Row)
		if !ok {
			continue
		}
		row := []any{uint32(keyspace.BucketOf(key, b.bound.Registry.Buckets)), string(key), int64(e.Time), e.Position.Log, e.Position.Partition, e.Position.Offset}
		for _, x := range e.Row {
			switch x.Kind {
			case windows.Integer:
				row = append(row, x.Int())
			case windows.Float:
				row = append(row, x.Float())
			case windows.Text:
				row = append(row, x.Str)
			case windows.Boolean:
				row = append(row, x.Bool())
			default:
				row = append(row, nil)
			}
		}
		for range 1 + i%7/6 {
			if err := batch.Append(row...); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	if err := batch.Send(); err != nil {
		b.t.Fatal(err)
	}
	progress, err := b.conn.PrepareBatch(b.t.Context(), tables.Progress().Insert())
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = progress.Close() }()
	for p, n := range next {
		if err := progress.Append(table.Name, p.Log, p.Partition, n); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := progress.Send(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) runner() *Runner {
	b.t.Helper()
	r, err := New(Config{ClickHouse: b.conn, Redis: b.redis, Bound: b.bound})
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// of returns the events of a view by entity.
func (b *bench) of(v *features.BoundView, keep func(e *windows.Event) bool) map[string][]windows.Event {
	byKey := map[string][]windows.Event{}
	for i := range b.events {
		e := &b.events[i]
		if key, ok := v.AppendKey(nil, e.Row); ok && (v.Where == nil || v.Where(e.Row)) && keep(e) {
			byKey[string(key)] = append(byKey[string(key)], *e)
		}
	}
	return byKey
}

// TestSQLStatesAreGoStates: the states that SQL folds from the archive encode to the bytes that package windows makes of the
// same events, block by block.
func TestSQLStatesAreGoStates(t *testing.T) {
	t.Logf("seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 21))
	b := newBench(t, rng, 60, 500)
	compared := 0
	for _, v := range b.bound.Views {
		want := map[string]map[windows.BlockID]*windows.Block{}
		for key, events := range b.of(v, func(*windows.Event) bool { return true }) {
			want[key] = map[windows.BlockID]*windows.Block{}
			newest := slices.MaxFunc(events, func(x, y windows.Event) int { return cmp.Compare(x.Time, y.Time) }).Time
			for i := range events {
				for _, id := range v.BlocksOf(nil, events[i].Time) {
					if !v.Reachable(id.Level, rowOf(v.Level(id.Level), events[i].Time), newest) {
						continue // bases leave it out
					}
					if want[key][id] == nil {
						want[key][id] = &windows.Block{ID: id}
					}
					v.Fold(want[key][id], &events[i])
				}
			}
		}
		blocks := 0
		for level := range v.Levels {
			e := events{view: v.CompiledView, span: everything}
			rows, err := read(t.Context(), b.conn, e.partials(level), 3, v.Level(level))
			if err != nil {
				t.Fatal(err)
			}
			for _, entity := range rows.entities {
				got := map[windows.BlockID]*windows.Block{}
				for row := entity.lo; row < entity.hi; row++ {
					if !v.Reachable(level, rows.b[row], windows.Time(rows.a[row])) {
						continue
					}
					id := v.BlockOf(level, rows.b[row])
					if got[id] == nil {
						got[id] = &windows.Block{ID: id}
					}
					v.AppendRow(got[id], rows.b[row], windows.Time(rows.c[row]), rows.partial(row))
				}
				for id, block := range got {
					other := want[entity.key][id]
					if other == nil {
						t.Fatalf("seed %d: view %+v, key %q: SQL has block %v, Go has not", *seed, *v.Definition, entity.key, id)
					}
					block.Newest = other.Newest
					if sql, goes := v.AppendDelta(nil, 0, block), v.AppendDelta(nil, 0, other); !bytes.Equal(sql, goes) {
						t.Fatalf("seed %d: view %+v, key %q, block %v: SQL %x, Go %x", *seed, *v.Definition, entity.key, id, sql, goes)
					}
					blocks++
				}
			}
		}
		total := 0
		for _, all := range want {
			total += len(all)
		}
		if blocks != total {
			t.Fatalf("seed %d: view %+v: SQL has %d blocks, Go %d", *seed, *v.Definition, blocks, total)
		}
		compared += blocks
	}
	t.Logf("%d blocks compared", compared)
}

// rowOf is the index of the tile that an event at t is in; of a session, whose fragments know no gap yet, the time itself.
func rowOf(level windows.LevelInfo, t windows.Time) int64 {
	switch {
	case level.Session:
		return int64(t)
	case level.Width == 0:
		return 0
	default:
		return int64(windows.Floor(t, level.Width)) / int64(level.Width)
	}
}

// checkBases: every entity has a base of that run that answers as the naive fold of the events below its positions does.
func (b *bench) checkBases(v *features.BoundView, run features.Run) {
	b.t.Helper()
	below := b.of(v, func(e *windows.Event) bool {
		return e.Position.Offset < offsetOf(run.Positions, e.Position.Log, e.Position.Partition)
	})
	if len(below) == 0 {
		b.t.Fatal("no entity is below the run's positions")
	}
	space := keyspace.Space{Project: b.bound.Project}
	reader := v.NewReader()
	for key, events := range below {
		value, err := b.redis.HGet(b.t.Context(), space.Entity(keyspace.BucketOf([]byte(key), b.bound.Registry.Buckets), v.EntityID, []byte(key)), string(keyspace.AppendBase(nil, v.Version.ID))).Bytes()
		if err != nil {
			b.t.Fatalf("base of %q: %v", key, err)
		}
		if id, err := windows.BaseRun(value); err != nil || id != run.ID {
			b.t.Fatalf("base of %q is of run %d, want %d: %v", key, id, run.ID, err)
		}
		reader.Reset()
		if err := reader.AddBase(value); err != nil {
			b.t.Fatal(err)
		}
		at := slices.MaxFunc(events, func(x, y windows.Event) int { return cmp.Compare(x.Time, y.Time) }).Time + 1
		got, err := reader.At(nil, at)
		if want := featurestest.Oracle(v.CompiledView, events, at); err != nil || !slices.Equal(got, want) {
			b.t.Fatalf("seed %d: view %+v, key %q at %d: base %v, want %v: %v", *seed, *v.Definition, key, at, got, want, err)
		}
	}
	for bucket := range b.bound.Registry.Buckets {
		text, err := b.redis.HGet(b.t.Context(), space.Header(keyspace.Bucket(bucket)), versionField(v)).Result()
		var header features.Run
		if err != nil || json.Unmarshal([]byte(text), &header) != nil || header.ID != run.ID {
			b.t.Fatalf("header of bucket %d: %q, %v; want run %d", bucket, text, err, run.ID)
		}
	}
}

// lastRun is what the buckets' headers name.
func (b *bench) lastRun(v *features.BoundView) features.Run {
	b.t.Helper()
	var run features.Run
	text, err := b.redis.HGet(b.t.Context(), keyspace.Space{Project: b.bound.Project}.Header(0), versionField(v)).Result()
	if err != nil || json.Unmarshal([]byte(text), &run) != nil {
		b.t.Fatalf("header: %q, %v", text, err)
	}
	return run
}

// TestRunIsResumed: a run that is stopped anywhere is resumed with the same positions, and then all of its bases are there.
func TestRunIsResumed(t *testing.T) {
	t.Logf("seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 22))
	b := newBench(t, rng, 1, 400)
	v := b.bound.Views[0]
	small := func(r *Runner) *Runner {
		r.sizes.pipeline, r.sizes.record, r.sizes.span, r.sizes.every = 2, 2, 50, 0
		return r
	}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := small(b.runner())
	stopped.cfg.Progress = func(p Progress) {
		if p.State == stateRunning {
			cancel()
		}
	}
	if err := stopped.Run(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("a stopped run returns %v", err)
	}
	var last Progress
	resumed := small(b.runner())
	resumed.cfg.Progress = func(p Progress) { last = p }
	if err := resumed.Run(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if !last.Resumed || last.State != stateSuccess {
		t.Fatalf("the second run is %+v", last)
	}
	run := b.lastRun(v)
	if run.ID != last.Run {
		t.Fatalf("the headers name run %d, want %d", run.ID, last.Run)
	}
	b.checkBases(v, run)

	// A third run starts anew, and its bases replace the others.
	if err := b.runner().Run(t.Context(), []string{v.Definition.Name}); err != nil {
		t.Fatal(err)
	}
	if again := b.lastRun(v); again.ID <= run.ID {
		t.Fatalf("run %d after run %d", again.ID, run.ID)
	}
	b.checkBases(v, b.lastRun(v))
}

// TestAnOlderRunNeverReplacesANewer: where two runs meet, the base and the header of the later one stay, whoever comes last.
func TestAnOlderRunNeverReplacesANewer(t *testing.T) {
	t.Logf("seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 23))
	b := newBench(t, rng, 1, 300)
	v := b.bound.Views[0]
	older := b.runner()
	j, err := older.begin(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	// As if another process had not seen that run: its row is in the table, so the next one is planned beyond it.
	if err := older.record(t.Context(), v, j.run, stateSuccess, ""); err != nil {
		t.Fatal(err)
	}
	if err := b.runner().Run(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	newer := b.lastRun(v)
	if newer.ID <= j.run.ID {
		t.Fatalf("run %d is not after run %d", newer.ID, j.run.ID)
	}
	if err := j.work(t.Context()); err != nil {
		t.Fatal(err)
	}
	if j.progress.Newer == 0 || j.progress.Newer != j.progress.Entities {
		t.Fatalf("%d of %d entities were left to the newer run", j.progress.Newer, j.progress.Entities)
	}
	b.checkBases(v, newer)
}

// TestCoveredDeltasAreRemoved: a base takes away exactly the deltas whose records it holds.
func TestCoveredDeltasAreRemoved(t *testing.T) {
	t.Logf("seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 24))
	b := newBench(t, rng, 2, 300)
	v, other := b.bound.Views[0], b.bound.Views[1]
	space := keyspace.Space{Project: b.bound.Project}
	planted := map[string]map[string]bool{} // hash -> field -> must be left
	positions, err := b.runner().positions(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	for key := range b.of(v, func(e *windows.Event) bool {
		return e.Position.Offset < offsetOf(positions, e.Position.Log, e.Position.Partition)
	}) {
		hash := space.Entity(keyspace.BucketOf([]byte(key), b.bound.Registry.Buckets), v.EntityID, []byte(key))
		planted[hash] = map[string]bool{}
		for _, log := range b.bound.Registry.Logs {
			for partition := range int32(partitions + 1) { // the last is one that the run knows nothing of
				reach := offsetOf(positions, log.ID, partition)
				for epoch := int64(0); epoch < reach+(3<<log.EpochBits); epoch += 1 << log.EpochBits {
					block := windows.BlockID{Level: 0, No: rng.Int64N(5) - 2}
					planted[hash][string(keyspace.AppendDelta(nil, v.Version.ID, log.ID, partition, epoch, block))] = epoch >= reach
					planted[hash][string(keyspace.AppendDelta(nil, other.Version.ID, log.ID, partition, epoch, block))] = true
				}
			}
		}
		for field := range planted[hash] {
			if err := b.redis.HSet(t.Context(), hash, field, "x").Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := b.runner().Run(t.Context(), []string{v.Definition.Name}); err != nil {
		t.Fatal(err)
	}
	for hash, fields := range planted {
		left, err := b.redis.HKeys(t.Context(), hash).Result()
		if err != nil {
			t.Fatal(err)
		}
		want := []string{string(keyspace.AppendBase(nil, v.Version.ID))}
		for field := range maps.Keys(fields) {
			if fields[field] {
				want = append(want, field)
			}
		}
		slices.Sort(left)
		slices.Sort(want)
		if !slices.Equal(left, want) {
			t.Fatalf("seed %d: %d fields are left of %s, want %d", *seed, len(left), hash, len(want))
		}
	}
}

func versionField(v *features.BoundView) string { return strconv.FormatUint(uint64(v.Version.ID), 10) }
