package windows

// What an engine outside this package (SQL) needs to know of a compiled view to compute the same states.

// Column describes the state of one aggregate within a row of a level: Words and Texts of it begin at Word and Text.
type Column struct {
	Op          Op
	Type        Type
	Field       int // index into Event.Row; -1 for a bare count
	WhereKey    string
	Word, Words int
	Text, Texts int
}

// LevelInfo describes a level: fragments of a session with that gap, or tiles of that width (0: one tile for all time).
type LevelInfo struct {
	Session bool
	Width   Span // of a tile, or the gap
	Span    Span // of a block of fragments: fragments are cut at its multiples
	Columns []Column
	Words   int
	Texts   int
}

// Level describes level i of v.
func (v *View) Level(i int) LevelInfo {
	l := &v.Levels[i]
	info := LevelInfo{Session: l.grain.kind == Session, Width: l.grain.width, Span: l.span, Words: l.words, Texts: l.texts}
	for _, c := range l.columns {
		info.Columns = append(info.Columns, Column{c.op, c.typ, c.field, c.whereKey, c.word, c.words, c.text, c.texts})
	}
	return info
}

// Read is one of the distinct windows of a view and the level that holds its state.
type Read struct {
	Window Window
	Level  int
}

// Reads returns the windows of v, in the order in which Results takes them.
func (v *View) Reads() []Read {
	reads := make([]Read, len(v.reads))
	for i, r := range v.reads {
		reads[i] = Read{r.window, r.level}
	}
	return reads
}

// BlockOf returns the block of a row of a level: a tile's index, or the time of a fragment's first event.
func (v *View) BlockOf(level int, at int64) BlockID {
	l := &v.Levels[level]
	switch l.grain.kind {
	case Session:
		return BlockID{level, index(Time(at), l.span)}
	case Lifetime:
		return BlockID{level, 0}
	default:
		return BlockID{level, index(Time(at), Span(l.perBlock))}
	}
}

// Reachable reports whether a read after the newest event of an entity can still use a row of a level.
func (v *View) Reachable(level int, at int64, newest Time) bool {
	t := newest.Add(1)
	l := &v.Levels[level]
	if l.grain.kind == Session {
		return index(Time(at), Day) >= l.grain.retained(t)
	}
	for i := range v.reads {
		if v.reads[i].level == level {
			if lo, _ := v.reads[i].window.tiles(t); at >= lo {
				return true
			}
		}
	}
	return false
}

// Interval returns the half-open interval of event times that a window covers at t, for a session the one that it may
// hold; open says that it has no lower end. Ends that are not representable become the nearest limit.
func (w Window) Interval(t Time) (from, to Time, open bool) {
	switch w.Kind {
	case Sliding:
		return tileTime(indexBefore(t, w.Size, w.Hop), w.Hop), t, false
	case Tumbling:
		hi := index(t, w.Size)
		return tileTime(hi-1, w.Size), tileTime(hi, w.Size), false
	case Hopping:
		lo, hi := w.tiles(t)
		width := gcd(w.Size, w.Hop)
		return tileTime(lo, width), tileTime(hi, width), false
	case Lifetime:
		return MinTime, t, true
	case Session:
		if w.Retain == 0 {
			return MinTime, t, true
		}
		return tileTime(index(t, Day)-int64(w.Retain/Day), Day), t, false
	}
	panic("BUG: interval of a " + w.Kind.String() + " window")
}

// tileTime returns the start of a tile, or the nearest limit of time.
func tileTime(i int64, width Span) Time {
	t := i * int64(width)
	if i != 0 && t/i != int64(width) {
		if i < 0 {
			return MinTime
		}
		return MaxTime
	}
	return Time(t)
}
