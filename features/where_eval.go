package features

import (
	"slices"

	"millrace/windows"
)

// A null has no kind that a comparison accepts, so that comparing kinds first makes every comparison with null false.

func (n And) eval() windows.Predicate {
	all := evalAll(n.Nodes)
	return func(row []windows.Value) bool {
		for _, p := range all {
			if !p(row) {
				return false
			}
		}
		return true
	}
}

func (n Or) eval() windows.Predicate {
	all := evalAll(n.Nodes)
	return func(row []windows.Value) bool {
		for _, p := range all {
			if p(row) {
				return true
			}
		}
		return false
	}
}

func evalAll(nodes []Node) []windows.Predicate {
	all := make([]windows.Predicate, len(nodes))
	for i, n := range nodes {
		all[i] = n.eval()
	}
	return all
}

func (n Not) eval() windows.Predicate {
	p := n.Node.eval()
	return func(row []windows.Value) bool { return !p(row) }
}

func (n IsNull) eval() windows.Predicate {
	i := n.Field.Index
	return func(row []windows.Value) bool { return row[i].Kind == windows.Null }
}

func (n Compare) eval() windows.Predicate {
	i, want := n.Field.Index, n.Value
	switch want.Kind {
	case windows.Integer:
		return compareWith(n.Op, i, windows.Integer, want.Int(), windows.Value.Int)
	case windows.Float:
		return compareWith(n.Op, i, windows.Float, want.Float(), windows.Value.Float)
	case windows.Text:
		return compareWith(n.Op, i, windows.Text, want.Str, func(v windows.Value) string { return v.Str })
	case windows.Boolean:
		same := n.Op == Equal
		return func(row []windows.Value) bool {
			return row[i].Kind == windows.Boolean && (row[i].Bits == want.Bits) == same
		}
	default:
		panic("BUG: comparison with " + want.String())
	}
}

func compareWith[T int64 | float64 | string](
	op CompareOp, i int, kind windows.Kind, want T, get func(windows.Value) T,
) windows.Predicate {
	switch op {
	case Equal:
		return func(row []windows.Value) bool { return row[i].Kind == kind && get(row[i]) == want }
	case NotEqual:
		return func(row []windows.Value) bool { return row[i].Kind == kind && get(row[i]) != want }
	case Less:
		return func(row []windows.Value) bool { return row[i].Kind == kind && get(row[i]) < want }
	case LessOrEqual:
		return func(row []windows.Value) bool { return row[i].Kind == kind && get(row[i]) <= want }
	case Greater:
		return func(row []windows.Value) bool { return row[i].Kind == kind && get(row[i]) > want }
	case GreaterOrEqual:
		return func(row []windows.Value) bool { return row[i].Kind == kind && get(row[i]) >= want }
	}
	panic("BUG: comparison " + string(op))
}

func (n In) eval() windows.Predicate {
	i, kind, values, wanted := n.Field.Index, n.Values[0].Kind, n.Values, !n.Negated
	return func(row []windows.Value) bool {
		if row[i].Kind != kind {
			return false
		}
		_, found := slices.BinarySearchFunc(values, row[i], compareValues)
		return found == wanted
	}
}
