package windows

import (
	"encoding/binary"
	"slices"
)

// BlockID names a block of one view: a level and a stretch of event time.
type BlockID struct {
	Level int
	No    int64
}

// Block is the state of one entity in one block: rows of a level, each a tile or a session fragment, in ascending order.
// The zero Block with an ID is empty.
type Block struct {
	ID     BlockID
	Newest Time // the time of the newest event folded in

	at    []int64 // a tile's index, or the time of a fragment's first event
	last  []Time  // of fragments: the time of the last event
	words []uint64
	texts []string
}

// Empty reports whether nothing was folded into b.
func (b *Block) Empty() bool { return len(b.at) == 0 }

// Len returns the number of tiles or fragments.
func (b *Block) Len() int { return len(b.at) }

// Size returns roughly how many bytes b encodes to, for limits on what is kept unflushed.
func (b *Block) Size() int {
	size := 16 + len(b.at)*4 + len(b.words)*4
	for _, s := range b.texts {
		size += len(s)
	}
	return size
}

// BlocksOf appends the blocks of v that an event at t belongs to: one of each level.
func (v *View) BlocksOf(dst []BlockID, t Time) []BlockID {
	for i := range v.Levels {
		dst = append(dst, BlockID{Level: i, No: v.Levels[i].block(t)})
	}
	return dst
}

// Fold adds an event to the block of its level that it belongs to. The caller has asked v.Where.
func (v *View) Fold(b *Block, e *Event) {
	l := &v.Levels[b.ID.Level]
	if b.Empty() || e.Time > b.Newest {
		b.Newest = e.Time
	}
	var row int
	switch l.grain.kind {
	case Session:
		row = l.join(b, e.Time)
	case Lifetime:
		row = l.tile(b, 0)
	default:
		row = l.tile(b, index(e.Time, l.grain.width))
	}
	l.fold(b, row, e)
}

func (l *Level) fold(b *Block, row int, e *Event) {
	words, texts := b.words[row*l.words:], b.texts[row*l.texts:]
	for i := range l.columns {
		c := &l.columns[i]
		var v Value
		if c.field >= 0 {
			if v = e.Row[c.field]; v.Kind == Null {
				continue
			}
		}
		if c.where != nil && !c.where(e.Row) {
			continue
		}
		c.agg.fold(c.typ, Partial{words[c.word : c.word+c.words], texts[c.text : c.text+c.texts]}, e, v)
	}
}

// tile returns the row of the tile with that index, made if need be.
func (l *Level) tile(b *Block, i int64) int {
	n := len(b.at)
	if n > 0 && b.at[n-1] == i {
		return n - 1
	}
	row, found := slices.BinarySearch(b.at, i)
	if !found {
		l.insert(b, row, i)
	}
	return row
}

// join returns the row of the fragment that an event at t belongs to: a new one, one that it extends, or two that it unites.
func (l *Level) join(b *Block, t Time) int {
	gap := uint64(l.grain.width)
	// The first fragment that starts after t; only it and the one before it can be near.
	next, _ := slices.BinarySearchFunc(b.at, t, func(at int64, t Time) int {
		if Time(at) > t {
			return 1
		}
		return -1
	})
	before := next > 0 && (b.last[next-1] >= t || apart(b.last[next-1], t) < gap)
	after := next < len(b.at) && apart(t, Time(b.at[next])) < gap
	switch {
	case before && after:
		b.last[next-1] = b.last[next]
		l.merge(b, next-1, Partial{b.words[next*l.words : (next+1)*l.words], b.texts[next*l.texts : (next+1)*l.texts]})
		b.at = slices.Delete(b.at, next, next+1)
		b.last = slices.Delete(b.last, next, next+1)
		b.words = slices.Delete(b.words, next*l.words, (next+1)*l.words)
		b.texts = slices.Delete(b.texts, next*l.texts, (next+1)*l.texts)
		return next - 1
	case before:
		b.last[next-1] = max(b.last[next-1], t)
		return next - 1
	case after:
		b.at[next] = int64(t)
		return next
	}
	l.insert(b, next, int64(t))
	b.last[next] = t
	return next
}

// insert makes an empty row.
func (l *Level) insert(b *Block, row int, at int64) {
	b.at = slices.Insert(b.at, row, at)
	if l.grain.kind == Session {
		b.last = slices.Insert(b.last, row, 0)
	}
	b.words = insertZeros(b.words, row*l.words, l.words)
	b.texts = insertZeros(b.texts, row*l.texts, l.texts)
}

func insertZeros[E any](s []E, at, n int) []E {
	if n == 0 {
		return s
	}
	old := len(s)
	s = slices.Grow(s, n)[:old+n]
	copy(s[at+n:], s[at:old])
	clear(s[at : at+n])
	return s
}

// merge adds a whole row's state to a row of b.
func (l *Level) merge(b *Block, row int, o Partial) {
	l.mergeColumns(Partial{b.words[row*l.words:], b.texts[row*l.texts:]}, o)
}

func (l *Level) mergeColumns(s, o Partial) {
	for i := range l.columns {
		c := &l.columns[i]
		c.agg.merge(c.typ, c.of(s), c.of(o))
	}
}

// of returns the part of a row's state that is the column's.
func (c *column) of(row Partial) Partial {
	return Partial{row.Words[c.word : c.word+c.words], row.Texts[c.text : c.text+c.texts]}
}

// start returns the least value that a row of b can have in at. It wraps where that lies below MinTime, and so does the
// difference that the codec takes.
func (l *Level) start(no int64) uint64 {
	switch l.grain.kind {
	case Session:
		return uint64(no) * uint64(l.span)
	case Lifetime:
		return 0
	default:
		return uint64(no) * uint64(l.perBlock)
	}
}

// appendBlock encodes the rows of b: their number, then for each its place and its columns.
func (l *Level) appendBlock(dst []byte, b *Block) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b.at)))
	start := l.start(b.ID.No)
	for row, at := range b.at {
		dst = binary.AppendUvarint(dst, uint64(at)-start)
		if l.grain.kind == Session {
			dst = binary.AppendUvarint(dst, apart(Time(at), b.last[row]))
		}
		whole := Partial{b.words[row*l.words:], b.texts[row*l.texts:]}
		for i := range l.columns {
			c := &l.columns[i]
			dst = c.agg.encode(c.typ, dst, c.of(whole))
		}
	}
	return dst
}

// decodeRows calls visit for each row of an encoded block and returns what follows it. The row is reused between calls.
func (l *Level) decodeRows(src []byte, no int64, row Partial, visit func(at int64, last Time, row Partial)) ([]byte, error) {
	n, src, err := getUvarint(src)
	if err != nil {
		return nil, err
	}
	start := l.start(no)
	for ; n > 0; n-- {
		var at, length uint64
		if at, src, err = getUvarint(src); err != nil {
			return nil, err
		}
		at += start
		if l.grain.kind == Session {
			if length, src, err = getUvarint(src); err != nil {
				return nil, err
			}
		}
		clear(row.Words)
		clear(row.Texts)
		for i := range l.columns {
			c := &l.columns[i]
			if src, err = c.agg.decode(c.typ, src, c.of(row)); err != nil {
				return nil, err
			}
		}
		visit(int64(at), Time(at+length), row)
	}
	return src, nil
}

// BlockAt returns the block of a level that an event at t belongs to.
func (v *View) BlockAt(level int, t Time) BlockID {
	return BlockID{Level: level, No: v.Levels[level].block(t)}
}
