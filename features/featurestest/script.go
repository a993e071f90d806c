package featurestest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace/features"
	"millrace/windows"
)

// Case is one story of a script: records in the order in which they arrive, and what must be read.
type Case struct {
	File     string
	Line     int
	Name     string
	Compiled *features.Compiled
	Records  []Record
	Reads    []Read

	// Placed says that the script itself states where the records lie in the log.
	Placed bool

	window *notation // of a case in window notation
}

// Record is one record of the log. Several records with one position are one record, delivered several times.
type Record struct {
	Line      int
	Topic     string
	Partition int32
	Offset    int64        // -1 where the script leaves the position open
	Time      windows.Time // Kafka's timestamp; MaxTime, which bounds no event time, where the script states none
	Value     []byte
}

// Read is one expectation: features of one entity in one view at a moment.
type Read struct {
	Line int
	View *features.CompiledView
	Key  []windows.Value
	At   windows.Time
	Want []Want
}

// Want is one expected value.
type Want struct {
	Feature int // of the view
	Value   windows.Value
}

// Parse reads a script. definitions are those that its cases use unless they bring their own; nil is none. All that is wrong
// is reported at once, each error with file and line.
func Parse(file string, text []byte, definitions *features.Compiled) ([]*Case, []error) {
	p := &parser{file: file, lines: strings.Split(string(text), "\n"), compiled: definitions}
	for p.at < len(p.lines) {
		p.line()
	}
	p.finish()
	return p.cases, p.problems
}

type parser struct {
	file     string
	lines    []string
	at       int // the next line
	compiled *features.Compiled
	cases    []*Case
	problems []error
}

func (p *parser) fail(line int, format string, args ...any) {
	p.problems = append(p.problems, fmt.Errorf("%s:%d: %s", p.file, line, fmt.Sprintf(format, args...)))
}

// line reads one statement.
func (p *parser) line() {
	no := p.at + 1
	text := strings.TrimSpace(p.lines[p.at])
	p.at++
	if text == "" || text[0] == '#' {
		return
	}
	word, rest, _ := strings.Cut(text, " ")
	rest = strings.TrimSpace(rest)
	switch word {
	case "case":
		p.begin(no, rest)
		return
	case "definitions":
		p.definitions(no)
		return
	}
	if len(p.cases) == 0 {
		p.fail(no, "%q before the first case: begin with `case NAME`", word)
		return
	}
	c := p.cases[len(p.cases)-1]
	var err error
	switch word {
	case "window":
		err = c.setWindow(rest)
	case "events":
		err = c.addEvents(no, rest)
	case "event":
		err = c.addEvent(no, rest)
	case "expect":
		err = c.expect(no, rest)
	default:
		err = fmt.Errorf("unknown word %q: want case, definitions, window, events, event or expect", word)
	}
	if err != nil {
		p.fail(no, "%v", err)
	}
}

func (p *parser) begin(line int, name string) {
	p.finish()
	if name == "" {
		p.fail(line, "a case needs a name")
	}
	if slices.ContainsFunc(p.cases, func(c *Case) bool { return c.Name == name }) {
		p.fail(line, "a second case %q", name)
	}
	p.cases = append(p.cases, &Case{File: p.file, Line: line, Name: name, Compiled: p.compiled})
}

// finish ends the last case.
func (p *parser) finish() {
	if len(p.cases) == 0 {
		return
	}
	c := p.cases[len(p.cases)-1]
	if len(c.Reads) == 0 {
		p.fail(c.Line, "case %q expects nothing", c.Name)
	}
	if err := c.place(); err != nil {
		p.fail(c.Line, "case %q: %v", c.Name, err)
	}
}

// definitions reads the block of YAML that follows, indented. Before the first case it is for all cases, else for one.
func (p *parser) definitions(line int) {
	var yaml bytes.Buffer
	yaml.WriteString(strings.Repeat("\n", line)) // so that places in problems are those of the script
	for p.at < len(p.lines) {
		text := p.lines[p.at]
		if strings.TrimSpace(text) != "" && !strings.HasPrefix(text, " ") {
			break
		}
		yaml.WriteString(text + "\n")
		p.at++
	}
	parsed, problems := features.Parse(map[string][]byte{p.file: yaml.Bytes()})
	for _, problem := range problems {
		if problem.Severity == features.Error {
			p.problems = append(p.problems, fmt.Errorf("%s", problem.String()))
		}
	}
	if problems.Fatal() {
		return
	}
	compiled, err := features.Compile(parsed)
	if err != nil {
		p.fail(line, "%v", err)
		return
	}
	if len(p.cases) == 0 {
		p.compiled = compiled
	} else {
		p.cases[len(p.cases)-1].Compiled = compiled
	}
}

// addEvent reads `SOURCE[@time][#topic/partition/offset] JSON`; the time is Kafka's.
func (c *Case) addEvent(line int, text string) error {
	name, value, ok := strings.Cut(text, " ")
	name, position, placed := strings.Cut(name, "#")
	name, moment, timed := strings.Cut(name, "@")
	if c.Compiled == nil {
		return errNoDefinitions
	}
	source := c.Compiled.Source(name)
	switch {
	case !ok:
		return fmt.Errorf("want `event SOURCE {json}`")
	case source == nil:
		return fmt.Errorf("no source %q%s", name, features.Nearest(name, names(c.Compiled.Sources, func(s *features.Source) string { return s.Name })))
	}
	r := Record{Line: line, Topic: source.Topics[0], Offset: -1, Time: windows.MaxTime, Value: []byte(strings.TrimSpace(value))}
	if timed {
		var err error
		if r.Time, err = parseMoment(moment); err != nil {
			return err
		}
	} else if source.EventTime.Field == "" {
		return fmt.Errorf("source %s takes its event time from Kafka: want `event %s@TIME {json}`", name, name)
	}
	if placed {
		c.Placed = true
		var err error
		if r.Topic, r.Partition, r.Offset, err = parsePosition(position); err != nil {
			return err
		}
		if !slices.Contains(source.Topics, r.Topic) {
			return fmt.Errorf("source %s has no topic %q", name, r.Topic)
		}
	}
	if _, rejection := features.NewDecoder(source).Decode(r.Value, r.Time, make([]windows.Value, len(source.Fields))); rejection != nil {
		return fmt.Errorf("the record would be quarantined: %s", rejection)
	}
	c.Records = append(c.Records, r)
	return nil
}

var errNoDefinitions = fmt.Errorf("no definitions: give a block `definitions`, or a `window`")

func names[T any](list []T, name func(T) string) []string {
	var all []string
	for _, x := range list {
		all = append(all, name(x))
	}
	return all
}

func parsePosition(text string) (topic string, partition int32, offset int64, err error) {
	parts := strings.Split(text, "/")
	if len(parts) != 3 {
		return "", 0, 0, fmt.Errorf("position %q: want topic/partition/offset", text)
	}
	id, err1 := strconv.ParseInt(parts[1], 10, 32)
	offset, err2 := strconv.ParseInt(parts[2], 10, 64)
	if err1 != nil || err2 != nil || id < 0 || offset < 0 || parts[0] == "" {
		return "", 0, 0, fmt.Errorf("position %q: want topic/partition/offset", text)
	}
	return parts[0], int32(id), offset, nil
}

// expect reads `VIEW {key: value} at TIME: feature=value …`, or a list in window notation.
func (c *Case) expect(line int, text string) error {
	if c.window != nil {
		return c.expectWindows(line, text)
	}
	if c.Compiled == nil {
		return errNoDefinitions
	}
	name, rest, _ := strings.Cut(text, " ")
	view := c.Compiled.View(name)
	if view == nil {
		return fmt.Errorf("no view %q%s", name, features.Nearest(name, names(c.Compiled.Views, func(v *features.CompiledView) string { return v.Definition.Name })))
	}
	var key map[string]json.RawMessage
	rest, err := literal(rest, &key)
	if err != nil {
		return fmt.Errorf("the entity of view %s: want an object of its keys: %w", name, err)
	}
	read := Read{Line: line, View: view}
	for _, k := range view.Entity.Keys {
		v, err := parseValue(key[k.Name], k.Type)
		if err != nil || v.Kind == windows.Null {
			return fmt.Errorf("key %s: want a value of type %s", k.Name, k.Type)
		}
		read.Key = append(read.Key, v)
	}
	if len(key) != len(view.Entity.Keys) {
		return fmt.Errorf("entity %s has the keys %v", view.Entity.Name, names(view.Entity.Keys, func(k features.Key) string { return k.Name }))
	}
	rest, ok := strings.CutPrefix(rest, "at ")
	at, wants, found := strings.Cut(rest, ": ")
	if !ok || !found {
		return fmt.Errorf("want `expect VIEW {key: value} at TIME: feature=value …`")
	}
	if read.At, err = parseMoment(strings.TrimSpace(at)); err != nil {
		return err
	}
	for wants = strings.TrimSpace(wants); wants != ""; {
		feature, value, ok := strings.Cut(wants, "=")
		i := view.FeatureIndex(feature)
		switch {
		case !ok:
			return fmt.Errorf("%q: want feature=value", wants)
		case i < 0:
			return fmt.Errorf("view %s has no feature %q%s", name, feature, features.Nearest(feature, names(view.Definition.Features, func(f features.Feature) string { return f.Name })))
		}
		var raw json.RawMessage
		if wants, err = literal(value, &raw); err != nil {
			return fmt.Errorf("feature %s: want a JSON value: %w", feature, err)
		}
		v, err := parseValue(raw, view.Features[i].ResultType())
		if err != nil {
			return fmt.Errorf("feature %s: %w", feature, err)
		}
		read.Want = append(read.Want, Want{i, v})
	}
	if len(read.Want) == 0 {
		return fmt.Errorf("nothing is expected of view %s", name)
	}
	c.Reads = append(c.Reads, read)
	return nil
}

// literal reads one JSON value from the front of text.
func literal(text string, into any) (rest string, err error) {
	d := json.NewDecoder(strings.NewReader(text))
	if err := d.Decode(into); err != nil {
		return "", err
	}
	return strings.TrimSpace(text[d.InputOffset():]), nil
}

func parseValue(raw json.RawMessage, t windows.Type) (v windows.Value, err error) {
	text := string(raw)
	switch {
	case text == "null":
		return windows.Value{}, nil
	case text == `"invalid"` && t != windows.String:
		return windows.Value{Kind: windows.Invalid}, nil
	}
	switch t {
	case windows.String:
		var s string
		err = json.Unmarshal(raw, &s)
		v = windows.TextValue(s)
	case windows.Bool:
		var b bool
		err = json.Unmarshal(raw, &b)
		v = windows.BoolValue(b)
	case windows.Float64:
		var x float64
		x, err = strconv.ParseFloat(text, 64)
		v = windows.FloatValue(x)
	default:
		var n int64
		n, err = strconv.ParseInt(text, 10, 64)
		v = windows.IntValue(n)
	}
	if err != nil {
		return v, fmt.Errorf("%s is no %s", text, t)
	}
	return v, nil
}

// parseMoment reads milliseconds since 1970, also from MIN and MAX on, or an RFC 3339 time.
func parseMoment(text string) (windows.Time, error) {
	base, offset := int64(0), text
	if rest, ok := strings.CutPrefix(text, "MIN"); ok {
		base, offset = math.MinInt64, rest
	} else if rest, ok := strings.CutPrefix(text, "MAX"); ok {
		base, offset = math.MaxInt64, rest
	}
	if offset == "" && text != "" {
		return windows.Time(base), nil
	}
	if n, err := strconv.ParseInt(offset, 10, 64); err == nil {
		return windows.Time(base + n), nil
	}
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil && base == 0 {
		return windows.Time(at.UnixMilli()), nil
	}
	return 0, fmt.Errorf("time %q: want milliseconds since 1970 or 2006-01-02T15:04:05Z", text)
}

// place gives positions to records that have none: one partition, in the order of arrival.
func (c *Case) place() error {
	next := int64(0)
	for i := range c.Records {
		if r := &c.Records[i]; r.Offset < 0 {
			r.Offset = next
			next++
		} else if next > 0 {
			return fmt.Errorf("line %d: either all records have a position, or none", r.Line)
		}
	}
	return nil
}

// Events decodes the records of one view's source that its filter and entity let through, with the entity's key.
func (c *Case) Events(v *features.CompiledView) ([]Event, error) {
	topics := slices.Sorted(slices.Values(v.Source.Topics)) // logs are numbered in this order
	decoder := features.NewDecoder(v.Source)
	var list []Event
	for i := range c.Records {
		r := &c.Records[i]
		log := slices.Index(topics, r.Topic)
		if log < 0 {
			continue
		}
		row := make([]windows.Value, len(v.Source.Fields))
		at, rejection := decoder.Decode(r.Value, r.Time, row)
		if rejection != nil {
			return nil, fmt.Errorf("%s:%d: %s", c.File, r.Line, rejection)
		}
		for j := range row {
			row[j].Str = strings.Clone(row[j].Str)
		}
		key, ok := v.AppendKey(nil, row)
		if !ok || v.Where != nil && !v.Where(row) {
			continue
		}
		e := windows.Event{Time: at, Row: row, Position: windows.Position{Log: uint32(log) + 1, Partition: r.Partition, Offset: r.Offset}}
		list = append(list, Event{e, string(key), i})
	}
	return list, nil
}

// Event is a record as a view sees it.
type Event struct {
	windows.Event
	Key    string
	Record int // of the case
}
