package windows

// Status says what a feature's value means; the names are Feast's.
type Status uint8

// The statuses.
const (
	StatusInvalid       Status = iota // no value can be given
	StatusPresent                     // the value is the answer
	StatusNull                        // the window holds events, or the view does, but the feature has no value
	StatusNotFound                    // every window of the view is empty: never seen and long gone are one answer
	StatusOutsideMaxAge               // the newest event is older than the view's ttl
)

// String returns the name on the wire.
func (s Status) String() string {
	switch s {
	case StatusInvalid:
		return "INVALID"
	case StatusPresent:
		return "PRESENT"
	case StatusNull:
		return "NULL_VALUE"
	case StatusNotFound:
		return "NOT_FOUND"
	case StatusOutsideMaxAge:
		return "OUTSIDE_MAX_AGE"
	}
	panic("BUG: status")
}

// Result is a feature's value at a moment.
type Result struct {
	Value  Value
	Status Status
}

// Folded is what one window of a view holds at a moment, whoever folded it: this package, or SQL.
type Folded struct {
	Any         bool // an event lies in the window
	First, Last Time // of a session: its first and last event
	Partial          // the state of all columns of the window's level
}

// Results finalizes the windows of a view at t, in the order of v.Reads, into one result per feature. newest is the time of
// the newest event of the entity in this view; it is ignored when every window is empty.
func (v *View) Results(dst []Result, t, newest Time, folds []Folded) []Result {
	found := false
	for i := range folds {
		found = found || folds[i].Any
	}
	expired := found && v.TTL > 0 && apart(newest, t) > uint64(v.TTL)
	for i := range v.Features {
		if expired {
			dst = append(dst, Result{Status: StatusOutsideMaxAge})
			continue
		}
		value := v.value(i, &folds[v.of[i]])
		status := StatusPresent
		switch {
		case !found:
			status = StatusNotFound
		case value.Kind == Null:
			status = StatusNull
		case value.Kind == Invalid:
			value, status = Value{}, StatusInvalid
		}
		dst = append(dst, Result{value, status})
	}
	return dst
}

func (v *View) value(feature int, f *Folded) Value {
	kind := v.Features[feature].Kind
	r := &v.reads[v.of[feature]]
	if kind == Aggregated {
		c := &v.Levels[r.level].columns[r.feature[feature]]
		return c.agg.result(c.typ, c.of(f.Partial))
	}
	if !f.Any {
		return Value{}
	}
	switch kind {
	case SessionStart:
		return IntValue(int64(f.First))
	case SessionEnd:
		return IntValue(int64(f.Last.Add(r.window.Gap)))
	case SessionLength:
		return IntValue(int64(min(apart(f.First, f.Last), uint64(MaxTime))))
	default:
		panic("BUG: feature kind")
	}
}
