package features_test

import (
	"strings"
	"testing"

	"millrace/features"
)

// FuzzParse: any bytes give definitions that compile, or problems with a place and a remedy; never a panic.
func FuzzParse(f *testing.F) {
	for _, c := range mustCases(f) {
		for _, content := range c.files {
			f.Add(string(content))
		}
	}
	for _, seed := range []string{
		"\ufeffproject: a\r\n", "project: \xff", "project: a\x00", "a:\r b", "- - - a", "{a: [b, {c", "a: |\n  b\n c", "? a", "\t", "a: &a [*a]", "%", "a: \"\\x\"", "a: !!binary x", strings.Repeat("[", 40),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		definitions, problems := features.Parse(map[string][]byte{"f.yaml": []byte(text)})
		if (definitions == nil) != problems.Fatal() {
			t.Fatalf("definitions %v beside %q", definitions, problems.Error())
		}
		lines := strings.Split(text, "\n")
		for _, p := range problems {
			if p.File != "f.yaml" || p.Line < 1 || p.Column < 1 || p.Line > len(lines) || p.Message == "" || p.Remedy == "" {
				t.Fatalf("incomplete problem %+v", p)
			}
		}
		if definitions == nil {
			return
		}
		if _, err := features.Compile(definitions); err != nil {
			t.Fatalf("accepted, but does not compile: %v", err)
		}
	})
}
