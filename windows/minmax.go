package windows

import (
	"math"
	"strings"
)

// minAggregate and maxAggregate keep the least and the greatest value; texts compare by bytes. State: whether there is one,
// and the value.
var (
	minAggregate = extreme("min", lessValue)
	maxAggregate = extreme("max", func(t Type, a, b Partial) bool { return lessValue(t, b, a) })
)

func extreme(name string, better func(t Type, a, b Partial) bool) aggregate {
	merge := func(t Type, s, o Partial) {
		if o.Words[0] != 0 && (s.Words[0] == 0 || better(t, o, s)) {
			copy(s.Words, o.Words)
			copy(s.Texts, o.Texts)
		}
	}
	return aggregate{
		name:       name,
		accepts:    orderedTypes,
		resultType: sameType,
		words:      fixed(2),
		texts:      textOf,
		fold: func(t Type, s Partial, _ *Event, v Value) {
			if t == String {
				if s.Words[0] == 0 || better(t, Partial{Texts: []string{v.Str}}, s) {
					s.Words[0], s.Texts[0] = 1, strings.Clone(v.Str)
				}
				return
			}
			words := [2]uint64{1, v.Bits}
			merge(t, s, Partial{Words: words[:]})
		},
		merge: merge,
		encode: func(t Type, dst []byte, s Partial) []byte {
			dst = append(dst, byte(s.Words[0]))
			if s.Words[0] == 0 {
				return dst
			}
			return putValue(t, dst, s.Words[1], s.Texts)
		},
		decode: func(t Type, src []byte, s Partial) ([]byte, error) {
			if len(src) == 0 || src[0] > 1 {
				return nil, ErrCorrupt
			}
			if s.Words[0] = uint64(src[0]); src[0] == 0 {
				return src[1:], nil
			}
			return getValue(t, src[1:], &s.Words[1], s.Texts)
		},
		result: func(t Type, s Partial) Value {
			if s.Words[0] == 0 {
				return Value{}
			}
			return valueOf(t, s.Words[1], s.Texts)
		},
	}
}

func lessValue(t Type, a, b Partial) bool {
	switch t {
	case String:
		return a.Texts[0] < b.Texts[0]
	case Float64:
		return math.Float64frombits(a.Words[1]) < math.Float64frombits(b.Words[1])
	default:
		return int64(a.Words[1]) < int64(b.Words[1])
	}
}
