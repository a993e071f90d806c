package features

import (
	"slices"
	"strings"

	"millrace/windows"
)

// Where is a parsed and checked filter: and, or, not and parentheses over comparisons of a declared field with a literal of
// its type, `in (…)`, `not in (…)`, `is null` and `is not null`.
//
//	country in ('CH', 'LI') and (amount >= 10 or vip) and coupon is not null
//
// It is two-valued, so that it means the same in Go and in SQL: every comparison with null is false, those with != and
// `not in` too, and `not` turns false into true. For a null x, `x != 1` is false and `not x = 1` is true. Texts compare by
// their bytes, and false < true does not exist: a bool is only equal or not.
type Where struct {
	root Node
	text string
}

// Node is a filter's expression: one of And, Or, Not, Compare, In and IsNull.
//
// A filter comes in one canonical form. Within And and Or there are at least two nodes, none of the same kind, in the order
// of their texts and none twice; no Not holds a Not; an In has at least two values, in order and none twice.
type Node interface {
	eval() windows.Predicate
	appendText(dst []byte) []byte
	binds() int // how tightly the text holds together
}

// And is true where all of its nodes are.
type And struct{ Nodes []Node }

// Or is true where one of its nodes is.
type Or struct{ Nodes []Node }

// Not is true where its node is false.
type Not struct{ Node Node }

// Compare is true where the field is not null and compares with the value as Op says. In SQL it must not become NULL:
// `ifNull(field = value, false)`.
type Compare struct {
	Field Operand
	Op    CompareOp
	Value windows.Value // of the field's type
}

// In is true where the field is not null and is one of the values; with Negated, where it is not null and none of them. In SQL
// it must not become NULL: `ifNull(field NOT IN (…), false)`.
type In struct {
	Field   Operand
	Negated bool
	Values  []windows.Value // of the field's type, ascending
}

// IsNull is true where the field is missing or null.
type IsNull struct{ Field Operand }

// Operand is a declared field in a filter: its index in a row, its name and its type.
type Operand struct {
	Index int
	Name  string
	Type  windows.Type
}

// CompareOp is how a field compares with a literal.
type CompareOp string

// The comparisons, as they are written in canonical text; SQL knows them by the same names.
const (
	Equal          CompareOp = "="
	NotEqual       CompareOp = "!="
	Less           CompareOp = "<"
	LessOrEqual    CompareOp = "<="
	Greater        CompareOp = ">"
	GreaterOrEqual CompareOp = ">="
)

func newWhere(root Node) *Where { return &Where{root, string(root.appendText(nil))} }

// Root returns the expression. It must not be changed.
func (w *Where) Root() Node { return w.root }

// Predicate returns the filter as a function of a row of the source's declared fields.
func (w *Where) Predicate() windows.Predicate { return w.root.eval() }

// String returns the canonical text: the same for filters that differ only in spelling. It parses back to the same filter.
func (w *Where) String() string { return w.text }

// combine returns the canonical And or Or of nodes.
func combine(nodes []Node, and bool) Node {
	var flat []Node
	for _, n := range nodes {
		switch n := n.(type) {
		case And:
			if and {
				flat = append(flat, n.Nodes...)
				continue
			}
		case Or:
			if !and {
				flat = append(flat, n.Nodes...)
				continue
			}
		}
		flat = append(flat, n)
	}
	texts := make(map[string]Node, len(flat))
	for _, n := range flat {
		texts[string(n.appendText(nil))] = n
	}
	flat = flat[:0]
	for _, text := range sortedKeys(texts) {
		flat = append(flat, texts[text])
	}
	switch {
	case len(flat) == 1:
		return flat[0]
	case and:
		return And{flat}
	default:
		return Or{flat}
	}
}

// negate returns the canonical Not of a node.
func negate(n Node) Node {
	if not, ok := n.(Not); ok {
		return not.Node
	}
	return Not{n}
}

// among returns the canonical In of a field.
func among(field Operand, values []windows.Value, negated bool) Node {
	slices.SortFunc(values, compareValues)
	values = slices.CompactFunc(values, func(a, b windows.Value) bool { return compareValues(a, b) == 0 })
	switch {
	case len(values) > 1:
		return In{field, negated, values}
	case negated:
		return compare(field, NotEqual, values[0])
	default:
		return compare(field, Equal, values[0])
	}
}

// compare returns the canonical Compare: a bool that is not one of two is the other, for null is neither.
func compare(field Operand, op CompareOp, v windows.Value) Node {
	if v.Kind == windows.Boolean && op == NotEqual {
		op, v = Equal, windows.BoolValue(!v.Bool())
	}
	return Compare{field, op, v}
}

// compareValues orders values of one kind.
func compareValues(a, b windows.Value) int {
	switch a.Kind {
	case windows.Integer:
		return order(a.Int(), b.Int())
	case windows.Float:
		return order(a.Float(), b.Float())
	case windows.Text:
		return strings.Compare(a.Str, b.Str)
	default:
		return order(a.Bits, b.Bits)
	}
}

func order[T int64 | uint64 | float64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return +1
	default:
		return 0
	}
}
