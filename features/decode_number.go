package features

import (
	"encoding/binary"
	"math"
	"strconv"
	"unsafe"

	"millrace/windows"
)

// decimal is a number as it is written: ±digits × 10^exponent, without point and exponent if it is an integer.
type decimal struct {
	negative, integer bool
	count             int    // of digits, leading zeros too
	digits            uint64 // right while there are at most 19 of them
	exponent          int
}

// scanNumber reads a JSON number. Its signature is that of the other scanners.
func scanNumber(b []byte, i int, n *decimal) (next int, why string) {
	const fault = "not a number"
	if b[i] == '-' {
		n.negative = true
		i++
	}
	start := i
	digits, i := scanDigits(b, i)
	n.count = i - start
	if n.count == 0 || b[start] == '0' && n.count > 1 {
		return start, fault
	}
	n.digits, n.integer = digits, true
	if i == len(b) || b[i] != '.' && b[i]|0x20 != 'e' {
		return i, ""
	}
	n.integer = false
	if b[i] == '.' {
		i++
		start = i
		for ; i < len(b) && isDigit(b[i]); i++ {
			digits = digits*10 + uint64(b[i]-'0')
		}
		if i == start {
			return i, fault
		}
		n.count += i - start
		n.exponent, n.digits = start-i, digits
	}
	if i == len(b) || b[i]|0x20 != 'e' {
		return i, ""
	}
	i++
	sign := 1
	if i < len(b) && (b[i] == '+' || b[i] == '-') {
		if b[i] == '-' {
			sign = -1
		}
		i++
	}
	start = i
	exponent := 0
	for ; i < len(b) && isDigit(b[i]); i++ {
		exponent = min(exponent*10+int(b[i]-'0'), 1<<20) // far beyond any float64 already
	}
	if i == start {
		return i, fault
	}
	n.exponent += sign * exponent
	return i, ""
}

// scanDigits reads any number of digits. The value is right while there are at most 19.
func scanDigits(b []byte, i int) (value uint64, next int) {
	if i+8 <= len(b) { // times have 13
		if x := binary.LittleEndian.Uint64(b[i:]); eightDigits(x) {
			value, i = eightDigitsValue(x), i+8
		}
	}
	for ; i < len(b) && isDigit(b[i]); i++ {
		value = value*10 + uint64(b[i]-'0')
	}
	return value, i
}

// eightDigits says whether all eight bytes are digits: their high halves are 3, also after adding 6 to the low ones.
func eightDigits(x uint64) bool {
	const highs, sixes, threes = 0xf0f0f0f0f0f0f0f0, 0x0606060606060606, 0x3333333333333333
	return x&highs|(x+sixes)&highs>>4 == threes
}

// eightDigitsValue adds up neighbours: digits to pairs, pairs to fours, fours to the whole.
func eightDigitsValue(x uint64) uint64 {
	x = x & 0x0f0f0f0f0f0f0f0f * (10<<8 + 1) >> 8
	x = x & 0x00ff00ff00ff00ff * (100<<16 + 1) >> 16
	return x & 0x0000ffff0000ffff * (10000<<32 + 1) >> 32
}

// number reads a declared int64 or float64.
func number(b []byte, i int, f *decodedField, v *windows.Value) (next int, r *Rejection) {
	var n decimal
	next, why := scanNumber(b, i, &n)
	if why != "" {
		return next, syntax(next, why)
	}
	if f.typ == windows.Float64 {
		x := n.float(b[i:next])
		if math.Abs(x) >= 1<<62 {
			return next, reject(ReasonOutOfRange, f.name, "a number of 2^62 and more")
		}
		*v = windows.FloatValue(x)
		return next, nil
	}
	if !n.integer {
		return next, reject(ReasonWrongType, f.name, "a number with a point or an exponent where int64 is declared")
	}
	limit := uint64(math.MaxInt64)
	if n.negative {
		limit++
	}
	if n.count > 19 || n.digits > limit {
		return next, reject(ReasonOutOfRange, f.name, "an integer beyond 64 bits")
	}
	x := int64(n.digits)
	if n.negative {
		x = -x
	}
	v.Kind, v.Bits = windows.Integer, uint64(x)
	return next, nil
}

// float returns the number, correctly rounded; ±Inf if it is beyond a float64.
func (n *decimal) float(text []byte) float64 {
	// Up to 2^53 and up to 10^22 both are floats exactly, so that one operation rounds once.
	if n.count > 19 || n.digits > 1<<53 || n.exponent < -22 || n.exponent > 22 {
		x, _ := strconv.ParseFloat(unsafe.String(unsafe.SliceData(text), len(text)), 64) // the only error left is the range
		return x
	}
	x := float64(n.digits)
	if n.exponent < 0 {
		x /= powersOfTen[-n.exponent]
	} else {
		x *= powersOfTen[n.exponent]
	}
	if n.negative {
		x = -x
	}
	return x
}

var powersOfTen = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}
