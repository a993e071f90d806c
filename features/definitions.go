package features

import "millrace/windows"

// Definitions is everything that a project declares, as written: checked for form and references, not yet compiled. All
// slices are in the order of the files.
type Definitions struct {
	Project  string // names everything the project owns in the stores
	Sources  []*Source
	Entities []*Entity
	Views    []*View
	Services []*Service
}

// Source is a stream of events: Kafka topics of JSON objects with declared fields.
type Source struct {
	Name, Description string
	// Topics hold the events. Several topics are one stream: an entity may have events in all of them.
	Topics []string
	Fields []Field
	// EventTime says where an event's time is and how it is written.
	EventTime EventTime
	// Keys maps the name of an entity key to the field that holds it; a key that is not here is in the field of its own name.
	Keys map[string]string
	// MaxFuture is how much later than its record's Kafka timestamp an event may be; negative for no bound.
	MaxFuture windows.Span
	// EpochBits is k: an epoch is 2^k offsets of a partition, the unit in which a base replaces deltas.
	EpochBits uint8
}

// Field is a declared member of a source's events. Members that are not declared are never parsed.
type Field struct {
	Name, Description string
	Type              windows.Type // Int64, Float64, String or Bool
	// Required rejects records in which the field is missing or null.
	Required bool
	// MaxBytes bounds the length of a String; a longer one rejects its record.
	MaxBytes int
}

// TimeUnit is how an event time is written.
type TimeUnit string

// The units of event time. The first four are integers since 1970, RFC3339 is text.
const (
	Seconds      TimeUnit = "s"
	Milliseconds TimeUnit = "ms"
	Microseconds TimeUnit = "us"
	Nanoseconds  TimeUnit = "ns"
	RFC3339      TimeUnit = "rfc3339"
)

// EventTime says which field is the time of an event. Times outside [Min, Max] reject their record.
type EventTime struct {
	Field    string
	Unit     TimeUnit
	Min, Max windows.Time
}

// Entity is what features are about: a kind of thing with typed keys, in declared order.
type Entity struct {
	Name, Description string
	Keys              []Key
}

// Key is one part of an entity's identity.
type Key struct {
	Name string
	Type windows.Type // Int64, String or Bool
}

// View is a set of features of one entity over one source.
type View struct {
	Name, Description string
	Entity, Source    string
	// Where, if not empty, chooses the events that the view sees.
	Where    string
	Features []Feature
	// TTL, if positive, makes every feature null once the newest event is older.
	TTL windows.Span
	// Batch says whether the batch layer writes bases for the view; without it the log alone rebuilds it.
	Batch bool
}

// Feature is one value of a view.
type Feature struct {
	Name, Description string
	Kind              windows.FeatureKind
	Op                windows.Op // for Kind Aggregated
	Field             string     // empty for a bare count and for the extent of a session
	Where             string
	Window            windows.Window // with every default filled in
}

// Service is a named list of features that are fetched together.
type Service struct {
	Name, Description string
	Features          []Ref
}

// Ref names a feature, or with an empty Feature all features of a view.
type Ref struct{ View, Feature string }
