package features

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"millrace/windows"
)

func decodeSource() *Source {
	return &Source{
		Name: "events",
		Fields: []Field{
			{Name: "s", Type: windows.String, MaxBytes: 8},
			{Name: "n", Type: windows.Int64},
			{Name: "x", Type: windows.Float64},
			{Name: "b", Type: windows.Bool},
			{Name: "t", Type: windows.Int64},
			{Name: "né\"w", Type: windows.Int64},
			{Name: "must", Type: windows.Bool},
		},
		EventTime: EventTime{Field: "t", Unit: Milliseconds, Min: -1000, Max: 1_000_000},
		MaxFuture: 100,
	}
}

// decodeText gives what Decode says in one line: the time and the fields that are not null, or the rejection.
func decodeText(d *Decoder, s *Source, value []byte, kafkaTime windows.Time) string {
	row := make([]windows.Value, len(s.Fields))
	at, r := d.Decode(value, kafkaTime, row)
	if r != nil {
		return r.String()
	}
	text := strconv.FormatInt(int64(at), 10)
	for i, v := range row {
		if v.Kind != windows.Null {
			text += " " + s.Fields[i].Name + "=" + v.String()
		}
	}
	return text
}

func TestDecode(t *testing.T) {
	s := decodeSource()
	d := NewDecoder(s)
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, test := range []struct{ value, want string }{
		{`{"t":5}`, `5 t=5`},
		{" {\t\"t\" :\r\n5 } ", `5 t=5`},
		{`{"s":"abc","n":7,"x":0.5,"b":true,"t":5}`, `5 s="abc" n=7 x=0.5 b=true t=5`},
		{`{"t":5,"b":false,"x":1,"n":-7,"s":""}`, `5 s="" n=-7 x=1.0 b=false t=5`},
		{`{"s":null,"n":null,"x":null,"b":null,"t":5}`, `5 t=5`},
		{`{"t":5,"q":{"t":6,"s":[1,{"a":[]},"\ud800",true,false,null,-1.5e-7]},"n":1}`, `5 n=1 t=5`},
		{`{"t":5,"q":` + deep(63) + `}`, `5 t=5`},
		{`{"t":5,"q":` + deep(64) + `}`, `too_deep: nested deeper than 64, at offset 74`},
		{`{"\u0074":5,"n\u00e9\"w":3}`, `5 t=5 né"w=3`},
		{"{\"t\":5,\"né\\\"w\":3}", `5 t=5 né"w=3`},
		{`{"t":5,"s":"\u00e9\n\"\\\/"}`, `5 s="é\n\"\\/" t=5`},
		{`{"t":5,"s":"\ud83d\ude00a\u0000"}`, `5 s="😀a\x00" t=5`},
		{`{"t":5,"s":"12345678"}`, `5 s="12345678" t=5`},
		{`{"t":5,"s":"123456789"}`, `too_long: field s: 9 bytes, more than 8`},
		{`{"t":5,"s":"\u00e9\u00e9\u00e9\u00e9\u00e9"}`, `too_long: field s: 10 bytes, more than 8`},
		{"{\"t\":5,\"s\":\"\xff\"}", `undecodable: a string is not UTF-8, at offset 12`},
		{"{\"t\":5,\"\xff\":1}", `undecodable: a string is not UTF-8, at offset 8`},
		{"{\"t\":5,\"q\":\"\xff\"}", `5 t=5`},
		{`{"t":5,"s":"\ud800"}`, `undecodable: half of an escaped surrogate pair, at offset 18`},
		{`{"t":5,"s":"\udc00\ud800"}`, `undecodable: half of an escaped surrogate pair, at offset 18`},
		{`{"t":5,"s":"\x"}`, `undecodable: an unknown escape, at offset 14`},
		{`{"t":5,"s":"\u12g4"}`, `undecodable: an unknown escape, at offset 14`},
		{"{\"t\":5,\"s\":\"a\nb\"}", `undecodable: a string does not end, or has a raw control character, at offset 13`},
		{"{\"t\":5,\"s\":\"\x7f\"}", `5 s="\x7f" t=5`},
		{`{"t":5,"n":9223372036854775807}`, `5 n=9223372036854775807 t=5`},
		{`{"t":5,"n":-9223372036854775808}`, `5 n=-9223372036854775808 t=5`},
		{`{"t":5,"n":9223372036854775808}`, `out_of_range: field n: an integer beyond 64 bits`},
		{`{"t":5,"n":-9223372036854775809}`, `out_of_range: field n: an integer beyond 64 bits`},
		{`{"t":5,"n":18446744073709551617}`, `out_of_range: field n: an integer beyond 64 bits`},
		{`{"t":5,"n":-0}`, `5 n=0 t=5`},
		{`{"t":5,"n":1.0}`, `wrong_type: field n: a number with a point or an exponent where int64 is declared`},
		{`{"t":5,"n":1e3}`, `wrong_type: field n: a number with a point or an exponent where int64 is declared`},
		{`{"t":5,"n":"1"}`, `wrong_type: field n: a string where int64 is declared`},
		{`{"t":5,"n":true}`, `wrong_type: field n: a bool where int64 is declared`},
		{`{"t":5,"n":[1]}`, `wrong_type: field n: an array where int64 is declared`},
		{`{"t":5,"n":{}}`, `wrong_type: field n: an object where int64 is declared`},
		{`{"t":5,"s":1}`, `wrong_type: field s: a number where string is declared`},
		{`{"t":5,"b":0}`, `wrong_type: field b: a number where bool is declared`},
		{`{"t":5,"b":"true"}`, `wrong_type: field b: a string where bool is declared`},
		{`{"t":5,"x":"1"}`, `wrong_type: field x: a string where float64 is declared`},
		{`{"t":5,"x":[[}}`, `undecodable: neither a value nor null, at offset 13`},
		{`{"t":5,"x":-0.0}`, `5 x=0.0 t=5`},
		{`{"t":5,"x":-0}`, `5 x=0.0 t=5`},
		{`{"t":5,"x":-1e-400}`, `5 x=0.0 t=5`},
		{`{"t":5,"x":9007199254740993.1}`, `5 x=9007199254740994.0 t=5`},
		{`{"t":5,"x":9007199254740993}`, `5 x=9007199254740992.0 t=5`},
		{`{"t":5,"x":4611686018427387903}`, `out_of_range: field x: a number of 2^62 and more`},
		{`{"t":5,"x":4611686018427387000}`, `5 x=4611686018427387000.0 t=5`},
		{`{"t":5,"x":-4.611686018427388e18}`, `out_of_range: field x: a number of 2^62 and more`},
		{`{"t":5,"x":1e400}`, `out_of_range: field x: a number of 2^62 and more`},
		{`{"t":5,"x":1e99999999999999999999}`, `out_of_range: field x: a number of 2^62 and more`},
		{`{"t":5,"x":NaN}`, `undecodable: neither a value nor null, at offset 11`},
		{`{"t":5,"x":-Infinity}`, `undecodable: not a number, at offset 12`},
		{`{"t":5,"x":.5}`, `undecodable: neither a value nor null, at offset 11`},
		{`{"t":5,"x":5.}`, `undecodable: not a number, at offset 13`},
		{`{"t":5,"x":05}`, `undecodable: not a number, at offset 11`},
		{`{"t":5,"x":1e}`, `undecodable: not a number, at offset 13`},
		{`{"t":5,"x":+1}`, `undecodable: neither a value nor null, at offset 11`},
		{`{"t":5,"n":5x}`, `undecodable: neither comma nor brace behind a value, at offset 12`},
		{`{"t":5,"t":5}`, `duplicate_field: field t: stands twice, the second time before offset 11`},
		{`{"t":5,"n":null,"n":1}`, `duplicate_field: field n: stands twice, the second time before offset 20`},
		{`{"t":5,"q":1,"q":2}`, `5 t=5`},
		{`{}`, `missing_field: field t: the event time is missing or null`},
		{`{"t":null}`, `missing_field: field t: the event time is missing or null`},
		{`{"t":-1000}`, `-1000 t=-1000`},
		{`{"t":-1001}`, `event_time_range: field t: outside the source's bounds: is its unit ms?`},
		{`{"t":1000001}`, `event_time_range: field t: outside the source's bounds: is its unit ms?`},
		{`{"t":10100}`, `10100 t=10100`},
		{`{"t":10101}`, `event_time_future: field t: more than 100 ms later than the record's Kafka timestamp`},
		{``, `no_value: the record has no value`},
		{`null`, `undecodable: not a JSON object, at offset 0`},
		{`[1]`, `undecodable: not a JSON object, at offset 0`},
		{`"x"`, `undecodable: not a JSON object, at offset 0`},
		{" ", `undecodable: not a JSON object, at offset 1`},
		{"\xef\xbb\xbf{\"t\":5}", `undecodable: not a JSON object, at offset 0`},
		{`{"t":5}x`, `undecodable: bytes behind the object, at offset 7`},
		{`{"t":5} {}`, `undecodable: bytes behind the object, at offset 8`},
		{`{"t":5`, `undecodable: the object does not end, at offset 6`},
		{`{"t":5,`, `undecodable: no name where a member should begin, at offset 7`},
		{`{"t":5,}`, `undecodable: no name where a member should begin, at offset 7`},
		{`{,"t":5}`, `undecodable: no name where a member should begin, at offset 1`},
		{`{"t"5}`, `undecodable: no colon behind a name, at offset 4`},
		{`{"t":}`, `undecodable: neither a value nor null, at offset 5`},
		{`{"t":`, `undecodable: no value behind a colon, at offset 5`},
		{`{"t`, `undecodable: a string does not end, or has a raw control character, at offset 3`},
		{`{t:5}`, `undecodable: no name where a member should begin, at offset 1`},
		{`{'t':5}`, `undecodable: no name where a member should begin, at offset 1`},
		{`{"t":5,"q":[1,]}`, `undecodable: neither a value nor null, at offset 14`},
		{`{"t":5,"q":[1 2]}`, `undecodable: no comma between values, at offset 14`},
		{`{"t":5,"q":{"a" 1}}`, `undecodable: no colon behind a name, at offset 16`},
		{`{"t":5,"q":[}}`, `undecodable: neither a value nor null, at offset 12`},
		{`{"t":5,"q":nul}`, `undecodable: neither a value nor null, at offset 11`},
		{`{"t":5,"q":"\q"}`, `undecodable: an unknown escape, at offset 13`},
	} {
		if got := decodeText(d, s, []byte(test.value), 10_000); got != test.want {
			t.Errorf("%.80s:\n got %s\nwant %s", test.value, got, test.want)
		}
	}
}

func TestDecodeLimits(t *testing.T) {
	s := decodeSource()
	s.Fields[6].Required = true
	d := NewDecoder(s)
	if got, want := decodeText(d, s, []byte(`{"t":1,"must":null}`), 0), `missing_field: field must: required, but missing or null`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := decodeText(d, s, []byte(`{"t":1,"must":false}`), 0), `1 t=1 must=false`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	record := []byte(`{"t":1,"must":false}`)
	full := append(bytes.Clone(record), bytes.Repeat([]byte(" "), MaxRecord-len(record))...)
	if got, want := decodeText(d, s, full, 0), `1 t=1 must=false`; got != want {
		t.Errorf("a record of MaxRecord: got %s, want %s", got, want)
	}
	if got, want := decodeText(d, s, append(full, ' '), 0), `too_large: 1048577 bytes, more than 1048576`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	s.MaxFuture, s.EventTime.Max = -1, windows.MaxTime
	if got, want := decodeText(NewDecoder(s), s, []byte(`{"t":9223372036854775807,"must":true}`), 0), `9223372036854775807 t=9223372036854775807 must=true`; got != want {
		t.Errorf("without a bound: got %s, want %s", got, want)
	}
	s.Fields[0].Name = strings.Repeat("long", 100)
	s.Fields[0].Type = windows.Int64
	_, r := NewDecoder(s).Decode([]byte(`{"`+s.Fields[0].Name+`":"x"}`), 0, make([]windows.Value, len(s.Fields)))
	if r == nil || len(r.Detail) > 200 {
		t.Errorf("got %v", r)
	}
}

func TestDecodeManyFields(t *testing.T) {
	s := &Source{EventTime: EventTime{Field: "f0", Unit: Milliseconds, Min: 0, Max: 1000}, MaxFuture: -1}
	for i := range 200 {
		s.Fields = append(s.Fields, Field{Name: fmt.Sprintf("f%d", i), Type: windows.Int64})
	}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	d := NewDecoder(s)
	row := make([]windows.Value, 200)
	for range 100 {
		var members []string
		for _, i := range r.Perm(250) {
			members = append(members, fmt.Sprintf(`"f%d":%d`, i, i))
		}
		value := []byte("{" + strings.Join(members, ",") + "}")
		if _, rejection := d.Decode(value, 0, row); rejection != nil {
			t.Fatalf("seed %d: %v", seed, rejection)
		}
		for i, v := range row {
			if v != windows.IntValue(int64(i)) {
				t.Fatalf("seed %d: f%d is %v", seed, i, v)
			}
		}
	}
	if _, rejection := d.Decode([]byte(`{"f0":1,"f150":1,"f150":1}`), 0, row); rejection == nil || rejection.Reason != ReasonDuplicateField {
		t.Errorf("f150 twice: got %v", rejection)
	}
}

func TestDecodeEventTime(t *testing.T) {
	for _, test := range []struct {
		unit        TimeUnit
		value, want string
	}{
		{Seconds, "1764050400", "1764050400000"},
		{Seconds, "-1", "-1000"},
		{Seconds, "9223372036854775", "9223372036854775000"},
		{Seconds, "9223372036854776", "event_time_range: field t: beyond the representable milliseconds: is its unit s?"},
		{Seconds, "-9223372036854776", "event_time_range: field t: beyond the representable milliseconds: is its unit s?"},
		{Seconds, "-9223372036854775808", "event_time_range: field t: beyond the representable milliseconds: is its unit s?"},
		{Milliseconds, "1764050400123", "1764050400123"},
		{Microseconds, "1764050400123999", "1764050400123"},
		{Microseconds, "-1", "-1"},
		{Microseconds, "-1000", "-1"},
		{Microseconds, "-1001", "-2"},
		{Microseconds, "999", "0"},
		{Nanoseconds, "1764050400123999999", "1764050400123"},
		{Nanoseconds, "-1", "-1"},
		{Nanoseconds, "-1000000", "-1"},
		{Nanoseconds, "-1000001", "-2"},
		{Milliseconds, `"1764050400123"`, "wrong_type: field t: a string where int64 is declared"},
		{RFC3339, "1764050400123", "wrong_type: field t: a number where string is declared"},
		{RFC3339, `"2025-11-25T06:00:00Z"`, "1764050400000"},
		{RFC3339, `"2025-11-25T06:00:00.1239999999999Z"`, "1764050400123"},
		{RFC3339, `"1969-12-31T23:59:59.9999Z"`, "-1"},
		{RFC3339, `"2025-11-25T07:30:00.5+01:30"`, "1764050400500"},
		{RFC3339, `"2025-11-24 23:00"`, "event_time_form: field t: not of the form 2006-01-02T15:04:05.999Z or …+01:00"},
		{RFC3339, `""`, "event_time_form: field t: not of the form 2006-01-02T15:04:05.999Z or …+01:00"},
	} {
		s := &Source{
			Fields:    []Field{{Name: "t", Type: windows.Int64, MaxBytes: 40}},
			EventTime: EventTime{Field: "t", Unit: test.unit, Min: windows.MinTime, Max: windows.MaxTime}, MaxFuture: -1,
		}
		if test.unit == RFC3339 {
			s.Fields[0].Type = windows.String
		}
		got := decodeText(NewDecoder(s), s, []byte(`{"t":`+test.value+`}`), 0)
		got, _, _ = strings.Cut(got, " t=")
		if got != test.want {
			t.Errorf("%s in %s: got %s, want %s", test.value, test.unit, got, test.want)
		}
	}
}

// TestRFC3339 holds the parser to package time's.
func TestRFC3339(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	check := func(s string) {
		t.Helper()
		want, err := time.Parse(time.RFC3339Nano, strings.ToUpper(s))
		got, ok := parseRFC3339(s)
		if ok != (err == nil) || ok && int64(got) != want.UnixMilli() {
			t.Errorf("seed %d: %s: got %d, %t, want %d, %v", seed, s, got, ok, want.UnixMilli(), err)
		}
	}
	for year := range 10000 {
		check(fmt.Sprintf("%04d-02-28T23:59:59Z", year))
		check(fmt.Sprintf("%04d-02-29T00:00:00Z", year))
		check(fmt.Sprintf("%04d-12-31T23:59:59.999999999Z", year))
	}
	for range 100_000 {
		check(fmt.Sprintf("%04d-%02d-%02dT%02d:%02d:%02d%s%s", r.IntN(10000), r.IntN(14), r.IntN(33), r.IntN(25), r.IntN(61), r.IntN(61),
			pick(r, "", ".5", ".123456789", ".0009"), pick(r, "Z", "z", "+00:00", "-23:59", fmt.Sprintf("+%02d:%02d", r.IntN(24), r.IntN(60)))))
	}
	for _, s := range []string{
		"2025-11-25", "2025-11-25T06:00:00", "2025-11-25T06:00:00.Z", "2025-11-25T06:00:00+0100", "2025-11-25T06:00:00+01:00x",
		"2025-11-25T06:00:00+0x:00", "2025/11/25T06:00:00Z", "2025-11-25T06:00:0Z", "25-11-25T06:00:00Z", "2025-11-25x06:00:00Z", "+025-11-25T06:00:00Z",
		"2025-11-25T06-00-00Z", "2025-11-25t06:00:00z",
	} {
		check(s)
	}
	for _, s := range []string{"2025-11-25T06:00:00+24:00", "2025-11-25T06:00:00+01:60", "2025-11-25T06:00:00,5Z", "2025-11-25T06:00:60Z"} {
		if got, ok := parseRFC3339(s); ok {
			t.Errorf("%s: got %d", s, got)
		}
	}
}

// FuzzDecode holds what is admitted to encoding/json: it accepts the record too and finds the same values.
func FuzzDecode(f *testing.F) {
	for _, value := range []string{
		`{"s":"abc","n":7,"x":0.5,"b":true,"t":5}`, `{"t":5,"q":{"t":6,"s":[1,{"a":[]},"\ud800",true,false,null,-1.5e-7]},"n":1}`,
		`{"t":5,"s":"\ud83d\ude00a\u0000"}`, `{"\u0074":5,"n\u00e9\"w":3}`, `{"t":5,"x":9007199254740993.1}`, ` { "t" : 5 } `, `{"t":5,"x":1e-7}`,
		`{"t":12345678,"n":123456789012345678}`, "{\"t\":5,\"q\":\"\xff\"}", `{"t":5,"s":"aaaaaaaa\\"}`,
	} {
		f.Add([]byte(value))
	}
	s := decodeSource()
	s.EventTime.Min, s.EventTime.Max, s.MaxFuture = windows.MinTime, windows.MaxTime, -1
	d := NewDecoder(s)
	f.Fuzz(func(t *testing.T, value []byte) {
		row := make([]windows.Value, len(s.Fields))
		_, r := d.Decode(value, 0, row)
		var members map[string]json.RawMessage
		err := json.Unmarshal(value, &members)
		if r != nil {
			if len(r.Detail) > 200 || !utf8.ValidString(r.Detail) {
				t.Fatalf("detail %q", r.Detail)
			}
			if err == nil && r.Reason == ReasonUndecodable && members != nil && !strings.Contains(r.Detail, "UTF-8") && !strings.Contains(r.Detail, "surrogate") {
				t.Fatalf("%q is JSON, but got %v", value, r)
			}
			return
		}
		if err != nil {
			t.Fatalf("%q is admitted, but encoding/json says %v", value, err)
		}
		for i, field := range s.Fields {
			if got, want := row[i], wantValue(t, field.Type, members[field.Name]); got != want {
				t.Fatalf("%q: field %s: got %v, want %v", value, field.Name, got, want)
			}
		}
	})
}

func wantValue(t *testing.T, typ windows.Type, raw json.RawMessage) windows.Value {
	t.Helper()
	if len(raw) == 0 || string(raw) == "null" {
		return windows.Value{}
	}
	var err error
	var v windows.Value
	switch typ {
	case windows.Int64:
		var n int64
		err = json.Unmarshal(raw, &n)
		v = windows.IntValue(n)
	case windows.Float64:
		var x float64
		err = json.Unmarshal(raw, &x)
		v = windows.FloatValue(x)
	case windows.String:
		var s string
		err = json.Unmarshal(raw, &s)
		v = windows.TextValue(s)
	case windows.Bool:
		var b bool
		err = json.Unmarshal(raw, &b)
		v = windows.BoolValue(b)
	default:
		t.Fatalf("field of type %s", typ)
	}
	if err != nil {
		t.Fatalf("%s is admitted as %s, but encoding/json says %v", raw, typ, err)
	}
	return v
}

// TestDecodeFloats holds the floats to strconv: correctly rounded, in every spelling.
func TestDecodeFloats(t *testing.T) {
	s := decodeSource()
	d := NewDecoder(s)
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	row := make([]windows.Value, len(s.Fields))
	for range 200_000 {
		var text string
		switch r.IntN(4) {
		case 0:
			text = strconv.FormatFloat(math.Float64frombits(r.Uint64()), 'g', -1, 64)
		case 1:
			text = strconv.FormatFloat(r.NormFloat64()*1e6, 'f', r.IntN(30), 64)
		case 2:
			text = fmt.Sprintf("%d.%d", r.Uint64()>>r.IntN(64), r.Uint64()>>r.IntN(64))
		case 3:
			text = fmt.Sprintf("%s%d%s%d", pick(r, "", "-"), r.Uint64()>>r.IntN(64), pick(r, "e", "E", "e-", "e+"), r.IntN(40))
		}
		want, err := strconv.ParseFloat(text, 64)
		if math.IsNaN(want) {
			continue
		}
		_, rejection := d.Decode([]byte(`{"t":1,"x":`+text+`}`), 0, row)
		if beyond := err != nil && errors.Is(err, strconv.ErrRange) || math.Abs(want) >= 1<<62; beyond != (rejection != nil) {
			if !math.IsInf(want, 0) || err != nil {
				t.Fatalf("seed %d: %s: got %v", seed, text, rejection)
			}
		} else if rejection == nil && row[2] != windows.FloatValue(want) {
			t.Fatalf("seed %d: %s: got %v, want %v", seed, text, row[2], want)
		}
	}
}
