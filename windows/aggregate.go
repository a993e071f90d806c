package windows

import (
	"encoding/binary"
	"errors"
	"strconv"
)

// Op names an aggregate.
type Op uint8

// The aggregates.
const (
	Count Op = iota + 1
	Sum
	Mean
	Min
	Max
	First
	Last
	VarPop
	VarSamp
	StddevPop
	StddevSamp
)

// aggregate is one commutative monoid over events. Its state is a fixed number of words and texts, all zero when empty, so
// that the states of a tile lie in one slice and SQL can deliver them as plain columns.
type aggregate struct {
	name string
	// words and texts is the size of the state for a field of type t.
	words, texts func(t Type) int
	// fold adds one event whose field is v; v is never Null. A bare count gets the zero Value.
	fold func(t Type, s Partial, e *Event, v Value)
	// merge adds the state o.
	merge func(t Type, s, o Partial)
	// encode appends the state; decode reads it into the zero state s and returns what follows.
	encode func(t Type, dst []byte, s Partial) []byte
	decode func(t Type, src []byte, s Partial) ([]byte, error)
	// result finalizes; a state into which nothing was folded gives the aggregate's empty value.
	result func(t Type, s Partial) Value
	// accepts lists the field types; resultType gives the feature's.
	accepts    []Type
	resultType func(t Type) Type
	bare       bool // may stand without a field
}

// Partial is the state of one aggregate: a window into the words and texts of a tile or fragment.
type Partial struct {
	Words []uint64
	Texts []string
}

// aggregates is the whole list. A new aggregate is one file and one line here.
var aggregates = map[Op]*aggregate{
	Count: &countAggregate,
	Sum:   &sumAggregate,
	Mean:  &meanAggregate,
	Min:   &minAggregate,
	Max:   &maxAggregate,
	First: &firstAggregate,
	Last:  &lastAggregate,

	VarPop:     &varPopAggregate,
	VarSamp:    &varSampAggregate,
	StddevPop:  &stddevPopAggregate,
	StddevSamp: &stddevSampAggregate,
}

// Ops returns all aggregates, in a fixed order.
func Ops() []Op {
	return []Op{Count, Sum, Mean, Min, Max, First, Last, VarPop, VarSamp, StddevPop, StddevSamp}
}

// ParseOp returns the aggregate of that name.
func ParseOp(name string) (Op, bool) {
	for _, op := range Ops() {
		if aggregates[op].name == name {
			return op, true
		}
	}
	return 0, false
}

// String returns the name that definitions use.
func (op Op) String() string {
	if a := aggregates[op]; a != nil {
		return a.name
	}
	return "Op(" + strconv.Itoa(int(op)) + ")"
}

// Bare reports whether op may stand without a field.
func (op Op) Bare() bool { return aggregates[op].bare }

// Accepts returns the field types that op takes.
func (op Op) Accepts() []Type { return aggregates[op].accepts }

// ResultType returns the type of the feature that op makes of a field of type t.
func (op Op) ResultType(t Type) Type { return aggregates[op].resultType(t) }

// WordCount returns how many words and texts the state of op over a field of type t has.
func (op Op) WordCount(t Type) (words, texts int) {
	a := aggregates[op]
	return a.words(t), a.texts(t)
}

var (
	allTypes     = []Type{Int64, Float64, String, Bool}
	orderedTypes = []Type{Int64, Float64, String}
	numericTypes = []Type{Int64, Float64}
)

func fixed(n int) func(Type) int { return func(Type) int { return n } }

func sameType(t Type) Type { return t }

// textOf is one where the field's value is kept as text.
func textOf(t Type) int {
	if t == String {
		return 1
	}
	return 0
}

// valueOf rebuilds a field's value from the word or text that keeps it.
func valueOf(t Type, word uint64, texts []string) Value {
	switch t {
	case String:
		return TextValue(texts[0])
	case Float64:
		return Value{Kind: Float, Bits: word}
	case Bool:
		return Value{Kind: Boolean, Bits: word}
	case Int64:
		return Value{Kind: Integer, Bits: word}
	}
	panic("BUG: value of " + t.String())
}

// ErrCorrupt is returned for bytes that no encoder of this package wrote.
var ErrCorrupt = errors.New("corrupt state")

// The primitives of the codec: unsigned and zigzag varints, 8 fixed bytes for floats, length-prefixed text.

func getUvarint(src []byte) (uint64, []byte, error) {
	if len(src) > 0 && src[0] < 0x80 {
		return uint64(src[0]), src[1:], nil
	}
	v, n := binary.Uvarint(src)
	if n <= 0 {
		return 0, nil, ErrCorrupt
	}
	return v, src[n:], nil
}

func putVarint(dst []byte, v uint64) []byte { return binary.AppendVarint(dst, int64(v)) }

func getVarint(src []byte) (uint64, []byte, error) {
	u, rest, err := getUvarint(src)
	return u>>1 ^ -(u & 1), rest, err
}

// putValue appends the word or text that keeps a field's value of type t.
func putValue(t Type, dst []byte, word uint64, texts []string) []byte {
	switch t {
	case String:
		dst = binary.AppendUvarint(dst, uint64(len(texts[0])))
		return append(dst, texts[0]...)
	case Float64:
		return binary.LittleEndian.AppendUint64(dst, word)
	case Bool:
		return append(dst, byte(word))
	case Int64:
		return putVarint(dst, word)
	}
	panic("BUG: state of " + t.String())
}

func getValue(t Type, src []byte, word *uint64, texts []string) ([]byte, error) {
	var err error
	switch t {
	case String:
		var n uint64
		if n, src, err = getUvarint(src); err != nil || n > uint64(len(src)) {
			return nil, ErrCorrupt
		}
		texts[0] = string(src[:n])
		return src[n:], nil
	case Float64:
		if len(src) < 8 {
			return nil, ErrCorrupt
		}
		*word = binary.LittleEndian.Uint64(src)
		return src[8:], nil
	case Bool:
		if len(src) < 1 || src[0] > 1 {
			return nil, ErrCorrupt
		}
		*word = uint64(src[0])
		return src[1:], nil
	case Int64:
		*word, src, err = getVarint(src)
		return src, err
	}
	panic("BUG: state of " + t.String())
}
