package windows

import "math"

// Time is an event time: milliseconds since 1970-01-01T00:00:00Z. Any int64 is valid.
type Time int64

// Span is a length of event time in milliseconds.
type Span int64

// The limits of event time.
const (
	MinTime Time = math.MinInt64
	MaxTime Time = math.MaxInt64
)

// Day is the unit in which retention is counted.
const Day Span = 24 * 60 * 60 * 1000

// Add returns t + d, or the nearest limit where that is not representable. d is not negative.
func (t Time) Add(d Span) Time {
	if t > MaxTime-Time(d) {
		return MaxTime
	}
	return t + Time(d)
}

// Sub returns t - d, or the nearest limit where that is not representable. d is not negative.
func (t Time) Sub(d Span) Time {
	if t < MinTime+Time(d) {
		return MinTime
	}
	return t - Time(d)
}

// Floor rounds t down to a multiple of h, below zero too; a multiple below the representable times becomes MinTime.
func Floor(t Time, h Span) Time {
	below := Time(uint64(t) - uint64(index(t, h))*uint64(h)) // t mod h, in [0, h)
	return t.Sub(Span(below))
}

// index returns floor(t / width).
func index(t Time, width Span) int64 {
	q := int64(t) / int64(width)
	if int64(t)%int64(width) < 0 {
		q--
	}
	return q
}

// indexBefore returns floor((t - back) / width), exact also where t - back is not representable.
func indexBefore(t Time, back, width Span) int64 {
	whole, rest := int64(back)/int64(width), int64(back)%int64(width)
	i := index(t, width)
	if within := uint64(t) - uint64(i)*uint64(width); within < uint64(rest) {
		i--
	}
	return i - whole
}

// apart returns b - a for a ≤ b; unsigned, because the distance of two int64 may not fit into one.
func apart(a, b Time) uint64 { return uint64(b) - uint64(a) }
