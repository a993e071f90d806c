package windows

import (
	"cmp"
	"math"
	"strings"
)

// minAggregate and maxAggregate keep the least and the greatest value; texts compare by bytes. State: whether there is one,
// and the value.
var (
	minAggregate = extreme("min", -1)
	maxAggregate = extreme("max", +1)
)

func extreme(name string, sign int) aggregate {
	return aggregate{
		name:       name,
		accepts:    orderedTypes,
		resultType: sameType,
		words:      fixed(2),
		texts:      textOf,
		fold: func(t Type, s Partial, _ *Event, v Value) {
			if s.Words[0] == 0 || compareValue(t, v.Bits, v.Str, s) == sign {
				s.Words[0], s.Words[1] = 1, v.Bits
				if t == String {
					s.Texts[0] = strings.Clone(v.Str)
				}
			}
		},
		merge: func(t Type, s, o Partial) {
			if o.Words[0] == 0 {
				return
			}
			text := ""
			if t == String {
				text = o.Texts[0]
			}
			if s.Words[0] == 0 || compareValue(t, o.Words[1], text, s) == sign {
				copy(s.Words, o.Words)
				copy(s.Texts, o.Texts)
			}
		},
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

// compareValue compares a value, as its word or text, with the one that a state keeps.
func compareValue(t Type, word uint64, text string, s Partial) int {
	switch t {
	case String:
		return strings.Compare(text, s.Texts[0])
	case Float64:
		return cmp.Compare(math.Float64frombits(word), math.Float64frombits(s.Words[1]))
	default:
		return cmp.Compare(int64(word), int64(s.Words[1]))
	}
}
