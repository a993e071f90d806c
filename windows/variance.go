package windows

import (
	"encoding/binary"
	"math"
	"math/big"
	"math/bits"
	"slices"
)

// The variances and deviations, of a population or of a sample, are exact until they are rounded once at the end. State: the
// count, the sum as 128-bit integer, and the sum of squares as 256-bit integer, both low word first, in the units of sum. With n
// values the variance is (n·Σx² - (Σx)²) / n², or / (n·(n - 1)) for a sample: no mean is subtracted, nothing cancels.
var (
	varPopAggregate     = variance("var_pop", 0, false)
	varSampAggregate    = variance("var_samp", 1, false)
	stddevPopAggregate  = variance("stddev_pop", 0, true)
	stddevSampAggregate = variance("stddev_samp", 1, true)
)

func variance(name string, less uint64, root bool) aggregate {
	return aggregate{
		name:       name,
		accepts:    numericTypes,
		resultType: func(Type) Type { return Float64 },
		words:      fixed(7),
		texts:      fixed(0),
		fold: func(t Type, s Partial, _ *Event, v Value) {
			x := gridOf(t, v)
			s.Words[0]++
			addTo(s.Words[1:], x)
			square := x.square()
			addSquares(s.Words[3:], square[:])
		},
		merge: func(_ Type, s, o Partial) {
			s.Words[0] += o.Words[0]
			addTo(s.Words[1:], int128{o.Words[1], o.Words[2]})
			addSquares(s.Words[3:], o.Words[3:])
		},
		encode: func(_ Type, dst []byte, s Partial) []byte {
			dst = putInt128(binary.AppendUvarint(dst, s.Words[0]), s.Words[1:])
			for _, w := range s.Words[3:] {
				dst = binary.AppendUvarint(dst, w)
			}
			return dst
		},
		decode: func(_ Type, src []byte, s Partial) (_ []byte, err error) {
			if s.Words[0], src, err = getUvarint(src); err != nil {
				return nil, err
			}
			if src, err = getInt128(src, s.Words[1:]); err != nil {
				return nil, err
			}
			for i := 3; i < 7; i++ {
				if s.Words[i], src, err = getUvarint(src); err != nil {
					return nil, err
				}
			}
			return src, nil
		},
		result: func(t Type, s Partial) Value {
			n := s.Words[0]
			if n <= less {
				return Value{}
			}
			sum := int128{s.Words[1], s.Words[2]}.big()
			count := new(big.Int).SetUint64(n)
			num := bigOf(s.Words[3:])
			num.Mul(num, count)
			num.Sub(num, sum.Mul(sum, sum))
			den := new(big.Int).SetUint64(n - less)
			den.Mul(den, count)
			if t == Float64 { // squares are in units of 2^-80
				den.Lsh(den, 2*GridBits)
			}
			if num.Sign() < 0 {
				return Value{Kind: Invalid} // the sums have wrapped
			}
			if root {
				return FloatValue(sqrtQuotient(num, den))
			}
			f, _ := new(big.Rat).SetFrac(num, den).Float64()
			return FloatValue(f)
		},
	}
}

// square returns a² modulo 2^256, low word first.
func (a int128) square() (s [4]uint64) {
	m := a.abs()
	h0, l0 := bits.Mul64(m.lo, m.lo)
	h1, l1 := bits.Mul64(m.lo, m.hi)
	h2, l2 := bits.Mul64(m.hi, m.hi)
	s = [4]uint64{l0, h0, l2, h2}
	for range 2 { // lo·hi counts twice, one word up
		var carry uint64
		s[1], carry = bits.Add64(s[1], l1, 0)
		s[2], carry = bits.Add64(s[2], h1, carry)
		s[3] += carry
	}
	return s
}

func addSquares(words, o []uint64) {
	var carry uint64
	for i := range 4 {
		words[i], carry = bits.Add64(words[i], o[i], carry)
	}
}

func (a int128) big() *big.Int {
	m := a.abs()
	x := bigOf([]uint64{m.lo, m.hi})
	if a.negative() {
		x.Neg(x)
	}
	return x
}

// bigOf returns an unsigned number, low word first.
func bigOf(words []uint64) *big.Int {
	x := new(big.Int)
	for _, w := range slices.Backward(words) {
		x.Or(x.Lsh(x, 64), new(big.Int).SetUint64(w))
	}
	return x
}

// sqrtQuotient returns the square root of num / den, correctly rounded (half to even) to a float64. num ≥ 0, den > 0.
func sqrtQuotient(num, den *big.Int) float64 {
	if num.Sign() == 0 {
		return 0
	}
	// Scaled by 4^k so that the integer root has at least 64 bits; what is cut off becomes sticky.
	k := max(0, (128-num.BitLen()+den.BitLen())/2+1)
	scaled, rest := new(big.Int).QuoRem(new(big.Int).Lsh(num, uint(2*k)), den, new(big.Int))
	root := new(big.Int).Sqrt(scaled)
	if rest.Sign() != 0 || new(big.Int).Mul(root, root).Cmp(scaled) != 0 {
		root.SetBit(root.Lsh(root, 1), 0, 1)
		k++
	}
	f, _ := new(big.Float).SetInt(root).Float64()
	return math.Ldexp(f, -k)
}
