package features

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// shape is what may stand at a place of a definition. The language is one literal of shapes (language.go): the parser checks
// files against it, and the schema for editors is written from it, so that the two cannot differ.
//
// Shapes know form alone. What needs a look at another place, such as whether a name exists, is checked afterwards.
type shape interface {
	// check reports every breach of form in n, and marks what the rest of the parser must not look at as bad. at is where
	// something missing is reported.
	check(c *checker, n *yamlNode, at place)
	schema() map[string]any
}

// checker collects the problems of form.
type checker struct{ problems Problems }

func (c *checker) problem(at place, remedy, format string, args ...any) {
	c.problems = append(c.problems, at.problem(Error, fmt.Sprintf(format, args...), remedy))
}

// scalar is text, a number or a boolean. It takes the words, texts that match the pattern, integers between the limits, and
// true and false, as far as each is set.
type scalar struct {
	is      string // what it is, for messages: `a duration`
	like    string // an example, for remedies
	words   []string
	pattern string
	never   []string // texts that match the pattern and are no good all the same

	integers         bool
	minimum, maximum int64
	bools            bool

	// explain, if not nil, finds a better message for a wrong value than that it is wrong.
	explain func(text string) (message, remedy string)

	compiled *regexp.Regexp
}

var decimalDigits = regexp.MustCompile(`^(0|-?[1-9][0-9]*)$`)

func (s *scalar) accepts(n *yamlNode) bool {
	switch n.kind {
	case yamlText:
		return s.acceptsText(n.text)
	case yamlInteger:
		i, err := strconv.ParseInt(n.text, 10, 64)
		return s.integers && err == nil && decimalDigits.MatchString(n.text) && i >= s.minimum && i <= s.maximum
	case yamlBool:
		return s.bools
	case yamlNull, yamlNumber, yamlMap, yamlList:
	}
	return false
}

func (s *scalar) acceptsText(text string) bool {
	if s.pattern != "" && s.compiled == nil {
		s.compiled = regexp.MustCompile(s.pattern)
	}
	return slices.Contains(s.words, text) || s.compiled != nil && !slices.Contains(s.never, text) && s.compiled.MatchString(text)
}

func (s *scalar) check(c *checker, n *yamlNode, at place) {
	if n.bad || s.accepts(n) {
		return
	}
	n.bad = true
	like := "write one like `" + s.like + "`"
	switch n.kind {
	case yamlNull:
		c.problem(at, like, "nothing where %s should stand", s.is)
		return
	case yamlMap, yamlList:
		c.problem(n.place, like, "%s where %s should stand", n.kind, s.is)
		return
	case yamlBool, yamlInteger, yamlNumber:
		if s.acceptsText(n.text) {
			c.problem(n.place, fmt.Sprintf("put it between quotes: %q", n.text), "`%s` is %s where %s should stand", n.text, n.kind, s.is)
			return
		}
	case yamlText:
	}
	if s.explain != nil {
		if message, remedy := s.explain(n.text); message != "" {
			c.problem(n.place, remedy, "%s", message)
			return
		}
	}
	switch {
	case slices.Contains(s.never, n.text):
		c.problem(n.place, "choose another", "`%s` cannot be %s", n.text, s.is)
	case len(s.words) > 0 && s.pattern == "" && !s.integers:
		c.problem(n.place, oneOf(n.text, s.words), "`%s` is not %s", shorten(n.text), s.is)
	case s.integers && n.kind == yamlInteger && !decimalDigits.MatchString(n.text):
		c.problem(n.place, "write it in decimal digits alone", "`%s` is not a plain integer", shorten(n.text))
	case s.integers && s.pattern == "":
		c.problem(n.place, "write "+s.limits(), "`%s` is not %s", shorten(n.text), s.is)
	default:
		c.problem(n.place, like, "`%s` is not %s", shorten(n.text), s.is)
	}
}

func (s *scalar) limits() string {
	return fmt.Sprintf("an integer from %d to %d", s.minimum, s.maximum)
}

func (s *scalar) schema() map[string]any {
	var forms []any
	if len(s.words) > 0 || s.bools {
		var values []any
		for _, w := range s.words {
			values = append(values, w)
		}
		if s.bools {
			values = append(values, true, false)
		}
		forms = append(forms, map[string]any{"enum": values})
	}
	if s.pattern != "" {
		text := map[string]any{"type": "string", "pattern": s.pattern}
		if len(s.never) > 0 {
			text["not"] = map[string]any{"enum": s.never}
		}
		if s.like != "" {
			text["examples"] = []any{s.like}
		}
		forms = append(forms, text)
	}
	if s.integers {
		forms = append(forms, map[string]any{"type": "integer", "minimum": s.minimum, "maximum": s.maximum})
	}
	if len(forms) == 1 {
		return forms[0].(map[string]any)
	}
	return map[string]any{"anyOf": forms}
}

// object is a map with known keys.
type object struct {
	is      string
	members []member
	oneOf   []string // of these keys exactly one must stand
	// by, if not empty, is the key whose value decides which further keys there are.
	by       string
	variants []variant
}

// member is a key of an object.
type member struct {
	name     string
	shape    shape
	required bool
	hint     string // an example of its value, for remedies
	doc      string
}

// variant is the further keys of an object whose deciding key has one of these values.
type variant struct {
	values  []string
	members []member
}

func (o *object) check(c *checker, n *yamlNode, at place) {
	if n.bad {
		return
	}
	if n.kind != yamlMap {
		n.bad = true
		c.problem(n.place, "write its keys: "+backquoted(o.names()), "%s where %s should stand", n.kind, o.is)
		return
	}
	members, given := o.members, ""
	if o.by != "" {
		if v := n.at(o.by); v != nil {
			given = v.text
		}
		chosen := slices.IndexFunc(o.variants, func(v variant) bool { return slices.Contains(v.values, given) })
		members = slices.Clone(members)
		for i, v := range o.variants {
			if chosen < 0 || chosen == i { // an unknown value is reported; it must not make all keys unknown
				members = append(members, v.members...)
			}
		}
		if chosen < 0 {
			given = ""
		}
	}
	for _, e := range n.entries {
		i := slices.IndexFunc(members, func(m member) bool { return m.name == e.key.text })
		switch {
		case i >= 0:
			members[i].shape.check(c, e.value, e.key.place)
		case slices.Contains(o.names(), e.key.text):
			c.problem(e.key.place, "remove it", "`%s` does not go with `%s: %s`", e.key.text, o.by, given)
		case e.value.bad && Nearest(e.key.text, namesOf(members)) == "": // the rest of a text that was cut at a comma
		default:
			c.problem(e.key.place, oneOf(e.key.text, namesOf(members)), "%s has no key `%s`", o.is, shorten(e.key.text))
		}
	}
	for _, m := range o.members {
		if m.required && n.at(m.name) == nil {
			c.problem(at, fmt.Sprintf("add `%s: %s`", m.name, m.hint), "%s needs `%s`", o.is, m.name)
		}
	}
	if given != "" {
		for _, m := range members[len(o.members):] {
			if m.required && n.at(m.name) == nil {
				c.problem(at, fmt.Sprintf("add `%s: %s`", m.name, m.hint), "%s with `%s: %s` needs `%s`", o.is, o.by, given, m.name)
			}
		}
	}
	if len(o.oneOf) > 0 {
		var found []*yamlNode
		for _, e := range n.entries {
			if slices.Contains(o.oneOf, e.key.text) {
				found = append(found, e.key)
			}
		}
		switch {
		case len(found) == 0:
			c.problem(at, "add one of them", "%s needs %s", o.is, strings.Join(quoteAll(o.oneOf), " or "))
		case len(found) > 1:
			c.problem(found[1].place, "keep one of them", "%s has both %s", o.is, strings.Join(quoteAll(o.oneOf), " and "))
		}
	}
}

// names returns all keys that o can have.
func (o *object) names() []string {
	names := namesOf(o.members)
	for _, v := range o.variants {
		for _, name := range namesOf(v.members) {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

func namesOf(members []member) []string {
	names := make([]string, len(members))
	for i, m := range members {
		names[i] = m.name
	}
	return names
}

func (o *object) schema() map[string]any {
	if o.by == "" {
		s := objectSchema(o.members, "", nil)
		if len(o.oneOf) > 0 {
			var one []any
			for _, name := range o.oneOf {
				one = append(one, map[string]any{"required": []string{name}})
			}
			s["oneOf"] = one
		}
		return s
	}
	var forms []any
	for _, v := range o.variants {
		forms = append(forms, objectSchema(slices.Concat(o.members, v.members), o.by, v.values))
	}
	return map[string]any{"type": "object", "oneOf": forms}
}

func objectSchema(members []member, by string, values []string) map[string]any {
	properties, required := map[string]any{}, []string{}
	for _, m := range members {
		s := m.shape.schema()
		if m.name == by {
			s = map[string]any{"enum": values}
		}
		if m.doc != "" {
			s["description"] = m.doc
		}
		properties[m.name] = s
		if m.required {
			required = append(required, m.name)
		}
	}
	s := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

// dict is a map whose keys are names.
type dict struct {
	is    string
	names *scalar
	each  shape
	like  string
}

func (d *dict) check(c *checker, n *yamlNode, at place) {
	if n.bad {
		return
	}
	if n.kind != yamlMap {
		n.bad = true
		c.problem(n.place, "write a map: "+d.like, "%s where %s should stand", n.kind, d.is)
		return
	}
	if len(n.entries) == 0 {
		n.bad = true
		c.problem(at, "add one, or remove the key", "%s is empty", d.is)
	}
	for _, e := range n.entries {
		before := len(c.problems)
		d.each.check(c, e.value, e.key.place)
		e.value.tainted = len(c.problems) > before
		if !d.names.acceptsText(e.key.text) {
			e.key.bad = true
			c.problem(e.key.place, "write one like `"+d.names.like+"`", "`%s` is not %s", shorten(e.key.text), d.names.is)
		}
	}
}

func (d *dict) schema() map[string]any {
	return map[string]any{
		"type": "object", "minProperties": 1, "propertyNames": map[string]any{"pattern": d.names.pattern}, "additionalProperties": d.each.schema(),
	}
}

// list is a list of at least one value, no two alike.
type list struct {
	is   string
	each *scalar
	like string
}

func (l *list) check(c *checker, n *yamlNode, at place) {
	if n.bad {
		return
	}
	if n.kind != yamlList {
		n.bad = true
		c.problem(n.place, "write it in brackets: "+l.like, "%s where %s should stand", n.kind, l.is)
		return
	}
	if len(n.items) == 0 {
		n.bad = true
		c.problem(at, "write "+l.like, "%s is empty", l.is)
	}
	seen := map[string]bool{}
	for _, item := range n.items {
		l.each.check(c, item, item.place)
		if !item.bad && seen[item.text] {
			item.bad = true
			c.problem(item.place, "keep one of them", "`%s` stands twice in %s", item.text, l.is)
		}
		seen[item.text] = true
	}
}

func (l *list) schema() map[string]any {
	return map[string]any{"type": "array", "minItems": 1, "uniqueItems": true, "items": l.each.schema()}
}

// either is an object that a scalar may stand for.
type either struct {
	short *scalar
	long  *object
}

func (e *either) check(c *checker, n *yamlNode, at place) {
	if n.kind == yamlMap {
		e.long.check(c, n, at)
		return
	}
	e.short.check(c, n, at)
}

func (e *either) schema() map[string]any {
	return map[string]any{"anyOf": []any{e.short.schema(), e.long.schema()}}
}

// oneOf is the remedy for an unknown name: the nearest known one, or all of them.
func oneOf(name string, known []string) string {
	if near := Nearest(name, known); near != "" {
		return "did you mean `" + near + "`?"
	}
	if len(known) == 1 {
		return "write `" + known[0] + "`"
	}
	return "write one of " + backquoted(known)
}

func backquoted(names []string) string { return strings.Join(quoteAll(names), ", ") }

func quoteAll(names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = "`" + name + "`"
	}
	return out
}

// shorten keeps a long value out of a message.
func shorten(text string) string {
	const most = 60
	if i := strings.IndexByte(text, '\n'); i >= 0 {
		text = text[:i] + "…"
	}
	if r := []rune(text); len(r) > most {
		return string(r[:most]) + "…"
	}
	return text
}
