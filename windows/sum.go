package windows

import "encoding/binary"

// sumAggregate adds numbers exactly. State: a 128-bit integer, low word first; for floats in units of 2^-40, each input
// rounded to that grid once. Sums of float64 depend on order, sums of integers do not.
var sumAggregate = aggregate{
	name:       "sum",
	accepts:    numericTypes,
	resultType: sameType,
	words:      fixed(2),
	texts:      fixed(0),
	fold:       func(t Type, s Partial, _ *Event, v Value) { addTo(s.Words, gridOf(t, v)) },
	merge:      func(_ Type, s, o Partial) { addTo(s.Words, int128{o.Words[0], o.Words[1]}) },
	encode:     func(_ Type, dst []byte, s Partial) []byte { return putInt128(dst, s.Words) },
	decode:     func(_ Type, src []byte, s Partial) ([]byte, error) { return getInt128(src, s.Words) },
	result: func(t Type, s Partial) Value {
		sum := int128{s.Words[0], s.Words[1]}
		if t == Float64 {
			return FloatValue(sum.quotient(1, -GridBits))
		}
		v, ok := sum.int64()
		if !ok {
			return Value{Kind: Invalid} // the true sum is known, but no int64 holds it
		}
		return IntValue(v)
	},
}

// gridOf returns a number in the units that sums of its type are kept in.
func gridOf(t Type, v Value) int128 {
	if t == Float64 {
		return grid(v.Float())
	}
	return fromInt64(v.Int())
}

func addTo(words []uint64, v int128) {
	sum := int128{words[0], words[1]}.add(v)
	words[0], words[1] = sum.lo, sum.hi
}

// putInt128 writes the number zigzagged, so that small magnitudes of either sign are short: low word, high word.
func putInt128(dst []byte, words []uint64) []byte {
	sign := uint64(int64(words[1]) >> 63)
	hi := (words[1]<<1 | words[0]>>63) ^ sign
	lo := words[0]<<1 ^ sign
	if hi == 0 && lo < 1<<63 { // one varint: the lowest bit says that no high word follows
		return binary.AppendUvarint(dst, lo<<1)
	}
	dst = binary.AppendUvarint(dst, (lo<<1)|1)
	return binary.AppendUvarint(binary.AppendUvarint(dst, lo>>63), hi)
}

func getInt128(src []byte, words []uint64) ([]byte, error) {
	lo, src, err := getUvarint(src)
	if err != nil {
		return nil, err
	}
	var hi uint64
	if lo&1 == 0 {
		lo >>= 1
	} else {
		var top uint64
		if top, src, err = getUvarint(src); err != nil || top > 1 {
			return nil, ErrCorrupt
		}
		if hi, src, err = getUvarint(src); err != nil {
			return nil, err
		}
		lo = lo>>1 | top<<63
		if hi == 0 && top == 0 {
			return nil, ErrCorrupt // the short form exists; one state has one encoding
		}
	}
	sign := -(lo & 1)
	words[0] = (lo>>1 | hi<<63) ^ sign
	words[1] = hi>>1 ^ sign
	return src, nil
}
