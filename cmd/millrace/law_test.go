package main

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/batch"
	"millrace/features"
	"millrace/features/featurestest"
	"millrace/features/tables"
	"millrace/internal/storetest"
	"millrace/serving"
	"millrace/speed"
	"millrace/speed/archive"
	"millrace/speed/kafka"
	"millrace/windows"
)

var (
	lawSeed  = flag.Uint64("seed", uint64(time.Now().UnixNano()), "seed of the random tests")
	lawViews = flag.Int("law.views", 24, "random views of one run")
)

// TestTheLawOnTheWholePath states the law of the project on random definitions and random logs, over the wire: what HTTP
// serves equals the naive fold of the whole log and equals SQL over the archive, to the bit, whatever order, lateness,
// duplicate keys, split between base and delta, and crashes.
func TestTheLawOnTheWholePath(t *testing.T) {
	t.Logf("seed %d", *lawSeed)
	rng := rand.New(rand.NewPCG(*lawSeed, 11))
	p := newPath(t, featurestest.RandomDefinitions(rng, *lawViews), 3)
	p.startServing()
	compared := 0
	for round := range 4 {
		w := p.startSpeed()
		for range 3 {
			p.produce(rng, 40+rng.IntN(60))
			if rng.IntN(2) == 0 {
				w.crash()
				w = p.startSpeed()
			}
		}
		p.waitForEnd()
		if round != 1 { // in one round all is delta on top of the base before
			compared += p.compare(rng, 3)
			if err := p.runner.Run(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
		}
		compared += p.compare(rng, 5)
		w.crash()
	}
	t.Logf("%d values compared three ways", compared)
	if compared < 1000 {
		t.Fatalf("only %d values compared", compared)
	}
}

// path is a whole project on real stores.
type path struct {
	t        *testing.T
	brokers  []string
	redis    string
	conn     driver.Conn
	client   *kgo.Client
	rdb      *redis.Client
	compiled *features.Compiled
	bound    *features.Bound
	runner   *batch.Runner
	url      string
	log      map[string][][][]byte // topic -> partition -> values
}

func newPath(t *testing.T, definitions string, partitions int32) *path {
	t.Helper()
	parsed, problems := features.Parse(map[string][]byte{"law.yaml": []byte(definitions)})
	if problems.Fatal() {
		t.Fatalf("%v\n%s", problems, definitions)
	}
	compiled, err := features.Compile(parsed)
	if err != nil {
		t.Fatal(err)
	}
	return newCompiledPath(t, compiled, partitions)
}

func newCompiledPath(t *testing.T, compiled *features.Compiled, partitions int32) *path {
	t.Helper()
	topics := topicsOf(compiled)
	brokers, _ := storetest.Kafka(t, partitions, topics...)
	p := &path{t: t, brokers: brokers, redis: storetest.Redis(t), conn: storetest.ClickHouseConn(t), compiled: compiled, log: map[string][][][]byte{}}
	for _, topic := range topics {
		p.log[topic] = make([][][]byte, partitions)
	}
	var err error
	if p.client, err = kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.client.Close)
	ids, err := kafka.TopicIDs(t.Context(), kadm.NewClient(p.client), topics)
	if err != nil {
		t.Fatal(err)
	}
	registry, _, err := features.Apply(nil, compiled, ids)
	if err != nil {
		t.Fatal(err)
	}
	if p.bound, err = registry.Bind(compiled); err != nil {
		t.Fatal(err)
	}
	for _, table := range tables.All(compiled) {
		if err := p.conn.Exec(t.Context(), table.Create()); err != nil {
			t.Fatal(err)
		}
	}
	p.rdb = redis.NewClient(&redis.Options{Addr: p.redis})
	t.Cleanup(func() { _ = p.rdb.Close() })
	if p.runner, err = batch.New(batch.Config{ClickHouse: p.conn, Redis: p.rdb, Bound: p.bound}); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *path) produce(rng *rand.Rand, n int) {
	p.t.Helper()
	var records []*kgo.Record
	for range n {
		topic := []string{"law.a", "law.b"}[rng.IntN(2)]
		part := rng.IntN(len(p.log[topic]))
		value := featurestest.RandomEvent(rng)
		for range 1 + rng.IntN(8)/7 { // a producer's retry: two positions are two events
			p.log[topic][part] = append(p.log[topic][part], value)
			records = append(records, &kgo.Record{Topic: topic, Partition: int32(part), Value: value})
		}
	}
	if err := p.client.ProduceSync(p.t.Context(), records...).FirstErr(); err != nil {
		p.t.Fatal(err)
	}
}

// speedLayer is a folder and an archiver that can be cut off as a crash does.
type speedLayer struct {
	mu     sync.Mutex
	conns  []net.Conn
	dead   bool
	cancel context.CancelFunc
	group  sync.WaitGroup
}

func (p *path) startSpeed() *speedLayer {
	p.t.Helper()
	s := &speedLayer{}
	rdb := redis.NewClient(&redis.Options{Addr: p.redis, MaxRetries: -1, DialerRetries: 1, Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.dead {
			return nil, errors.New("cut off")
		}
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err == nil {
			s.conns = append(s.conns, c)
		}
		return c, err
	}})
	folder, err := speed.NewFolder(speed.Config{
		Brokers: p.brokers, Redis: rdb, Bound: p.bound, MaxPoll: 30, CompareEvery: 100 * time.Millisecond, StopWithin: 200 * time.Millisecond,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	archiver, err := archive.New(archive.Config{Brokers: p.brokers, Bound: p.bound, ClickHouse: p.conn, ChunkRows: 50})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.group.Go(func() { _ = folder.Run(ctx); _ = rdb.Close() })
	s.group.Go(func() { _ = archiver.Run(ctx) })
	p.t.Cleanup(s.crash)
	return s
}

func (s *speedLayer) crash() {
	s.mu.Lock()
	s.dead = true
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.cancel()
	s.group.Wait()
}

func (p *path) waitForEnd() {
	p.t.Helper()
	ends := kadm.ListedOffsets{}
	for topic, parts := range p.log {
		ends[topic] = map[int32]kadm.ListedOffset{}
		for id, values := range parts {
			ends[topic][int32(id)] = kadm.ListedOffset{Topic: topic, Partition: int32(id), Offset: int64(len(values))}
		}
	}
	deadline := time.Now().Add(time.Minute)
	for {
		behind, err := firstBehind(p.t.Context(), p.bound, p.rdb, p.conn, ends)
		if err != nil {
			p.t.Fatal(err)
		}
		if behind == "" {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatal(behind)
		}
		time.Sleep(10 * time.Millisecond) // real stores: there is nothing to wait on but them
	}
}

// events decodes the whole log into the events that the oracle folds.
func (p *path) events() []windows.Event {
	p.t.Helper()
	source := p.compiled.Sources[0]
	decoder := features.NewDecoder(source)
	var list []windows.Event
	for topic, parts := range p.log {
		for id, values := range parts {
			for offset, value := range values {
				row := make([]windows.Value, len(source.Fields))
				at, rejection := decoder.Decode(value, 0, row)
				if rejection != nil {
					continue
				}
				for i := range row {
					row[i].Str = strings.Clone(row[i].Str)
				}
				list = append(list, windows.Event{Time: at, Row: row, Position: windows.Position{Log: p.bound.Logs[topic].ID, Partition: int32(id), Offset: int64(offset)}})
			}
		}
	}
	return list
}

// compare asks for every view of every entity at random moments, over HTTP, in SQL and of the oracle.
func (p *path) compare(rng *rand.Rand, moments int) (compared int) {
	p.t.Helper()
	events := p.events()
	for range moments {
		t := windows.Time(rng.IntN(70))*50 - 300 + windows.Time(rng.IntN(3)) - 1
		if rng.IntN(3) == 0 {
			t = 2300 + windows.Time(rng.IntN(300))
		}
		for _, v := range p.bound.Views {
			compared += p.compareView(v, events, t)
		}
	}
	return compared
}

func (p *path) compareView(v *features.BoundView, events []windows.Event, t windows.Time) (compared int) {
	p.t.Helper()
	byKey := map[string][]windows.Event{}
	for _, e := range events {
		key, ok := v.AppendKey(nil, e.Row)
		if ok && (v.Where == nil || v.Where(e.Row)) {
			byKey[string(key)] = append(byKey[string(key)], e)
		}
	}
	fromSQL := map[string][]windows.Result{}
	if err := batch.At(p.t.Context(), p.conn, v.CompiledView, t, func(key []byte, _ windows.Time, results []windows.Result) error {
		fromSQL[string(key)] = slices.Clone(results)
		return nil
	}); err != nil {
		p.t.Fatal(err)
	}
	var keys []string
	for key, list := range byKey {
		newest := slices.MaxFunc(list, func(a, b windows.Event) int { return int(a.Time - b.Time) }).Time
		want := featurestest.Oracle(v.CompiledView, list, t)
		if sql, ok := fromSQL[key]; ok && !slices.Equal(sql, want) {
			p.t.Fatalf("seed %d: view %s, key %q at %d: SQL %v, oracle %v", *lawSeed, v.Definition.Name, key, t, sql, want)
		}
		if newest < t {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return 0
	}
	slices.Sort(keys)
	served := p.ask(v, keys, t)
	for i, key := range keys {
		want := featurestest.Oracle(v.CompiledView, byKey[key], t)
		for j, f := range v.Features {
			got := served[j]
			if got.Statuses[i] != want[j].Status.String() || !sameValue(got.Values[i], want[j].Value) {
				p.t.Fatalf("seed %d: view %s, key %q, feature %s at %d: served %s %s, oracle %v", *lawSeed, v.Definition.Name, key, f.Name, t, got.Values[i], got.Statuses[i], want[j])
			}
			compared++
		}
	}
	return compared
}

func (p *path) ask(v *features.BoundView, keys []string, t windows.Time) []onlineColumn {
	p.t.Helper()
	columns := map[string][]any{}
	for _, key := range keys {
		values, err := v.Entity.ParseKey([]byte(key))
		if err != nil {
			p.t.Fatal(err)
		}
		for i, k := range v.Entity.Keys {
			columns[k.Name] = append(columns[k.Name], plain(values[i]))
		}
	}
	answer, err := onlineFeatures(p.t.Context(), http.DefaultClient, p.url, map[string]any{
		"entities": columns, "features": featureRefs(v), "as_of": int64(t),
	})
	if err != nil {
		p.t.Fatal(err)
	}
	var list []onlineColumn
	for _, f := range v.Features {
		c, ok := answer.column(f.Name)
		if !ok {
			p.t.Fatalf("no column %s", f.Name)
		}
		list = append(list, c)
	}
	return list
}

func featureRefs(v *features.BoundView) []string {
	var refs []string
	for _, f := range v.Features {
		refs = append(refs, v.Definition.Name+":"+f.Name)
	}
	return refs
}

// startServing serves the API on a real socket.
func (p *path) startServing() {
	p.t.Helper()
	server, err := serving.New(serving.Config{Redis: p.rdb, Bound: p.bound, Timeout: time.Minute})
	if err != nil {
		p.t.Fatal(err)
	}
	listener := httptest.NewServer(server.Handler())
	p.t.Cleanup(listener.Close)
	p.url = listener.URL
}
