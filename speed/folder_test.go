package speed_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"millrace/features"
	"millrace/features/keyspace"
	"millrace/internal/storetest"
	"millrace/speed"
	"millrace/speed/kafka"
	"millrace/windows"
)

var seed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "seed of random tests")

const definitions = `
project: shop
sources:
  orders:
    topics: [orders.a, orders.b]
    fields: {user: string, item: string, at: int64, amount: int64, price: float64}
    event_time: {field: at, unit: ms, min: any, max: any}
    max_future: any
    epoch_bits: 3
entities:
  user: {keys: {user: string}}
  item: {keys: {item: string}}
views:
  visits:
    entity: user
    source: orders
    window: {type: session, gap: 100ms, retain: all}
    features:
      n: {aggregate: count}
      s: {aggregate: sum, field: amount}
      p: {aggregate: sum, field: price}
      last: {aggregate: last, field: item}
      start: {aggregate: session_start}
      end: {aggregate: session_end}
      prev: {aggregate: count, session: previous}
  recent:
    entity: user
    source: orders
    window: {type: sliding, size: 1s, hop: 50ms}
    features:
      n: {aggregate: count}
      mean: {aggregate: mean, field: price}
      big: {aggregate: count, where: amount > 50}
  sold:
    entity: item
    source: orders
    window: {type: lifetime}
    features:
      n: {aggregate: count}
      max: {aggregate: max, field: amount}
      first: {aggregate: first, field: user}
`

// bench is a project on a real broker and a real Redis.
type bench struct {
	t       *testing.T
	brokers []string
	redis   string
	bound   *features.Bound
	client  *kgo.Client
	rdb     *redis.Client
	log     map[string][][]order // topic -> partition -> records
}

type order struct {
	json string
	time int64
}

func newBench(t *testing.T, partitions int32) *bench {
	t.Helper()
	parsed, problems := features.Parse(map[string][]byte{"shop.yaml": []byte(definitions)})
	if problems.Fatal() {
		t.Fatal(problems)
	}
	compiled, err := features.Compile(parsed)
	if err != nil {
		t.Fatal(err)
	}
	topics := []string{"orders.a", "orders.b"}
	brokers, _ := storetest.Kafka(t, partitions, topics...)
	b := &bench{t: t, brokers: brokers, redis: storetest.Redis(t), log: map[string][][]order{}}
	for _, topic := range topics {
		b.log[topic] = make([][]order, partitions)
	}
	if b.client, err = kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.client.Close)
	ids, err := kafka.TopicIDs(t.Context(), kadm.NewClient(b.client), topics)
	if err != nil {
		t.Fatal(err)
	}
	registry, _, err := features.Apply(nil, compiled, ids)
	if err != nil {
		t.Fatal(err)
	}
	if b.bound, err = registry.Bind(compiled); err != nil {
		t.Fatal(err)
	}
	b.rdb = redis.NewClient(&redis.Options{Addr: b.redis})
	t.Cleanup(func() { _ = b.rdb.Close() })
	return b
}

// produce appends random orders: late, equal times, exact gaps, few and many keys, some that are rejected.
func (b *bench) produce(rng *rand.Rand, n int) {
	b.t.Helper()
	var records []*kgo.Record
	for range n {
		topic := []string{"orders.a", "orders.b"}[rng.IntN(2)]
		partition := rng.IntN(len(b.log[topic]))
		o := order{time: int64(rng.IntN(40))*50 - 500}
		o.json = fmt.Sprintf(`{"user":"u%d","item":"i%d","at":%d,"amount":%d,"price":%g}`, rng.IntN(30), rng.IntN(200), o.time, rng.IntN(100), float64(rng.IntN(1000))/7)
		if rng.IntN(20) == 0 {
			o.json = `{"user":` + strconv.Itoa(rng.IntN(9)) + `}` // a number where text is declared
		}
		b.log[topic][partition] = append(b.log[topic][partition], o)
		records = append(records, &kgo.Record{Topic: topic, Partition: int32(partition), Value: []byte(o.json)})
	}
	if err := b.client.ProduceSync(b.t.Context(), records...).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
}

// worker is a folder that can be cut off from Redis in mid-air, as a crash does: what it had in memory is gone.
type worker struct {
	cancel context.CancelFunc
	done   chan error
	mu     sync.Mutex
	conns  []net.Conn
	dead   bool
}

func (b *bench) start() *worker {
	b.t.Helper()
	w := &worker{done: make(chan error, 1)}
	rdb := redis.NewClient(&redis.Options{Addr: b.redis, MaxRetries: -1, DialerRetries: 1, Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.dead {
			return nil, errors.New("cut off")
		}
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err == nil {
			w.conns = append(w.conns, c)
		}
		return c, err
	}})
	folder, err := speed.NewFolder(speed.Config{
		Brokers: b.brokers, Redis: rdb, Bound: b.bound, CompareEvery: 50 * time.Millisecond, MaxPoll: 20, StopWithin: 300 * time.Millisecond,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	go func() {
		w.done <- folder.Run(ctx)
		_ = rdb.Close()
	}()
	b.t.Cleanup(func() { w.crash() })
	return w
}

// stop ends the folder in order.
func (w *worker) stop() error {
	w.cancel()
	err := <-w.done
	w.done <- err
	return err
}

// crash cuts the folder off before it ends: nothing more of it reaches Redis.
func (w *worker) crash() {
	w.mu.Lock()
	w.dead = true
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.mu.Unlock()
	w.cancel()
	select {
	case err := <-w.done:
		w.done <- err
	case <-time.After(30 * time.Second):
		panic("the folder does not end")
	}
}

// waitFolded waits until all markers have reached the end of the log.
func (b *bench) waitFolded() {
	b.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		behind := b.behind()
		if behind == "" {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("not folded: %s", behind)
		}
		time.Sleep(10 * time.Millisecond) // a real broker and a real store: there is nothing to wait on but them
	}
}

func (b *bench) behind() string {
	space := keyspace.Space{Project: b.bound.Project}
	for topic, partitions := range b.log {
		for id, records := range partitions {
			for bucket := range b.bound.Registry.Buckets {
				key := space.Marker(keyspace.Bucket(bucket), b.bound.Logs[topic].ID, int32(id))
				text, _ := b.rdb.Get(b.t.Context(), key).Result()
				m, err := keyspace.ParseMarker(text)
				if err != nil || m.Next < int64(len(records)) {
					return fmt.Sprintf("%s is %q, want %d", key, text, len(records))
				}
			}
		}
	}
	return ""
}

// check compares every entity's states in Redis with a plain fold of the whole log by package windows, whose own laws are
// tested there.
func (b *bench) check() {
	b.t.Helper()
	compared := 0
	for _, v := range b.bound.Views {
		want := map[string]*windows.Reader{}
		b.foldAll(v, want)
		for key, w := range want {
			got := v.NewReader()
			hash := keyspace.Space{Project: b.bound.Project}.Entity(keyspace.BucketOf([]byte(key), b.bound.Registry.Buckets), v.EntityID, []byte(key))
			fields, err := b.rdb.HGetAll(b.t.Context(), hash).Result()
			if err != nil {
				b.t.Fatal(err)
			}
			for name, value := range fields {
				f, err := keyspace.ParseField(name)
				if err != nil {
					b.t.Fatal(err)
				}
				if f.Version != v.Version.ID {
					continue
				}
				if err := got.AddDelta(f.Block, []byte(value)); err != nil {
					b.t.Fatal(err)
				}
			}
			newest, _ := w.Newest()
			for _, at := range []windows.Time{newest + 1, newest + 99, newest + 100, newest + 101, newest + 1050, newest + 5000} {
				wantResults, err1 := w.At(nil, at)
				gotResults, err2 := got.At(nil, at)
				if err1 != nil || err2 != nil || !slices.Equal(wantResults, gotResults) {
					b.t.Fatalf("view %s, key %q at %d: got %v (%v), want %v (%v)", v.Definition.Name, key, at, gotResults, err2, wantResults, err1)
				}
				compared += len(wantResults)
			}
		}
	}
	if compared == 0 {
		b.t.Fatal("nothing was compared")
	}
}

// foldAll folds the whole log in log order into readers by entity key.
func (b *bench) foldAll(v *features.BoundView, into map[string]*windows.Reader) {
	b.t.Helper()
	decoder := features.NewDecoder(v.Source)
	row := make([]windows.Value, len(v.Source.Fields))
	for topic, partitions := range b.log {
		for id, records := range partitions {
			for offset, o := range records {
				at, rejection := decoder.Decode([]byte(o.json), 0, row)
				if rejection != nil {
					continue
				}
				key, ok := v.AppendKey(nil, row)
				if !ok {
					continue
				}
				e := &windows.Event{Time: at, Row: row, Position: windows.Position{Log: b.bound.Logs[topic].ID, Partition: int32(id), Offset: int64(offset)}}
				r := into[string(key)]
				if r == nil {
					r = v.NewReader()
					into[string(key)] = r
				}
				for _, block := range v.BlocksOf(nil, at) {
					one := &windows.Block{ID: block}
					v.Fold(one, e)
					if err := r.AddBlock(one); err != nil {
						b.t.Fatal(err)
					}
				}
			}
		}
	}
}

func TestFoldsEveryRecordOnce(t *testing.T) {
	t.Logf("seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 1))
	b := newBench(t, 3)
	b.produce(rng, 500)
	w := b.start()
	b.produce(rng, 500)
	b.waitFolded()
	b.check()
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
}

func TestCrashesLoseAndRepeatNothing(t *testing.T) {
	t.Logf("seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 2))
	b := newBench(t, 2)
	for range 12 {
		w := b.start()
		for range 1 + rng.IntN(4) {
			b.produce(rng, 1+rng.IntN(60))
			time.Sleep(time.Duration(rng.IntN(30)) * time.Millisecond) // the crash comes at a random moment
		}
		if rng.IntN(4) == 0 {
			if err := w.stop(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		w.crash()
	}
	b.start()
	b.waitFolded()
	b.check()
}

func TestRebalanceSharesPartitions(t *testing.T) {
	t.Logf("seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 3))
	b := newBench(t, 3)
	workers := []*worker{b.start()}
	for range 6 {
		b.produce(rng, 100)
		workers = append(workers, b.start())
		b.produce(rng, 50)
		if len(workers) > 2 {
			workers[0].crash()
			workers = workers[1:]
		}
	}
	b.waitFolded()
	b.check()
}

// A Redis that goes back in time takes fields and markers along; the folder notices, also when no record comes any more.
func TestRollbackOfRedisHeals(t *testing.T) {
	t.Logf("seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 4))
	b := newBench(t, 2)
	b.start()
	b.produce(rng, 300)
	b.waitFolded()
	before := b.dump()
	b.produce(rng, 300)
	b.waitFolded()
	b.restore(before)
	b.waitFolded()
	b.check()
}

// A Redis that loses everything is rebuilt from the log.
func TestLossOfRedisHeals(t *testing.T) {
	t.Logf("seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 5))
	b := newBench(t, 2)
	b.start()
	b.produce(rng, 300)
	b.waitFolded()
	if err := b.rdb.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	b.waitFolded()
	b.check()
}

func (b *bench) dump() map[string]string {
	b.t.Helper()
	keys, err := b.rdb.Keys(b.t.Context(), "*").Result()
	if err != nil {
		b.t.Fatal(err)
	}
	all := map[string]string{}
	for _, k := range keys {
		if all[k], err = b.rdb.Dump(b.t.Context(), k).Result(); err != nil {
			b.t.Fatal(err)
		}
	}
	return all
}

// restore puts all buckets back in one transaction, as a failover to an older replica does.
func (b *bench) restore(all map[string]string) {
	b.t.Helper()
	pipe := b.rdb.TxPipeline()
	pipe.FlushAll(b.t.Context())
	for k, v := range all {
		pipe.Restore(b.t.Context(), k, 0, v)
	}
	if _, err := pipe.Exec(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// A topic that was deleted and made again is another log: its offsets mean other records.
func TestRefusesAnotherTopic(t *testing.T) {
	b := newBench(t, 1)
	admin := kadm.NewClient(b.client)
	if _, err := admin.DeleteTopics(t.Context(), "orders.a"); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CreateTopics(t.Context(), 1, 1, nil, "orders.a"); err != nil {
		t.Fatal(err)
	}
	w := b.start()
	if err := <-w.done; err == nil || !strings.Contains(err.Error(), "orders.a was made again") {
		t.Fatalf("got %v, want a refusal that names the topic", err)
	} else {
		w.done <- err
	}
}

// A Redis that evicts would lose states in silence.
func TestRefusesARedisThatEvicts(t *testing.T) {
	b := newBench(t, 1)
	if err := b.rdb.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err(); err != nil {
		t.Fatal(err)
	}
	w := b.start()
	if err := <-w.done; err == nil || !strings.Contains(err.Error(), "allkeys-lru") {
		t.Fatalf("got %v, want a refusal that names the policy", err)
	} else {
		w.done <- err
	}
}

// One trace goes from a record's header to the flush that makes it visible.
func TestTraceReachesTheFlush(t *testing.T) {
	b := newBench(t, 1)
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	ctx, root := provider.Tracer("test").Start(t.Context(), "produce")
	root.End()
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	record := &kgo.Record{Topic: "orders.a", Value: []byte(`{"user":"u1","at":5}`), Headers: []kgo.RecordHeader{{Key: "traceparent", Value: []byte(carrier["traceparent"])}}}
	if err := b.client.ProduceSync(t.Context(), record).FirstErr(); err != nil {
		t.Fatal(err)
	}
	b.log["orders.a"][0] = append(b.log["orders.a"][0], order{json: string(record.Value)})
	rdb := redis.NewClient(&redis.Options{Addr: b.redis, MaxRetries: -1})
	defer func() { _ = rdb.Close() }()
	folder, err := speed.NewFolder(speed.Config{Brokers: b.brokers, Redis: rdb, Bound: b.bound, Tracer: provider})
	if err != nil {
		t.Fatal(err)
	}
	run, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- folder.Run(run) }()
	b.waitFolded()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, s := range spans.Ended() {
		if s.SpanContext().TraceID() == root.SpanContext().TraceID() {
			found[s.Name()] = true
		}
	}
	if !found["process orders.a"] || !found["flush"] {
		t.Fatalf("spans of the record's trace: %v, want its processing and its flush", found)
	}
}
