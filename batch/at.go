package batch

import (
	"context"
	"fmt"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"millrace/features"
	"millrace/windows"
)

// AtQuery asks for the values of a view at a moment, computed by SQL from the events of the archive alone. No state takes part
// in it, so that it can judge states; and unlike them it answers for any moment.
type AtQuery struct {
	View *features.CompiledView
	Time windows.Time
	// Keys, if not nil, restricts the answer to entities with these keys.
	Keys [][]byte
	// Positions, if not nil, restricts the events to those below an offset in each partition, and to partitions named here.
	Positions []features.Position
}

// Answer receives one entity: its key, the time of its newest event before the moment, and the result of each feature. It
// must not keep the slices.
type Answer func(key []byte, newest windows.Time, results []windows.Result) error

// At calls each for every entity that has an event before t, ordered by bucket and then by key.
func At(ctx context.Context, conn driver.Conn, view *features.CompiledView, t windows.Time, each Answer) error {
	return AtQuery{View: view, Time: t}.Each(ctx, conn, each)
}

// AtKeys calls each for those of the keys that have an event before t, in any order.
func AtKeys(ctx context.Context, conn driver.Conn, view *features.CompiledView, t windows.Time, keys [][]byte, each Answer) error {
	if keys == nil {
		keys = [][]byte{}
	}
	return AtQuery{View: view, Time: t, Keys: keys}.Each(ctx, conn, each)
}

// keysPerQuery bounds the length of a query's text: the engine refuses more than 256 KiB, and a key may be long.
const keysPerQuery = 64 << 10 // bytes of keys

// Each runs the query. Without Keys the entities come ordered by bucket and then by key, a span of them at a time.
func (q AtQuery) Each(ctx context.Context, conn driver.Conn, each Answer) error {
	return q.each(ctx, conn, eventsPerSpan, each)
}

func (q AtQuery) each(ctx context.Context, conn driver.Conn, perSpan uint64, each Answer) error {
	e := events{view: q.View, positions: q.Positions, before: &q.Time, span: everything}
	if q.Keys != nil {
		for keys := q.Keys; len(keys) > 0; {
			n, size := 0, 0
			for n < len(keys) && (n == 0 || size+len(keys[n]) <= keysPerQuery) {
				size += len(keys[n]) + 8
				n++
			}
			e.keys, keys = keys[:n], keys[n:]
			if err := q.span(ctx, conn, e, each); err != nil {
				return err
			}
		}
		return nil
	}
	spans, err := newSpanner(ctx, conn, e, everything, perSpan)
	if err != nil {
		return fmt.Errorf("view %s at %d: %w", q.View.Definition.Name, q.Time, err)
	}
	for {
		var ok bool
		if e.span, _, ok, err = spans.next(ctx); err != nil {
			return fmt.Errorf("view %s at %d: %w", q.View.Definition.Name, q.Time, err)
		}
		if !ok {
			return nil
		}
		if err := q.span(ctx, conn, e, each); err != nil {
			return err
		}
	}
}

// span answers for the entities that e chooses.
func (q AtQuery) span(ctx context.Context, conn driver.Conn, e events, each Answer) error {
	failed := func(err error) error { return fmt.Errorf("view %s at %d: %w", q.View.Definition.Name, q.Time, err) }
	reads := q.View.Reads()
	// answers[0] is the newest events; the others belong to the reads, of which those of one session level share theirs.
	newest, err := read(ctx, conn, e.newestQuery(), 1, windows.LevelInfo{})
	if err != nil {
		return failed(err)
	}
	answers, of := []*stateRows{newest}, make([]int, len(reads))
	levels := make([]windows.LevelInfo, len(reads))
	sessions := map[int]int{}
	for i, r := range reads {
		levels[i] = q.View.Level(r.Level)
		if a, ok := sessions[r.Level]; ok && levels[i].Session {
			of[i] = a
			continue
		}
		rows, err := read(ctx, conn, e.windowQuery(r, q.Time), 2, levels[i])
		if err != nil {
			return failed(err)
		}
		of[i], sessions[r.Level] = len(answers), len(answers)
		answers = append(answers, rows)
	}
	folds := make([]windows.Folded, len(reads))
	var results []windows.Result
	return inStep(answers, func(id entityRows, rows []entityRows) error {
		newestAt := windows.MinTime
		if rows[0].hi > rows[0].lo { // else the entity came into the archive between two queries
			newestAt = windows.Time(newest.a[rows[0].lo])
		}
		for i := range reads {
			folds[i] = foldOf(answers[of[i]], rows[of[i]], reads[i].Window, levels[i], q.Time)
			newestAt = max(newestAt, folds[i].Last)
		}
		results = q.View.Results(results[:0], q.Time, newestAt, folds)
		return each([]byte(id.key), newestAt, results)
	})
}

// foldOf is one window of an entity: its only row, or of sessions the open or the previous one of the two latest.
func foldOf(s *stateRows, e entityRows, w windows.Window, level windows.LevelInfo, t windows.Time) windows.Folded {
	row := e.lo
	if w.Kind == windows.Session && e.hi > e.lo {
		open := uint64(t)-uint64(s.b[row]) < uint64(w.Gap) // the later session comes first
		switch {
		case w.Previous && open:
			row++
		case !w.Previous && !open:
			row = e.hi
		}
	}
	if row >= e.hi {
		return windows.Folded{Last: windows.MinTime, Partial: windows.Partial{Words: make([]uint64, level.Words), Texts: make([]string, level.Texts)}}
	}
	return windows.Folded{Any: true, First: windows.Time(s.a[row]), Last: windows.Time(s.b[row]), Partial: s.partial(row)}
}
