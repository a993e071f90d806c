// Package speed is the speed layer: it consumes the sources' topics and folds their events into the entities' states in Redis,
// each record exactly once (folder), and keeps every record in the archive (package archive, a consumer group of its own).
//
// It knows the definitions and the stores. It does not serve and does not recompute: the batch layer and serving meet it in
// the stores alone.
package speed
