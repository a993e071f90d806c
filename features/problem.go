package features

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity says whether definitions with a problem can be used.
type Severity string

// An Error must be mended; with a Warning alone the definitions run, but perhaps not as meant.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Problem is one thing that is wrong with definitions, and how to mend it. Lines and columns start at 1 and count characters; a
// problem of a file as a whole is at its beginning, one of no file has neither.
type Problem struct {
	File     string   `json:"file"`
	Line     int      `json:"line"`
	Column   int      `json:"column"`
	Severity Severity `json:"severity"`
	Message  string   `json:"message"`
	Remedy   string   `json:"remedy"`
}

// String returns file:line:column: message; remedy.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		fmt.Fprintf(&b, "%s:%d:%d: ", p.File, p.Line, p.Column)
	}
	if p.Severity == Warning {
		b.WriteString("warning: ")
	}
	b.WriteString(p.Message)
	if p.Remedy != "" {
		b.WriteString("; " + p.Remedy)
	}
	return b.String()
}

// Problems is everything that is wrong, in the order of files and places.
type Problems []Problem //nolint:errname // most are looked at one by one, and warnings alone are no error

// Error returns one line per problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "\n")
}

// Fatal reports whether a problem is more than a warning.
func (p Problems) Fatal() bool { return p.Count(Error) > 0 }

// Count returns the number of problems of a severity.
func (p Problems) Count(s Severity) int {
	n := 0
	for i := range p {
		if p[i].Severity == s {
			n++
		}
	}
	return n
}

func (p Problems) sort() {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// place is where something stands in a file.
type place struct {
	file         string
	line, column int
}

func (p place) problem(s Severity, message, remedy string) Problem {
	return Problem{File: p.file, Line: p.line, Column: p.column, Severity: s, Message: message, Remedy: remedy}
}
