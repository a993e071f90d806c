package windows

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var seed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "seed of the random tests")

func dice(t testing.TB, stream uint64) *rand.Rand {
	t.Helper()
	t.Logf("seed %d", *seed)
	return rand.New(rand.NewPCG(*seed, stream))
}

// randomValue is null now and then, and often an extreme or one that others equal.
func randomValue(rng *rand.Rand, t Type) Value {
	if rng.IntN(8) == 0 {
		return Value{}
	}
	switch t {
	case Int64:
		return IntValue([]int64{0, 1, -1, 7, 1 << 53, math.MaxInt64, math.MinInt64, rng.Int64() - rng.Int64()}[rng.IntN(8)])
	case Float64:
		return FloatValue([]float64{0, 1, -1, 0.1, 1e-13, 1e17, -4e18, (rng.Float64() - 0.5) * math.Ldexp(1, rng.IntN(100)-38)}[rng.IntN(8)])
	case String:
		return TextValue([]string{"", "a", "b", "\x00", "\xff", "ż", fmt.Sprint(rng.IntN(1000))}[rng.IntN(7)])
	default:
		return BoolValue(rng.IntN(2) == 0)
	}
}

func randomTime(rng *rand.Rand) Time {
	switch rng.IntN(10) {
	case 0:
		return MinTime + Time(rng.IntN(30))
	case 1:
		return MaxTime - Time(rng.IntN(30))
	default:
		return Time(rng.IntN(400) - 200)
	}
}

// TestAggregateLaws: for every aggregate over every type it takes, merging is associative and commutative, the empty state
// changes nothing, and folding a list equals folding its parts and merging them, whatever the order: the same words.
func TestAggregateLaws(t *testing.T) {
	rng := dice(t, 1)
	for _, op := range Ops() {
		for _, typ := range op.Accepts() {
			agg := aggregates[op]
			empty := func() Partial { return Partial{make([]uint64, agg.words(typ)), make([]string, agg.texts(typ))} }
			fold := func(events []Event) Partial {
				s := empty()
				for i := range events {
					if v := events[i].Row[0]; v.Kind != Null {
						agg.fold(typ, s, &events[i], v)
					}
				}
				return s
			}
			merge := func(list ...Partial) Partial {
				s := empty()
				for _, o := range list {
					agg.merge(typ, s, o)
				}
				return s
			}
			for range 300 {
				events := make([]Event, rng.IntN(12))
				for i := range events {
					events[i] = Event{randomTime(rng), Position{uint32(rng.IntN(2)), int32(rng.IntN(2)), int64(i)}, []Value{randomValue(rng, typ)}}
				}
				whole := fold(events)
				i, j := rng.IntN(len(events)+1), rng.IntN(len(events)+1)
				i, j = min(i, j), max(i, j)
				a, b, c := fold(events[:i]), fold(events[i:j]), fold(events[j:])
				shuffled := slices.Clone(events)
				rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
				for name, got := range map[string]Partial{
					"a b c": merge(a, b, c), "c a b": merge(c, a, b), "a (b c)": merge(a, merge(b, c)), "shuffled": fold(shuffled),
					"empty": merge(empty(), whole, empty()),
				} {
					if !slices.Equal(got.Words, whole.Words) || !slices.Equal(got.Texts, whole.Texts) {
						t.Fatalf("seed %d: %s(%s) of %v: %s gives %v, folding gives %v", *seed, op, typ, events, name, got, whole)
					}
				}
				encoded := agg.encode(typ, nil, whole)
				again := empty()
				rest, err := agg.decode(typ, append(slices.Clone(encoded), 42), again)
				if err != nil || len(rest) != 1 || !slices.Equal(again.Words, whole.Words) || !slices.Equal(again.Texts, whole.Texts) {
					t.Fatalf("seed %d: %s(%s): %v encodes to %x, which decodes to %v, %v", *seed, op, typ, whole, encoded, again, err)
				}
			}
		}
	}
}

// everything is a view with every aggregate over every type, in several windows.
func everything(t testing.TB, session bool) *View { t.Helper(); return viewOf(t, session, Ops()) }

func viewOf(t testing.TB, session bool, ops []Op) *View {
	t.Helper()
	list := []Window{
		{Kind: Sliding, Size: 30, Hop: 10}, {Kind: Hopping, Size: 20, Hop: 5}, {Kind: Tumbling, Size: 10, Hop: 10}, {Kind: Lifetime},
	}
	if session {
		list = []Window{{Kind: Session, Gap: 10}, {Kind: Session, Gap: 10, Previous: true}}
	}
	var features []Feature
	for _, w := range list {
		features = append(features, Feature{Name: "n", Kind: Aggregated, Window: w, Op: Count, Field: -1})
		for _, op := range ops {
			for _, typ := range op.Accepts() {
				features = append(features, Feature{Name: fmt.Sprint(op, typ), Kind: Aggregated, Window: w, Op: op, Field: int(typ), Type: typ})
			}
		}
	}
	v, err := NewView(features, nil, 0, 16)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func randomEvents(rng *rand.Rand, n int) []Event {
	events := make([]Event, n)
	for i := range events {
		row := make([]Value, 8)
		for typ := Int64; typ <= Bool; typ++ {
			row[typ] = randomValue(rng, typ)
		}
		events[i] = Event{randomTime(rng), Position{1, int32(rng.IntN(3)), int64(i)}, row}
	}
	return events
}

// TestOneStateOneEncoding: the order in which events are folded leaves no trace in the bytes of a block, and decoding gives
// back what was encoded.
func TestOneStateOneEncoding(t *testing.T) {
	rng := dice(t, 2)
	for _, session := range []bool{false, true} {
		v := everything(t, session)
		for range 300 {
			events := randomEvents(rng, rng.IntN(20))
			encode := func() map[BlockID]string {
				blocks := map[BlockID]*Block{}
				for i := range events {
					for _, id := range v.BlocksOf(nil, events[i].Time) {
						if blocks[id] == nil {
							blocks[id] = &Block{ID: id}
						}
						v.Fold(blocks[id], &events[i])
					}
				}
				all := map[BlockID]string{}
				for id, b := range blocks {
					value := v.AppendDelta(nil, 3, b)
					again, covered, err := v.DecodeDelta(id, value)
					if err != nil || covered != 3 || !bytes.Equal(v.AppendDelta(nil, covered, again), value) {
						t.Fatalf("seed %d: block %v: %x does not come back: %v", *seed, id, value, err)
					}
					if len(value) > MaxBlock {
						t.Fatalf("block %v has %d bytes", id, len(value))
					}
					all[id] = string(value)
				}
				return all
			}
			want := encode()
			rng.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
			for id, got := range encode() {
				if want[id] != got {
					t.Fatalf("seed %d: block %v of %v depends on the order", *seed, id, events)
				}
			}
		}
	}
}

// TestQuotient: sums and means are the nearest float64 to the true quotient, ties to even, as big.Rat finds them.
func TestQuotient(t *testing.T) {
	rng := dice(t, 3)
	for range 200_000 {
		a := int128{rng.Uint64() >> rng.IntN(64), 0}
		if rng.IntN(2) == 0 {
			a.hi = rng.Uint64() >> rng.IntN(64)
		}
		if rng.IntN(2) == 0 {
			a = int128{^a.lo, ^a.hi}.add(int128{lo: 1})
		}
		n := max(rng.Uint64()>>rng.IntN(64), 1)
		exponent := []int{0, -GridBits}[rng.IntN(2)]
		if rng.IntN(4) == 0 { // ties
			n = 1 << rng.IntN(40)
		}
		num := new(big.Int).Lsh(new(big.Int).SetUint64(a.hi), 64)
		num.Or(num, new(big.Int).SetUint64(a.lo))
		if a.negative() {
			num.Sub(num, new(big.Int).Lsh(big.NewInt(1), 128))
		}
		den := new(big.Int).SetUint64(n)
		if exponent < 0 {
			den.Lsh(den, GridBits)
		}
		want, _ := new(big.Rat).SetFrac(num, den).Float64()
		if got := a.quotient(n, exponent); got != want || math.Signbit(got) != (num.Sign() < 0) {
			t.Fatalf("seed %d: %s / %s = %v, want %v", *seed, num, den, got, want)
		}
	}
}

// TestSquare: squares are exact over the whole range of sums, as big.Int finds them.
func TestSquare(t *testing.T) {
	rng := dice(t, 8)
	for range 100_000 {
		a := int128{rng.Uint64() >> rng.IntN(64), rng.Uint64() >> rng.IntN(64)}
		square := a.square()
		if want := new(big.Int).Mul(a.big(), a.big()); bigOf(square[:]).Cmp(want) != 0 {
			t.Fatalf("seed %d: %s² = %s, want %s", *seed, a.big(), bigOf(square[:]), want)
		}
	}
}

// TestSqrtQuotient: a deviation is the nearest float64 to the true root, ties to even.
func TestSqrtQuotient(t *testing.T) {
	rng := dice(t, 7)
	for range 20_000 {
		den := new(big.Int).SetUint64(max(rng.Uint64()>>rng.IntN(64), 1))
		num := new(big.Int).SetUint64(rng.Uint64() >> rng.IntN(64))
		num.Lsh(num, uint(rng.IntN(150)))
		if rng.IntN(3) == 0 { // a perfect square
			num.Mul(num, num)
			den.Mul(den, den)
		}
		got := sqrtQuotient(num, den)
		// The true root lies between the midpoints to the neighbours of got.
		exact := new(big.Rat).SetFrac(num, den)
		if num.Sign() == 0 {
			if got != 0 {
				t.Fatalf("root of 0 is %v", got)
			}
			continue
		}
		mid := func(to float64) *big.Rat {
			m := new(big.Rat).Add(new(big.Rat).SetFloat64(got), new(big.Rat).SetFloat64(to))
			m.Quo(m, big.NewRat(2, 1))
			return m.Mul(m, m)
		}
		if low, high := mid(math.Nextafter(got, 0)), mid(math.Nextafter(got, math.MaxFloat64)); exact.Cmp(low) < 0 || exact.Cmp(high) > 0 {
			t.Fatalf("seed %d: root of %s / %s = %v", *seed, num, den, got)
		}
	}
}

// TestGrid: a float enters a sum as the nearest multiple of 2^-40, ties to even.
func TestGrid(t *testing.T) {
	rng := dice(t, 4)
	unit := new(big.Float).SetMantExp(big.NewFloat(1), GridBits)
	for range 200_000 {
		f := math.Ldexp(rng.Float64()*2-1, rng.IntN(112)-50)
		if rng.IntN(4) == 0 {
			f = (math.Floor(rng.Float64()*1000) + 0.5) * math.Ldexp(1, -GridBits) // ties
		}
		if math.Abs(f) >= MaxFloat {
			continue
		}
		scaled := new(big.Float).SetPrec(300).Mul(new(big.Float).SetPrec(300).SetFloat64(f), unit)
		floor, _ := new(big.Float).SetPrec(300).Add(scaled, big.NewFloat(0)).Int(nil) // towards zero
		rest := new(big.Float).SetPrec(300).Sub(scaled, new(big.Float).SetPrec(300).SetInt(floor))
		step := big.NewInt(int64(scaled.Sign()))
		switch c := rest.Abs(rest).Cmp(big.NewFloat(0.5)); {
		case c > 0, c == 0 && floor.Bit(0) == 1:
			floor.Add(floor, step)
		}
		got := grid(f)
		num := new(big.Int).Lsh(big.NewInt(int64(got.hi)), 64)
		num.Add(num, new(big.Int).SetUint64(got.lo))
		if num.Cmp(floor) != 0 {
			t.Fatalf("seed %d: grid(%v) = %s, want %s", *seed, f, num, floor)
		}
	}
}

// TestFloor: rounding down is mathematical, also below zero and at the ends of time.
func TestFloor(t *testing.T) {
	for _, test := range []struct {
		t    Time
		h    Span
		want Time
	}{
		{1, 7, 0},
		{6, 7, 0},
		{7, 7, 7},
		{8, 7, 7},
		{-2, 7, -7},
		{-1, 7, -7},
		{0, 7, 0},
		{3, 7, 0},
		{9, 7, 7},
		{14, 7, 14},
		{-7, 7, -7},
		{-8, 7, -14},
		{-14, 7, -14},
		{-15, 7, -21},
		{1470930848450, 86400000, 1470873600000},
		{MaxTime, 1000, MaxTime - 807},
		{MinTime, 1, MinTime},
		{MinTime, 2, MinTime},
		{MinTime, 7, MinTime},
		{MinTime + 6, 7, MinTime + 6 - Time(floorRest(MinTime+6, 7))},
	} {
		if got := Floor(test.t, test.h); got != test.want {
			t.Errorf("Floor(%d, %d) = %d, want %d", test.t, test.h, got, test.want)
		}
	}
	rng := dice(t, 5)
	for range 100_000 {
		at, back, h := randomTime(rng), Span(rng.Int64()>>rng.IntN(63)), Span(rng.Int64()>>rng.IntN(63)+1)
		exact := new(big.Int).Sub(big.NewInt(int64(at)), big.NewInt(int64(back)))
		exact.Div(exact, big.NewInt(int64(h))) // Euclidean: down, for h > 0
		if exact.IsInt64() && indexBefore(at, back, h) != exact.Int64() {
			t.Fatalf("seed %d: floor((%d - %d) / %d) = %d, want %s", *seed, at, back, h, indexBefore(at, back, h), exact)
		}
	}
}

func floorRest(t Time, h int64) int64 {
	return new(big.Int).Mod(big.NewInt(int64(t)), big.NewInt(h)).Int64()
}

// TestUnite: fragments become one session iff their half-open extents overlap; touching is not enough.
func TestUnite(t *testing.T) {
	type span struct{ from, to Time }
	for _, test := range []struct{ in, want []span }{
		{[]span{{0, 4}, {0, 4}, {3, 7}, {4, 8}, {1, 5}, {11, 15}, {10, 14}, {12, 16}}, []span{{0, 8}, {10, 16}}},
		{[]span{{0, 4}, {5, 9}, {10, 14}, {8, 12}, {3, 7}}, []span{{0, 14}}},
		{[]span{{0, 4}, {5, 9}, {10, 14}, {9, 13}, {4, 8}}, []span{{0, 4}, {4, 9}, {9, 14}}},
		{[]span{{2, 6}, {5, 9}, {10, 14}, {0, 14}}, []span{{0, 14}}},
		{[]span{{5, 10}, {10, 15}}, []span{{5, 10}, {10, 15}}},
		{[]span{{5, 11}, {10, 15}}, []span{{5, 15}}},
		{[]span{{10, 30}, {20, 30}}, []span{{10, 30}}},
		{[]span{{0, 100}, {20, 80}, {-10, 120}, {50, 150}}, []span{{-10, 150}}},
		{[]span{{101, 201}, {201, 301}, {150, 301}}, []span{{101, 301}}},
		{[]span{{MinTime, MinTime + 5}, {MaxTime - 6, MaxTime - 2}}, []span{{MinTime, MinTime + 5}, {MaxTime - 6, MaxTime - 2}}},
	} {
		const gap = 4
		features := []Feature{{Kind: SessionStart, Window: Window{Kind: Session, Gap: gap}}, {Kind: SessionEnd, Window: Window{Kind: Session, Gap: gap}}}
		v, err := NewView(features, nil, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		rng := dice(t, 6)
		for range 50 {
			rng.Shuffle(len(test.in), func(i, j int) { test.in[i], test.in[j] = test.in[j], test.in[i] })
			for i, want := range test.want {
				// Each session is the latest one among the spans up to it.
				r := v.NewReader()
				for _, s := range test.in {
					if s.to <= want.to {
						b := &Block{ID: v.BlockAt(0, s.from), Newest: s.to - gap}
						v.AppendRow(b, int64(s.from), s.to-gap, v.Levels[0].newPartial())
						if err := r.AddBlock(b); err != nil {
							t.Fatal(err)
						}
					}
				}
				got, err := r.At(nil, want.to-1)
				if err != nil || got[0].Value != IntValue(int64(want.from)) || got[1].Value != IntValue(int64(want.to)) {
					t.Fatalf("session %d of %v: got %v %v, want %v", i, test.in, got, err, want)
				}
			}
		}
	}
}
