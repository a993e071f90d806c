// Package produce publishes a file of events into a source's topic: JSON lines, CSV or a web server's access log, as fast as
// Kafka takes them or at the events' own pace. It is how a log is replayed, a demonstration fed and a backlog loaded.
//
// It judges no event: what the source's rules reject is published all the same and counted, for it is the speed layer that
// quarantines. What cannot become a record at all is reported with its line.
package produce
