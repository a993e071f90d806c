// Package windows is the algebra of features: event time, tiles and session fragments, aggregates and their states, the
// codec of those states, and the read that merges them into values.
//
// It does no I/O, reads no clock and knows no store: every function is a pure function of its arguments, so that the speed
// layer, the batch layer and serving cannot disagree. A state is a commutative monoid: folding events in any order, in any
// number of parts, and merging the parts in any order gives the same bytes.
package windows
