package batch

import (
	"fmt"

	"millrace/windows"
)

// input is what an aggregate's SQL is made of.
type input struct {
	typ   windows.Type
	value string // the field, with any value in place of null
	keep  string // the condition under which an event counts; where it holds, the field is not null
}

// state is one expression for each word and each text of an aggregate's state, in the order of package windows. Over no
// events, and over events of which none counts, every word is 0 and every text empty.
type state struct{ words, texts []string }

// aggregates is the SQL of every aggregate. The law: over the same events each gives the words and texts that package windows
// folds, in whatever order and blocks the engine reads them.
var aggregates = map[windows.Op]func(input) state{
	windows.Count: func(in input) state { return state{words: []string{in.count()}} },
	windows.Sum:   func(in input) state { return state{words: in.sum()} },
	windows.Mean:  func(in input) state { return state{words: append([]string{in.count()}, in.sum()...)} },
	windows.Min:   func(in input) state { return in.extreme("minIf") },
	windows.Max:   func(in input) state { return in.extreme("maxIf") },
	windows.First: func(in input) state { return in.edge("minIf", "argMinIf") },
	windows.Last:  func(in input) state { return in.edge("maxIf", "argMaxIf") },

	windows.VarPop:     variance,
	windows.VarSamp:    variance,
	windows.StddevPop:  variance,
	windows.StddevSamp: variance,
}

// variance is the count, the sum and the sum of squares, the latter modulo 2^256 as everywhere.
func variance(in input) state {
	square := "sumIf(toInt256(" + in.units() + ") * toInt256(" + in.units() + "), " + in.keep + ")"
	words := append([]string{in.count()}, in.sum()...)
	for shift := 0; shift < 256; shift += 64 {
		words = append(words, fmt.Sprintf("toUInt64(bitShiftRight(%s, %d))", square, shift))
	}
	return state{words: words}
}

func (in input) count() string { return "countIf(" + in.keep + ")" }

func (in input) present() string { return "toUInt64(" + in.count() + " > 0)" }

// sum is the 128-bit sum, low word first. Sums of Int128 wrap, and so do not depend on order.
func (in input) sum() []string {
	sum := "sumIf(" + in.units() + ", " + in.keep + ")"
	return []string{"toUInt64(" + sum + ")", "toUInt64(bitShiftRight(" + sum + ", 64))"}
}

// units is the number as package windows sums it: an integer, or for a float the nearest multiple of 2^-40. The engine's own
// conversion of a float to Int128 is exact only below 2^65; so from 2^23 on, where the number of units is whole, the mantissa
// is shifted into its place. Each branch is given a harmless number where the other one counts.
func (in input) units() string {
	if in.typ != windows.Float64 {
		return "toInt128(" + in.value + ")"
	}
	const (
		small    = "(abs(%[1]s) < 8388608)"
		rounded  = "toInt128(toInt64(round(if(" + small + ", %[1]s, 0.) * 1099511627776.)))" // round goes half to even
		bits     = "reinterpretAsUInt64(%[1]s)"
		mantissa = "toInt128(bitOr(bitAnd(" + bits + ", 4503599627370495), 4503599627370496))"
		exponent = "bitAnd(bitShiftRight(" + bits + ", 52), 2047)"
		shifted  = "bitShiftLeft(" + mantissa + ", if(" + small + ", 0, toUInt64(" + exponent + " - 1035)))"
	)
	return fmt.Sprintf("if("+small+", "+rounded+", if(%[1]s < 0, -1, 1) * "+shifted+")", in.value)
}

// extreme is the least or the greatest value: numbers by value, texts by bytes.
func (in input) extreme(agg string) state {
	value := agg + "(" + in.value + ", " + in.keep + ")"
	if in.typ == windows.String {
		return state{[]string{in.present(), "toUInt64(0)"}, []string{value}}
	}
	return state{words: []string{in.present(), bitsOf(in.typ, value)}}
}

// edge is the value of the first or the last event in the order of place, and that place.
func (in input) edge(agg, arg string) state {
	place := agg + "(place, " + in.keep + ")"
	value := arg + "(" + in.value + ", place, " + in.keep + ")"
	words := []string{
		in.present(),
		"if(" + in.count() + " = 0, 0, bitXor(toUInt64(bitShiftRight(" + place + ", 128)), " + signBit + "))",
		"toUInt64(bitShiftRight(" + place + ", 64))",
		"toUInt64(" + place + ")",
	}
	if in.typ == windows.String {
		return state{append(words, "toUInt64(0)"), []string{value}}
	}
	return state{words: append(words, bitsOf(in.typ, value))}
}

const signBit = "9223372036854775808"

// placeSQL orders events by time, log, partition and offset in one number; the time's sign bit is turned over, so that the
// order of the unsigned number is that of the time. The engine compares tuples several times more slowly.
const placeSQL = "bitOr(bitShiftLeft(toUInt256(bitXor(reinterpretAsUInt64(event_time), " + signBit + ")), 128), " +
	"bitOr(bitShiftLeft(toUInt256(log), 96), bitOr(bitShiftLeft(toUInt256(partition), 64), toUInt256(offset))))"

// bitsOf is the word that keeps a value.
func bitsOf(t windows.Type, value string) string {
	if t == windows.Bool {
		return "toUInt64(" + value + ")"
	}
	return "reinterpretAsUInt64(" + value + ")"
}

// indexOf is floor(event_time / width). The engine's division cuts toward zero.
func indexOf(width windows.Span) string {
	return fmt.Sprintf("(intDiv(event_time, toInt64(%[1]d)) - (modulo(event_time, toInt64(%[1]d)) < 0))", width)
}

// apart is b - a for a ≤ b, unsigned: the distance of two int64 may not fit into one.
func apart(a, b string) string { return "toUInt64(" + b + " - " + a + ")" }
