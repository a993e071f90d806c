package windows

import "encoding/binary"

// countAggregate counts events, or those whose field is not null. State: the number.
var countAggregate = aggregate{
	name:       "count",
	bare:       true,
	accepts:    allTypes,
	resultType: func(Type) Type { return Int64 },
	words:      fixed(1),
	texts:      fixed(0),
	fold:       func(_ Type, s Partial, _ *Event, _ Value) { s.Words[0]++ },
	merge:      func(_ Type, s, o Partial) { s.Words[0] += o.Words[0] },
	encode: func(_ Type, dst []byte, s Partial) []byte {
		return binary.AppendUvarint(dst, s.Words[0])
	},
	decode: func(_ Type, src []byte, s Partial) (rest []byte, err error) {
		s.Words[0], rest, err = getUvarint(src)
		return rest, err
	},
	result: func(_ Type, s Partial) Value { return IntValue(int64(s.Words[0])) },
}
