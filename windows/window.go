package windows

import "strconv"

// WindowKind says how a window chooses events.
type WindowKind uint8

// The kinds of windows. All are half-open: an event exactly at the moment of the read is not in the window.
const (
	Sliding  WindowKind = iota + 1 // [floor(t - size, hop), t)
	Tumbling                       // the latest [s, s + size) with s a multiple of size that has ended by t
	Hopping                        // the latest [s, s + size) with s a multiple of hop that has ended by t
	Session                        // neighbours less than gap apart; [first, last + gap)
	Lifetime                       // all events before t
)

// String returns the name that definitions use.
func (k WindowKind) String() string {
	switch k {
	case Sliding:
		return "sliding"
	case Tumbling:
		return "tumbling"
	case Hopping:
		return "hopping"
	case Session:
		return "session"
	case Lifetime:
		return "lifetime"
	}
	return "WindowKind(" + strconv.Itoa(int(k)) + ")"
}

// Window is which events a feature folds, given the moment of a read.
type Window struct {
	Kind WindowKind
	Size Span // Sliding, Tumbling, Hopping
	Hop  Span // Sliding, Hopping
	Gap  Span // Session
	// Retain bounds sessions to events in [floor(t, Day) - Retain, t); a whole number of days, 0 for no bound.
	Retain Span
	// Previous chooses, of a session window, the latest session that has ended by t; otherwise it is the one that is open.
	Previous bool
}

// grain is what events of a window are folded into before they are read: tiles of one width, or session fragments.
type grain struct {
	kind   WindowKind // Sliding for any tiles, Session, Lifetime
	width  Span       // of a tile; the gap of a session
	retain Span
}

// grain returns the coarsest grain that answers w exactly: its tiles end where any window of w can begin or end.
func (w Window) grain() grain {
	switch w.Kind {
	case Sliding:
		return grain{kind: Sliding, width: w.Hop}
	case Tumbling:
		return grain{kind: Sliding, width: w.Size}
	case Hopping:
		return grain{kind: Sliding, width: gcd(w.Size, w.Hop)}
	case Session:
		return grain{kind: Session, width: w.Gap, retain: w.Retain}
	case Lifetime:
		return grain{kind: Lifetime}
	}
	panic("BUG: grain of " + w.Kind.String())
}

// tiles returns the tiles [lo, hi) that make up the window at t, for windows made of tiles.
//
// A sliding window has no upper end here: a state is only read after its newest event.
func (w Window) tiles(t Time) (lo, hi int64) {
	const end = 1<<63 - 1
	switch w.Kind {
	case Sliding:
		return indexBefore(t, w.Size, w.Hop), end
	case Tumbling:
		hi = index(t, w.Size)
		return hi - 1, hi
	case Hopping:
		width := gcd(w.Size, w.Hop)
		lo = indexBefore(t, w.Size, w.Hop) * int64(w.Hop/width)
		return lo, lo + int64(w.Size/width)
	case Lifetime:
		return 0, end
	case Session:
	}
	panic("BUG: tiles of a " + w.Kind.String() + " window")
}

// retained returns the first day whose events a session window at t may hold.
func (g grain) retained(t Time) int64 {
	if g.retain == 0 {
		return -1 << 63
	}
	return index(t, Day) - int64(g.retain/Day)
}

func gcd(a, b Span) Span {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
