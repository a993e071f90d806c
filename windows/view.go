package windows

import (
	"fmt"
	"slices"
)

// FeatureKind says what of a window a feature shows.
type FeatureKind uint8

// An Aggregated feature shows an aggregate of the window's events; the others show the extent of a session.
const (
	Aggregated    FeatureKind = iota + 1
	SessionStart              // time of its first event, in milliseconds since 1970
	SessionEnd                // time of its last event + gap, in milliseconds since 1970
	SessionLength             // time from its first event to its last, in milliseconds
)

// Feature is one value of a view.
type Feature struct {
	Name   string
	Kind   FeatureKind
	Window Window
	// The aggregate and its field, for Kind Aggregated: Field is an index into Event.Row, or -1 for a bare count, with the
	// field's type beside it.
	Op    Op
	Field int
	Type  Type
	// Where, if not nil, chooses the events that the feature counts; Key tells two predicates of one view apart.
	Where    Predicate
	WhereKey string
}

// ResultType returns the type of the feature's values.
func (f *Feature) ResultType() Type {
	switch f.Kind {
	case Aggregated:
		return f.Op.ResultType(f.Type)
	case SessionStart, SessionEnd, SessionLength:
		return Int64 // milliseconds
	}
	panic("BUG: feature kind")
}

// View is a compiled feature view: the levels that its events are folded into, and how each feature reads them.
type View struct {
	Features []Feature
	// Where, if not nil, chooses the events that the view sees at all.
	Where Predicate
	// TTL, if positive, is the age of the newest event from which on every feature is null.
	TTL    Span
	Levels []Level

	reads []read // one per distinct window
	of    []int  // feature -> its read
}

// Level is one grain of a view with the states kept in it.
type Level struct {
	grain    grain
	span     Span // of a block of fragments; a divisor of Day
	perBlock int64
	columns  []column
	words    int // of all columns together
	texts    int
}

// column is the state of one aggregate within a tile or fragment.
type column struct {
	agg          *aggregate
	op           Op
	typ          Type
	field        int
	where        Predicate
	whereKey     string
	word, text   int // where its state begins
	words, texts int
}

// read is one window of a view: the level that holds it and the columns that its features need.
type read struct {
	window  Window
	level   int
	columns []int // of the level
	feature map[int]int
}

// MaxBlock bounds the encoded size of a block in bytes, so that a store's hash stays compact and a hot key rewrites little.
const MaxBlock = 64 << 10

// A block holds at most so many tiles, or fragments. Fewer make a flush of a hot key cheaper, more make an entity's hash
// shorter; a fragment is open for long and is written again and again, with all that stand beside it.
const (
	maxTiles     = 64
	maxFragments = 16
)

// NewView compiles features into levels. Features over the same grain share a level, and equal aggregates share a state.
// maxText is the greatest length in bytes of a text field; the number of tiles in a block follows from it.
func NewView(features []Feature, where Predicate, ttl Span, maxText int) (*View, error) {
	v := &View{Features: features, Where: where, TTL: ttl, of: make([]int, len(features))}
	for i := range features {
		f := &features[i]
		level := v.levelFor(f.Window.grain())
		r := slices.IndexFunc(v.reads, func(r read) bool { return r.window == f.Window })
		if r < 0 {
			r = len(v.reads)
			v.reads = append(v.reads, read{window: f.Window, level: level, feature: map[int]int{}})
		}
		v.of[i] = r
		if f.Kind == Aggregated {
			c := v.Levels[level].columnFor(f)
			if !slices.Contains(v.reads[r].columns, c) {
				v.reads[r].columns = append(v.reads[r].columns, c)
			}
			v.reads[r].feature[i] = c
		}
	}
	for i := range v.Levels {
		l := &v.Levels[i]
		l.perBlock = maxTiles
		if l.grain.kind == Session {
			l.perBlock = maxFragments
		}
		for l.perBlock > 1 && l.maxRow(maxText)*int(l.perBlock) > MaxBlock {
			l.perBlock /= 2
		}
		if size := l.maxRow(maxText); size > MaxBlock {
			return nil, fmt.Errorf("one tile can take %d bytes, more than the %d of a block: shorten max_bytes of its text fields", size, MaxBlock)
		}
		if l.grain.kind == Session {
			l.span = sessionSpan(l.grain.width, l.perBlock)
		}
	}
	return v, nil
}

func (v *View) levelFor(g grain) int {
	for i := range v.Levels {
		if v.Levels[i].grain == g {
			return i
		}
	}
	v.Levels = append(v.Levels, Level{grain: g})
	return len(v.Levels) - 1
}

func (l *Level) columnFor(f *Feature) int {
	for i, c := range l.columns {
		if c.op == f.Op && c.field == f.Field && c.whereKey == f.WhereKey {
			return i
		}
	}
	words, texts := f.Op.WordCount(f.Type)
	l.columns = append(l.columns, column{
		agg: aggregates[f.Op], op: f.Op, typ: f.Type, field: f.Field, where: f.Where, whereKey: f.WhereKey,
		word: l.words, text: l.texts, words: words, texts: texts,
	})
	l.words += words
	l.texts += texts
	return len(l.columns) - 1
}

// maxRow bounds the encoded size of one tile or fragment.
func (l *Level) maxRow(maxText int) int { return 20 + 10*l.words + (maxText+10)*l.texts }

// spans are divisors of a day from which the extent of a block of fragments is taken.
var spans = []Span{
	1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000,
	900_000, 1_800_000, 3_600_000, 7_200_000, 10_800_000, 14_400_000, 21_600_000, 28_800_000, 43_200_000, Day,
}

// sessionSpan returns the longest span in which fragments of that gap, being at least a gap apart, number at most n.
func sessionSpan(gap Span, n int64) Span {
	span := spans[0]
	for _, s := range spans {
		if int64(s)/int64(gap) < n {
			span = s
		}
	}
	return span
}

// block returns the block of l that an event at t belongs to.
func (l *Level) block(t Time) int64 {
	switch l.grain.kind {
	case Session:
		return index(t, l.span)
	case Lifetime:
		return 0
	default:
		i := index(t, l.grain.width)
		return index(Time(i), Span(l.perBlock))
	}
}
