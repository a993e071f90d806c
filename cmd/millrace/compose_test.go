package main

import (
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml"
)

// TestComposeFitsCommandLine: each role in compose.yaml is a command that exists, and each of its MILLRACE_ variables is a
// flag or a secret. A name that nobody reads would be a setting that silently does nothing.
func TestComposeFitsCommandLine(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(root, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var compose struct {
		Services map[string]struct {
			Image       string            `yaml:"image"`
			Command     []string          `yaml:"command"`
			Environment map[string]string `yaml:"environment"`
		} `yaml:"services"`
	}
	if err := yaml.Unmarshal(content, &compose); err != nil {
		t.Fatal(err)
	}
	known := settings(t)
	roles := 0
	for _, name := range slices.Sorted(maps.Keys(compose.Services)) {
		service := compose.Services[name]
		if !strings.HasPrefix(service.Image, "millrace:") {
			continue
		}
		roles++
		var env []string
		for variable, value := range service.Environment {
			env = append(env, variable+"="+value)
			setting := strings.TrimSuffix(variable, "_FILE")
			if strings.HasPrefix(variable, envPrefix) && !known[variable] && !known[setting] {
				t.Errorf("%s: nothing reads %s", name, variable)
			}
		}
		var c cli
		parser, err := newParser(&c, lookupIn(env), io.Discard, io.Discard, func(int) {})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse(service.Command); err != nil {
			t.Errorf("%s: millrace %s: %v", name, strings.Join(service.Command, " "), err)
		}
	}
	if roles == 0 {
		t.Error("no service runs millrace")
	}
}

// settings are the environment's names of all flags of all commands, and of the secrets that the source asks for.
func settings(t *testing.T) map[string]bool {
	t.Helper()
	var c cli
	parser, err := newParser(&c, lookupIn(nil), io.Discard, io.Discard, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	var walk func(*kong.Node)
	walk = func(node *kong.Node) {
		for _, flag := range node.Flags {
			known[envName(flag.Name)] = true
		}
		for _, child := range node.Children {
			walk(child)
		}
	}
	walk(parser.Model.Node)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\.secret\("(MILLRACE_\w+)"\)`).FindAllStringSubmatch(string(content), -1) {
			known[m[1]] = true
		}
	}
	return known
}
