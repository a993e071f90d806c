package main

import (
	"bufio"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// arrows says which top folders a folder may import besides itself: cmd -> speed, batch, serving, loadtest -> models
// -> features -> windows. speed, batch, serving and loadtest meet in the definitions and in the stores, never in code;
// internal is mechanics and knows no feature.
func arrows() map[string][]string {
	layer := []string{"models", "features", "windows", "internal"}
	return map[string][]string{
		"windows":  {},
		"features": {"windows"},
		"models":   {"features", "windows"},
		"internal": {},
		"speed":    layer,
		"batch":    layer,
		"serving":  layer,
		"loadtest": layer,
		"cmd":      {"speed", "batch", "serving", "loadtest", "models", "features", "windows", "internal"},
		"examples": {"features", "windows"},
	}
}

const root = "../.." // the repository, seen from this package

// TestArrows reads the files in this process: go test sees those reads and runs again when one changes, while a test
// that asks `go list` is served stale from the cache.
func TestArrows(t *testing.T) {
	module := modulePath(t)
	seen := map[string]bool{}
	for _, path := range goFiles(t) {
		folder, _, nested := strings.Cut(path, "/")
		if !nested {
			t.Errorf("%s: no Go files in the repository's root", path)
			continue
		}
		seen[folder] = true
		allowed, known := arrows()[folder]
		if !known {
			t.Errorf("%s: the map of arrows does not know the folder %s; a new folder needs an ADR", path, folder)
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, parser.ImportsOnly)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Errorf("%s: import %s: %v", path, spec.Path.Value, err)
				continue
			}
			rest, ours := strings.CutPrefix(imported, module+"/")
			target, _, _ := strings.Cut(rest, "/")
			if ours && target != folder && !slices.Contains(allowed, target) {
				t.Errorf("%s imports %s: %s may import only %v of ours", path, imported, folder, allowed)
			}
		}
	}
	for _, folder := range []string{"cmd", "features", "windows"} {
		if !seen[folder] {
			t.Errorf("no Go file seen in %s: the walk looks at the wrong place", folder)
		}
	}
}

// TestLintNamesModule: the linter's arrows are written with the module's path and match nothing when it changes.
func TestLintNamesModule(t *testing.T) {
	module := modulePath(t)
	config, err := os.ReadFile(filepath.Join(root, ".golangci.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"module-path: " + module + " ", "- " + module + "/windows\n"} {
		if !strings.Contains(string(config), want) {
			t.Errorf(".golangci.yml does not contain %q, go.mod's module is %s", want, module)
		}
	}
	folders := arrows()
	for _, m := range regexp.MustCompile(`pkg: (\w+)/(\w+)`).FindAllStringSubmatch(string(config), -1) {
		if _, ours := folders[m[2]]; ours && m[1] != module {
			t.Errorf(".golangci.yml denies %s/%s, go.mod's module is %s", m[1], m[2], module)
		}
	}
	for folder := range folders {
		if folder == "cmd" || folder == "examples" {
			continue // may import all, or is no layer
		}
		if !strings.Contains(string(config), "${config-path}/"+folder+"/**") {
			t.Errorf(".golangci.yml has no rule for %s/", folder)
		}
	}
}

func modulePath(t *testing.T) string {
	t.Helper()
	file, err := os.Open(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if path, ok := strings.CutPrefix(lines.Text(), "module "); ok {
			return strings.TrimSpace(path)
		}
	}
	t.Fatal("go.mod has no module line")
	return ""
}

// goFiles are the Go files of this module, by slash path from the root.
func goFiles(t *testing.T) []string {
	t.Helper()
	var found []string
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != ".":
			if strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_") || d.Name() == "testdata" || d.Name() == "node_modules" {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(root, path, "go.mod")); err == nil {
				return fs.SkipDir // a module of its own
			}
		case strings.HasSuffix(path, ".go"):
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
