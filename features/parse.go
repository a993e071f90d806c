package features

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"millrace/windows"
)

// maxFiles bounds all files of a project together, in bytes.
const maxFiles = 4 << 20

// Parse reads the definitions of a project from its files, by name. Every problem is found at once; definitions is nil if one
// of them is more than a warning.
func Parse(files map[string][]byte) (definitions *Definitions, problems Problems) {
	b := newBuilder()
	b.readAll(files)
	return b.build()
}

// ParseFS reads the definitions of a project from the *.yaml and *.yml files of a folder. Files in its sub-folders and hidden
// ones are not read.
func ParseFS(fsys fs.FS) (definitions *Definitions, problems Problems) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, Problems{{Severity: Error, Message: fmt.Sprintf("the folder cannot be read: %v", err), Remedy: "name the folder that holds the definitions"}}
	}
	b, files := newBuilder(), map[string][]byte{}
	for _, e := range entries {
		name := e.Name()
		if ext := path.Ext(name); e.IsDir() || strings.HasPrefix(name, ".") || ext != ".yaml" && ext != ".yml" {
			continue
		}
		start := place{name, 1, 1}
		info, err := fs.Stat(fsys, name)
		var content []byte
		if err == nil && info.Size() <= maxFile {
			content, err = fs.ReadFile(fsys, name)
		}
		switch {
		case err != nil:
			b.errorf(start, "see that it is a file that this account may read", "the file cannot be read: %v", err)
			b.blind = true
		case info.Size() > maxFile:
			b.problems = append(b.problems, tooLong(start, info.Size()))
			b.blind = true
		default:
			files[name] = content
		}
	}
	if len(files) == 0 && len(b.problems) == 0 {
		return nil, Problems{{Severity: Error, Message: "the folder has no *.yaml or *.yml file", Remedy: "name the folder that holds the definitions"}}
	}
	b.readAll(files)
	return b.build()
}

func tooLong(at place, size int64) Problem {
	return at.problem(Error, fmt.Sprintf("the file has %d bytes, more than %d", size, maxFile), "split it into several files of one folder")
}

// builder makes Definitions of files whose form was checked.
type builder struct {
	checker
	language *object
	// blind says that a part of the definitions could not be read, so that what seems to be missing may stand there.
	blind    bool
	project  *yamlNode
	sections map[string][]yamlEntry // what each section declares, in the order of the files
	first    place                  // of the first file

	d        *Definitions
	sources  map[string]*parsedSource
	entities map[string]*parsedEntity
	views    map[string]*View
	used     map[string]bool // "source access", "entity visitor": what views name
}

func newBuilder() *builder {
	return &builder{
		language: language(), sections: map[string][]yamlEntry{}, d: &Definitions{},
		sources: map[string]*parsedSource{}, entities: map[string]*parsedEntity{}, views: map[string]*View{}, used: map[string]bool{},
	}
}

func (b *builder) errorf(at place, remedy, format string, args ...any) {
	b.problem(at, remedy, format, args...)
}

func (b *builder) warnf(at place, remedy, format string, args ...any) {
	b.problems = append(b.problems, at.problem(Warning, fmt.Sprintf(format, args...), remedy))
}

func (b *builder) readAll(files map[string][]byte) {
	size := 0
	for _, name := range sortedKeys(files) {
		if size += len(files[name]); size > maxFiles {
			b.errorf(place{name, 1, 1}, "split the project", "the files have more than %d bytes together", maxFiles)
			b.blind = true
			return
		}
		b.read(name, files[name])
	}
}

// read checks the form of a file and sorts what it declares into sections.
func (b *builder) read(name string, data []byte) {
	start := place{name, 1, 1}
	if b.first == (place{}) {
		b.first = start
	}
	f, root := readYAML(name, data)
	b.problems = append(b.problems, f.problems...)
	if root == nil {
		b.blind = b.blind || f.problems.Fatal()
		return
	}
	b.language.check(&b.checker, root, start)
	b.blind = b.blind || root.bad
	for _, e := range root.entries {
		switch {
		case e.key.text == "project":
			if b.project != nil {
				b.errorf(e.key.place, "keep one of them", "`project` stands here for the second time, the first is at %s:%d", b.project.file, b.project.line)
				continue
			}
			b.project = e.value
		case e.value.bad || e.value.kind != yamlMap:
			b.blind = true
		default:
			b.declare(e.key.text, e.value)
		}
	}
}

// declare notes what a section declares; of a name that stands in two files the first counts.
func (b *builder) declare(section string, n *yamlNode) {
	for _, e := range n.entries {
		i := slices.IndexFunc(b.sections[section], func(have yamlEntry) bool { return have.key.text == e.key.text })
		if i >= 0 {
			old := b.sections[section][i].key
			b.errorf(e.key.place, "keep one of them, or choose another name", "`%s` is declared here for the second time, the first is at %s:%d", e.key.text, old.file, old.line)
			continue
		}
		b.sections[section] = append(b.sections[section], e)
	}
}

func (b *builder) build() (*Definitions, Problems) {
	switch {
	case b.project != nil && !b.project.bad:
		b.d.Project = b.project.text
	case b.project == nil && !b.blind:
		b.errorf(b.first, "add `project: <name>` to one file", "the definitions name no project")
	}
	for _, e := range b.sections["entities"] {
		b.entity(e)
	}
	for _, e := range b.sections["sources"] {
		b.source(e)
	}
	b.checkTopics()
	for _, e := range b.sections["views"] {
		b.view(e)
	}
	for _, e := range b.sections["services"] {
		b.service(e)
	}
	if !b.problems.Fatal() { // else what uses them may not have been understood
		b.warnUnused("sources", "source")
		b.warnUnused("entities", "entity")
	}
	b.problems.sort()
	if b.problems.Fatal() {
		return nil, b.problems
	}
	return b.d, b.problems
}

func (b *builder) warnUnused(section, what string) {
	for _, e := range b.sections[section] {
		if !b.used[what+" "+e.key.text] && !e.key.bad {
			b.warnf(e.key.place, "remove it, or add a view", "no view uses the %s `%s`", what, e.key.text)
		}
	}
}

// namesIn returns what a section declares.
func (b *builder) namesIn(section string) []string {
	var names []string
	for _, e := range b.sections[section] {
		names = append(names, e.key.text)
	}
	return names
}

// unknown reports a name that nothing declares.
func (b *builder) unknown(at place, what, name string, known []string) {
	remedy := "declare it"
	if near := Nearest(name, known); near != "" {
		remedy = "did you mean `" + near + "`?"
	} else if len(known) > 0 {
		remedy = "declare it, or write one of " + backquoted(known)
	}
	b.errorf(at, remedy, "there is no %s `%s`", what, name)
}

// parsedEntity is an entity as far as it could be read.
type parsedEntity struct {
	*Entity
	bad bool // its keys are not all known
}

func (b *builder) entity(e yamlEntry) {
	p := &parsedEntity{Entity: &Entity{Name: e.key.text, Description: e.value.textOf("description")}}
	keys := e.value.get("keys")
	p.bad = keys == nil
	if keys != nil {
		for _, k := range keys.entries {
			if k.value.bad || k.key.bad {
				p.bad = true
				continue
			}
			p.Keys = append(p.Keys, Key{k.key.text, typeNamed(k.value.text)})
		}
	}
	b.entities[p.Name] = p
	b.d.Entities = append(b.d.Entities, p.Entity)
}

// parsedSource is a source as far as it could be read. A field whose type could not be read has type 0.
type parsedSource struct {
	*Source
	bad      bool // its fields are not all known
	tainted  bool // it has problems of form
	topicsAt place
	bitsAt   place
}

func (b *builder) source(e yamlEntry) {
	n := e.value
	s := &Source{
		Name: e.key.text, Description: n.textOf("description"),
		MaxFuture: b.duration(n.get("max_future"), DefaultMaxFuture, wordAny, -1), EpochBits: DefaultEpochBits,
	}
	p := &parsedSource{Source: s, tainted: n.tainted, topicsAt: e.key.place, bitsAt: e.key.place}
	b.sources[s.Name] = p
	b.d.Sources = append(b.d.Sources, s)

	if t := n.get("topic"); t != nil {
		s.Topics, p.topicsAt = []string{t.text}, t.place
	} else if list := n.get("topics"); list != nil {
		p.topicsAt = list.place
		for _, t := range list.items {
			if !t.bad {
				s.Topics = append(s.Topics, t.text)
			}
		}
		slices.Sort(s.Topics) // their order means nothing, and must not look as if it did
	}
	if bits := n.get("epoch_bits"); bits != nil {
		s.EpochBits, p.bitsAt = uint8(integer(bits)), bits.place
	}
	p.bad = !b.fields(s, n.get("fields"))
	b.eventTime(p, n.get("event_time"))
	b.sourceKeys(p, n.get("keys"))
}

// fields reads the fields of s and reports whether all of them are known.
func (b *builder) fields(s *Source, n *yamlNode) bool {
	if n == nil {
		return false
	}
	whole := true
	for _, e := range n.entries {
		if e.key.bad {
			whole = false
			continue
		}
		f := Field{Name: e.key.text}
		kind := e.value
		if e.value.kind == yamlMap {
			kind = e.value.get("type")
			f.Description = e.value.textOf("description")
			f.Required = isOn(e.value.get("required"), false)
		}
		if kind != nil && !kind.bad {
			f.Type = typeNamed(kind.text)
		}
		if f.Type == windows.String {
			f.MaxBytes = DefaultMaxBytes
			if m := e.value.get("max_bytes"); m != nil {
				f.MaxBytes = int(integer(m))
			}
		}
		s.Fields = append(s.Fields, f)
	}
	return whole
}

func (b *builder) eventTime(s *parsedSource, n *yamlNode) {
	t := EventTime{Min: DefaultMinTime, Max: DefaultMaxTime}
	if n == nil || n.bad {
		return
	}
	if f := n.get("field"); f != nil {
		t.Field = f.text
	}
	t.Unit = TimeUnit(n.textOf("unit"))
	i := s.FieldIndex(t.Field)
	switch {
	case t.Field == "":
	case i < 0:
		if !s.bad {
			b.unknown(n.get("field").place, "field", t.Field, fieldNames(s.Fields))
		}
	default:
		s.Fields[i].Required = true
		want := windows.Int64
		if t.Unit == RFC3339 {
			want = windows.String
		}
		if have := s.Fields[i].Type; t.Unit != "" && have != 0 && have != want {
			b.errorf(n.get("field").place, fmt.Sprintf("declare it as %s, or choose another unit", want), "`%s` is %s; an event time in unit %s is %s", t.Field, have, t.Unit, want)
		}
	}
	if v := n.get("min"); v != nil {
		t.Min = b.moment(v, windows.MinTime)
	}
	if v := n.get("max"); v != nil {
		t.Max = b.moment(v, windows.MaxTime)
		if n.at("min") == nil && t.Max < t.Min {
			b.errorf(v.place, "set `min` too: it is 1970-01-01T00:00:00Z where nothing is said", "`max` lies before `min`")
		}
	}
	if low, high := n.get("min"), n.get("max"); low != nil && t.Min > t.Max && !low.bad && (high == nil || !high.bad) {
		b.errorf(low.place, "put the earlier time into `min`; `max` is 2200-01-01T00:00:00Z where nothing is said", "`min` lies after `max`")
	}
	s.EventTime = t
}

// moment reads a bound of event time.
func (b *builder) moment(n *yamlNode, limit windows.Time) windows.Time {
	if n.text == wordAny {
		return limit
	}
	if n.kind == yamlInteger {
		return windows.Time(integer(n))
	}
	t, ok := parseRFC3339(n.text)
	if !ok {
		n.bad = true
		b.errorf(n.place, "write a day and a time of day that exist", "`%s` is not a time", n.text)
	}
	return t
}

func (b *builder) sourceKeys(s *parsedSource, n *yamlNode) {
	if n == nil {
		return
	}
	s.Keys = map[string]string{}
	var known []string
	whole := !b.blind
	for _, e := range b.d.Entities {
		whole = whole && !b.entities[e.Name].bad
		for _, k := range e.Keys {
			if !slices.Contains(known, k.Name) {
				known = append(known, k.Name)
			}
		}
	}
	for _, e := range n.entries {
		if e.value.bad || e.key.bad {
			s.bad = true // the key's field is not known
			continue
		}
		s.Keys[e.key.text] = e.value.text
		if whole && !slices.Contains(known, e.key.text) {
			b.unknown(e.key.place, "entity with a key", e.key.text, known)
		}
		if !s.bad && s.FieldIndex(e.value.text) < 0 {
			b.unknown(e.value.place, "field", e.value.text, fieldNames(s.Fields))
		}
	}
}

// checkTopics looks for topics of two sources: they share their log, and so its epochs.
func (b *builder) checkTopics() {
	owner := map[string]*parsedSource{}
	for _, s := range b.d.Sources {
		p := b.sources[s.Name]
		for _, t := range s.Topics {
			other := owner[t]
			switch {
			case other == nil:
				owner[t] = p
			case other.EpochBits != p.EpochBits:
				b.errorf(p.bitsAt, fmt.Sprintf("write `epoch_bits: %d` in both", other.EpochBits), "sources `%s` and `%s` read topic `%s` with different `epoch_bits`", other.Name, s.Name, t)
			default:
				b.warnf(p.topicsAt, "join them if their events have one form: each record is decoded once per source", "topic `%s` is read by source `%s` too", t, other.Name)
			}
		}
	}
}

func fieldNames(fields []Field) []string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
	}
	return names
}

// duration reads a duration, or the word that stands for none; fallback is for what is not there or bad.
func (b *builder) duration(n *yamlNode, fallback windows.Span, word string, unbounded windows.Span) windows.Span {
	if n == nil || n.bad {
		return fallback
	}
	if word != "" && n.text == word {
		return unbounded
	}
	d, ok := parseDuration(n.text)
	if !ok {
		n.bad = true
		b.errorf(n.place, "write at most 365250d, which is 1000 years", "`%s` is too long", n.text)
		return fallback
	}
	return d
}

// positive reads a duration greater than 0, or the word that stands for 0.
func (b *builder) positive(n *yamlNode, fallback windows.Span, word string) windows.Span {
	d := b.duration(n, fallback, word, 0)
	if n != nil && !n.bad && d == 0 && n.text != word {
		n.bad = true
		b.errorf(n.place, "write a duration greater than 0", "`%s` is no length of time", n.text)
	}
	return d
}

// isOn reads a switch.
func isOn(n *yamlNode, fallback bool) bool {
	if n == nil || n.bad {
		return fallback
	}
	return n.text == "on" || n.kind == yamlBool && strings.EqualFold(n.text, "true")
}

// where parses a filter and reports its mistakes at their places. It returns the text, or "".
func (b *builder) where(n *yamlNode, s *parsedSource) string {
	if n == nil || s == nil || s.bad {
		return ""
	}
	_, err := ParseWhere(n.text, s.Fields)
	if err == nil {
		return n.text
	}
	mistakes := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		mistakes = joined.Unwrap()
	}
	for _, m := range mistakes {
		at, message := n.place, m.Error()
		if e, ok := errors.AsType[*WhereError](m); ok {
			at, message = n.within(e.Offset), e.Msg
		}
		message, remedy, ok := strings.Cut(message, ": ")
		if !ok {
			remedy = "write a filter like `status >= 400`"
		}
		b.errorf(at, remedy, "%s", message)
	}
	return ""
}
