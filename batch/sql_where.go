package batch

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"millrace/features"
	"millrace/features/tables"
	"millrace/windows"
)

// literal is a value as a typed constant. Nothing of it but digits comes from the value, a text in hexadecimal, so that no
// value can end its literal, and a float keeps its bits. Parameters of the engine's protocols would need an escaping of their
// own for each protocol, and cannot stand for a list of any length.
func literal(v windows.Value) string {
	switch v.Kind {
	case windows.Integer:
		return "toInt64(" + strconv.FormatInt(v.Int(), 10) + ")"
	case windows.Float:
		return "reinterpretAsFloat64(toUInt64(" + strconv.FormatUint(v.Bits, 10) + "))"
	case windows.Text:
		return text(v.Str)
	case windows.Boolean:
		return strconv.FormatBool(v.Bool())
	case windows.Null, windows.Invalid:
	}
	panic("BUG: literal of " + v.String())
}

// text is a String constant of any bytes.
func text[T string | []byte](s T) string { return "unhex('" + hex.EncodeToString([]byte(s)) + "')" }

// field is the column of a declared field.
func field(name string) string { return tables.Quote(tables.Field(name)) }

// filter is a where as a condition that is true or false, never null.
func filter(n features.Node) string {
	switch n := n.(type) {
	case features.And:
		return filters(n.Nodes, " AND ")
	case features.Or:
		return filters(n.Nodes, " OR ")
	case features.Not:
		return "(NOT " + filter(n.Node) + ")"
	case features.IsNull:
		return "isNull(" + field(n.Field.Name) + ")"
	case features.Compare:
		return fmt.Sprintf("ifNull(%s %s %s, false)", field(n.Field.Name), comparison(n.Op), literal(n.Value))
	case features.In:
		values := make([]string, len(n.Values))
		for i, v := range n.Values {
			values[i] = literal(v)
		}
		in := "IN"
		if n.Negated {
			in = "NOT IN"
		}
		// The engine's IN takes null for a value of its own, which depends on settings: ask for null apart.
		return fmt.Sprintf("(isNotNull(%[1]s) AND ifNull(%[1]s %s (%s), false))", field(n.Field.Name), in, strings.Join(values, ", "))
	}
	panic(fmt.Sprintf("BUG: filter node %T", n))
}

func filters(nodes []features.Node, between string) string {
	parts := make([]string, len(nodes))
	for i, n := range nodes {
		parts[i] = filter(n)
	}
	return "(" + strings.Join(parts, between) + ")"
}

func comparison(op features.CompareOp) string {
	switch op {
	case features.Equal, features.NotEqual, features.Less, features.LessOrEqual, features.Greater, features.GreaterOrEqual:
		return string(op)
	}
	panic("BUG: comparison " + string(op))
}
