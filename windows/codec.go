package windows

import (
	"encoding/binary"
	"fmt"
)

// codecVersion is the first byte of every stored value. A reader accepts all versions that were ever written.
const codecVersion = 1

// AppendDelta encodes the state that one partition's records of one epoch left in one block. covered is how many offsets of
// the epoch it holds, so that each value says by itself what was folded into it.
//
// Format: version, covered, time of the newest event, then the rows in ascending order.
func (v *View) AppendDelta(dst []byte, covered uint64, b *Block) []byte {
	dst = append(dst, codecVersion)
	dst = binary.AppendUvarint(dst, covered)
	dst = binary.AppendVarint(dst, int64(b.Newest))
	return v.Levels[b.ID.Level].appendBlock(dst, b)
}

// DecodeDelta reads back what AppendDelta wrote for that block.
func (v *View) DecodeDelta(id BlockID, value []byte) (b *Block, covered uint64, err error) {
	if id.Level < 0 || id.Level >= len(v.Levels) {
		return nil, 0, fmt.Errorf("level %d of a view with %d: %w", id.Level, len(v.Levels), ErrCorrupt)
	}
	covered, newest, rows, err := deltaHeader(value)
	if err != nil {
		return nil, 0, err
	}
	b = &Block{ID: id, Newest: newest}
	rest, err := v.decodeInto(b, rows)
	if err == nil && len(rest) != 0 {
		err = ErrCorrupt
	}
	return b, covered, err
}

func deltaHeader(value []byte) (covered uint64, newest Time, rows []byte, err error) {
	if len(value) == 0 || value[0] != codecVersion {
		return 0, 0, nil, fmt.Errorf("codec version: %w", ErrCorrupt)
	}
	if covered, value, err = getUvarint(value[1:]); err != nil {
		return 0, 0, nil, err
	}
	at, rows, err := getVarint(value)
	return covered, Time(at), rows, err
}

func (v *View) decodeInto(b *Block, rows []byte) ([]byte, error) {
	l := &v.Levels[b.ID.Level]
	scratch := l.newPartial()
	return l.decodeRows(rows, b.ID.No, scratch, func(at int64, last Time, row Partial) {
		v.AppendRow(b, at, last, row)
	})
}

func (l *Level) newPartial() Partial {
	return Partial{make([]uint64, l.words), make([]string, l.texts)}
}

// AppendRow adds a tile (its index; last is ignored) or a fragment (the times of its first and last event) with its state
// behind the rows of b. Rows come in ascending order. Newest is the caller's to set.
func (v *View) AppendRow(b *Block, at int64, last Time, row Partial) {
	b.at = append(b.at, at)
	if v.Levels[b.ID.Level].grain.kind == Session {
		b.last = append(b.last, last)
	}
	b.words = append(b.words, row.Words...)
	b.texts = append(b.texts, row.Texts...)
}

// baseHeader is the version and the run, at fixed places: the script that writes a base compares the bytes of the run.
const baseHeader = 1 + 8

// AppendBase encodes the state of one entity that the batch layer's run folded up to its positions. Blocks come in ascending
// order of level and number.
//
// Format: version, run (8 bytes, big endian), time of the newest event, then for each level the number of blocks, and for
// each its number and its rows.
func (v *View) AppendBase(dst []byte, run uint64, newest Time, blocks []*Block) []byte {
	dst = append(dst, codecVersion)
	dst = binary.BigEndian.AppendUint64(dst, run)
	dst = binary.AppendVarint(dst, int64(newest))
	for level := range v.Levels {
		n := 0
		for n < len(blocks) && blocks[n].ID.Level == level {
			n++
		}
		dst = binary.AppendUvarint(dst, uint64(n))
		for _, b := range blocks[:n] {
			dst = binary.AppendVarint(dst, b.ID.No)
			dst = v.Levels[level].appendBlock(dst, b)
		}
		blocks = blocks[n:]
	}
	if len(blocks) > 0 {
		panic("BUG: blocks of a base out of order")
	}
	return dst
}

// BaseRun returns the run that wrote a base.
func BaseRun(value []byte) (uint64, error) {
	if len(value) < baseHeader || value[0] != codecVersion {
		return 0, fmt.Errorf("base header: %w", ErrCorrupt)
	}
	return binary.BigEndian.Uint64(value[1:]), nil
}

// decodeBase calls block for each block of an encoded base with the encoded rows; block returns what follows them.
func (v *View) decodeBase(value []byte, block func(id BlockID, rows []byte) ([]byte, error)) error {
	_, src, err := baseNewest(value)
	if err != nil {
		return err
	}
	for level := range v.Levels {
		var n, no uint64
		if n, src, err = getUvarint(src); err != nil {
			return err
		}
		for ; n > 0; n-- {
			if no, src, err = getVarint(src); err != nil {
				return err
			}
			if src, err = block(BlockID{level, int64(no)}, src); err != nil {
				return err
			}
		}
	}
	if len(src) != 0 {
		return ErrCorrupt
	}
	return nil
}

func baseNewest(value []byte) (newest Time, levels []byte, err error) {
	if _, err := BaseRun(value); err != nil {
		return 0, nil, err
	}
	at, levels, err := getVarint(value[baseHeader:])
	return Time(at), levels, err
}

// DecodeBase reads back what AppendBase wrote.
func (v *View) DecodeBase(value []byte) (newest Time, blocks []*Block, err error) {
	if newest, _, err = baseNewest(value); err != nil {
		return 0, nil, err
	}
	err = v.decodeBase(value, func(id BlockID, rows []byte) ([]byte, error) {
		b := &Block{ID: id, Newest: newest}
		blocks = append(blocks, b)
		return v.decodeInto(b, rows)
	})
	return newest, blocks, err
}
