package windows

import (
	"cmp"
	"encoding/binary"
	"strings"
)

// firstAggregate and lastAggregate keep the value of the earliest and the latest event, ordered by event time and then by
// position in the logs, which no two records share. State: whether there is one, event time, log and partition, offset,
// value.
var (
	firstAggregate = edge("first", -1)
	lastAggregate  = edge("last", +1)
)

func edge(name string, sign int) aggregate {
	merge := func(_ Type, s, o Partial) {
		if o.Words[0] != 0 && (s.Words[0] == 0 || compareEdge(o.Words, s.Words) == sign) {
			copy(s.Words, o.Words)
			copy(s.Texts, o.Texts)
		}
	}
	return aggregate{
		name:       name,
		accepts:    allTypes,
		resultType: sameType,
		words:      fixed(5),
		texts:      textOf,
		fold: func(t Type, s Partial, e *Event, v Value) {
			words := [5]uint64{1, uint64(e.Time), uint64(e.Position.Log)<<32 | uint64(uint32(e.Position.Partition)), uint64(e.Position.Offset), v.Bits}
			if s.Words[0] == 0 || compareEdge(words[:], s.Words) == sign {
				copy(s.Words, words[:])
				if t == String {
					s.Texts[0] = strings.Clone(v.Str)
				}
			}
		},
		merge: merge,
		encode: func(t Type, dst []byte, s Partial) []byte {
			dst = append(dst, byte(s.Words[0]))
			if s.Words[0] == 0 {
				return dst
			}
			dst = putVarint(dst, s.Words[1])
			dst = binary.AppendUvarint(dst, s.Words[2]>>32)
			dst = binary.AppendUvarint(dst, s.Words[2]&(1<<32-1))
			dst = binary.AppendUvarint(dst, s.Words[3])
			return putValue(t, dst, s.Words[4], s.Texts)
		},
		decode: func(t Type, src []byte, s Partial) ([]byte, error) {
			if len(src) == 0 || src[0] > 1 {
				return nil, ErrCorrupt
			}
			s.Words[0] = uint64(src[0])
			src = src[1:]
			if s.Words[0] == 0 {
				return src, nil
			}
			var log, partition uint64
			var err error
			if s.Words[1], src, err = getVarint(src); err != nil {
				return nil, err
			}
			if log, src, err = getUvarint(src); err != nil {
				return nil, err
			}
			if partition, src, err = getUvarint(src); err != nil {
				return nil, err
			}
			if log>>32 != 0 || partition>>31 != 0 {
				return nil, ErrCorrupt
			}
			s.Words[2] = log<<32 | partition
			if s.Words[3], src, err = getUvarint(src); err != nil {
				return nil, err
			}
			return getValue(t, src, &s.Words[4], s.Texts)
		},
		result: func(t Type, s Partial) Value {
			if s.Words[0] == 0 {
				return Value{}
			}
			return valueOf(t, s.Words[4], s.Texts)
		},
	}
}

// compareEdge orders two states by event time, log and partition, offset.
func compareEdge(a, b []uint64) int {
	return cmp.Or(cmp.Compare(int64(a[1]), int64(b[1])), cmp.Compare(a[2], b[2]), cmp.Compare(a[3], b[3]))
}
