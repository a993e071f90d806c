package produce

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCombined(t *testing.T) {
	for _, test := range []struct{ line, want string }{
		{
			`1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET /a?b=c HTTP/1.1" 200 203023 "http://x/" "Mozilla/5.0 (X)"`,
			`{"client":"1.2.3.4","at":1431857103000,"time":"2015-05-17T10:05:03Z","user":null,"method":"GET","path":"/a?b=c","protocol":"HTTP/1.1","status":200,"bytes":203023,"referer":"http://x/","agent":"Mozilla/5.0 (X)"}`,
		},
		{
			`::1 - frank [10/Oct/2000:13:55:36 -0700] "GET /a b HTTP/1.0" 304 - "-" "-"`,
			`{"client":"::1","at":971211336000,"time":"2000-10-10T13:55:36-07:00","user":"frank","method":"GET","path":"/a b","protocol":"HTTP/1.0","status":304,"bytes":null,"referer":null,"agent":null}`,
		},
		{ // the common format, HTTP/0.9
			`h - - [17/May/2015:10:05:03 +0000] "GET /" 200 0`,
			`{"client":"h","at":1431857103000,"time":"2015-05-17T10:05:03Z","user":null,"method":"GET","path":"/","protocol":null,"status":200,"bytes":0,"referer":null,"agent":null}`,
		},
		{ // no request was sent, an escaped quote, escapes that are no UTF-8, a text that was cut off
			`h - - [17/May/2015:10:05:03 +0000] "-" 408 - "\xe4\xe5" "a\"b\\c \xc3\xa9 <`,
			`{"client":"h","at":1431857103000,"time":"2015-05-17T10:05:03Z","user":null,"method":null,"path":null,"protocol":null,"status":408,"bytes":null,"referer":"\\xe4\\xe5","agent":"a\"b\\c é <"}`,
		},
		{ // a handshake where a request should be
			`h - - [17/May/2015:10:05:03 +0000] "\x16\x03\x01" 400 226 "-" "-"`,
			`{"client":"h","at":1431857103000,"time":"2015-05-17T10:05:03Z","user":null,"method":null,"path":"\u0016\u0003\u0001","protocol":null,"status":400,"bytes":226,"referer":null,"agent":null}`,
		},
		{`x`, `odd: no client at its begin`},
		{` - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1`, `odd: no client at its begin`},
		{`h - - 17/May/2015:10:05:03 "GET / HTTP/1.1" 200 1`, `odd: no time in brackets`},
		{`h - - [17/Foo/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1`, `odd: its time is not of the form 17/May/2015:10:05:03 +0000`},
		{`h - - [17/May/2015:10:05:03 +0000] GET / HTTP/1.1 200 1`, `odd: no request between quotes`},
		{`h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1`, `odd: no status and size behind the request`},
		{`h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" ok 1`, `odd: no status and size behind the request`},
		{`h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 01`, `odd: no status and size behind the request`},
		{`h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1 x`, `odd: no referer between quotes`},
		{`h - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1 "-" "-" x`, `odd: something behind the agent`},
	} {
		got, odd := appendCombined(nil, []byte(test.line))
		if odd != "" {
			got = []byte("odd: " + odd)
		} else if !json.Valid(got) {
			t.Errorf("%s: no JSON", got)
		}
		if string(got) != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.line, got, test.want)
		}
	}
}

func FuzzCombined(f *testing.F) {
	f.Add(`1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET /a?b=c HTTP/1.1" 200 203023 "http://x/" "Mozilla/5.0 (X)"`)
	f.Add(`h - - [17/May/2015:10:05:03 +0000] "-" 408 - "\xe4\xe5" "a\"b\\c \xc3\xa9 <`)
	f.Fuzz(func(t *testing.T, line string) {
		value, odd := appendCombined(nil, []byte(line))
		if odd == "" && utf8.ValidString(line) && !json.Valid(value) {
			t.Fatalf("%q gives %q", line, value)
		}
	})
}

func TestCSV(t *testing.T) {
	const input = "\xef\xbb\xbfclient,at,share,bot,note\r\n" +
		"a,1,0.5,TRUE,x\n" +
		"\"b \"\"q\"\"\n2nd\",-2,1e3,false,\n" +
		"c,1.5,x,maybe,\"\"\n" +
		"d,1\n" +
		"e,1,,,\"un\"quoted\n" +
		"\n" +
		"f,,,,"
	next, err := csvRecords(bufio.NewReader(strings.NewReader(input)), weblog(t).Source("access"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		line, value, odd, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%d %s%s", line, value, odd))
	}
	want := []string{
		`2 {"client":"a","at":1,"share":0.5,"bot":true,"note":"x"}`,
		`3 {"client":"b \"q\"\u000a2nd","at":-2,"share":1e3,"bot":false,"note":null}`,
		`5 {"client":"c","at":1.5,"share":"x","bot":"maybe","note":null}`,
		`6 2 cells where the header has 5`,
		"7 extraneous or missing \" in quoted-field",
		`9 {"client":"f","at":null,"share":null,"bot":null,"note":null}`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	for input, want := range map[string]string{
		"":         "it has no header",
		"a,,b\n":   `header: column 2 is called "", which is empty or the name of another`,
		"a,b,a\n":  `header: column 3 is called "a", which is empty or the name of another`,
		"a,\"b\nx": "header: record on line 1; parse error on line 2, column 2: extraneous or missing \" in quoted-field",
	} {
		if _, err := csvRecords(bufio.NewReader(strings.NewReader(input)), weblog(t).Source("access")); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", input, err, want)
		}
	}
}
