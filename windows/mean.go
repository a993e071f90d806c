package windows

import "encoding/binary"

// meanAggregate is the sum divided by the count, rounded once at the end. State: the count, then the state of sum.
var meanAggregate = aggregate{
	name:       "mean",
	accepts:    numericTypes,
	resultType: func(Type) Type { return Float64 },
	words:      fixed(3),
	texts:      fixed(0),
	fold: func(t Type, s Partial, _ *Event, v Value) {
		s.Words[0]++
		addTo(s.Words[1:], gridOf(t, v))
	},
	merge: func(_ Type, s, o Partial) {
		s.Words[0] += o.Words[0]
		addTo(s.Words[1:], int128{o.Words[1], o.Words[2]})
	},
	encode: func(_ Type, dst []byte, s Partial) []byte {
		return putInt128(binary.AppendUvarint(dst, s.Words[0]), s.Words[1:])
	},
	decode: func(_ Type, src []byte, s Partial) (_ []byte, err error) {
		if s.Words[0], src, err = getUvarint(src); err != nil {
			return nil, err
		}
		return getInt128(src, s.Words[1:])
	},
	result: func(t Type, s Partial) Value {
		if s.Words[0] == 0 {
			return Value{}
		}
		exponent := 0
		if t == Float64 {
			exponent = -GridBits
		}
		return FloatValue(int128{s.Words[1], s.Words[2]}.quotient(s.Words[0], exponent))
	},
}
