package features_test

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"millrace/features"
)

var update = flag.Bool("update", false, "write testdata/problems.txt anew")

// problemCase is one case of testdata/problems.txt.
type problemCase struct {
	name, input string
	files       map[string][]byte
	want        string
}

const problemFile = "testdata/problems.txt"

func problemCases(t *testing.T) (head string, cases []problemCase) {
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
		{"a folder of that name", fstest.MapFS{"a.yaml": {Mode: fs.ModeSymlink, Data: []byte("nowhere")}, "b.yaml": file("views: {v: {entity: e, source: s, features: {f: {}}}}")},
			"a.yaml:1:1: the file cannot be read: open a.yaml: file does not exist; see that it is a file that this account may read\n" +
				"b.yaml:1:46: a feature needs `aggregate`; add `aggregate: count`\n" +
				"b.yaml:1:46: feature `f` has no window; add `window: {type: …}` to it or to the view"},
	} {
		if _, problems := features.ParseFS(test.fs); problems.Error() != test.want {
			t.Errorf("%s: got\n%s\nwant\n%s", test.name, problems.Error(), test.want)
		}
	}
}
