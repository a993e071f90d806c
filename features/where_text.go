package features

import (
	"strings"
	"unicode/utf8"

	"millrace/windows"
)

// How tightly the parts of a text hold together, loosest first.
const (
	bindsOr = iota
	bindsAnd
	bindsNot
	bindsComparison
)

func (Or) binds() int      { return bindsOr }
func (And) binds() int     { return bindsAnd }
func (Not) binds() int     { return bindsNot }
func (Compare) binds() int { return bindsComparison }
func (In) binds() int      { return bindsComparison }
func (IsNull) binds() int  { return bindsComparison }

func (n And) appendText(dst []byte) []byte { return appendNodes(dst, n.Nodes, " and ", bindsAnd) }
func (n Or) appendText(dst []byte) []byte  { return appendNodes(dst, n.Nodes, " or ", bindsOr) }

func appendNodes(dst []byte, nodes []Node, between string, binds int) []byte {
	for i, n := range nodes {
		if i > 0 {
			dst = append(dst, between...)
		}
		dst = appendOperand(dst, n, binds)
	}
	return dst
}

// appendOperand puts parentheses around what binds less tightly than its place.
func appendOperand(dst []byte, n Node, binds int) []byte {
	if n.binds() >= binds {
		return n.appendText(dst)
	}
	return append(n.appendText(append(dst, '(')), ')')
}

func (n Not) appendText(dst []byte) []byte {
	if is, ok := n.Node.(IsNull); ok {
		return append(appendName(dst, is.Field.Name), " is not null"...)
	}
	return appendOperand(append(dst, "not "...), n.Node, bindsNot)
}

func (n IsNull) appendText(dst []byte) []byte {
	return append(appendName(dst, n.Field.Name), " is null"...)
}

func (n Compare) appendText(dst []byte) []byte {
	dst = appendName(dst, n.Field.Name)
	if n.Op == Equal && n.Value == windows.BoolValue(true) {
		return dst
	}
	dst = append(append(append(dst, ' '), n.Op...), ' ')
	return appendLiteral(dst, n.Value)
}

func (n In) appendText(dst []byte) []byte {
	dst = appendName(dst, n.Field.Name)
	if n.Negated {
		dst = append(dst, " not"...)
	}
	dst = append(dst, " in ("...)
	for i, v := range n.Values {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = appendLiteral(dst, v)
	}
	return append(dst, ')')
}

// appendName writes a field's name, between backquotes where it would not read back as a name.
func appendName(dst []byte, name string) []byte {
	plain := name != "" && !isKeyword(name)
	for i := range len(name) {
		plain = plain && (isLetter(name[i]) || i > 0 && isDigit(name[i]))
	}
	if plain {
		return append(dst, name...)
	}
	return append(append(append(dst, '`'), strings.ReplaceAll(name, "`", "``")...), '`')
}

func appendLiteral(dst []byte, v windows.Value) []byte {
	switch v.Kind {
	case windows.Float:
		return windows.AppendFloat(dst, v.Float())
	case windows.Text:
		return appendText(dst, v.Str)
	default:
		return append(dst, v.String()...)
	}
}

// appendText writes a text between single quotes.
func appendText(dst []byte, s string) []byte {
	dst = append(dst, '\'')
	for _, r := range s {
		switch {
		case r == '\'' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == '\n':
			dst = append(dst, `\n`...)
		case r == '\r':
			dst = append(dst, `\r`...)
		case r == '\t':
			dst = append(dst, `\t`...)
		case r < ' ' || r == 0x7f:
			const hex = "0123456789abcdef"
			dst = append(dst, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '\'')
}
