package features

import (
	"math"

	"millrace/windows"
)

// The limits and defaults of definitions.
const (
	DefaultMaxBytes  = 256 // of a text field
	MaxMaxBytes      = 32768
	DefaultEpochBits = 16
	MaxEpochBits     = 30
	DefaultMaxFuture = windows.Span(60_000)
	DefaultRetain    = 30 * windows.Day
	DefaultMinTime   = windows.Time(0)                 // 1970-01-01
	DefaultMaxTime   = windows.Time(7_258_118_400_000) // 2200-01-01
)

// Words that stand for having no bound.
const (
	wordAny = "any"
	wordAll = "all"
)

// The features that are no aggregates.
var extents = []struct {
	name string
	kind windows.FeatureKind
}{
	{"session_start", windows.SessionStart}, {"session_end", windows.SessionEnd}, {"session_length", windows.SessionLength},
}

func typeNames(types ...windows.Type) []string {
	var names []string
	for _, t := range types {
		names = append(names, t.String())
	}
	return names
}

func typeNamed(name string) windows.Type {
	for _, t := range []windows.Type{windows.Int64, windows.Float64, windows.String, windows.Bool} {
		if t.String() == name {
			return t
		}
	}
	return 0
}

// language is the whole language of definitions, as shapes: what one file may hold.
func language() *object {
	objectName := &scalar{
		is: "a name (lower-case letters, digits and _, a letter first, at most 63)", like: "web_visits", pattern: `^[a-z][a-z0-9_]{0,62}$`,
	}
	fieldName := &scalar{
		is: "a name (letters, digits and _, no digit first, at most 63)", like: "amount", pattern: `^[A-Za-z_][A-Za-z0-9_]{0,62}$`,
	}
	text := &scalar{is: "a text", like: "Requests to the web site.", pattern: `^`}
	duration := &scalar{is: "a duration", like: "30m", pattern: durationPattern, never: []string{""}, explain: explainDuration}
	durationOr := func(word string) *scalar {
		s := *duration
		s.is, s.words = "a duration or `"+word+"`", []string{word}
		return &s
	}
	flag := &scalar{is: "a switch", like: "on", words: []string{"on", "off"}, bools: true}
	filter := &scalar{is: "a filter", like: "status >= 400", pattern: `\S`}
	moment := &scalar{
		is: "a time", like: "2020-01-01T00:00:00Z", words: []string{wordAny},
		pattern:  `^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$`,
		integers: true, minimum: math.MinInt64, maximum: math.MaxInt64, explain: explainTime,
	}
	description := member{name: "description", shape: text, doc: "What it is, for people."}
	fieldTypes := typeNames(windows.String, windows.Int64, windows.Float64, windows.Bool)
	fieldType := &scalar{is: "a type of fields", like: "int64", words: fieldTypes}
	keyType := &scalar{is: "a type of keys", like: "string", words: typeNames(windows.String, windows.Int64, windows.Bool)}
	topic := &scalar{
		is: "the name of a topic (letters, digits, `.`, `_` and `-`, at most 249)", like: "web.access.v1", pattern: `^[A-Za-z0-9._-]{1,249}$`, never: []string{".", ".."},
	}

	source := &object{
		is: "a source",
		members: []member{
			description,
			{name: "topic", shape: topic, doc: "The Kafka topic that holds the events."},
			{name: "topics", shape: &list{is: "`topics`", each: topic, like: "[web.access.v1, app.access.v1]"}, doc: "Several topics that are one stream."},
			{name: "format", shape: &scalar{is: "a format", like: "json", words: []string{"json"}}, doc: "How a record's value is written. Default: json."},
			{name: "fields", required: true, hint: "{<name>: int64, …}", doc: "The members of an event that features may use. What is not declared is never read.", shape: &dict{
				is: "`fields`", names: fieldName, like: "`client: string`",
				each: &either{short: fieldType, long: &object{
					is: "a field",
					members: []member{
						{name: "type", shape: fieldType, required: true, hint: "int64", doc: "The field's type."},
						description,
						{name: "required", shape: flag, doc: "Whether a record without it is rejected. Default: off."},
					},
					by: "type",
					variants: []variant{
						{values: []string{windows.String.String()}, members: []member{{
							name: "max_bytes", shape: &scalar{is: "a length in bytes", like: "256", integers: true, minimum: 1, maximum: MaxMaxBytes},
							doc: "The longest text; a record with a longer one is rejected. Default: 256.",
						}}},
						{values: typeNames(windows.Int64, windows.Float64, windows.Bool)},
					},
				}},
			}},
			{name: "event_time", required: true, hint: "{field: <name>, unit: ms}", doc: "Which field is the time of an event.", shape: &object{
				is: "`event_time`",
				members: []member{
					{name: "field", shape: fieldName, required: true, hint: "<name>", doc: "An int64 field, or for rfc3339 a string field."},
					{name: "unit", required: true, hint: "ms", doc: "How the time is written: seconds, milliseconds, microseconds or nanoseconds since 1970, or RFC 3339 text.", shape: &scalar{
						is: "a unit of time", like: "ms", words: []string{string(Seconds), string(Milliseconds), string(Microseconds), string(Nanoseconds), string(RFC3339)},
					}},
					{name: "min", shape: moment, doc: "Earlier events are rejected. RFC 3339, milliseconds since 1970, or any. Default: 1970-01-01T00:00:00Z."},
					{name: "max", shape: moment, doc: "Later events are rejected. RFC 3339, milliseconds since 1970, or any. Default: 2200-01-01T00:00:00Z."},
				},
			}},
			{name: "max_future", shape: durationOr(wordAny), doc: "How much later than its record's Kafka timestamp an event may be. Default: 1m."},
			{name: "keys", shape: &dict{is: "`keys`", names: fieldName, each: fieldName, like: "`user_id: uid`"}, doc: "Which field holds which key of an entity, where their names differ."},
			{name: "epoch_bits", doc: "k: the batch layer replaces the speed layer's state in steps of 2^k records of a partition. Default: 16.", shape: &scalar{
				is: "a number of bits", like: "16", integers: true, maximum: MaxEpochBits,
			}},
		},
		oneOf: []string{"topic", "topics"},
	}

	entity := &object{
		is: "an entity",
		members: []member{
			description,
			{name: "keys", required: true, hint: "{<name>: string}", doc: "The parts of its identity and their types, in order.", shape: &dict{is: "`keys`", names: fieldName, each: keyType, like: "`user_id: string`"}},
		},
	}

	size := member{name: "size", shape: duration, required: true, hint: "1h", doc: "How long the window is."}
	window := &object{
		is: "a window",
		members: []member{{name: "type", required: true, hint: "sliding", doc: "How the window chooses events.", shape: &scalar{
			is: "a type of windows", like: "sliding", words: []string{
				windows.Sliding.String(), windows.Session.String(), windows.Tumbling.String(), windows.Hopping.String(), windows.Lifetime.String(),
			},
		}}},
		by: "type",
		variants: []variant{
			{values: []string{windows.Sliding.String()}, members: []member{
				size, {name: "hop", shape: duration, doc: "To what its tail is rounded down. Default: the longest round duration of at most 2 % of the size."},
			}},
			{values: []string{windows.Session.String()}, members: []member{
				{name: "gap", shape: duration, required: true, hint: "30m", doc: "Events less than this apart are one session."},
				{name: "retain", shape: durationOr(wordAll), doc: "How many days back sessions are remembered. Default: 30d."},
			}},
			{values: []string{windows.Tumbling.String()}, members: []member{size}},
			{values: []string{windows.Hopping.String()}, members: []member{
				size, {name: "hop", shape: duration, required: true, hint: "10m", doc: "How far apart windows begin."},
			}},
			{values: []string{windows.Lifetime.String()}},
		},
	}

	session := member{name: "session", doc: "Of a session window: which session. Default: current.", shape: &scalar{
		is: "a session", like: "previous", words: []string{"current", "previous"},
	}}
	where := member{name: "where", shape: filter, doc: "Which events count: a filter over the source's fields."}
	field := member{name: "field", shape: fieldName, hint: "<name>", doc: "The field that is aggregated. Events in which it is null do not count."}
	fieldRequired := field
	fieldRequired.required = true
	var bare, fielded, extent, aggregates []string
	for _, op := range windows.Ops() {
		aggregates = append(aggregates, op.String())
		if op.Bare() {
			bare = append(bare, op.String())
		} else {
			fielded = append(fielded, op.String())
		}
	}
	for _, e := range extents {
		extent = append(extent, e.name)
	}
	feature := &object{
		is: "a feature",
		members: []member{
			{name: "aggregate", required: true, hint: "count", doc: "How the window's events become one value.", shape: &scalar{
				is: "an aggregate", like: "count", words: append(aggregates, extent...),
			}},
			description,
			{name: "window", shape: window, doc: "Its own window, in place of the view's."},
			session,
		},
		by: "aggregate",
		variants: []variant{
			{values: bare, members: []member{field, where}},
			{values: fielded, members: []member{fieldRequired, where}},
			{values: extent},
		},
	}

	view := &object{
		is: "a view",
		members: []member{
			description,
			{name: "entity", shape: objectName, required: true, hint: "<entity>", doc: "What the features are about."},
			{name: "source", shape: objectName, required: true, hint: "<source>", doc: "The events that they are made of."},
			{name: "where", shape: filter, doc: "Which events the view sees at all."},
			{name: "window", shape: window, doc: "The window of features that have none of their own."},
			{name: "ttl", shape: duration, doc: "The age of an entity's newest event beyond which every feature is null. Default: none."},
			{name: "batch", shape: flag, doc: "Whether the batch layer recomputes the view from history. Default: on."},
			{name: "features", required: true, hint: "{<name>: {aggregate: count}}", doc: "The features, by name.", shape: &dict{is: "`features`", names: fieldName, each: feature, like: "`hits: {aggregate: count}`"}},
		},
	}

	service := &object{
		is: "a service",
		members: []member{
			description,
			{name: "features", required: true, hint: "[<view>]", doc: "The features that are fetched together: all of a view, or one as view:feature.", shape: &list{
				is: "`features`", like: "[visits, \"traffic:hits_1h\"]",
				each: &scalar{is: "a view or view:feature", like: "traffic:hits_1h", pattern: `^[a-z][a-z0-9_]{0,62}(:[A-Za-z_][A-Za-z0-9_]{0,62})?$`},
			}},
		},
	}

	projectName := *objectName
	projectName.never = []string{"system", "information_schema", "default"} // databases that ClickHouse owns
	section := func(name, like, doc string, each shape) member {
		return member{name: name, doc: doc, shape: &dict{is: "`" + name + "`", names: objectName, each: each, like: like}}
	}
	return &object{
		is: "a file of definitions",
		members: []member{
			{name: "project", shape: &projectName, doc: "Names everything that the project owns in the stores. It stands in exactly one file."},
			section("sources", "`access: {topic: …}`", "Streams of events.", source),
			section("entities", "`visitor: {keys: …}`", "What features are about.", entity),
			section("views", "`visits: {entity: …}`", "Features of one entity over one source.", view),
			section("services", "`homepage: {features: …}`", "Features that are fetched together.", service),
		},
	}
}

func explainTime(text string) (message, remedy string) {
	if _, ok := parseRFC3339(text + "T00:00:00Z"); ok {
		return "`" + text + "` is a day, not a time", "write " + text + "T00:00:00Z"
	}
	return "`" + shorten(text) + "` is not a time", "write RFC 3339 like 2020-01-01T00:00:00Z, milliseconds since 1970, or `any`"
}
