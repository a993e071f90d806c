package archive_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/features"
	"millrace/features/tables"
	"millrace/internal/storetest"
	"millrace/speed/archive"
)

var seed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "seed of random tests")

const definitions = `
project: shop
sources:
  orders:
    topic: orders
    fields: {user: string, item: string, at: int64, price: float64, paid: bool%s}
    event_time: {field: at, unit: ms, min: any, max: any}
    max_future: any
    epoch_bits: 3
entities:
  user: {keys: {user: string}}
  item: {keys: {item: string}}
views:
  recent: {entity: user, source: orders, window: {type: lifetime}, features: {n: {aggregate: count}}}
  sold: {entity: item, source: orders, window: {type: lifetime}, features: {n: {aggregate: count}}}
`

type bench struct {
	t       *testing.T
	brokers []string
	client  *kgo.Client
	conn    driver.Conn
	bound   *features.Bound
	log     [][]*kgo.Record
}

func newBench(t *testing.T, partitions int32) *bench {
	t.Helper()
	brokers, _ := storetest.Kafka(t, partitions, "orders")
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	b := &bench{t: t, brokers: brokers, client: client, conn: storetest.ClickHouseConn(t), log: make([][]*kgo.Record, partitions)}
	b.apply(nil, "")
	return b
}

// apply puts the definitions into force, with more fields if extra names them.
func (b *bench) apply(old *features.Registry, extra string) {
	b.t.Helper()
	parsed, problems := features.Parse(map[string][]byte{"shop.yaml": fmt.Appendf(nil, definitions, extra)})
	if problems.Fatal() {
		b.t.Fatal(problems)
	}
	compiled, err := features.Compile(parsed)
	if err != nil {
		b.t.Fatal(err)
	}
	details, err := kadm.NewClient(b.client).ListTopics(b.t.Context(), "orders")
	if err != nil {
		b.t.Fatal(err)
	}
	registry, _, err := features.Apply(old, compiled, map[string]string{"orders": details["orders"].ID.String()})
	if err != nil {
		b.t.Fatal(err)
	}
	if b.bound, err = registry.Bind(compiled); err != nil {
		b.t.Fatal(err)
	}
	for _, table := range tables.All(compiled) {
		if err := b.conn.Exec(b.t.Context(), table.Create()); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bench) produce(rng *rand.Rand, n int) {
	b.t.Helper()
	var records []*kgo.Record
	for range n {
		r := &kgo.Record{Topic: "orders", Partition: int32(rng.IntN(len(b.log)))}
		switch rng.IntN(12) {
		case 0: // a tombstone
		case 1:
			r.Value = []byte{0xff, 0, '{'}
		case 2:
			r.Value = []byte(`{"user": 7}`)
		case 3: // touches no item
			r.Value = fmt.Appendf(nil, `{"user":"u%d","at":%d}`, rng.IntN(9), rng.IntN(1000))
		default:
			r.Value = fmt.Appendf(nil, `{"user":"u%d","item":"\u0000ż%d","at":%d,"price":%g,"paid":%t}`, rng.IntN(9), rng.IntN(9), rng.IntN(1000)-500, rng.NormFloat64(), rng.IntN(2) == 0)
		}
		if rng.IntN(2) == 0 {
			r.Key = []byte{byte(rng.IntN(256)), 0}
		}
		if rng.IntN(3) == 0 {
			r.Headers = []kgo.RecordHeader{{Key: "h", Value: []byte{0xfe, byte(rng.IntN(256))}}, {Key: "h", Value: nil}}
		}
		records = append(records, r)
	}
	if err := b.client.ProduceSync(b.t.Context(), records...).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
	for _, r := range records {
		b.log[r.Partition] = append(b.log[r.Partition], r)
	}
}

// start runs an archiver with small chunks; stop ends it, and returns its error.
func (b *bench) start() (stop func() error) {
	b.t.Helper()
	a, err := archive.New(archive.Config{Brokers: b.brokers, Bound: b.bound, ClickHouse: b.conn, ChunkRows: 40, ChunkWait: 5 * time.Millisecond})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stop = func() error {
		cancel()
		err := <-done
		done <- err
		return err
	}
	b.t.Cleanup(func() { _ = stop() })
	return stop
}

// waitArchived waits until the tables say that they are complete.
func (b *bench) waitArchived() {
	b.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		behind := ""
		for _, name := range []string{"raw_orders", tables.Clean(b.bound.Sources[0], b.bound.Entities[0]).Name, tables.Clean(b.bound.Sources[0], b.bound.Entities[1]).Name} {
			for p, records := range b.log {
				var next int64
				if err := b.conn.QueryRow(b.t.Context(), fmt.Sprintf("SELECT max(next) FROM progress WHERE table_name = '%s' AND partition = %d", name, p)).Scan(&next); err != nil {
					b.t.Fatal(err)
				}
				if next < int64(len(records)) {
					behind = fmt.Sprintf("%s/%d is at %d of %d", name, p, next, len(records))
				}
			}
		}
		if behind == "" {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatal(behind)
		}
		time.Sleep(5 * time.Millisecond) // real stores: there is nothing to wait on but them
	}
}

// check compares the tables with the log.
func (b *bench) check() {
	b.t.Helper()
	var rejected []string
	clean := map[string]int{}
	for p, records := range b.log {
		rows, err := b.conn.Query(b.t.Context(), "SELECT offset, key, value, header_names, header_values FROM raw_orders FINAL WHERE partition = "+fmt.Sprint(p)+" ORDER BY offset")
		if err != nil {
			b.t.Fatal(err)
		}
		n := 0
		for ; rows.Next(); n++ {
			var offset int64
			var key, value *string
			var names, texts []string
			if err := rows.Scan(&offset, &key, &value, &names, &texts); err != nil {
				b.t.Fatal(err)
			}
			r := records[n]
			if offset != int64(n) || !same(key, r.Key) || !same(value, r.Value) || len(names) != len(r.Headers) {
				b.t.Fatalf("partition %d, offset %d: got %v %v %q", p, offset, key, value, names)
			}
			for i, h := range r.Headers {
				if names[i] != h.Key || texts[i] != string(h.Value) {
					b.t.Fatalf("partition %d, offset %d: header %q %q", p, offset, names[i], texts[i])
				}
			}
		}
		if err := rows.Err(); err != nil || n != len(records) {
			b.t.Fatalf("partition %d: %d raw rows of %d, %v", p, n, len(records), err)
		}
		_ = rows.Close()
		for offset, r := range records {
			switch {
			case !bytes.HasPrefix(r.Value, []byte(`{"user":"`)):
				rejected = append(rejected, fmt.Sprintf("%d/%d", p, offset))
			case bytes.Contains(r.Value, []byte("item")):
				clean["item"]++
				clean["user"]++
			default:
				clean["user"]++
			}
		}
	}
	for i, e := range b.bound.Entities {
		var n, distinct uint64
		if err := b.conn.QueryRow(b.t.Context(), "SELECT count(), uniqExact((partition, offset)) FROM "+tables.Clean(b.bound.Sources[0], b.bound.Entities[i]).Name+" FINAL").Scan(&n, &distinct); err != nil {
			b.t.Fatal(err)
		}
		if int(n) != clean[e.Name] || n != distinct {
			b.t.Fatalf("clean rows of %s: %d, %d distinct, want %d", e.Name, n, distinct, clean[e.Name])
		}
	}
	var quarantined []string
	rows, err := b.conn.Query(b.t.Context(), "SELECT partition, offset, reason FROM quarantine FINAL")
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var p int32
		var o int64
		var reason string
		if err := rows.Scan(&p, &o, &reason); err != nil || reason == "" {
			b.t.Fatal(err, reason)
		}
		quarantined = append(quarantined, fmt.Sprintf("%d/%d", p, o))
	}
	if err := rows.Err(); err != nil {
		b.t.Fatal(err)
	}
	slices.Sort(rejected)
	slices.Sort(quarantined)
	if !slices.Equal(rejected, quarantined) {
		b.t.Fatalf("quarantined %v, want %v", quarantined, rejected)
	}
	b.checkDeadLetters(rejected)
}

// checkDeadLetters reads the dead-letter topic: every rejected position at least once, with its bytes.
func (b *bench) checkDeadLetters(rejected []string) {
	b.t.Helper()
	reader, err := kgo.NewClient(kgo.SeedBrokers(b.brokers...), kgo.ConsumeTopics("orders.dlq"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		b.t.Fatal(err)
	}
	defer reader.Close()
	want := map[string]bool{}
	for _, r := range rejected {
		want[r] = true
	}
	for len(want) > 0 {
		fetches := reader.PollFetches(b.t.Context())
		if err := fetches.Err0(); err != nil {
			b.t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			headers := map[string]string{}
			for _, h := range r.Headers {
				headers[h.Key] = string(h.Value)
			}
			at := headers["__streams.errors.partition"] + "/" + headers["__streams.errors.offset"]
			var p, o int
			_, _ = fmt.Sscanf(at, "%d/%d", &p, &o)
			from := b.log[p][o]
			if !bytes.Equal(r.Key, from.Key) || !bytes.Equal(r.Value, from.Value) || headers["millrace.dlq.rule"] == "" || len(r.Headers) != len(from.Headers)+archive.OwnHeaders {
				b.t.Fatalf("dead letter of %s: %q %q %v", at, r.Key, r.Value, slices.Sorted(maps.Keys(headers)))
			}
			delete(want, at)
		})
	}
}

func same(got *string, want []byte) bool {
	if got == nil || want == nil {
		return got == nil && len(want) == 0
	}
	return *got == string(want)
}

func TestArchivesEveryRecord(t *testing.T) {
	t.Logf("seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 1))
	b := newBench(t, 3)
	b.produce(rng, 300)
	stop := b.start()
	b.produce(rng, 200)
	b.waitArchived()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	b.check()
}

func TestStopsAndRebalancesLeaveNoGapAndNoDuplicate(t *testing.T) {
	t.Logf("seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 2))
	b := newBench(t, 3)
	for range 5 {
		b.produce(rng, 60)
		stop, other := b.start(), b.start()
		b.produce(rng, 60)
		_ = stop()
		b.produce(rng, 30)
		_ = other()
	}
	b.start()
	b.waitArchived()
	b.check()
}

// A crash between rows and progress repeats the rows: they collapse by position, also when the chunks are cut elsewhere.
func TestRepeatedChunksCollapse(t *testing.T) {
	t.Logf("seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 3))
	b := newBench(t, 2)
	b.produce(rng, 200)
	stop := b.start()
	b.waitArchived()
	_ = stop()
	if err := b.conn.Exec(t.Context(), "TRUNCATE TABLE progress"); err != nil {
		t.Fatal(err)
	}
	b.produce(rng, 37)
	b.start()
	b.waitArchived()
	b.check()
}

func TestNewFieldsAreBackfilled(t *testing.T) {
	t.Logf("seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 4))
	b := newBench(t, 2)
	b.produce(rng, 150)
	stop := b.start()
	b.waitArchived()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	b.apply(b.bound.Registry, ", note: string")
	b.start()
	b.produce(rng, 50)
	b.waitArchived()
	b.check()
	if name := tables.Clean(b.bound.Sources[0], b.bound.Entities[0]).Name; !strings.HasPrefix(name, "clean_orders_user_") {
		t.Fatal(name)
	}
}
