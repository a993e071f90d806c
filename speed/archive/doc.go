// Package archive keeps every record of a project's topics in ClickHouse: as it came (raw), as a typed row per entity that it
// touches (clean), and, where it is rejected, in the quarantine and on a dead-letter topic with the reason.
//
// It is a consumer group of its own, so that a slow ClickHouse delays no feature. What it writes is a function of the log,
// and how far a table reaches is written after its rows: a chunk that is written again after a crash collapses by position,
// and even a member that the group has given up writes nothing but what is true. It does not fold and knows no window.
package archive
