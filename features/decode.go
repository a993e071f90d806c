package features

import (
	"fmt"

	"millrace/windows"
)

// MaxRecord is the greatest length of a record's value that is looked at, in bytes.
const MaxRecord = 1 << 20

// Decoder turns the records of a source into rows. The folder, the archiver and every rebuild use it, so that they admit the
// same records with the same values. It is not safe for concurrent use.
//
// Admission is a function of the record alone: of its value and of its Kafka timestamp, never of a clock. A record is
// rejected unless its value is one JSON object (RFC 8259: no trailing bytes, no depth beyond 64) in which
//
//   - each declared field stands at most once: JSON does not say which of two would count, and decoders differ;
//   - each declared field that is neither missing nor null has its type: an int64 has neither point nor exponent, 1.0
//     included; a float64 may be written as an integer, is nearer to 0 than 2^62, and −0.0 is 0.0;
//   - a declared text and every name of a member is UTF-8, escaped surrogates come in pairs, and a text has at most the
//     field's MaxBytes;
//   - required fields are there;
//   - the event time is there, in the source's unit, within the source's bounds and not later than the record's Kafka
//     timestamp plus MaxFuture. It is rounded down to milliseconds, also before 1970.
//
// Members that are not declared need only be JSON.
type Decoder struct {
	fields   []decodedField
	byName   map[string]int // nil for few fields: looking at each is faster
	required []int
	time     int // index of the event time's field
	timeName string
	spec     EventTime
	future   windows.Span

	seen    []uint64 // one bit per field
	scratch []byte   // texts that had escapes
}

type decodedField struct {
	name     string
	quoted   string // the name as it stands in a record, where it needs no escapes
	typ      windows.Type
	maxBytes int
}

// Rejection says why a record is not admitted. It names kinds and places, never values, so that it may be logged and shown.
type Rejection struct {
	Reason string // one of the constants
	Field  string // empty if it is not about a declared field
	Detail string // at most 200 bytes
}

func (r *Rejection) String() string {
	if r.Field == "" {
		return r.Reason + ": " + r.Detail
	}
	return r.Reason + ": field " + r.Field + ": " + r.Detail
}

// The reasons of rejections.
const (
	ReasonNoValue         = "no_value"          // a tombstone, or an empty value
	ReasonTooLarge        = "too_large"         // more than MaxRecord
	ReasonUndecodable     = "undecodable"       // not a JSON object, or not UTF-8
	ReasonTooDeep         = "too_deep"          // nested deeper than 64
	ReasonDuplicateField  = "duplicate_field"   // a declared field stands twice
	ReasonWrongType       = "wrong_type"        // a declared field has another type
	ReasonOutOfRange      = "out_of_range"      // an int64 beyond 64 bits, a float64 of 2^62 and more
	ReasonTooLong         = "too_long"          // a text longer than the field's MaxBytes
	ReasonMissingField    = "missing_field"     // a required field or the event time is missing or null
	ReasonEventTimeForm   = "event_time_form"   // not RFC 3339
	ReasonEventTimeRange  = "event_time_range"  // outside the source's bounds
	ReasonEventTimeFuture = "event_time_future" // too much later than the record's Kafka timestamp
)

const maxDetail = 200

func reject(reason, field, format string, args ...any) *Rejection {
	detail := fmt.Sprintf(format, args...)
	return &Rejection{reason, field, detail[:min(len(detail), maxDetail)]}
}

// NewDecoder returns a decoder for the records of s.
func NewDecoder(s *Source) *Decoder {
	d := &Decoder{
		time: s.FieldIndex(s.EventTime.Field), timeName: s.EventTime.Field, spec: s.EventTime, future: s.MaxFuture,
		seen: make([]uint64, (len(s.Fields)+63)/64),
	}
	const few = 12
	if len(s.Fields) > few {
		d.byName = make(map[string]int, len(s.Fields))
	}
	if d.time < 0 {
		panic("BUG: source " + s.Name + " has no field for its event time")
	}
	for i, f := range s.Fields {
		field := decodedField{name: f.Name, typ: f.Type, maxBytes: f.MaxBytes}
		if end, traits := scanString([]byte(f.Name+`"`), 0); end == len(f.Name) && traits == 0 {
			field.quoted = `"` + f.Name + `"`
		}
		d.fields = append(d.fields, field)
		if d.byName != nil {
			d.byName[f.Name] = i
		}
		if f.Required {
			d.required = append(d.required, i)
		}
	}
	return d
}

// Decode fills row, one value for each declared field in declared order, and returns the event's time; or it returns why the
// record is rejected. Texts in the row alias the value or the decoder: they are good until the value changes or Decode is
// called again. A record that is admitted costs no allocation.
func (d *Decoder) Decode(value []byte, kafkaTime windows.Time, row []windows.Value) (windows.Time, *Rejection) {
	switch {
	case len(value) == 0:
		return 0, reject(ReasonNoValue, "", "the record has no value")
	case len(value) > MaxRecord:
		return 0, reject(ReasonTooLarge, "", "%d bytes, more than %d", len(value), MaxRecord)
	}
	clear(row)
	clear(d.seen)
	d.scratch = d.scratch[:0]
	if r := d.object(value, row); r != nil {
		return 0, r
	}
	for _, i := range d.required {
		if row[i].Kind == windows.Null {
			return 0, reject(ReasonMissingField, d.fields[i].name, "required, but missing or null")
		}
	}
	t, r := d.eventTime(row[d.time])
	if r != nil {
		return 0, r
	}
	if t < d.spec.Min || t > d.spec.Max {
		return 0, reject(ReasonEventTimeRange, d.timeName, "outside the source's bounds: is its unit %s?", d.spec.Unit)
	}
	if d.future >= 0 && t > kafkaTime.Add(d.future) {
		return 0, reject(ReasonEventTimeFuture, d.timeName, "more than %d ms later than the record's Kafka timestamp", d.future)
	}
	return t, nil
}

// eventTime converts the field that holds it to milliseconds.
func (d *Decoder) eventTime(v windows.Value) (windows.Time, *Rejection) {
	if v.Kind == windows.Null {
		return 0, reject(ReasonMissingField, d.timeName, "the event time is missing or null")
	}
	if d.spec.Unit == RFC3339 {
		if v.Kind != windows.Text {
			return 0, reject(ReasonWrongType, d.timeName, "the event time is no text, but its unit is %s", d.spec.Unit)
		}
		t, ok := parseRFC3339(v.Str)
		if !ok {
			return 0, reject(ReasonEventTimeForm, d.timeName, "not of the form 2006-01-02T15:04:05.999Z or …+01:00")
		}
		return t, nil
	}
	if v.Kind != windows.Integer {
		return 0, reject(ReasonWrongType, d.timeName, "the event time is no integer, but its unit is %s", d.spec.Unit)
	}
	switch n := v.Int(); d.spec.Unit {
	case Seconds:
		if n > int64(windows.MaxTime)/1000 || n < int64(windows.MinTime)/1000 {
			return 0, reject(ReasonEventTimeRange, d.timeName, "beyond the representable milliseconds: is its unit %s?", d.spec.Unit)
		}
		return windows.Time(n * 1000), nil
	case Milliseconds:
		return windows.Time(n), nil
	case Microseconds:
		return windows.Time(floorDiv(n, 1_000)), nil
	case Nanoseconds:
		return windows.Time(floorDiv(n, 1_000_000)), nil
	default:
		panic("BUG: event time in " + string(d.spec.Unit))
	}
}

func floorDiv(n, by int64) int64 {
	q := n / by
	if n%by < 0 {
		q--
	}
	return q
}
