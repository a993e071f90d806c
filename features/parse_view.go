package features

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"millrace/windows"
)

// manyTiles is how many tiles a read may merge without a warning.
const manyTiles = 1000

func integer(n *yamlNode) int64 {
	i, err := strconv.ParseInt(n.text, 10, 64)
	if err != nil {
		panic("BUG: integer " + n.text + " was accepted")
	}
	return i
}

func (b *builder) view(e yamlEntry) {
	n := e.value
	before := b.problems.Count(Error)
	v := &View{
		Name: e.key.text, Description: n.textOf("description"), Entity: n.textOf("entity"), Source: n.textOf("source"),
		Batch: isOn(n.get("batch"), true), TTL: b.positive(n.get("ttl"), 0, ""),
	}
	b.views[v.Name] = v
	b.d.Views = append(b.d.Views, v)
	if n.bad {
		return
	}
	source, entity := b.sources[v.Source], b.entities[v.Entity]
	b.used["source "+v.Source], b.used["entity "+v.Entity] = true, true
	if at := n.get("source"); at != nil && source == nil && !b.blind {
		b.unknown(at.place, "source", v.Source, b.namesIn("sources"))
	}
	if at := n.get("entity"); at != nil && entity == nil && !b.blind {
		b.unknown(at.place, "entity", v.Entity, b.namesIn("entities"))
	}
	joined := source != nil && entity != nil && b.join(n.get("source").place, source, entity)
	v.Where = b.where(n.get("where"), source)
	window, known := b.window(n.get("window"))
	if features := n.get("features"); features != nil {
		for _, f := range features.entries {
			if f.value.bad || f.value.kind != yamlMap {
				continue
			}
			v.Features = append(v.Features, b.feature(f, window, known && n.get("window") != nil, n.at("window") == nil, source))
			if entity != nil && slices.ContainsFunc(entity.Keys, func(k Key) bool { return k.Name == f.key.text }) {
				b.errorf(f.key.place, "choose another name", "feature `%s` has the name of a key of entity `%s`", f.key.text, v.Entity)
			}
		}
	}
	if n.tainted || b.problems.Count(Error) > before || !joined || source.tainted {
		return // for a reason that is reported
	}
	if _, err := compileView(b.d, v); err != nil {
		message, remedy, _ := strings.Cut(err.Error(), ": ")
		b.errorf(e.key.place, remedy, "view `%s`: %s", v.Name, message)
	}
}

// join checks that a source's events hold the keys of an entity, and reports whether they do as far as one can tell.
func (b *builder) join(at place, s *parsedSource, e *parsedEntity) (ok bool) {
	if s.bad || e.bad {
		return false
	}
	ok = true
	for _, k := range e.Keys {
		name := s.KeyField(k.Name)
		i := s.FieldIndex(name)
		switch {
		case i < 0 && s.Keys[k.Name] != "":
			ok = false // reported there
		case i < 0:
			remedy := fmt.Sprintf("declare it there, or say which field it is: `keys: {%s: <field>}`", k.Name)
			if near := Nearest(name, fieldNames(s.Fields)); near != "" {
				remedy = fmt.Sprintf("if it is `%s`, write `keys: {%s: %s}` in the source", near, k.Name, near)
			}
			b.errorf(at, remedy, "source `%s` has no field `%s` for the key of entity `%s`", s.Name, name, e.Name)
			ok = false
		case s.Fields[i].Type != 0 && s.Fields[i].Type != k.Type:
			b.errorf(at, "let both have one type", "key `%s` of entity `%s` is %s, field `%s` of source `%s` is %s", k.Name, e.Name, k.Type, name, s.Name, s.Fields[i].Type)
			ok = false
		}
	}
	return ok
}

// window reads a window; ok is false if it has a problem. The window of nothing is the zero one.
func (b *builder) window(n *yamlNode) (w windows.Window, ok bool) {
	if n == nil {
		return w, true
	}
	size := b.positive(n.get("size"), 0, "")
	hop := b.positive(n.get("hop"), 0, "")
	gap := b.positive(n.get("gap"), 0, "")
	retain := b.positive(n.get("retain"), DefaultRetain, wordAll)
	if at := n.get("retain"); at != nil && retain%windows.Day != 0 {
		at.bad = true
		b.errorf(at.place, "write whole days", "`retain: %s` is not a number of whole days", at.text)
	}
	for _, e := range n.entries {
		if e.value.bad {
			return w, false
		}
	}
	kind := n.textOf("type")
	for _, k := range []windows.WindowKind{windows.Sliding, windows.Tumbling, windows.Hopping, windows.Session, windows.Lifetime} {
		if k.String() == kind {
			w.Kind = k
		}
	}
	at := n.place
	if h := n.get("hop"); h != nil {
		at = h.place
	}
	if hop > size && size > 0 {
		b.errorf(at, "write at most "+formatDuration(size), "the hop of %s is longer than the window of %s", formatDuration(hop), formatDuration(size))
		return w, false
	}
	switch w.Kind {
	case windows.Sliding:
		if size == 0 {
			return w, false // reported as missing
		}
		if hop == 0 {
			hop = DefaultHop(size)
		}
		w.Size, w.Hop = size, hop
		if hop > 1 && hop > size/tailShare && n.get("hop") != nil {
			b.warnf(at, fmt.Sprintf("a hop of %s keeps that below 2 %%", formatDuration(DefaultHop(size))), "the window reaches back up to %s: its tail is rounded down to the hop", formatDuration(size+hop))
		}
		if tiles := int64(size / hop); tiles > manyTiles {
			why := ""
			if hop == 1 {
				why = ": with hop 1ms there is one for each millisecond that has events"
			}
			b.warnf(at, fmt.Sprintf("a hop of %s is within 2 %% of the size", formatDuration(DefaultHop(size))), "a read of this window merges up to %d tiles%s", tiles, why)
		}
	case windows.Tumbling:
		w.Size = size
	case windows.Hopping:
		w.Size, w.Hop = size, hop
		if size == 0 || hop == 0 {
			return w, false
		}
		if tile := gcd(size, hop); int64(size/tile) > manyTiles {
			b.warnf(at, "make the size a multiple of the hop", "a read of this window merges up to %d tiles: size and hop have no common measure above %s", int64(size/tile), formatDuration(tile))
		}
	case windows.Session:
		w.Gap, w.Retain = gap, retain
	case windows.Lifetime:
	}
	return w, w.Kind != 0 && (w.Kind != windows.Tumbling || size > 0) && (w.Kind != windows.Session || gap > 0)
}

func gcd(a, b windows.Span) windows.Span {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// feature reads a feature of a view over s. inherited is the view's window, usable if it has one without a problem; none says
// that it has none at all.
func (b *builder) feature(e yamlEntry, inherited windows.Window, usable, none bool, s *parsedSource) Feature {
	n := e.value
	f := Feature{Name: e.key.text, Description: n.textOf("description"), Window: inherited}
	aggregate := n.textOf("aggregate")
	for _, x := range extents {
		if x.name == aggregate {
			f.Kind = x.kind
		}
	}
	if op, ok := windows.ParseOp(aggregate); ok {
		f.Kind, f.Op = windows.Aggregated, op
	}
	if own := n.at("window"); own != nil {
		if own.bad {
			usable = false
		} else {
			f.Window, usable = b.window(own)
		}
	} else if none {
		b.errorf(e.key.place, "add `window: {type: …}` to it or to the view", "feature `%s` has no window", f.Name)
	}
	isSession := f.Window.Kind == windows.Session
	if at := n.get("session"); at != nil && usable {
		if !isSession {
			b.errorf(at.place, "remove it, or use a window of type session", "`session` is for session windows, this one is %s", f.Window.Kind)
		}
		f.Window.Previous = isSession && at.text == "previous"
	}
	if at := n.get("aggregate"); at != nil && f.Kind != windows.Aggregated && f.Kind != 0 && usable && !isSession {
		b.errorf(at.place, "use a window of type session", "%s is of a session, the window is %s", aggregate, f.Window.Kind)
	}
	if f.Kind == windows.Aggregated {
		f.Field = b.featureField(n, f.Op, s)
		f.Where = b.where(n.get("where"), s)
	}
	return f
}

// featureField reads which field an aggregate takes.
func (b *builder) featureField(n *yamlNode, op windows.Op, s *parsedSource) string {
	at := n.get("field")
	if at == nil || s == nil || s.bad {
		return ""
	}
	i := s.FieldIndex(at.text)
	if i < 0 {
		b.unknown(at.place, "field", at.text, fieldNames(s.Fields))
		return ""
	}
	if t := s.Fields[i].Type; t != 0 && !slices.Contains(op.Accepts(), t) {
		var can []string
		for _, a := range op.Accepts() {
			if typeNamed(a.String()) != 0 {
				can = append(can, a.String())
			}
		}
		var names []string
		for _, other := range windows.Ops() {
			if slices.Contains(other.Accepts(), t) {
				names = append(names, other.String())
			}
		}
		b.errorf(at.place, fmt.Sprintf("for a %s field there are %s", t, strings.Join(names, ", ")), "%s takes a field of type %s, `%s` is %s", op, strings.Join(can, " or "), at.text, t)
		return ""
	}
	return at.text
}
