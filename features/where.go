package features

import "millrace/windows"

// Where is a parsed and checked filter expression. (placeholder until the parser lands)
type Where struct{ text string }

// ParseWhere parses text against the declared fields.
func ParseWhere(text string, fields []Field) (*Where, error) { return &Where{text}, nil }

// Predicate returns the filter as a function of a row.
func (w *Where) Predicate() windows.Predicate { return nil }

// String returns the canonical text.
func (w *Where) String() string { return w.text }
