package features_test

import (
	"strings"
	"testing"

	"millrace/features"
)

const hashed = `
project: p
sources:
  s:
    description: D1
    topics: [t1, t2]
    fields:
      u: string
      v: {type: string, max_bytes: 100}
      n: {type: int64, description: D2}
      at: int64
    event_time: {field: at, unit: ms}
    max_future: 1m
    keys: {id: u}
    epoch_bits: 16
entities:
  e:
    description: D3
    keys: {id: string}
views:
  v:
    description: D4
    entity: e
    source: s
    where: n > 1 and v = 'x'
    window: {type: sliding, size: 1h, hop: 1m}
    ttl: 1d
    batch: on
    features:
      a: {aggregate: count, where: n = 2}
      b: {aggregate: sum, field: n, description: D5}
services:
  x: {description: D6, features: [v]}
`

// TestHash: the hash of a view changes with what determines its values, and with nothing else.
func TestHash(t *testing.T) {
	hash := func(text string) string {
		t.Helper()
		definitions, problems := features.Parse(map[string][]byte{"f.yaml": []byte(text)})
		if problems.Fatal() {
			t.Fatalf("%v in\n%s", problems, text)
		}
		compiled, err := features.Compile(definitions)
		if err != nil {
			t.Fatal(err)
		}
		return compiled.Views[0].Hash
	}
	base := hash(hashed)
	for _, test := range []struct {
		old, new string
		changes  bool
	}{
		{"D1", "other", false},
		{"D2", "other", false},
		{"D3", "other", false},
		{"D4", "other", false},
		{"D5", "other", false},
		{"D6", "other", false},
		{"ttl: 1d", "ttl: 2d", false},
		{"batch: on", "batch: off", false},
		{"epoch_bits: 16", "epoch_bits: 4", false},
		{"x: {desc", "renamed: {desc", false},
		{"[t1, t2]", "[t2, t1]", false},
		{"hop: 1m}", "hop: 60s}", false},
		{", hop: 1m}", "}", false}, // the default
		{"n > 1 and v = 'x'", "v='x' AND (n > 1)", false},
		{"      u: string\n", "      u: {type: string, max_bytes: 256, required: off}\n", false},
		{"at: int64", "at: {type: int64, required: true}", false}, // the event time is required anyway
		{"      v: {type: string, max_bytes: 100}\n      n: {type: int64, description: D2}\n", "      n: int64\n      v: {type: string, max_bytes: 100}\n", false},
		{"project: p", "project: q", false},

		{"[t1, t2]", "[t1, t3]", true},
		{"      at: int64", "      at: int64\n      more: bool", true},
		{"max_bytes: 100", "max_bytes: 101", true},
		{"type: int64,", "type: float64,", true},
		{"type: int64,", "type: int64, required: true,", true},
		{"unit: ms", "unit: s", true},
		{"unit: ms", "unit: ms, min: 0001-01-01T00:00:00Z", true},
		{"max_future: 1m", "max_future: any", true},
		{"keys: {id: u}", "keys: {id: v}", true},
		{"keys: {id: string}", "keys: {id: string, v: string}", true},
		{"  e:\n", "  person:\n", true},
		{"s:\n    desc", "stream:\n    desc", true},
		{"n > 1", "n > 2", true},
		{"n = 2", "n = 3", true},
		{"size: 1h", "size: 2h", true},
		{"hop: 1m", "hop: 30s", true},
		{"field: n", "field: at", true},
		{"sum", "max", true},
		{"type: sliding, size: 1h, hop: 1m", "type: lifetime", true},
		{"      b:", "      c:", true},
	} {
		text := strings.Replace(hashed, test.old, test.new, 1)
		if strings.Contains(test.new, "person") {
			text = strings.Replace(text, "entity: e", "entity: person", 1)
		}
		if strings.Contains(test.new, "stream") {
			text = strings.Replace(text, "source: s", "source: stream", 1)
		}
		if text == hashed {
			t.Errorf("%q is not in the text", test.old)
			continue
		}
		if got := hash(text) != base; got != test.changes {
			t.Errorf("%q becomes %q: the hash changes: %t, want %t", test.old, test.new, got, test.changes)
		}
	}
	a, b := "      a: {aggregate: count, where: n = 2}\n", "      b: {aggregate: sum, field: n, description: D5}\n"
	if hash(strings.Replace(hashed, a+b, b+a, 1)) == base {
		t.Error("the order of features lays out states, and does not change the hash")
	}
}

// TestRetiredVersion: a definition that comes back after it was retired gets a new number, because what happened meanwhile is
// not in the states of the old one.
func TestRetiredVersion(t *testing.T) {
	compile := func(text string) *features.Compiled {
		definitions, problems := features.Parse(map[string][]byte{"f.yaml": []byte(text)})
		if problems.Fatal() {
			t.Fatal(problems)
		}
		c, err := features.Compile(definitions)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	topics := map[string]string{"t1": "one", "t2": "two"}
	var r *features.Registry
	for i, step := range []struct {
		text    string
		version uint32
		changed bool
	}{
		{hashed, 1, true}, {hashed, 1, false}, {strings.Replace(hashed, "size: 1h", "size: 2h", 1), 2, true}, {hashed, 3, true}, {hashed, 3, false},
	} {
		c := compile(step.text)
		next, changed, err := features.Apply(r, c, topics)
		if err != nil || changed != step.changed {
			t.Fatalf("step %d: changed %t, %v", i, changed, err)
		}
		bound, err := next.Bind(c)
		if err != nil || bound.Views[0].Version.ID != step.version {
			t.Fatalf("step %d: got %+v, %v, want version %d", i, bound.Views[0].Version, err, step.version)
		}
		r = next
	}
}
