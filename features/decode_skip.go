package features

const tooDeep = "nested deeper than 64"

// skip steps over a value of any kind, which must be JSON. Texts in it need not be UTF-8.
func skip(b []byte, i int) (next int, why string) {
	var objects uint64 // one bit per open container: 1 for an object
	depth := 0
	for {
		// A value begins here.
		if i == len(b) {
			return i, "no value where one should be"
		}
		opened := false
		switch c := b[i]; {
		case c == '"':
			i, why = skipString(b, i+1)
		case isDigit(c) || c == '-':
			var n decimal
			i, why = scanNumber(b, i, &n)
		case c == 't':
			i, why = word(b, i, "true")
		case c == 'f':
			i, why = word(b, i, "false")
		case c == 'n':
			i, why = word(b, i, "null")
		case c == '{' || c == '[':
			if depth++; depth == maxDepth { // the record itself is one
				return i, tooDeep
			}
			objects <<= 1
			if c == '{' {
				objects |= 1
			}
			opened = true
			i = space(b, i+1)
		default:
			return i, "neither a value nor null"
		}
		if why != "" {
			return i, why
		}
		// Behind a value, or within what was just opened: close what ends here, and go to the next value.
		for {
			if depth == 0 {
				return i, ""
			}
			if i = space(b, i); i == len(b) {
				return i, "an object or array does not end"
			}
			object := objects&1 != 0
			if object && b[i] == '}' || !object && b[i] == ']' {
				objects >>= 1
				depth--
				opened = false
				i++
				continue
			}
			if !opened {
				if b[i] != ',' {
					return i, "no comma between values"
				}
				i = space(b, i+1)
			}
			if object {
				if i, why = skipName(b, i); why != "" {
					return i, why
				}
			}
			break
		}
	}
}

// skipName steps over the name of a member and its colon.
func skipName(b []byte, i int) (next int, why string) {
	if i == len(b) || b[i] != '"' {
		return i, "no name where a member should begin"
	}
	if i, why = skipString(b, i+1); why != "" {
		return i, why
	}
	if i = space(b, i); i == len(b) || b[i] != ':' {
		return i, "no colon behind a name"
	}
	return space(b, i+1), ""
}

// skipString steps over a string from behind its opening quote.
func skipString(b []byte, i int) (next int, why string) {
	for {
		end, traits := scanString(b, i)
		if end == len(b) || b[end] < ' ' {
			return end, "a string does not end, or has a raw control character"
		}
		if traits&escaped == 0 {
			return end + 1, ""
		}
		if i = end + 1; i == len(b) {
			return i, "a string does not end"
		}
		if b[i] != 'u' {
			if unescaped(b[i]) == 0 {
				return i, "an unknown escape"
			}
			i++
			continue
		}
		if _, ok := hex4(b, i+1); !ok {
			return i, "an unknown escape"
		}
		i += 5
	}
}
