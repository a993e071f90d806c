package windows

import (
	"math"
	"math/bits"
)

// int128 is a two's complement integer in two words; arithmetic is modulo 2^128, so addition never depends on order.
type int128 struct{ lo, hi uint64 }

func fromInt64(v int64) int128 { return int128{uint64(v), uint64(v >> 63)} }

func (a int128) add(b int128) int128 {
	lo, carry := bits.Add64(a.lo, b.lo, 0)
	hi, _ := bits.Add64(a.hi, b.hi, carry)
	return int128{lo, hi}
}

func (a int128) negative() bool { return int64(a.hi) < 0 }

// abs returns the magnitude; that of -2^127 is 2^127, as an unsigned number.
func (a int128) abs() int128 {
	if !a.negative() {
		return a
	}
	lo, borrow := bits.Sub64(0, a.lo, 0)
	hi, _ := bits.Sub64(0, a.hi, borrow)
	return int128{lo, hi}
}

// int64 returns a as an int64 and whether it fits.
func (a int128) int64() (int64, bool) {
	v := int64(a.lo)
	return v, a.hi == uint64(v>>63)
}

// GridBits is the resolution of float sums: one unit is 2^-40.
const GridBits = 40

// MaxFloat bounds the magnitude of a float that may enter a fold: below it, 2^25 values of any sign cannot wrap a sum.
const MaxFloat = 1 << 62

// grid rounds f, half to even, to a multiple of 2^-40. |f| < MaxFloat.
func grid(f float64) int128 {
	if math.Abs(f) < 1<<23 {
		return fromInt64(int64(math.RoundToEven(f * (1 << GridBits))))
	}
	// From 2^23 on, f·2^40 is an integer: its mantissa, shifted.
	u := math.Float64bits(f)
	mantissa, shift := u&(1<<52-1)|1<<52, int(u>>52&2047)-1023-52+GridBits
	v := int128{mantissa << shift, mantissa >> (64 - shift)}
	if shift >= 64 {
		v = int128{0, mantissa << (shift - 64)}
	}
	if f < 0 {
		return int128{^v.lo, ^v.hi}.add(int128{lo: 1})
	}
	return v
}

// quotient returns a · 2^exponent / n, correctly rounded (half to even) to a float64. n > 0; exponent is 0 or -GridBits,
// so that no result is subnormal.
func (a int128) quotient(n uint64, exponent int) float64 {
	m := a.abs()
	if m == (int128{}) {
		return 0
	}
	// The quotient with 128 binary places, and whether anything is left. As n < 2^64, it has at least 64 significant bits.
	var q [4]uint64
	var rest uint64
	q[3], rest = m.hi/n, m.hi%n
	q[2], rest = bits.Div64(rest, m.lo, n)
	q[1], rest = bits.Div64(rest, 0, n)
	q[0], rest = bits.Div64(rest, 0, n)
	sticky := rest != 0
	top := 3
	for q[top] == 0 {
		top--
	}
	// Take the 64 leading bits into word; everything below becomes sticky.
	shift := bits.LeadingZeros64(q[top])
	word := q[top]<<shift | q[top-1]>>(64-shift) // a shift by 64 gives 0
	sticky = sticky || q[top-1]<<shift != 0
	for _, below := range q[:top-1] {
		sticky = sticky || below != 0
	}
	exp := exponent + 64*(top-2) - shift // value = word · 2^exp
	mantissa, round := word>>11, word&(1<<11-1)
	const half = 1 << 10
	if round > half || round == half && (sticky || mantissa&1 == 1) {
		mantissa++
	}
	f := math.Ldexp(float64(mantissa), exp+11)
	if a.negative() {
		return -f
	}
	return f
}
