// Package batch computes the states of feature views from the archive in ClickHouse: the bases that it uploads to Redis for
// the speed layer's deltas to stand on, and the values of whole views at a moment, by SQL alone.
//
// It reads the archive and never writes to it; the speed layer does. It finalizes nothing itself: package windows does.
package batch
