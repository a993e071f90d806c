package batch

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"millrace/features"
	"millrace/features/tables"
	"millrace/windows"
)

// settings makes queries mean the same whatever the user's profile says.
const settings = " SETTINGS aggregate_functions_null_for_empty = 0, transform_null_in = 0, join_use_nulls = 0, optimize_aggregation_in_order = 0"

// events chooses events of one view in the archive. All queries of this package read through it.
type events struct {
	view *features.CompiledView
	// positions bound the events to those below an offset in each partition; nil for all, empty for none.
	positions []features.Position
	// keys, if not nil, are the entities' keys.
	keys [][]byte
	// before, if not nil, is the moment that all events are earlier than.
	before *windows.Time
	span   span
}

// cursor is a place in the order of entities, by bucket and then by key: everything up to that key, or the whole bucket where
// the key is empty, which no entity's key is.
type cursor struct {
	Bucket int64  `json:"bucket"`
	Key    []byte `json:"key,omitempty"`
}

// start is before every entity.
var start = cursor{Bucket: -1}

// span is the entities after one place, up to another.
type span struct{ after, upTo cursor }

// everything spans all entities.
var everything = span{start, cursor{Bucket: math.MaxUint32}}

func (s span) conditions() []string {
	var all []string
	switch {
	case s.after.Bucket < 0:
	case len(s.after.Key) == 0:
		all = append(all, fmt.Sprintf("bucket > %d", s.after.Bucket))
	default: // the first condition alone lets the engine choose by its index
		all = append(all, fmt.Sprintf("bucket >= %d", s.after.Bucket),
			fmt.Sprintf("(bucket > %d OR key > %s)", s.after.Bucket, text(s.after.Key)))
	}
	if s.upTo.Bucket < math.MaxUint32 {
		all = append(all, fmt.Sprintf("bucket <= %d", s.upTo.Bucket))
		if len(s.upTo.Key) != 0 {
			all = append(all, fmt.Sprintf("(bucket < %d OR key <= %s)", s.upTo.Bucket, text(s.upTo.Key)))
		}
	}
	return all
}

// conditions returns what events must meet.
func (e events) conditions() []string {
	all := e.span.conditions()
	if e.keys != nil {
		keys := make([]string, len(e.keys))
		for i, k := range e.keys {
			keys[i] = text(k)
		}
		all = append(all, in("key", keys))
	}
	if e.positions != nil {
		all = append(all, below(e.positions))
	}
	if e.before != nil {
		all = append(all, "event_time < "+literal(windows.IntValue(int64(*e.before))))
	}
	if e.view.Filter != nil {
		all = append(all, filter(e.view.Filter.Root()))
	}
	return all
}

func in(column string, values []string) string {
	if len(values) == 0 {
		return "false"
	}
	return column + " IN (" + strings.Join(values, ", ") + ")"
}

// below is true of events below the position of their partition. A partition without a position has none.
func below(positions []features.Position) string {
	if len(positions) == 0 {
		return "false"
	}
	var partitions, offsets []string
	for _, p := range positions {
		partitions = append(partitions, strconv.FormatUint(uint64(p.Log)<<32|uint64(uint32(p.Partition)), 10))
		offsets = append(offsets, strconv.FormatInt(p.Offset, 10))
	}
	return fmt.Sprintf("offset < transform(bitOr(bitShiftLeft(toUInt64(log), 32), toUInt64(partition)), CAST([%s], 'Array(UInt64)'), CAST([%s], 'Array(Int64)'), toInt64(0))",
		strings.Join(partitions, ", "), strings.Join(offsets, ", "))
}

// table is the clean table of the view's source and entity.
func (e events) table() string { return tables.Quote(tables.Clean(e.view.Source, e.view.Entity).Name) }

// from is the events with the columns that a level's states need, without duplicates.
func (e events) from(level windows.LevelInfo, more ...string) string {
	columns := []string{"bucket", "key", "event_time"}
	if needsPlace(level) {
		columns = append(columns, "log", "partition", "offset", placeSQL+" AS place")
	}
	for _, name := range e.fieldsOf(level) {
		columns = append(columns, field(name))
	}
	return "SELECT " + strings.Join(columns, ", ") + " FROM " + e.table() + " FINAL" + where(append(e.conditions(), more...))
}

// newest is the time of each entity's newest event. It needs no FINAL: a duplicate does not change a maximum.
func (e events) newest() string {
	return "SELECT key, max(event_time) AS newest FROM " + e.table() + where(e.conditions()) + " GROUP BY key"
}

func where(conditions []string) string {
	if len(conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(conditions, " AND ")
}

func needsPlace(level windows.LevelInfo) bool {
	return slices.ContainsFunc(level.Columns, func(c windows.Column) bool { return c.Op == windows.First || c.Op == windows.Last })
}

// fieldsOf returns the fields that the states of a level are made of, in declared order.
func (e events) fieldsOf(level windows.LevelInfo) []string {
	used := make([]bool, len(e.view.Source.Fields))
	for _, c := range level.Columns {
		if c.Field >= 0 {
			used[c.Field] = true
		}
		if f := e.view.FeatureFilters[c.WhereKey]; f != nil {
			markFields(f.Root(), used)
		}
	}
	var names []string
	for i, f := range e.view.Source.Fields {
		if used[i] {
			names = append(names, f.Name)
		}
	}
	return names
}

func markFields(n features.Node, used []bool) {
	switch n := n.(type) {
	case features.And:
		for _, n := range n.Nodes {
			markFields(n, used)
		}
	case features.Or:
		for _, n := range n.Nodes {
			markFields(n, used)
		}
	case features.Not:
		markFields(n.Node, used)
	case features.IsNull:
		used[n.Field.Index] = true
	case features.Compare:
		used[n.Field.Index] = true
	case features.In:
		used[n.Field.Index] = true
	default:
		panic(fmt.Sprintf("BUG: filter node %T", n))
	}
}

// states returns the expressions of all words and then all texts of a level.
func (e events) states(level windows.LevelInfo) []string {
	words, texts := make([]string, level.Words), make([]string, level.Texts)
	for _, c := range level.Columns {
		in := input{typ: c.Type}
		var keep []string
		if c.Field >= 0 {
			f := e.view.Source.Fields[c.Field]
			in.value = "ifNull(" + field(f.Name) + ", " + zero(f.Type) + ")"
			keep = append(keep, "isNotNull("+field(f.Name)+")")
		}
		if f := e.view.FeatureFilters[c.WhereKey]; f != nil {
			keep = append(keep, filter(f.Root()))
		}
		in.keep = "true"
		if len(keep) > 0 {
			in.keep = strings.Join(keep, " AND ")
		}
		s := aggregates[c.Op](in)
		if len(s.words) != c.Words || len(s.texts) != c.Texts {
			panic("BUG: the SQL of " + c.Op.String() + " does not fit its state")
		}
		copy(words[c.Word:], s.words)
		copy(texts[c.Text:], s.texts)
	}
	return slices.Concat(words, texts)
}

func zero(t windows.Type) string {
	switch t {
	case windows.Int64:
		return "toInt64(0)"
	case windows.Float64:
		return "0."
	case windows.String:
		return "''"
	case windows.Bool:
		return "false"
	}
	panic("BUG: zero of " + t.String())
}

// sessions adds to events a column with the time of the first event of their session: neighbours less than a gap apart belong
// together. With a cell, sessions are cut into fragments where a cell of that width ends.
func sessions(from string, gap, cell windows.Span) string {
	frame := " OVER (PARTITION BY key ORDER BY event_time ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
	opens := fmt.Sprintf("isNull(previous) OR %s >= %d", apart("ifNull(previous, event_time)", "event_time"), gap)
	with := "SELECT *, lagInFrame(toNullable(event_time))" + frame + " AS previous FROM (" + from + ")"
	if cell > 0 {
		with = "SELECT *, lagInFrame(toNullable(event_time))" + frame + " AS previous, lagInFrame(cell)" + frame +
			" AS previous_cell FROM (SELECT *, " + indexOf(cell) + " AS cell FROM (" + from + "))"
		opens += " OR previous_cell != cell"
	}
	return "SELECT *, max(if(" + opens + ", event_time, toInt64(" + strconv.FormatInt(math.MinInt64, 10) + ")))" + frame +
		" AS at FROM (" + with + ")"
}

// partials is the states of one level of all entities: per tile its index or per fragment the times of its first and last
// event, ordered by bucket, key and place. Most of what no read after the newest event can reach is left out.
func (e events) partials(level int) string {
	l := e.view.Level(level)
	from := "SELECT * FROM (" + e.from(l) + ") AS e INNER JOIN (" + e.newest() + ") AS n USING (key)"
	if reach, bounded := e.reach(level); bounded {
		from += fmt.Sprintf(" WHERE %s <= %d", apart("event_time", "newest"), reach)
	}
	at := "toInt64(0)"
	switch {
	case l.Session:
		from = sessions(from, l.Width, l.Span)
	case l.Width > 0:
		at = indexOf(l.Width)
	}
	if !l.Session {
		from = "SELECT *, " + at + " AS at FROM (" + from + ")"
	}
	columns := append([]string{"any(bucket)", "key", "any(newest)", "at", "max(event_time)"}, e.states(l)...)
	return "SELECT " + strings.Join(columns, ", ") + " FROM (" + from + ") GROUP BY key, at ORDER BY any(bucket), key, at" + settings
}

// reach is a bound on how far before the newest event an event can lie and still be reached; unbounded if it can lie anywhere.
// It is a little generous, windows.View.Reachable is exact.
func (e events) reach(level int) (reach uint64, bounded bool) {
	for _, r := range e.view.Reads() {
		if r.Level != level {
			continue
		}
		w := r.Window
		switch w.Kind {
		case windows.Sliding, windows.Hopping:
			reach = max(reach, uint64(w.Size)+uint64(w.Hop))
		case windows.Tumbling:
			reach = max(reach, 2*uint64(w.Size))
		case windows.Session:
			if w.Retain == 0 {
				return 0, false
			}
			reach = max(reach, uint64(w.Retain)+uint64(windows.Day))
		case windows.Lifetime:
			return 0, false
		}
	}
	return reach, true
}

// newestQuery is the time of the newest event of every entity, ordered.
func (e events) newestQuery() string {
	return "SELECT any(bucket), key, max(event_time) FROM " + e.table() + where(e.conditions()) +
		" GROUP BY key ORDER BY any(bucket), key" + settings
}

// windowQuery is the state of the events in one window at a moment, of every entity that has any, ordered. Of sessions it gives
// the two latest, the later one first; of other windows the times of the first and last event are there as well, unused.
func (e events) windowQuery(r windows.Read, t windows.Time) string {
	l := e.view.Level(r.Level)
	from, to, open := r.Window.Interval(t)
	var interval []string
	if !open {
		interval = append(interval, "event_time >= "+literal(windows.IntValue(int64(from))))
	}
	interval = append(interval, "event_time < "+literal(windows.IntValue(int64(to))))
	columns := append([]string{"any(bucket)", "key", "min(event_time)", "max(event_time)"}, e.states(l)...)
	list := strings.Join(columns, ", ")
	if !l.Session {
		return "SELECT " + list + " FROM (" + e.from(l, interval...) + ") GROUP BY key ORDER BY any(bucket), key" + settings
	}
	return "SELECT " + list + " FROM (" + sessions(e.from(l, interval...), l.Width, 0) +
		") GROUP BY key, at ORDER BY any(bucket), key, at DESC LIMIT 2 BY key" + settings
}
