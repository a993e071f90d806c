package serving

import (
	"strconv"
	"time"
	"unicode/utf8"

	"millrace/windows"
)

// Answers are appended to a buffer straight from typed values: the same request gives the same bytes, a float always shows
// that it is one, and nothing that is not JSON can come out.

const hexDigits = "0123456789abcdef"

// appendString appends a JSON string. What is not UTF-8 becomes the replacement character.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= 0x20 && c != '"' && c != '\\' {
				i++
				continue
			}
			dst = append(dst, s[start:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			dst = append(append(dst, s[start:i]...), `\ufffd`...)
			start = i + size
		}
		i += size
	}
	return append(append(dst, s[start:]...), '"')
}

// appendValue appends a feature's value.
func appendValue(dst []byte, v windows.Value) []byte {
	switch v.Kind {
	case windows.Integer:
		return strconv.AppendInt(dst, v.Int(), 10)
	case windows.Float:
		return windows.AppendFloat(dst, v.Float())
	case windows.Text:
		return appendString(dst, v.Str)
	case windows.Boolean:
		return strconv.AppendBool(dst, v.Bool())
	case windows.Null, windows.Invalid:
	}
	return append(dst, "null"...)
}

// appendTime appends a time as Feast's clients read it: UTC, with no fraction or three digits of one. Times that the form
// cannot show become the nearest that it can.
func appendTime(dst []byte, t windows.Time) []byte {
	const first, last = -62135596800000, 253402300799999 // years 1 and 9999
	at := time.UnixMilli(min(max(int64(t), first), last)).UTC()
	if at.Nanosecond() == 0 {
		return at.AppendFormat(append(dst, '"'), `2006-01-02T15:04:05Z"`)
	}
	return at.AppendFormat(append(dst, '"'), `2006-01-02T15:04:05.000Z"`)
}

const epochTime = `"1970-01-01T00:00:00Z"`

// appendFeast appends the answer of POST /get-online-features: one element of results per column, keys first.
func appendFeast(dst []byte, p *plan, a *answer, versions []int) []byte {
	dst = append(dst, `{"results":[`...)
	for i, k := range p.keys {
		dst = comma(dst, i)
		dst = append(dst, `{"values":[`...)
		for row, v := range k.values {
			dst = appendValue(comma(dst, row), v)
		}
		dst = append(dst, `],"statuses":[`...)
		for row := range k.values {
			dst = append(comma(dst, row), `"PRESENT"`...)
		}
		dst = append(dst, `],"event_timestamps":[`...)
		for row := range k.values {
			dst = append(comma(dst, row), epochTime...)
		}
		dst = append(dst, "]}"...)
	}
	first := len(p.keys) == 0
	for i, v := range p.views {
		width := len(v.view.Features)
		for _, f := range v.features {
			if !first {
				dst = append(dst, ',')
			}
			first = false
			dst = append(dst, `{"values":[`...)
			for row := range p.rows {
				dst = appendValue(comma(dst, row), a.views[i].results[row*width+f].Value)
			}
			dst = append(dst, `],"statuses":[`...)
			for row := range p.rows {
				dst = append(comma(dst, row), '"')
				dst = append(append(dst, a.views[i].results[row*width+f].Status.String()...), '"')
			}
			dst = append(dst, `],"event_timestamps":[`...)
			for row := range p.rows {
				dst = comma(dst, row)
				status := a.views[i].results[row*width+f].Status
				if r := a.views[i].rows[row]; r.known && status != windows.StatusNotFound {
					dst = appendTime(dst, r.newest)
				} else {
					dst = append(dst, epochTime...)
				}
			}
			dst = append(dst, "]}"...)
		}
	}
	dst = append(dst, `],"metadata":{"feature_names":[`...)
	for i, k := range p.keys {
		dst = appendString(comma(dst, i), k.name)
	}
	for i, name := range p.names {
		dst = appendString(comma(dst, i+len(p.keys)), name)
	}
	dst = append(dst, ']')
	dst = append(dst, `,"as_of":[`...)
	for row, t := range a.at {
		dst = strconv.AppendInt(comma(dst, row), int64(t), 10)
	}
	dst = append(dst, ']')
	if versions != nil {
		dst = append(dst, `,"feature_view_metadata":[`...)
		for i, v := range p.views {
			dst = append(comma(dst, i), `{"name":`...)
			dst = appendString(dst, v.view.Definition.Name)
			dst = append(dst, `,"version":`...)
			dst = append(strconv.AppendInt(dst, int64(versions[i]), 10), '}')
		}
		dst = append(dst, ']')
	}
	return append(dst, "}}"...)
}

// appendRows appends the answer of POST /v1/online-features: one object per row.
func appendRows(dst []byte, p *plan, a *answer, eventTimes bool) []byte {
	dst = append(dst, `{"rows":[`...)
	for row := range p.rows {
		dst = append(comma(dst, row), `{"as_of":`...)
		dst = strconv.AppendInt(dst, int64(a.at[row]), 10)
		dst = append(dst, `,"entity":{`...)
		for i, k := range p.keys {
			dst = append(appendString(comma(dst, i), k.name), ':')
			dst = appendValue(dst, k.values[row])
		}
		dst = append(dst, `},"features":{`...)
		dst = a.appendMembers(dst, p, row, func(dst []byte, r windows.Result) []byte { return appendValue(dst, r.Value) })
		dst = append(dst, `},"statuses":{`...)
		dst = a.appendMembers(dst, p, row, func(dst []byte, r windows.Result) []byte {
			return append(append(append(dst, '"'), r.Status.String()...), '"')
		})
		dst = append(dst, '}')
		complete, reasons := true, 0
		for i, v := range p.views {
			r := a.views[i].rows[row]
			complete = complete && r.reason != reasonBuilding
			if r.reason == "" {
				continue
			}
			if reasons == 0 {
				dst = append(dst, `,"reasons":{`...)
			}
			dst = append(appendString(comma(dst, reasons), v.name), ':')
			dst = appendString(dst, r.reason)
			reasons++
		}
		if reasons > 0 {
			dst = append(dst, '}')
		}
		if eventTimes {
			dst = append(dst, `,"event_times":{`...)
			for i, v := range p.views {
				dst = append(appendString(comma(dst, i), v.name), ':')
				if r := a.views[i].rows[row]; r.known {
					dst = strconv.AppendInt(dst, int64(r.newest), 10)
				} else {
					dst = append(dst, "null"...)
				}
			}
			dst = append(dst, '}')
		}
		dst = append(dst, `,"complete":`...)
		dst = append(strconv.AppendBool(dst, complete), '}')
	}
	return append(dst, "]}"...)
}

// appendMembers appends a member per feature of one row.
func (a *answer) appendMembers(dst []byte, p *plan, row int, value func([]byte, windows.Result) []byte) []byte {
	n := 0
	for i, v := range p.views {
		for _, f := range v.features {
			dst = comma(dst, n)
			dst = appendString(dst, p.names[n])
			dst = value(append(dst, ':'), a.views[i].results[row*len(v.view.Features)+f])
			n++
		}
	}
	return dst
}

func comma(dst []byte, i int) []byte {
	if i > 0 {
		return append(dst, ',')
	}
	return dst
}
