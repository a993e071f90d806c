package produce

import (
	"bytes"
	"strconv"
	"time"
	"unicode/utf8"
)

// appendCombined appends the JSON object of a line in Apache's combined log format,
//
//	client ident user [time] "request" status bytes "referer" "agent"
//
// with the members client, at (milliseconds since 1970), time (RFC 3339), user, method, path, protocol, status, bytes, referer
// and agent. What the log writes as - is null, and so are referer and agent in the common format, which ends before them. A
// request that is no `method path protocol` is a path alone. A last text that was cut off before its quote is taken as it is.
func appendCombined(dst, line []byte) (value []byte, odd string) {
	client, rest, ok := bytes.Cut(line, []byte(" "))
	if !ok || len(client) == 0 {
		return dst, "no client at its begin"
	}
	_, rest, ok = bytes.Cut(rest, []byte(" ")) // ident: nobody asks for it
	if !ok {
		return dst, "no user behind the client"
	}
	user, rest, ok := bytes.Cut(rest, []byte(" ["))
	if !ok {
		return dst, "no time in brackets"
	}
	when, rest, ok := bytes.Cut(rest, []byte("] "))
	if !ok {
		return dst, "no time in brackets"
	}
	at, err := time.Parse("02/Jan/2006:15:04:05 -0700", string(when))
	if err != nil {
		return dst, "its time is not of the form 17/May/2015:10:05:03 +0000"
	}
	request, rest, ok := quoted(rest)
	if !ok {
		return dst, "no request between quotes"
	}
	status, rest, _ := bytes.Cut(rest, []byte(" "))
	size, rest, _ := bytes.Cut(rest, []byte(" "))
	if !isNumber(status) || string(size) != "-" && !isNumber(size) {
		return dst, "no status and size behind the request"
	}
	referer, agent := []byte("-"), []byte("-")
	if len(rest) > 0 {
		if referer, rest, ok = quoted(rest); !ok {
			return dst, "no referer between quotes"
		}
	}
	if len(rest) > 0 {
		if agent, rest, ok = quoted(rest); !ok {
			return dst, "no agent between quotes"
		}
	}
	if len(rest) > 0 {
		return dst, "something behind the agent"
	}
	method, path, protocol := cutRequest(request)

	dst = appendMember(append(dst, '{'), "client", client)
	dst = strconv.AppendInt(append(dst, `,"at":`...), at.UnixMilli(), 10)
	dst = at.AppendFormat(append(dst, `,"time":"`...), time.RFC3339)
	dst = appendMember(append(dst, `",`...), "user", user)
	dst = appendMember(append(dst, ','), "method", method)
	dst = appendMember(append(dst, ','), "path", path)
	dst = appendMember(append(dst, ','), "protocol", protocol)
	dst = append(append(dst, `,"status":`...), status...)
	dst = append(dst, `,"bytes":`...)
	if string(size) == "-" {
		dst = append(dst, "null"...)
	} else {
		dst = append(dst, size...)
	}
	dst = appendMember(append(dst, ','), "referer", referer)
	dst = appendMember(append(dst, ','), "agent", agent)
	return append(dst, '}'), ""
}

// quoted reads a text between quotes and a space behind it. Within, a backslash keeps a quote from ending it.
func quoted(b []byte) (text, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		return nil, b, false
	}
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return b[1:i], bytes.TrimPrefix(b[i+1:], []byte(" ")), true
		}
	}
	return b[1:], nil, true // cut off
}

// isNumber says whether b is a JSON integer.
func isNumber(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0 && len(b) < 19 && (b[0] != '0' || len(b) == 1)
}

// cutRequest takes a request apart; a part that is not there is "-".
func cutRequest(request []byte) (method, path, protocol []byte) {
	none := []byte("-")
	first, last := bytes.IndexByte(request, ' '), bytes.LastIndexByte(request, ' ')
	switch {
	case first < 0:
		return none, request, none
	case first == last || !bytes.HasPrefix(request[last+1:], []byte("HTTP/")): // HTTP/0.9 names no protocol
		return request[:first], request[first+1:], none
	default:
		return request[:first], request[first+1 : last], request[last+1:]
	}
}

// appendMember appends "name":"text", or null for a text of -.
func appendMember(dst []byte, name string, text []byte) []byte {
	dst = append(append(append(dst, '"'), name...), `":`...)
	if string(text) == "-" {
		return append(dst, "null"...)
	}
	return appendString(dst, unescape(text))
}

// unescape takes back what the server escaped. Bytes that are no UTF-8 stay escaped, as the log has them: there is no text for them.
func unescape(text []byte) []byte {
	if bytes.IndexByte(text, '\\') < 0 {
		return text
	}
	var plain []byte
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c != '\\' || i+1 == len(text) {
			plain = append(plain, c)
			continue
		}
		i++
		switch c := text[i]; c {
		case 'n':
			plain = append(plain, '\n')
		case 'r':
			plain = append(plain, '\r')
		case 't':
			plain = append(plain, '\t')
		case 'b':
			plain = append(plain, '\b')
		case 'v':
			plain = append(plain, '\v')
		case 'f':
			plain = append(plain, '\f')
		case '"', '\\':
			plain = append(plain, c)
		case 'x':
			if i+3 <= len(text) {
				if v, err := strconv.ParseUint(string(text[i+1:i+3]), 16, 8); err == nil {
					plain = append(plain, byte(v))
					i += 2
					continue
				}
			}
			return text
		default:
			return text
		}
	}
	if !utf8.Valid(plain) {
		return text
	}
	return plain
}

// appendString appends text as a JSON string. Bytes that are no UTF-8 go through as they are: the source's rules reject them.
func appendString(dst, text []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}
