package speed

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/features"
)

const benchDefinitions = `
project: bench
sources:
  events:
    topic: events
    fields: {user: string, ts: int64, amount: int64}
    event_time: {field: ts, unit: ms}
    max_future: any
    epoch_bits: 30
entities:
  user: {keys: {user: string}}
views:
  session:
    entity: user
    source: events
    window: {type: session, gap: 2m, retain: all}
    features:
      count: {aggregate: count}
      sum: {aggregate: sum, field: amount}
      max: {aggregate: max, field: amount}
      start: {aggregate: session_start}
      end: {aggregate: session_end}
`

func benchBound(b *testing.B) *features.Bound {
	b.Helper()
	definitions, problems := features.Parse(map[string][]byte{"bench.yaml": []byte(benchDefinitions)})
	if problems.Fatal() {
		b.Fatal(problems)
	}
	compiled, err := features.Compile(definitions)
	if err != nil {
		b.Fatal(err)
	}
	registry, _, err := features.Apply(nil, compiled, map[string]string{"events": "x"})
	if err != nil {
		b.Fatal(err)
	}
	bound, err := registry.Bind(compiled)
	if err != nil {
		b.Fatal(err)
	}
	return bound
}

// benchRecords are 130-byte events of 12,500 users, as one of eight partitions sees them.
func benchRecords(n int) []*kgo.Record {
	rng := rand.New(rand.NewPCG(1, 1))
	records := make([]*kgo.Record, n)
	for i := range records {
		records[i] = &kgo.Record{Offset: int64(i), Value: fmt.Appendf(nil,
			`{"user":"user-%07d","ts":%d,"amount":%d,"page":"/product/%d","device":"android","campaign":"autumn-26"}`,
			rng.IntN(12_500), 1_700_000_000_000+i*8, rng.IntN(100_000), rng.IntN(1_000_000))}
	}
	return records
}

// BenchmarkFold decodes and folds one event, without flushing.
func BenchmarkFold(b *testing.B) {
	bound := benchBound(b)
	records := benchRecords(200_000)
	p := newPartition("events", 0, newPlan(bound)["events"], bound)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if i%len(records) == 0 {
			b.StopTimer()
			p.restart()
			p.begin(0)
			b.StartTimer()
		}
		if _, rejected := p.fold(records[i%len(records)]); rejected != nil {
			b.Fatal(rejected[0])
		}
	}
}

// BenchmarkFlushCall encodes what one flush writes of one event's change.
func BenchmarkFlushCall(b *testing.B) {
	bound := benchBound(b)
	p := newPartition("events", 0, newPlan(bound)["events"], bound)
	p.restart()
	p.begin(0)
	for _, r := range benchRecords(12_500) {
		p.fold(r)
	}
	s := &store{}
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; {
		for i := range p.units {
			u := &p.units[i]
			s.flushCall(p, u, u.marker)
			n += u.fields
		}
	}
}
