package features

import (
	"slices"
	"strings"
	"unicode/utf8"
)

type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenName
	tokenKeyword
	tokenInteger
	tokenNumber // with a point or an exponent
	tokenString
	tokenSymbol // comparisons, parentheses, comma
)

// token is a word of a filter. text is what it means: a name without backquotes, a string without quotes and escapes, a
// keyword in lower case, a number as written.
type token struct {
	kind   tokenKind
	offset int
	text   string
}

func (t token) is(kind tokenKind, text string) bool { return t.kind == kind && t.text == text }

// String names the token in errors.
func (t token) String() string {
	switch t.kind {
	case tokenEnd:
		return "the end"
	case tokenString:
		return "a text"
	case tokenInteger, tokenNumber:
		return "a number"
	default:
		return "`" + t.text + "`"
	}
}

func isKeyword(name string) bool {
	return slices.Contains([]string{"and", "or", "not", "in", "is", "null", "true", "false"}, strings.ToLower(name))
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }

// lexer cuts a filter into tokens.
type lexer struct {
	text string
	at   int
}

func (l *lexer) peek() byte {
	if l.at < len(l.text) {
		return l.text[l.at]
	}
	return 0
}

func (l *lexer) next() (token, *WhereError) {
	for strings.IndexByte(" \t\r\n", l.peek()) >= 0 && l.at < len(l.text) {
		l.at++
	}
	start := l.at
	if start == len(l.text) {
		return token{tokenEnd, start, ""}, nil
	}
	c := l.text[start]
	switch {
	case isLetter(c):
		for isLetter(l.peek()) || isDigit(l.peek()) {
			l.at++
		}
		word := l.text[start:l.at]
		if isKeyword(word) {
			return token{tokenKeyword, start, strings.ToLower(word)}, nil
		}
		return token{tokenName, start, word}, nil
	case isDigit(c) || c == '-':
		return l.number()
	case c == '\'' || c == '"':
		return l.string(c)
	case c == '`':
		return l.quotedName()
	}
	for _, symbol := range []string{"==", "!=", "<>", "<=", ">=", "=", "<", ">", "(", ")", ","} {
		if strings.HasPrefix(l.text[start:], symbol) {
			l.at += len(symbol)
			return token{tokenSymbol, start, symbol}, nil
		}
	}
	switch c {
	case '&':
		return token{}, whereErrorf(start, "`&` means nothing here: write `and`")
	case '|':
		return token{}, whereErrorf(start, "`|` means nothing here: write `or`")
	case '!':
		return token{}, whereErrorf(start, "`!` means nothing here: write `not`")
	}
	r, _ := utf8.DecodeRuneInString(l.text[start:])
	return token{}, whereErrorf(start, "%q means nothing here: put text between quotes and an unusual field name between backquotes", r)
}

func (l *lexer) digits() bool {
	start := l.at
	for isDigit(l.peek()) {
		l.at++
	}
	return l.at > start
}

func (l *lexer) number() (token, *WhereError) {
	start, kind := l.at, tokenInteger
	if l.peek() == '-' {
		l.at++
	}
	ok := l.digits()
	if ok && l.peek() == '.' {
		l.at++
		ok, kind = l.digits(), tokenNumber
	}
	if c := l.peek(); ok && (c == 'e' || c == 'E') {
		l.at++
		if c := l.peek(); c == '+' || c == '-' {
			l.at++
		}
		ok, kind = l.digits(), tokenNumber
	}
	if c := l.peek(); !ok || isLetter(c) || isDigit(c) || c == '.' {
		return token{}, whereErrorf(start, "not a number: write it like 12, -0.5 or 1e9, and text between quotes")
	}
	return token{kind, start, l.text[start:l.at]}, nil
}

func (l *lexer) quotedName() (token, *WhereError) {
	start := l.at
	var name strings.Builder
	for l.at++; l.at < len(l.text); l.at++ {
		if l.peek() == '`' {
			l.at++
			if l.peek() != '`' {
				return token{tokenName, start, name.String()}, nil
			}
		}
		name.WriteByte(l.peek())
	}
	return token{}, whereErrorf(start, "the name has no closing backquote")
}

func (l *lexer) string(quote byte) (token, *WhereError) {
	start := l.at
	var s strings.Builder
	for l.at++; l.at < len(l.text); l.at++ {
		c := l.peek()
		if c == quote {
			l.at++
			return token{tokenString, start, s.String()}, nil
		}
		if c != '\\' {
			s.WriteByte(c)
			continue
		}
		l.at++
		switch c := l.peek(); c {
		case '\\', '\'', '"':
			s.WriteByte(c)
		case 'n':
			s.WriteByte('\n')
		case 'r':
			s.WriteByte('\r')
		case 't':
			s.WriteByte('\t')
		case 'u':
			r, ok := l.escapedRune()
			if !ok {
				return token{}, whereErrorf(l.at-1, `\u takes four hexadecimal digits of a character: \u00e9; write rarer ones as they are`)
			}
			s.WriteRune(r)
		default:
			return token{}, whereErrorf(l.at-1, `unknown escape: there are \\ \' \" \n \r \t \u00e9; a backslash itself is \\`)
		}
	}
	return token{}, whereErrorf(start, "the text has no closing quote")
}

// escapedRune reads the four digits after \u and stops at the last.
func (l *lexer) escapedRune() (rune, bool) {
	var r rune
	for range 4 {
		l.at++
		c := l.peek()
		switch {
		case isDigit(c):
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, utf8.ValidRune(r)
}
