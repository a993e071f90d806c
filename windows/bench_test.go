package windows

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// BenchmarkFold folds one event into the tile of one aggregate.
func BenchmarkFold(b *testing.B) {
	for _, op := range Ops() {
		for _, typ := range op.Accepts() {
			if typ != Int64 && typ != Float64 && typ != String {
				continue
			}
			b.Run(fmt.Sprintf("%s/%s", op, typ), func(b *testing.B) {
				v, err := NewView([]Feature{{Kind: Aggregated, Window: Window{Kind: Sliding, Size: 1000, Hop: 100}, Op: op, Field: 0, Type: typ}}, nil, 0, 16)
				if err != nil {
					b.Fatal(err)
				}
				value := map[Type]Value{Int64: IntValue(7), Float64: FloatValue(0.1), String: TextValue("seven")}[typ]
				e := Event{Time: 5, Row: []Value{value}}
				block := &Block{ID: v.BlockAt(0, 5)}
				b.ReportAllocs()
				for b.Loop() {
					e.Position.Offset++
					v.Fold(block, &e)
				}
			})
		}
	}
}

// mixed is a view of ten aggregates over three windows.
func mixed(b *testing.B) *View {
	b.Helper()
	minute, hour := Span(60_000), Span(3_600_000)
	short, day, week := Window{Kind: Sliding, Size: hour, Hop: minute}, Window{Kind: Sliding, Size: 24 * hour, Hop: 15 * minute}, Window{Kind: Sliding, Size: 168 * hour, Hop: 2 * hour}
	feature := func(w Window, op Op, field int, t Type) Feature {
		return Feature{Kind: Aggregated, Window: w, Op: op, Field: field, Type: t}
	}
	v, err := NewView([]Feature{
		feature(short, Count, -1, 0), feature(short, Sum, 0, Int64), feature(short, Mean, 1, Float64), feature(short, Max, 1, Float64),
		feature(day, Count, -1, 0), feature(day, Sum, 1, Float64), feature(day, Min, 0, Int64),
		feature(week, Count, -1, 0), feature(week, First, 0, Int64), feature(week, Last, 0, Int64),
	}, nil, 0, 16)
	if err != nil {
		b.Fatal(err)
	}
	return v
}

// foldDays folds n events of one entity, spread evenly over some days, and returns its blocks encoded.
func foldDays(b *testing.B, v *View, n, days int) (ids []BlockID, values [][]byte, end Time) {
	b.Helper()
	rng := rand.New(rand.NewPCG(1, 1))
	end = Time(int64(days) * int64(Day))
	blocks := map[BlockID]*Block{}
	var order []BlockID
	for i := range n {
		e := Event{Time: Time(int64(end) / int64(n) * int64(i)), Position: Position{1, 0, int64(i)}, Row: []Value{IntValue(rng.Int64N(1000)), FloatValue(rng.Float64())}}
		for _, id := range v.BlocksOf(nil, e.Time) {
			if blocks[id] == nil {
				blocks[id] = &Block{ID: id}
				order = append(order, id)
			}
			v.Fold(blocks[id], &e)
		}
	}
	for _, id := range order {
		ids, values = append(ids, id), append(values, v.AppendDelta(nil, 1, blocks[id]))
	}
	return ids, values, end
}

// BenchmarkRead merges and finalizes the features of one entity with 8 days of history.
func BenchmarkRead(b *testing.B) {
	v := mixed(b)
	ids, values, end := foldDays(b, v, 2000, 8)
	r := v.NewReader()
	var dst []Result
	b.ReportAllocs()
	for b.Loop() {
		r.Reset()
		for i := range ids {
			if err := r.AddDelta(ids[i], values[i]); err != nil {
				b.Fatal(err)
			}
		}
		var err error
		if dst, err = r.At(dst[:0], end); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEncode and BenchmarkDecode take a block of 64 tiles with five aggregates.
func BenchmarkEncode(b *testing.B) {
	v := mixed(b)
	block := fullBlock(b, v)
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = v.AppendDelta(dst[:0], 1, block)
	}
	b.SetBytes(int64(len(dst)))
}

func BenchmarkDecode(b *testing.B) {
	v := mixed(b)
	block := fullBlock(b, v)
	value := v.AppendDelta(nil, 1, block)
	b.SetBytes(int64(len(value)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := v.DecodeDelta(block.ID, value); err != nil {
			b.Fatal(err)
		}
	}
}

func fullBlock(b *testing.B, v *View) *Block {
	b.Helper()
	ids, values, _ := foldDays(b, v, 20_000, 8)
	var best *Block
	for i, id := range ids {
		block, _, err := v.DecodeDelta(id, values[i])
		if err != nil {
			b.Fatal(err)
		}
		if best == nil || block.Len() > best.Len() {
			best = block
		}
	}
	return best
}
