package features

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	yamllexer "github.com/goccy/go-yaml/lexer"
	yamlparser "github.com/goccy/go-yaml/parser"
	yamltoken "github.com/goccy/go-yaml/token"
)

// The limits of a file of definitions. The YAML parser takes time that is quadratic in the keys of one map and in depth, and
// stack for depth.
const (
	maxFile    = 1 << 20
	maxNesting = 32
	maxKeys    = 5000 // of one map in block style
)

// yamlNode is a value in a file: the part of YAML that definitions need, with places. There are no anchors, aliases, tags
// and merge keys: what a file says stands where it is read.
type yamlNode struct {
	place
	source  *yamlFile
	kind    yamlKind
	text    string // of a scalar: numbers and booleans as written
	entries []yamlEntry
	items   []*yamlNode
	bad     bool // a problem was reported for this very value
	tainted bool // a problem of form was reported within it
}

type yamlEntry struct{ key, value *yamlNode }

type yamlKind uint8

const (
	yamlNull yamlKind = iota
	yamlBool
	yamlInteger
	yamlNumber
	yamlText
	yamlMap
	yamlList
)

// String names the kind in messages.
func (k yamlKind) String() string {
	return [...]string{"nothing", "a boolean", "an integer", "a number", "text", "a map", "a list"}[k]
}

// get returns the value of a key, or nil where there is none or it is bad.
func (n *yamlNode) get(key string) *yamlNode {
	if v := n.at(key); v != nil && !v.bad {
		return v
	}
	return nil
}

// at returns the value of a key, or nil where there is none.
func (n *yamlNode) at(key string) *yamlNode {
	if n == nil || n.kind != yamlMap {
		return nil
	}
	for _, e := range n.entries {
		if e.key.text == key {
			return e.value
		}
	}
	return nil
}

// textOf returns the text of a key's value, or "" where there is none or it is bad.
func (n *yamlNode) textOf(key string) string {
	if v := n.get(key); v != nil {
		return v.text
	}
	return ""
}

// yamlFile reads one file.
type yamlFile struct {
	name     string
	lines    []string
	problems Problems
}

func (f *yamlFile) errorf(line, column int, remedy, format string, args ...any) {
	f.problems = append(f.problems, place{f.name, line, column}.problem(Error, fmt.Sprintf(format, args...), remedy))
}

// readYAML reads a file; root is nil if it is empty or has a problem of form.
func readYAML(name string, data []byte) (f *yamlFile, root *yamlNode) {
	f = &yamlFile{name: name}
	if len(data) > maxFile {
		f.problems = append(f.problems, tooLong(place{name, 1, 1}, int64(len(data))))
		return f, nil
	}
	text := strings.ReplaceAll(strings.TrimPrefix(string(data), "\ufeff"), "\r\n", "\n")
	f.lines = strings.Split(text, "\n")
	if !f.readable() {
		return f, nil
	}
	defer func() {
		// The parser is not ours. If it breaks on a file, that is the file's problem and not the end of the program.
		if r := recover(); r != nil {
			f.errorf(1, 1, "write the file in plain YAML", "the YAML parser gives up on this file: %v", r)
			root = nil
		}
	}()
	tokens := yamllexer.Tokenize(text)
	if !f.plain(tokens) {
		return f, nil
	}
	parsed, err := yamlparser.Parse(tokens, 0, yamlparser.AllowDuplicateMapKey())
	if err != nil {
		f.syntax(err)
		return f, nil
	}
	for _, doc := range parsed.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.CommentType {
			root = f.node(doc.Body)
		}
	}
	return f, root
}

// readable reports whether the file is text.
func (f *yamlFile) readable() bool {
	for i, line := range f.lines {
		column := 0
		for at := 0; at < len(line); {
			r, size := utf8.DecodeRuneInString(line[at:])
			column++
			at += size
			switch {
			case r == utf8.RuneError && size == 1:
				f.errorf(i+1, column, "save the file as UTF-8", "the file is not UTF-8 text")
				return false
			case r == '\r':
				f.errorf(i+1, column, "end lines by a line feed", "a carriage return alone")
				return false
			case r < ' ' && r != '\t' || r == 0x7f:
				f.errorf(i+1, column, "remove it", "a control character (%U)", r)
				return false
			}
		}
	}
	return true
}

// refusal is a part of YAML that definitions leave out.
type refusal struct{ message, remedy string }

func refusals() map[yamltoken.Type]refusal {
	const anchors = "anchors and aliases are no part of definitions"
	return map[yamltoken.Type]refusal{
		yamltoken.AnchorType:     {anchors, "write the value out, or put text that begins with & between quotes"},
		yamltoken.AliasType:      {anchors, "write the value out, or put text that begins with * between quotes"},
		yamltoken.TagType:        {"YAML tags are no part of definitions", "remove it, or put text that begins with ! between quotes"},
		yamltoken.MergeKeyType:   {"merge keys are no part of definitions", "write the keys out"},
		yamltoken.MappingKeyType: {"keys written with ? are no part of definitions", "write `key: value`"},
		yamltoken.DirectiveType:  {"YAML directives are no part of definitions", "remove it, or put text that begins with % between quotes"},
	}
}

// plain looks at the tokens for what definitions leave out of YAML, before the parser walks into it.
func (f *yamlFile) plain(tokens yamltoken.Tokens) bool {
	type block struct{ column, keys int }
	var blocks []block
	flow, content, refused := 0, false, refusals()
	enter := func(column int) (b *block) {
		for len(blocks) > 0 && blocks[len(blocks)-1].column > column {
			blocks = blocks[:len(blocks)-1]
		}
		if len(blocks) == 0 || blocks[len(blocks)-1].column < column {
			blocks = append(blocks, block{column: column})
		}
		b = &blocks[len(blocks)-1]
		b.keys++
		return b
	}
	for i, t := range tokens {
		line, column := max(t.Position.Line, 1), max(t.Position.Column, 1)
		if no, ok := refused[t.Type]; ok {
			f.errorf(line, column, no.remedy, "%s", no.message)
			return false
		}
		if t.Type == yamltoken.CommentType || t.Type == yamltoken.DocumentEndType {
			continue
		}
		if t.Type == yamltoken.DocumentHeaderType {
			if content {
				f.errorf(line, column, "put each document into a file of its own", "a second document in one file")
				return false
			}
			continue
		}
		opens := t.Type == yamltoken.SequenceStartType || t.Type == yamltoken.MappingStartType
		closes := t.Type == yamltoken.SequenceEndType || t.Type == yamltoken.MappingEndType
		switch {
		case opens:
			flow++
		case closes:
			flow--
		case flow == 0 && t.Type == yamltoken.SequenceEntryType:
			enter(column)
		case flow == 0 && t.Type == yamltoken.MappingValueType && i > 0:
			if enter(tokens[i-1].Position.Column).keys > maxKeys {
				f.errorf(line, column, "split it into several files of one folder", "more than %d keys in one map", maxKeys)
				return false
			}
		}
		content = true
		if flow+len(blocks) > maxNesting {
			f.errorf(line, column, "definitions need no more than 8", "values are nested deeper than %d", maxNesting)
			return false
		}
	}
	return true
}

// syntax reports what the parser found, in our words where it is a usual slip.
func (f *yamlFile) syntax(err error) {
	message, line, column := err.Error(), 1, 1
	if e, ok := errors.AsType[yaml.Error](err); ok {
		message = e.GetMessage()
		if t := e.GetToken(); t != nil {
			line, column = max(t.Position.Line, 1), max(t.Position.Column, 1)
		}
	}
	for _, known := range []struct{ has, message, remedy string }{
		{"character '\t'", "a tab at the beginning of a line", "indent with spaces"},
		{"mapping value is not allowed", "a second colon in one value", "put text that has a colon in it between quotes"},
		{"could not find end character", "the quoted text does not end", "close the quote"},
		{"map key-value is pre-defined", "more text after a quoted value", "put the whole value between other quotes"},
		{"value is not allowed in this context", "this does not fit the lines above it", "indent the keys of one map alike"},
		{"non-map value is specified", "this does not fit the lines above it", "write `key: value`, with a space behind the colon"},
		{"invalid key", "a list or a map as a key", "write a name"},
		{"reserved character", "@ and ` cannot begin a value", "put it between quotes"},
		{"must be specified", "a list or map in brackets does not end", "close the bracket, and separate values by commas"},
		{"end token", "a list or map in brackets does not end", "close the bracket"},
	} {
		if strings.Contains(message, known.has) {
			f.errorf(line, column, known.remedy, "%s", known.message)
			return
		}
	}
	f.errorf(line, column, "see https://yaml.org/spec/1.2.2", "not YAML: %s", message)
}

func (f *yamlFile) node(n ast.Node) *yamlNode {
	t := n.GetToken()
	out := &yamlNode{source: f, place: place{f.name, 1, 1}}
	if t != nil {
		out.line, out.column, out.text = max(t.Position.Line, 1), max(t.Position.Column, 1), t.Value
	}
	switch n := n.(type) {
	case *ast.NullNode:
	case *ast.BoolNode:
		out.kind = yamlBool
	case *ast.IntegerNode:
		out.kind = yamlInteger
	case *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		out.kind = yamlNumber
	case *ast.StringNode:
		out.kind, out.text = yamlText, n.Value
	case *ast.LiteralNode:
		out.kind, out.text = yamlText, n.Value.Value
	case *ast.SequenceNode:
		out.kind = yamlList
		for _, v := range n.Values {
			out.items = append(out.items, f.node(v))
		}
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) == 1 && f.isOneWord(out, n.Values[0]) {
			break
		}
		out.kind = yamlMap
		f.entries(out, n.Values, n.IsFlowStyle)
	case *ast.MappingValueNode:
		if f.isOneWord(out, n) {
			break
		}
		out.kind = yamlMap
		f.entries(out, []*ast.MappingValueNode{n}, false)
	default:
		f.errorf(out.line, out.column, "write a plain value", "a %s is no part of definitions", n.Type().YAMLName())
		out.bad = true
	}
	return out
}

// isOneWord makes out the text a:b that YAML has in [a:b] and the parser takes for a map.
func (f *yamlFile) isOneWord(out *yamlNode, v *ast.MappingValueNode) bool {
	key, value := v.Key.GetToken(), v.Value.GetToken()
	for _, t := range []*yamltoken.Token{key, value} {
		if t == nil || t.Type != yamltoken.StringType {
			return false
		}
	}
	if colon := v.Start; colon == nil || colon.Position.Line != value.Position.Line || colon.Position.Column+1 != value.Position.Column {
		return false
	}
	out.place = place{f.name, max(key.Position.Line, 1), max(key.Position.Column, 1)}
	out.kind, out.text = yamlText, key.Value+":"+value.Value
	return true
}

// entries adds the keys of a map. Of a key that stands twice the first counts.
func (f *yamlFile) entries(out *yamlNode, values []*ast.MappingValueNode, flow bool) {
	first := map[string]*yamlNode{}
	for i, v := range values {
		key, value := f.node(v.Key), f.node(v.Value)
		if i == 0 && !flow {
			out.place = key.place // not that of its colon
		}
		if key.kind == yamlMap || key.kind == yamlList {
			f.errorf(key.line, key.column, "write a name", "%s as a key", key.kind)
			continue
		}
		if old := first[key.text]; old != nil {
			f.errorf(key.line, key.column, "keep one of them", "`%s` stands here for the second time, the first is in line %d", key.text, old.line)
			continue
		}
		first[key.text] = key
		if value.kind == yamlNull && !value.bad {
			remedy := "write one, or remove the key"
			if flow {
				remedy = "write one; where this is part of a text with commas, put the whole text between quotes"
			}
			f.errorf(key.line, key.column, remedy, "`%s` has no value", key.text)
			value.bad = true
		}
		out.entries = append(out.entries, yamlEntry{key, value})
	}
}

// within returns where a byte of a text stands in the file: at the text's beginning where escapes hide it.
func (n *yamlNode) within(offset int) place {
	// The value and the file are read side by side. White space may differ: folded lines, indentation.
	line, at := n.line-1, 0
	for range n.column - 1 {
		_, size := utf8.DecodeRuneInString(n.source.lines[line][at:])
		at += size
	}
	next := func() byte { // the byte there; a line's end is a line feed
		if line >= len(n.source.lines) {
			return 0
		}
		if at < len(n.source.lines[line]) {
			return n.source.lines[line][at]
		}
		return '\n'
	}
	step := func() {
		if at++; at > len(n.source.lines[line]) {
			line, at = line+1, 0
		}
	}
	isSpace := func(c byte) bool { return c == ' ' || c == '\n' || c == '\t' }
	switch next() {
	case '\'', '"':
		step()
	case '|', '>':
		for next() != '\n' && next() != 0 {
			step()
		}
	}
	for i := 0; i < len(n.text); i++ {
		if isSpace(n.text[i]) {
			if i == offset {
				break
			}
			continue
		}
		for next() != 0 && isSpace(next()) {
			step()
		}
		if i == offset {
			break
		}
		if next() != n.text[i] {
			return n.place
		}
		step()
	}
	if line >= len(n.source.lines) {
		return n.place
	}
	return place{n.file, line + 1, utf8.RuneCountInString(n.source.lines[line][:at]) + 1}
}
