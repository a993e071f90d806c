package windows

import "cmp"

// Position is a record's place in the logs. A log is one incarnation of a topic, so positions order all records of a
// project for good: it is what breaks ties between equal event times.
type Position struct {
	Log       uint32
	Partition int32
	Offset    int64
}

// Compare orders positions by log, partition, offset.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Log, q.Log), cmp.Compare(p.Partition, q.Partition), cmp.Compare(p.Offset, q.Offset))
}

// Event is one admitted record as a view sees it.
type Event struct {
	Time     Time
	Position Position
	Row      []Value // one value per declared field of the source, in declared order
}

// Predicate says whether an event's row is one that a view or a feature counts.
type Predicate func(row []Value) bool
