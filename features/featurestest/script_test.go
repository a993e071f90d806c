package featurestest

import (
	"strings"
	"testing"
)

// TestParseProblems: every mistake is told with its place, all of them at once.
func TestParseProblems(t *testing.T) {
	script := `event clicks {}
case one
case one
  window session gap=10
  window session gap=20
  events a a:x@1 a@1..5 a@1#ev/0 a@1#nowhere/0/0
  events a@3 a@4#ev/0/1
  expect a [0,10) n=1
  expect a t=1: n=1; a t=x: cur -, prev -
  expect a t=5: cur [3,14) n=2 colour=3, prev -
  frobnicate
case two
  expect visits {} at 1: n=1
case three
  window hopping size=10 hop=20
case four
  window sliding size=10 hop=1
  expect a [0,10) n=1
case five
  window tumbling size=10
  events a@1 a@25
  expect a [0,10) n=1
`
	want := []string{
		`s.test:1: "event" before the first case`,
		`s.test:2: case "one" expects nothing`,
		`s.test:3: a second case "one"`,
		`s.test:5: a case has one window`,
		`s.test:6: event "a": want key@time`,
		`s.test:9: "a t=1: n=1": want`,
		`s.test:10: "a t=5: cur [3,14) n=2 colour=3, prev -": no feature "colour"`,
		`s.test:11: unknown word "frobnicate"`,
		`s.test:13: no definitions`,
		`s.test:15: window hopping size=10 hop=20`,
		`s.test:18: key a: a sliding window has no list of windows`,
		`s.test:22: key a: 2 windows are not empty, 1 are stated`,
	}
	_, problems := Parse("s.test", []byte(script), nil)
	var got []string
	for _, p := range problems {
		got = append(got, p.Error())
	}
	text := strings.Join(got, "\n")
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%q is missing", w)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// TestMistakesAreSeen: an engine that is wrong is told apart from one that is right.
func TestMistakesAreSeen(t *testing.T) {
	script := `case wrong
  window session gap=10
  events a@0 a@9
  expect a t=5: cur [0,10) n=2, prev -
`
	cases, problems := Parse("s.test", []byte(script), nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	errs := RunOracle(cases[0])
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), `want 2, got 1`) || !strings.Contains(errs[0].Error(), `"at":0`) {
		t.Fatalf("got %v", errs)
	}
}
