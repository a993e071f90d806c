package windows

import (
	"math"
	"strconv"
)

// Type is the type of a field, an entity key or a feature.
type Type uint8

// The types of values.
const (
	Int64 Type = iota + 1
	Float64
	String
	Bool
)

// String returns the name that definitions use.
func (t Type) String() string {
	switch t {
	case Int64:
		return "int64"
	case Float64:
		return "float64"
	case String:
		return "string"
	case Bool:
		return "bool"
	}
	return "Type(" + strconv.Itoa(int(t)) + ")"
}

// Kind says which member of a Value holds it.
type Kind uint8

// Null is the zero Kind. Invalid is a result that exists but has no representation, such as an integer sum beyond int64.
const (
	Null Kind = iota
	Integer
	Float
	Text
	Boolean
	Invalid
)

// Value is a field's value in a row, or a feature's value in an answer.
//
// Str may alias a buffer that the caller reuses; whoever keeps a Value clones it.
type Value struct {
	Kind Kind
	Bits uint64 // Integer: two's complement; Float: IEEE 754 bits; Boolean: 0 or 1
	Str  string
}

// IntValue returns v as a Value.
func IntValue(v int64) Value { return Value{Kind: Integer, Bits: uint64(v)} }

// FloatValue returns v as a Value; −0.0 becomes 0.0, so that equal numbers have equal bits.
func FloatValue(v float64) Value {
	if v == 0 {
		v = 0
	}
	return Value{Kind: Float, Bits: math.Float64bits(v)}
}

// TextValue returns s as a Value.
func TextValue(s string) Value { return Value{Kind: Text, Str: s} }

// BoolValue returns b as a Value.
func BoolValue(b bool) Value {
	if b {
		return Value{Kind: Boolean, Bits: 1}
	}
	return Value{Kind: Boolean}
}

// Int returns the integer held by an Integer.
func (v Value) Int() int64 { return int64(v.Bits) }

// Float returns the number held by a Float.
func (v Value) Float() float64 { return math.Float64frombits(v.Bits) }

// Bool returns the truth value held by a Boolean.
func (v Value) Bool() bool { return v.Bits != 0 }

// String returns v for people and for test scripts: null, 7, 0.5, "text", true.
func (v Value) String() string {
	switch v.Kind {
	case Null:
		return "null"
	case Integer:
		return strconv.FormatInt(v.Int(), 10)
	case Float:
		return FormatFloat(v.Float())
	case Text:
		return strconv.Quote(v.Str)
	case Boolean:
		return strconv.FormatBool(v.Bool())
	case Invalid:
		return "invalid"
	}
	return "Kind(" + strconv.Itoa(int(v.Kind)) + ")"
}

// FormatFloat returns the shortest text that reads back to the same float64 and that always shows a float: 1.0, not 1.
func FormatFloat(f float64) string { return string(AppendFloat(nil, f)) }

// AppendFloat appends the text of FormatFloat.
func AppendFloat(dst []byte, f float64) []byte {
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, format, -1, 64)
	for _, c := range dst[start:] {
		if c == '.' || c == 'e' || c == 'I' || c == 'N' {
			return dst
		}
	}
	return append(dst, '.', '0')
}
