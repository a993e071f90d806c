package main

import (
	"os"
	"path/filepath"

	"millrace/features"
)

// loadDefinitions parses a folder or one file. The problems name files as they are seen from here.
func loadDefinitions(path string) (*features.Definitions, features.Problems, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, usagef("definitions: %w", err)
	}
	if !info.IsDir() {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, nil, usagef("definitions: %w", err)
		}
		definitions, problems := features.Parse(map[string][]byte{path: data})
		return definitions, problems, nil
	}
	definitions, problems := features.ParseFS(os.DirFS(path))
	for i := range problems {
		if problems[i].File != "" {
			problems[i].File = filepath.Join(path, problems[i].File)
		}
	}
	return definitions, problems, nil
}

// compileDefinitions parses and compiles; problems that are more than warnings are an error.
func compileDefinitions(path string) (*features.Compiled, error) {
	definitions, problems, err := loadDefinitions(path)
	if err != nil {
		return nil, err
	}
	if problems.Fatal() {
		return nil, problems
	}
	return features.Compile(definitions)
}
