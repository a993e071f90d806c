package serving

import (
	"fmt"
	"strings"
)

// requestError is what the caller can mend: its status, Feast's class for it, our own code, and what to do.
type requestError struct {
	status  int
	class   string
	code    string
	message string
}

func (e requestError) Error() string { return e.message }

func badRequest(format string, args ...any) error {
	return requestError{422, "FeastError", "BAD_REQUEST", fmt.Sprintf(format, args...)}
}

// shapeError is a body of the wrong shape; Feast's server tells it in a form of its own.
type shapeError struct {
	loc  []any  // where: "body", names of members, places in arrays
	kind string // Feast's word for it
	msg  string
}

func (e shapeError) Error() string { return e.msg }

// pointer says where as a JSON pointer into the body.
func (e shapeError) pointer() string {
	var b strings.Builder
	b.WriteByte('#')
	for i, part := range e.loc {
		if i > 0 || part != "body" {
			b.WriteByte('/')
			b.WriteString(strings.NewReplacer("~", "~0", "/", "~1").Replace(fmt.Sprint(part)))
		}
	}
	return b.String()
}

// unavailableError is what passes: the caller should come again.
type unavailableError struct{ err error }

func (e unavailableError) Error() string { return e.err.Error() }
func (e unavailableError) Unwrap() error { return e.err }
