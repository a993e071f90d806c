package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocPaths: each back-quoted path and each relative link in the documents exists, so that a moved file takes its
// mentions along.
func TestDocPaths(t *testing.T) {
	for _, doc := range documents(t) {
		content, err := os.ReadFile(filepath.Join(root, doc))
		if err != nil {
			t.Fatal(err)
		}
		for _, ref := range references(string(content)) {
			path := ref.path
			switch {
			case ref.link && strings.HasPrefix(path, "/"):
				t.Errorf("%s:%d: link %s is not relative", doc, ref.line, path)
				continue
			case ref.link:
				path = filepath.Join(filepath.Dir(doc), path)
			}
			if matches, err := filepath.Glob(filepath.Join(root, path)); err != nil || len(matches) == 0 {
				t.Errorf("%s:%d: %s does not exist", doc, ref.line, ref.path)
			}
		}
	}
}

func documents(t *testing.T) []string {
	t.Helper()
	top, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil || len(top) == 0 {
		t.Fatalf("documents in the root: %q, %v", top, err)
	}
	var docs []string
	for _, path := range top {
		docs = append(docs, filepath.Base(path))
	}
	err = filepath.WalkDir(filepath.Join(root, "docs"), func(path string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".md") {
			rel, relErr := filepath.Rel(root, path)
			docs = append(docs, rel)
			return relErr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

type reference struct {
	path string
	line int
	link bool // relative to the document; a back-quoted path is relative to the root
}

// What looks like a path of the repository: one of its folders with a slash, or a file in the root.
// Fenced blocks are left out: they show sessions, not places.
var (
	codeSpan = regexp.MustCompile("`([^`]+)`")
	ourPath  = regexp.MustCompile(`^(\.ci|batch|cmd|deploy|docs|examples|features|internal|loadtest|models|serving|speed|tools|windows)/[\w.*/-]*$|^[A-Z]+\.md$|^(Makefile|LICENSE|NOTICE|compose\.yaml|go\.mod|\.golangci\.yml)$`)
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
)

func references(text string) []reference {
	var refs []reference
	fenced := false
	for i, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
		}
		if fenced {
			continue
		}
		for _, m := range codeSpan.FindAllStringSubmatch(line, -1) {
			if ourPath.MatchString(m[1]) {
				refs = append(refs, reference{path: strings.TrimSuffix(m[1], "/"), line: i + 1})
			}
		}
		for _, m := range link.FindAllStringSubmatch(codeSpan.ReplaceAllString(line, ""), -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if target != "" && !strings.Contains(target, "://") && !strings.HasPrefix(target, "mailto:") {
				refs = append(refs, reference{path: target, line: i + 1, link: true})
			}
		}
	}
	return refs
}

func TestReferences(t *testing.T) {
	text := "See `windows/time.go`, `windows/`, `windows`, `x.y`, [a](docs/a.md#b), [b](https://example.com), `[c](d)`.\n" +
		"```\n`cmd/gone`\n```\n`LICENSE` and [`cmd/`](cmd/)"
	got := references(text)
	want := []reference{
		{"windows/time.go", 1, false},
		{"windows", 1, false},
		{"docs/a.md", 1, true},
		{"LICENSE", 5, false},
		{"cmd", 5, false},
		{"cmd/", 5, true},
	}
	if len(got) != len(want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("reference %d: got %+v, want %+v", i, got[i], want[i])
		}
	}
}
