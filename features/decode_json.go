package features

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"

	"millrace/windows"
)

// The scanner reads what was declared and steps over the rest. It is written by hand because decoding decides how many events
// a core folds, and because admission needs what general decoders leave open: correctly rounded floats, surrogates
// in pairs, a field that stands twice, a bound on depth, errors that show no value.
//
// Its functions take the record and an index, and return the index behind what they read. Those that can fail return
// why as well, "" for success; the index is then where.

const maxDepth = 64

// object reads the whole record.
func (d *Decoder) object(b []byte, row []windows.Value) *Rejection {
	i := space(b, 0)
	if i == len(b) || b[i] != '{' {
		return syntax(i, "not a JSON object")
	}
	i = space(b, i+1)
	if i < len(b) && b[i] == '}' {
		return d.end(b, i+1)
	}
	for expected := 0; ; {
		var field int
		var why string
		if expected < len(d.fields) && startsWith(b[i:], d.fields[expected].quoted) {
			field, i = expected, i+len(d.fields[expected].quoted)
		} else if field, i, why = d.name(b, i); why != "" {
			return syntax(i, why)
		}
		if i == len(b) || b[i] != ':' {
			if i = space(b, i); i == len(b) || b[i] != ':' {
				return syntax(i, "no colon behind a name")
			}
		}
		i = space(b, i+1)
		if field < 0 {
			if i, why = skip(b, i); why != "" {
				return syntax(i, why)
			}
		} else {
			expected = field + 1
			word, bit := &d.seen[field>>6], uint64(1)<<(field&63)
			if *word&bit != 0 {
				return reject(ReasonDuplicateField, d.fields[field].name, "stands twice, the second time before offset %d", i)
			}
			*word |= bit
			var r *Rejection
			if i, r = d.value(b, i, &d.fields[field], &row[field]); r != nil {
				return r
			}
		}
		if i = space(b, i); i == len(b) {
			return syntax(i, "the object does not end")
		}
		switch b[i] {
		case ',':
			i = space(b, i+1)
		case '}':
			return d.end(b, i+1)
		default:
			return syntax(i, "neither comma nor brace behind a value")
		}
	}
}

func (d *Decoder) end(b []byte, i int) *Rejection {
	if i = space(b, i); i != len(b) {
		return syntax(i, "bytes behind the object")
	}
	return nil
}

func syntax(at int, why string) *Rejection {
	reason := ReasonUndecodable
	if why == tooDeep {
		reason = ReasonTooDeep
	}
	return reject(reason, "", "%s, at offset %d", why, at)
}

// startsWith is false for an empty prefix.
func startsWith(b []byte, prefix string) bool {
	return len(prefix) > 0 && len(b) >= len(prefix) && string(b[:len(prefix)]) == prefix
}

func space(b []byte, i int) int {
	for i < len(b) && b[i] <= ' ' && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// name reads the name of a member and finds its field, -1 if it is not declared.
func (d *Decoder) name(b []byte, i int) (field, next int, why string) {
	if i == len(b) || b[i] != '"' {
		return -1, i, "no name where a member should begin"
	}
	s, next, why := d.text(b, i+1)
	if why != "" {
		return -1, next, why
	}
	if d.byName != nil {
		if field, ok := d.byName[s]; ok {
			return field, next, ""
		}
		return -1, next, ""
	}
	for i := range d.fields {
		if d.fields[i].name == s {
			return i, next, ""
		}
	}
	return -1, next, ""
}

// value reads a declared field.
func (d *Decoder) value(b []byte, i int, f *decodedField, v *windows.Value) (int, *Rejection) {
	if i == len(b) {
		return i, syntax(i, "no value behind a colon")
	}
	switch c := b[i]; {
	case c == 'n':
		next, why := word(b, i, "null")
		if why != "" {
			return next, syntax(next, why)
		}
		return next, nil
	case c == '"' && f.typ == windows.String:
		s, next, why := d.text(b, i+1)
		if why != "" {
			return next, syntax(next, why)
		}
		if len(s) > f.maxBytes {
			return next, reject(ReasonTooLong, f.name, "%d bytes, more than %d", len(s), f.maxBytes)
		}
		v.Kind, v.Str = windows.Text, s
		return next, nil
	case (isDigit(c) || c == '-') && (f.typ == windows.Int64 || f.typ == windows.Float64):
		return number(b, i, f, v)
	case c == 't' && f.typ == windows.Bool:
		next, why := word(b, i, "true")
		if why != "" {
			return next, syntax(next, why)
		}
		*v = windows.BoolValue(true)
		return next, nil
	case c == 'f' && f.typ == windows.Bool:
		next, why := word(b, i, "false")
		if why != "" {
			return next, syntax(next, why)
		}
		*v = windows.BoolValue(false)
		return next, nil
	}
	next, why := skip(b, i)
	if why != "" {
		return next, syntax(next, why)
	}
	return next, reject(ReasonWrongType, f.name, "%s where %s is declared", kindOf(b[i]), f.typ)
}

func kindOf(c byte) string {
	switch c {
	case '"':
		return "a string"
	case 't', 'f':
		return "a bool"
	case '{':
		return "an object"
	case '[':
		return "an array"
	default:
		return "a number"
	}
}

func word(b []byte, i int, want string) (next int, why string) {
	if !startsWith(b[i:], want) {
		return i, "neither a value nor null"
	}
	return i + len(want), ""
}

// What scanString met within a string.
const (
	escaped  uint64 = 1
	nonASCII uint64 = 0x8080808080808080
)

// scanString finds the end of a string from its first byte on: the index of the quote, or of what is not allowed. It stops
// at the first backslash too; traits then has escaped. It has a bit of nonASCII if bytes beyond ASCII came before.
func scanString(b []byte, i int) (end int, traits uint64) {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	for i+8 <= len(b) {
		x := binary.LittleEndian.Uint64(b[i:])
		quote, backslash := x^('"'*ones), x^('\\'*ones)
		// The lowest bit that is set marks the first such byte; higher ones may be carries.
		stop := ((quote-ones)&^quote | (backslash-ones)&^backslash | (x-' '*ones)&^x) & tops
		if stop == 0 {
			traits |= x & nonASCII
			i += 8
			continue
		}
		n := bits.TrailingZeros64(stop) &^ 7
		traits |= x & nonASCII & (1<<n - 1)
		i += n / 8
		if b[i] == '\\' {
			traits |= escaped
		}
		return i, traits
	}
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case c == '\\':
			return i, traits | escaped
		case c == '"' || c < ' ':
			return i, traits
		case c >= utf8.RuneSelf:
			traits |= nonASCII
		}
	}
	return i, traits
}

// text reads a string from behind its opening quote. It aliases the record, or the scratch buffer if there were escapes.
func (d *Decoder) text(b []byte, i int) (s string, next int, why string) {
	end, traits := scanString(b, i)
	if traits&escaped != 0 {
		return d.unescape(b, i)
	}
	if end == len(b) || b[end] != '"' {
		return "", end, "a string does not end, or has a raw control character"
	}
	raw := b[i:end]
	if traits != 0 && !utf8.Valid(raw) {
		return "", i, "a string is not UTF-8"
	}
	return unsafe.String(unsafe.SliceData(raw), len(raw)), end + 1, "" // a copy for each text would be the cost of the fold
}

// unescape reads the same, with escapes.
func (d *Decoder) unescape(b []byte, i int) (s string, next int, why string) {
	start := len(d.scratch) // texts before it stay good where append moves the buffer: they keep the old one
	for {
		end, traits := scanString(b, i)
		if end == len(b) || b[end] < ' ' {
			return "", end, "a string does not end, or has a raw control character"
		}
		if traits&nonASCII != 0 && !utf8.Valid(b[i:end]) {
			return "", i, "a string is not UTF-8"
		}
		d.scratch = append(d.scratch, b[i:end]...)
		i = end + 1
		if traits&escaped == 0 {
			text := d.scratch[start:]
			return unsafe.String(unsafe.SliceData(text), len(text)), i, ""
		}
		if i == len(b) {
			return "", i, "a string does not end"
		}
		c := b[i]
		i++
		if c != 'u' {
			plain := unescaped(c)
			if plain == 0 {
				return "", i, "an unknown escape"
			}
			d.scratch = append(d.scratch, plain)
			continue
		}
		r, ok := hex4(b, i)
		if !ok {
			return "", i, "an unknown escape"
		}
		i += 4
		if utf16.IsSurrogate(r) {
			if !startsWith(b[i:], `\u`) {
				return "", i, "half of an escaped surrogate pair"
			}
			low, ok := hex4(b, i+2)
			if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
				return "", i, "half of an escaped surrogate pair"
			}
			i += 6
		}
		d.scratch = utf8.AppendRune(d.scratch, r)
	}
}

// unescaped returns what a backslash and c stand for, 0 if it is nothing.
func unescaped(c byte) byte {
	switch c {
	case '"', '\\', '/':
		return c
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return 0
}

func hex4(b []byte, i int) (rune, bool) {
	if i+4 > len(b) {
		return 0, false
	}
	var r rune
	for _, c := range b[i : i+4] {
		switch {
		case isDigit(c):
			r = r<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	return r, true
}
