package features

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"millrace/windows"
)

const reference = "../docs/definitions.md"

// TestReferenceExamples: every YAML block in the reference is right, together with those before it.
func TestReferenceExamples(t *testing.T) {
	text, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for i, block := range strings.Split(string(text), "```yaml\n")[1:] {
		yaml, _, _ := strings.Cut(block, "```")
		files[fmt.Sprintf("block-%d.yaml", i+1)] = []byte(yaml)
		if _, problems := Parse(files); len(problems) > 0 {
			t.Errorf("%s", problems.Error())
		}
	}
	if len(files) < 4 {
		t.Errorf("%d blocks found", len(files))
	}
}

// TestReadmeExample: the definitions in the README are right.
func TestReadmeExample(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(text), "```yaml\n")
	yaml, _, found := strings.Cut(block, "```")
	if _, problems := Parse(map[string][]byte{"README.md": []byte(yaml)}); !found || len(problems) > 0 {
		t.Errorf("%d bytes: %s", len(yaml), problems.Error())
	}
}

// TestReferenceIsComplete: the reference mentions every key and every word of the language.
func TestReferenceIsComplete(t *testing.T) {
	text, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	words := map[string]bool{}
	var walk func(s shape)
	members := func(list []member) {
		for _, m := range list {
			words[m.name] = true
			walk(m.shape)
		}
	}
	walk = func(s shape) {
		switch s := s.(type) {
		case *scalar:
			for _, w := range s.words {
				words[w] = true
			}
			for _, w := range s.never {
				words[w] = w != "" && w != "." && w != ".."
			}
		case *object:
			members(s.members)
			for _, v := range s.variants {
				members(v.members)
			}
		case *dict:
			walk(s.each)
		case *list:
			walk(s.each)
		case *either:
			walk(s.short)
			walk(s.long)
		default:
			t.Errorf("shape %T", s)
		}
	}
	walk(language())
	for _, word := range sortedKeys(words) {
		if words[word] && !strings.Contains(string(text), "`"+word+"`") {
			t.Errorf("`%s` is not in %s", word, reference)
		}
	}
	for _, fact := range []string{
		fmt.Sprintf("| `%d` |", DefaultMaxBytes), fmt.Sprintf("from 1 to %d", MaxMaxBytes), fmt.Sprintf("| `%d` |", DefaultEpochBits),
		fmt.Sprintf("from 0 to %d", MaxEpochBits), "| `" + formatDuration(DefaultMaxFuture) + "` |", fmt.Sprintf("%d if it is not", DefaultRetain/windows.Day),
		fmt.Sprintf("`%s`", formatDuration(maxSpan)), fmt.Sprintf("beyond %d tiles", manyTiles),
		formatDuration(DefaultHop(3_600_000)) + " for 1h", formatDuration(DefaultHop(windows.Day)) + " for 24h",
		formatDuration(DefaultHop(7*windows.Day)) + " for 7d", formatDuration(DefaultHop(30*windows.Day)) + " for 30d",
	} {
		if !strings.Contains(string(text), fact) {
			t.Errorf("%q is not in %s", fact, reference)
		}
	}
}
