package features_test

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"millrace/features"
	"millrace/windows"
)

var update = flag.Bool("update", false, "write testdata/problems.txt anew")

// problemCase is one case of testdata/problems.txt.
type problemCase struct {
	name, input string
	files       map[string][]byte
	want        string
}

const problemFile = "testdata/problems.txt"

func mustCases(t testing.TB) []problemCase {
	t.Helper()
	_, cases := problemCases(t)
	return cases
}

func problemCases(t testing.TB) (head string, cases []problemCase) {
	t.Helper()
	text, err := os.ReadFile(problemFile)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(text), "\n=== ")
	var base []byte
	for _, part := range parts[1:] {
		name, rest, _ := strings.Cut(part, "\n")
		input, want, ok := strings.Cut("\n"+rest, "\n>>>")
		if !ok {
			t.Fatalf("case %q has no >>>", name)
		}
		c := problemCase{name: name, input: strings.TrimPrefix(input, "\n"), files: map[string][]byte{}, want: strings.TrimSpace(want)}
		file := "f.yaml"
		for line := range strings.Lines(c.input + "\n") {
			switch {
			case line == "+base\n":
				c.files["base.yaml"] = base
			case strings.HasPrefix(line, "-- "):
				file = strings.Fields(line)[1]
			default:
				c.files[file] = append(c.files[file], line...)
			}
		}
		if base == nil {
			base = c.files["base.yaml"]
		}
		cases = append(cases, c)
	}
	return parts[0], cases
}

// TestProblems: every mistake is reported, with its place and its remedy.
func TestProblems(t *testing.T) {
	head, cases := problemCases(t)
	var out bytes.Buffer
	out.WriteString(head)
	for _, c := range cases {
		definitions, problems := features.Parse(c.files)
		got := problems.Error()
		if !*update && got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", c.name, got, c.want)
		}
		if (definitions == nil) != problems.Fatal() {
			t.Errorf("%s: definitions %v beside\n%s", c.name, definitions, got)
		}
		if definitions != nil {
			if _, err := features.Compile(definitions); err != nil {
				t.Errorf("%s: accepted, but does not compile: %v", c.name, err)
			}
		}
		for _, p := range problems {
			if p.Message == "" || p.Remedy == "" || p.Severity == "" {
				t.Errorf("%s: incomplete: %+v", c.name, p)
			}
		}
		out.WriteString("\n=== " + c.name + "\n" + c.input + "\n>>>\n")
		if got != "" {
			out.WriteString(got + "\n")
		}
	}
	if *update {
		if err := os.WriteFile(problemFile, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestParseFS(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	for _, test := range []struct {
		name string
		fs   fstest.MapFS
		want string
	}{
		{"files of a folder", fstest.MapFS{
			"a.yaml": file("project: p"), "b.yml": file("entities: {e: {}}"), "c.json": file("{"), ".hidden.yaml": file("{"), "sub/d.yaml": file("{"), "e.yaml/f": file("{"),
		}, "b.yml:1:12: an entity needs `keys`; add `keys: {<name>: string}`"},
		{"none", fstest.MapFS{"a.txt": file("")}, "the folder has no *.yaml or *.yml file; name the folder that holds the definitions"},
		{"too long", fstest.MapFS{"a.yaml": file(strings.Repeat("#", 1<<20+1))}, "a.yaml:1:1: the file has 1048577 bytes, more than 1048576; split it into several files of one folder"},
		{
			"a folder of that name",
			fstest.MapFS{"a.yaml": {Mode: fs.ModeSymlink, Data: []byte("nowhere")}, "b.yaml": file("views: {v: {entity: e, source: s, features: {f: {}}}}")},
			"a.yaml:1:1: the file cannot be read: open a.yaml: file does not exist; see that it is a file that this account may read\n" +
				"b.yaml:1:46: a feature needs `aggregate`; add `aggregate: count`\n" +
				"b.yaml:1:46: feature `f` has no window; add `window: {type: …}` to it or to the view",
		},
	} {
		if _, problems := features.ParseFS(test.fs); problems.Error() != test.want {
			t.Errorf("%s: got\n%s\nwant\n%s", test.name, problems.Error(), test.want)
		}
	}
}

// TestLimits: what would take the YAML parser long, or all the stack, is refused before it starts.
func TestLimits(t *testing.T) {
	repeat := strings.Repeat
	var keys, indented strings.Builder
	for i := range 6000 {
		keys.WriteString("k" + strconv.Itoa(i) + ": x\n")
	}
	for i := range 40 {
		indented.WriteString(repeat(" ", i) + "a:\n")
	}
	for _, test := range []struct{ name, text, want string }{
		{"a file of 1 MiB", "#" + repeat("x", 1<<20-1), "the definitions name no project"},
		{"a byte more", "#" + repeat("x", 1<<20), "the file has 1048577 bytes, more than 1048576"},
		{"lists in brackets", repeat("[", 1<<17), "f.yaml:1:33: values are nested deeper than 32"},
		{"maps in braces", repeat("{a: ", 1<<17), "values are nested deeper than 32"},
		{"lists in one line", repeat("- ", 1<<17), "values are nested deeper than 32"},
		{"keys in one line", repeat("a: ", 1<<17), "values are nested deeper than 32"},
		{"explicit keys", repeat("? ", 1<<17), "keys written with ? are no part of definitions"},
		{"anchors", repeat("&a ", 1<<17), "anchors and aliases are no part of definitions"},
		{"indentation", indented.String(), "f.yaml:33:34: values are nested deeper than 32"},
		{"many keys", keys.String(), "f.yaml:5001:6: more than 5000 keys in one map"},
		{"not UTF-8", "project: a\nviews: é\xff", "f.yaml:2:9: the file is not UTF-8 text; save the file as UTF-8"},
		{"UTF-16", "\xff\xfep\x00", "f.yaml:1:1: the file is not UTF-8 text; save the file as UTF-8"},
		{"control characters", "project: a\x07", "f.yaml:1:11: a control character (U+0007); remove it"},
		{"a carriage return", "project: a\rviews: b", "f.yaml:1:11: a carriage return alone; end lines by a line feed"},
	} {
		_, problems := features.Parse(map[string][]byte{"f.yaml": []byte(test.text)})
		if got := problems.Error(); !strings.Contains(got, test.want) || strings.Count(got, "\n") > 2 {
			t.Errorf("%s: got\n%.500s\nwant\n%s", test.name, got, test.want)
		}
	}
	files := map[string][]byte{}
	for i := range 5 {
		files[strconv.Itoa(i)] = []byte("#" + repeat("x", 1<<20-1))
	}
	if _, problems := features.Parse(files); !strings.Contains(problems.Error(), "4:1:1: the files have more than 4194304 bytes together; split the project") {
		t.Errorf("five files of 1 MiB: got %.500s", problems.Error())
	}
	if definitions, problems := features.Parse(map[string][]byte{"f.yaml": []byte("\ufeffproject: a\r\n")}); len(problems) > 0 || definitions.Project != "a" {
		t.Errorf("byte order mark and carriage returns: got %v", problems)
	}
}

// TestDefaults: what is not said.
func TestDefaults(t *testing.T) {
	definitions, problems := features.Parse(map[string][]byte{"f.yaml": []byte(`
project: p
sources:
  s:
    topic: t
    fields: {u: string, n: int64, at: int64}
    event_time: {field: at, unit: ms}
entities:
  e: {keys: {u: string}}
views:
  v:
    entity: e
    source: s
    window: {type: session, gap: 1h30m}
    features:
      a: {aggregate: count}
      b: {aggregate: last, field: n, window: {type: sliding, size: 7d}}
`)})
	if problems != nil {
		t.Fatal(problems)
	}
	s, v := definitions.Sources[0], definitions.Views[0]
	if s.MaxFuture != 60_000 || s.EpochBits != 16 || s.EventTime.Min != 0 || s.EventTime.Max != 7_258_118_400_000 {
		t.Errorf("source: got %+v", s)
	}
	if s.Fields[0].MaxBytes != 256 || s.Fields[0].Required || !s.Fields[2].Required {
		t.Errorf("fields: got %+v", s.Fields)
	}
	if !v.Batch || v.TTL != 0 {
		t.Errorf("view: got %+v", v)
	}
	want := []windows.Window{
		{Kind: windows.Session, Gap: 5_400_000, Retain: 30 * windows.Day}, {Kind: windows.Sliding, Size: 7 * windows.Day, Hop: 3 * 3_600_000},
	}
	for i, w := range want {
		if v.Features[i].Window != w {
			t.Errorf("window of %s: got %+v, want %+v", v.Features[i].Name, v.Features[i].Window, w)
		}
	}
}

func TestDefaultHop(t *testing.T) {
	for size, want := range map[windows.Span]windows.Span{
		1: 1, 49: 1, 99: 1, 100: 2, 1000: 20, 60_000: 1000, 3_600_000: 60_000, windows.Day: 900_000, 7 * windows.Day: 3 * 3_600_000, 30 * windows.Day: 12 * 3_600_000,
		365_250 * windows.Day: 5000 * windows.Day,
	} {
		if got := features.DefaultHop(size); got != want {
			t.Errorf("hop of %d: got %d, want %d", size, got, want)
		}
	}
}

func TestParseFSWithoutFolder(t *testing.T) {
	folder, err := fs.Sub(fstest.MapFS{"a.yaml": {}}, "gone")
	if err != nil {
		t.Fatal(err)
	}
	_, problems := features.ParseFS(folder)
	if got := problems.Error(); !strings.HasPrefix(got, "the folder cannot be read: ") || !problems.Fatal() {
		t.Errorf("got %q", got)
	}
}
