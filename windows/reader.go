package windows

import (
	"cmp"
	"errors"
	"slices"
)

// ErrBeforeNewest is returned for a read at a moment that is not after the entity's newest event: a state holds whole tiles
// and fragments, and cannot say what was in them earlier.
var ErrBeforeNewest = errors.New("the moment is not after the newest event folded into the state")

// Reader merges the stored states of one entity in one view, base and deltas, and reads the features at a moment: it is ⊕
// and finalize of the law. It is reused from read to read and not safe for concurrent use.
type Reader struct {
	view   *View
	bases  [][]byte
	deltas []deltaValue
	newest Time
	any    bool

	scratch []Partial   // per level: a row being decoded
	folds   []Folded    // per read
	open    []fragments // per level: the fragments of a session level
}

type deltaValue struct {
	id   BlockID
	rows []byte
}

// NewReader returns a Reader for v.
func (v *View) NewReader() *Reader {
	r := &Reader{view: v, folds: make([]Folded, len(v.reads)), open: make([]fragments, len(v.Levels))}
	for i := range v.Levels {
		r.scratch = append(r.scratch, v.Levels[i].newPartial())
	}
	for i := range v.reads {
		r.folds[i].Partial = v.Levels[v.reads[i].level].newPartial()
	}
	return r
}

// Reset forgets the entity.
func (r *Reader) Reset() {
	r.bases, r.deltas, r.any = r.bases[:0], r.deltas[:0], false
}

// AddBase adds a base value. It keeps value until the next Reset.
func (r *Reader) AddBase(value []byte) error {
	newest, _, err := baseNewest(value)
	if err != nil {
		return err
	}
	r.bases = append(r.bases, value)
	r.saw(newest)
	return nil
}

// AddDelta adds the delta of one block. It keeps value until the next Reset.
func (r *Reader) AddDelta(id BlockID, value []byte) error {
	if id.Level < 0 || id.Level >= len(r.view.Levels) {
		return ErrCorrupt
	}
	_, newest, rows, err := deltaHeader(value)
	if err != nil {
		return err
	}
	r.deltas = append(r.deltas, deltaValue{id, rows})
	r.saw(newest)
	return nil
}

// AddBlock adds a block that is not encoded.
func (r *Reader) AddBlock(b *Block) error {
	return r.AddDelta(b.ID, r.view.AppendDelta(nil, 0, b))
}

func (r *Reader) saw(newest Time) {
	if !r.any || newest > r.newest {
		r.newest = newest
	}
	r.any = true
}

// Newest returns the time of the newest event folded into what was added, and whether there is one.
func (r *Reader) Newest() (Time, bool) { return r.newest, r.any }

// At appends the result of each feature at t, which must be after the newest event.
func (r *Reader) At(dst []Result, t Time) ([]Result, error) {
	if r.any && t <= r.newest {
		return dst, ErrBeforeNewest
	}
	for i := range r.folds {
		r.folds[i].Any = false
		clear(r.folds[i].Words)
		clear(r.folds[i].Texts)
	}
	for i := range r.open {
		r.open[i].reset()
	}
	for _, value := range r.bases {
		if err := r.view.decodeBase(value, func(id BlockID, rows []byte) ([]byte, error) { return r.add(id, rows, t) }); err != nil {
			return dst, err
		}
	}
	for _, d := range r.deltas {
		rest, err := r.add(d.id, d.rows, t)
		if err != nil {
			return dst, err
		}
		if len(rest) != 0 {
			return dst, ErrCorrupt
		}
	}
	for i := range r.view.reads {
		rd := &r.view.reads[i]
		if l := &r.view.Levels[rd.level]; l.grain.kind == Session {
			r.open[rd.level].pick(l, rd.window, t, &r.folds[i])
		}
	}
	return r.view.Results(dst, t, r.newest, r.folds), nil
}

// add merges the rows of one block into the windows at t that they lie in.
func (r *Reader) add(id BlockID, rows []byte, t Time) ([]byte, error) {
	l := &r.view.Levels[id.Level]
	if l.grain.kind == Session {
		first := l.grain.retained(t)
		day := index(Time(id.No), Day/l.span)
		return l.decodeRows(rows, id.No, r.scratch[id.Level], func(at int64, last Time, row Partial) {
			if day >= first {
				r.open[id.Level].add(Time(at), last, row)
			}
		})
	}
	return l.decodeRows(rows, id.No, r.scratch[id.Level], func(at int64, _ Time, row Partial) {
		for i := range r.view.reads {
			rd := &r.view.reads[i]
			if rd.level != id.Level {
				continue
			}
			if lo, hi := rd.window.tiles(t); at < lo || at >= hi {
				continue
			}
			f := &r.folds[i]
			f.Any = true
			for _, c := range rd.columns {
				col := &l.columns[c]
				col.agg.merge(col.typ, col.of(f.Partial), col.of(row))
			}
		}
	})
}

// fragments collects the session fragments of one level before they unite.
type fragments struct {
	spans []fragment
	words []uint64
	texts []string
}

type fragment struct {
	first, last Time
	row         int // place of its state
}

func (f *fragments) reset() {
	f.spans, f.words, f.texts = f.spans[:0], f.words[:0], f.texts[:0]
}

func (f *fragments) add(first, last Time, row Partial) {
	f.spans = append(f.spans, fragment{first, last, len(f.spans)})
	f.words = append(f.words, row.Words...)
	f.texts = append(f.texts, row.Texts...)
}

// session is a run of sorted fragments: [lo, hi) of them, the last event among them.
type session struct {
	lo, hi int
	last   Time
}

// pick unites fragments less than a gap apart and leaves the session that w asks for at t in out.
func (f *fragments) pick(l *Level, w Window, t Time, out *Folded) {
	slices.SortFunc(f.spans, func(a, b fragment) int { return cmp.Compare(a.first, b.first) })
	gap := uint64(w.Gap)
	var latest, before session
	for i, s := range f.spans {
		if i == 0 || s.first > latest.last && apart(latest.last, s.first) >= gap {
			before, latest = latest, session{i, i, s.last}
		}
		latest.hi, latest.last = i+1, max(latest.last, s.last)
	}
	open := latest.hi > 0 && apart(latest.last, t) < gap
	chosen := latest
	switch {
	case w.Previous && open:
		chosen = before
	case !w.Previous && !open:
		return
	}
	if chosen.hi == 0 {
		return
	}
	out.Any, out.First, out.Last = true, f.spans[chosen.lo].first, chosen.last
	for _, s := range f.spans[chosen.lo:chosen.hi] {
		l.mergeColumns(out.Partial, Partial{f.words[s.row*l.words : (s.row+1)*l.words], f.texts[s.row*l.texts : (s.row+1)*l.texts]})
	}
}
