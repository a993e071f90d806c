package engine

import (
	"iter"
	"strings"
)

// statement is SQL text, of which only as much is understood as HTTP needs: where the data of an INSERT begins, in which
// form the answer is asked for, and whether it changes its session.
type statement string

// word is a bare or quoted word outside brackets: s[start:end].
type word struct {
	text       string // in upper case; quoted words as they are
	start, end int
}

// words yields the words outside of brackets, texts and comments; names with dots are one word.
func (s statement) words() iter.Seq[word] {
	return func(yield func(word) bool) {
		depth := 0
		for i := 0; i < len(s); {
			start := i
			switch c := s[i]; {
			case c == '(' || c == '[' || c == '{':
				depth++
				i++
			case c == ')' || c == ']' || c == '}':
				depth--
				i++
			case strings.HasPrefix(string(s[i:]), "--"):
				i = s.after(i+2, "\n")
			case strings.HasPrefix(string(s[i:]), "/*"):
				i = s.after(i+2, "*/")
			case c == '\'':
				i = s.afterQuoted(i)
			case inWord(c):
				for i < len(s) && inWord(s[i]) {
					if s[i] == '`' || s[i] == '"' {
						i = s.afterQuoted(i)
					} else {
						i++
					}
				}
				if depth == 0 && !yield(word{strings.ToUpper(string(s[start:i])), start, i}) {
					return
				}
			default:
				i++
			}
		}
	}
}

func inWord(c byte) bool {
	return c == '_' || c == '.' || c == '`' || c == '"' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= 0x80
}

func (s statement) after(from int, mark string) int {
	if i := strings.Index(string(s[from:]), mark); i >= 0 {
		return from + i + len(mark)
	}
	return len(s)
}

// afterQuoted returns where the quoted text that begins at i ends; a doubled quote reads as two texts, which does no harm.
func (s statement) afterQuoted(i int) int {
	for quote, j := s[i], i+1; j < len(s); j++ {
		switch s[j] {
		case '\\':
			j++
		case quote:
			return j + 1
		}
	}
	return len(s)
}

// insertOfData takes an INSERT apart whose data follows it, as the library wants it: without FORMAT clause and data.
func (s statement) insertOfData() (insert statement, format string, data string, ok bool) {
	var before word
	n := 0
	for w := range s.words() {
		switch {
		case n == 0 && w.text != "INSERT", n > 2 && (w.text == "SELECT" || w.text == "WITH" || w.text == "VALUES" || w.text == "INFILE"):
			return "", "", "", false
		case n > 3 && before.text == "FORMAT": // the words before are INSERT, INTO and the table, which may have that name
			if strings.EqualFold(w.text, "values") {
				return "", "", "", false
			}
			return s[:before.start], string(s[w.start:w.end]), afterFormat(string(s[w.end:])), true
		}
		before = w
		n++
	}
	return "", "", "", false
}

// afterFormat skips what may stand between the name of a format and its data: blanks, a semicolon and one line break.
func afterFormat(rest string) string {
	rest = strings.TrimLeft(rest, " \t\f")
	rest = strings.TrimPrefix(rest, ";")
	rest = strings.TrimLeft(rest, " \t\f")
	rest = strings.TrimPrefix(rest, "\r")
	return strings.TrimPrefix(rest, "\n")
}

// format returns the format that the statement itself asks its answer in, or "".
func (s statement) format() string {
	var last [2]word // FORMAT and the name
	for w := range s.words() {
		switch {
		case last[0].text == "FORMAT" && last[1].text == "":
			last[1] = w
		case w.text == "FORMAT":
			last = [2]word{w}
		case w.text != "SETTINGS" && last[1].text != "" && strings.Trim(string(s[last[1].end:w.start]), " \t\r\n;") == "":
			last = [2]word{} // a column of that name
		}
	}
	if last[1].text == "" {
		return ""
	}
	return string(s[last[1].start:last[1].end])
}

// changesSession reports whether the statement leaves something behind on its connection.
func (s statement) changesSession() bool {
	n := 0
	for w := range s.words() {
		switch {
		case n == 0 && (w.text == "SET" || w.text == "USE"):
			return true
		case n == 0 && w.text != "CREATE":
			return false
		case n > 0 && (w.text == "TEMPORARY" || w.text == "TEMP"):
			return true
		case n > 3:
			return false
		}
		n++
	}
	return false
}

// empty reports whether there is nothing but blanks and comments.
func (s statement) empty() bool {
	for range s.words() {
		return false
	}
	return strings.TrimSpace(string(s)) == ""
}

// streamed reports whether the answer in a format is the same put together from several chunks: every chunk is written with
// the beginning and the end that its format has.
func streamed(format string) bool {
	switch strings.ToLower(format) {
	case "native", "tabseparated", "tsv", "csv", "jsoneachrow", "jsonlines", "ndjson", "rowbinary":
		return true
	}
	return false
}
