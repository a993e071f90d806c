package features

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"millrace/windows"
)

// The limits of a filter. People write shorter ones; what a program generates should rather be a field.
const (
	maxWhere      = 4096 // bytes
	maxWhereDepth = 64   // parentheses and nots inside each other
)

// WhereError is a mistake in a filter: where it is, as a byte offset into the text, and what to write in its place.
type WhereError struct {
	Offset int
	Msg    string
}

func (e *WhereError) Error() string { return fmt.Sprintf("offset %d: %s", e.Offset, e.Msg) }

func whereErrorf(offset int, format string, args ...any) *WhereError {
	return &WhereError{offset, fmt.Sprintf(format, args...)}
}

// ParseWhere parses text against the declared fields. A mistake is a *WhereError; where the text reads well but names unknown
// fields or compares a field with a literal of another type, all such mistakes come joined, in their order.
func ParseWhere(text string, fields []Field) (*Where, error) {
	if len(text) > maxWhere {
		return nil, whereErrorf(maxWhere, "the filter has %d bytes, more than %d: let the producer compute a field to filter by", len(text), maxWhere)
	}
	if !utf8.ValidString(text) {
		return nil, whereErrorf(0, "the filter is not UTF-8: save the file in that encoding")
	}
	p := &whereParser{lexer: lexer{text: text}, fields: fields}
	root, err := p.parse()
	if err != nil {
		return nil, err
	}
	switch len(p.mistakes) {
	case 0:
		return newWhere(root), nil
	case 1:
		return nil, p.mistakes[0]
	}
	slices.SortStableFunc(p.mistakes, func(a, b *WhereError) int { return a.Offset - b.Offset })
	joined := make([]error, len(p.mistakes))
	for i, m := range p.mistakes {
		joined[i] = m
	}
	return nil, errors.Join(joined...)
}

type whereParser struct {
	lexer    lexer
	fields   []Field
	token    token // the next one
	depth    int
	mistakes []*WhereError // of meaning: parsing goes on
}

func (p *whereParser) parse() (Node, error) {
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.token.kind == tokenEnd {
		return nil, whereErrorf(0, "the filter is empty: leave it out to count every event")
	}
	root, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.token.kind != tokenEnd {
		return nil, whereErrorf(p.token.offset, "%s after a complete comparison: join comparisons by `and` or `or`", p.token)
	}
	return root, nil
}

// advance reads the next token. Its result is an error only if there is one: no typed nil.
func (p *whereParser) advance() error {
	t, err := p.lexer.next()
	if err != nil {
		return err
	}
	p.token = t
	return nil
}

func (p *whereParser) mistake(offset int, format string, args ...any) {
	p.mistakes = append(p.mistakes, whereErrorf(offset, format, args...))
}

func (p *whereParser) or() (Node, error)  { return p.list("or", p.and) }
func (p *whereParser) and() (Node, error) { return p.list("and", p.not) }

func (p *whereParser) list(word string, operand func() (Node, error)) (Node, error) {
	var nodes []Node
	for {
		n, err := operand()
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
		if !p.token.is(tokenKeyword, word) {
			return combine(nodes, word == "and"), nil
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
	}
}

func (p *whereParser) not() (Node, error) {
	not := p.token.is(tokenKeyword, "not")
	if !not && !p.token.is(tokenSymbol, "(") {
		return p.comparison()
	}
	if p.depth == maxWhereDepth {
		return nil, whereErrorf(p.token.offset, "more than %d parentheses and nots inside each other: write the filter flatter", maxWhereDepth)
	}
	p.depth++
	defer func() { p.depth-- }()
	open := p.token.offset
	if err := p.advance(); err != nil {
		return nil, err
	}
	if not {
		n, err := p.not()
		if err != nil {
			return nil, err
		}
		return negate(n), nil
	}
	n, err := p.or()
	if err != nil {
		return nil, err
	}
	if !p.token.is(tokenSymbol, ")") {
		return nil, whereErrorf(p.token.offset, "%s where the parenthesis at offset %d should close", p.token, open)
	}
	return n, p.advance()
}

func (p *whereParser) comparison() (Node, error) {
	name := p.token
	if name.kind != tokenName {
		return nil, whereErrorf(name.offset, "%s where a field should stand: a comparison is `field = literal`, in this order", name)
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	field := p.field(name)
	switch t := p.token; {
	case t.is(tokenKeyword, "is"):
		return p.isNull(field)
	case t.is(tokenKeyword, "in"):
		return p.in(field, false)
	case t.is(tokenKeyword, "not"):
		if err := p.advance(); err != nil {
			return nil, err
		}
		if !p.token.is(tokenKeyword, "in") {
			return nil, whereErrorf(p.token.offset, "%s after `%s not`: write `not in (…)`, or `not` before the field", p.token, field.Name)
		}
		return p.in(field, true)
	case t.kind == tokenSymbol && strings.ContainsAny(t.text, "=<>"):
		return p.compare(field)
	}
	if field.Type != windows.Bool && field.Type != 0 {
		p.mistake(name.offset, "%s is %s: compare it, as in `%s = %s`", field.Name, field.Type, field.Name, exampleOf(field.Type))
	}
	return Compare{field, Equal, windows.BoolValue(true)}, nil
}

// field finds a declared field. An unknown one is a mistake and has no type.
func (p *whereParser) field(name token) Operand {
	if i := slices.IndexFunc(p.fields, func(f Field) bool { return f.Name == name.text }); i >= 0 {
		return Operand{i, name.text, p.fields[i].Type}
	}
	var names []string
	for _, f := range p.fields {
		names = append(names, f.Name)
	}
	remedy := "declare it in the source"
	if near := Nearest(name.text, names); near != "" {
		remedy = fmt.Sprintf("did you mean %s?", near)
	} else if len(names) > 0 && len(names) <= 10 {
		remedy = "the source declares " + strings.Join(names, ", ")
	}
	p.mistake(name.offset, "no field %q: %s", name.text, remedy)
	return Operand{Name: name.text}
}

func (p *whereParser) isNull(field Operand) (Node, error) {
	if err := p.advance(); err != nil {
		return nil, err
	}
	not := p.token.is(tokenKeyword, "not")
	if not {
		if err := p.advance(); err != nil {
			return nil, err
		}
	}
	if !p.token.is(tokenKeyword, "null") {
		return nil, whereErrorf(p.token.offset, "%s after `is`: only `is null` and `is not null` exist, compare values by `=`", p.token)
	}
	var n Node = IsNull{field}
	if not {
		n = Not{n}
	}
	return n, p.advance()
}

func (p *whereParser) in(field Operand, negated bool) (Node, error) {
	if err := p.advance(); err != nil {
		return nil, err
	}
	if !p.token.is(tokenSymbol, "(") {
		return nil, whereErrorf(p.token.offset, "%s after `in`: write the values in parentheses, `in (%s, …)`", p.token, exampleOf(field.Type))
	}
	var values []windows.Value
	for {
		if err := p.advance(); err != nil {
			return nil, err
		}
		v, err := p.literal(field)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
		if p.token.is(tokenSymbol, ")") {
			break
		}
		if !p.token.is(tokenSymbol, ",") {
			return nil, whereErrorf(p.token.offset, "%s within `in (…)`: put a comma between values and `)` behind the last", p.token)
		}
	}
	return among(field, values, negated), p.advance()
}

func (p *whereParser) compare(field Operand) (Node, error) {
	symbol := p.token
	op := CompareOp(symbol.text)
	switch symbol.text {
	case "==":
		op = Equal
	case "<>":
		op = NotEqual
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.token.is(tokenKeyword, "null") {
		is := "is null"
		if op == NotEqual {
			is = "is not null"
		}
		p.mistake(p.token.offset, "no comparison with null is ever true: write `%s %s`", field.Name, is)
		return IsNull{field}, p.advance()
	}
	v, err := p.literal(field)
	if err != nil {
		return nil, err
	}
	if field.Type == windows.Bool && op != Equal && op != NotEqual {
		p.mistake(symbol.offset, "%s is bool, which is only = or !=", field.Name)
	}
	return compare(field, op, v), nil
}

// literal reads a literal of the field's type. One of another type is a mistake, what is no literal at all an error.
func (p *whereParser) literal(field Operand) (windows.Value, error) {
	t := p.token
	var v windows.Value
	var kind string
	ok := false
	switch {
	case t.kind == tokenString:
		v, kind, ok = windows.TextValue(t.text), "a text", field.Type == windows.String
	case t.is(tokenKeyword, "true") || t.is(tokenKeyword, "false"):
		v, kind, ok = windows.BoolValue(t.text == "true"), "a bool", field.Type == windows.Bool
	case t.kind == tokenInteger || t.kind == tokenNumber:
		v, kind, ok = p.number(field)
	case t.is(tokenKeyword, "null"):
		v, kind = windows.TextValue(""), "null (there is `is null`)"
	case t.kind == tokenName:
		return v, whereErrorf(t.offset, "%s where a literal should stand: a field compares with a literal only, and text stands between quotes", t)
	default:
		return v, whereErrorf(t.offset, "%s where a literal should stand, such as %s", t, exampleOf(field.Type))
	}
	if !ok && field.Type != 0 {
		p.mistake(t.offset, "%s is %s and cannot be compared with %s: write it like %s", field.Name, field.Type, kind, exampleOf(field.Type))
	}
	return v, p.advance()
}

func (p *whereParser) number(field Operand) (v windows.Value, kind string, ok bool) {
	if p.token.kind == tokenInteger && field.Type != windows.Float64 {
		i, err := strconv.ParseInt(p.token.text, 10, 64)
		if err != nil {
			return windows.IntValue(0), "an integer beyond 64 bits", false
		}
		return windows.IntValue(i), "an integer", field.Type == windows.Int64
	}
	f, err := strconv.ParseFloat(p.token.text, 64)
	if err != nil {
		return windows.IntValue(0), "a number beyond 1.8e308", false
	}
	return windows.FloatValue(f), "a fraction", field.Type == windows.Float64
}

func exampleOf(t windows.Type) string {
	switch t {
	case windows.Int64:
		return "12"
	case windows.Float64:
		return "0.5"
	case windows.Bool:
		return "true"
	default:
		return "'text'"
	}
}
