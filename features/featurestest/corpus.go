package featurestest

import (
	"embed"
	"errors"
	"path"
)

//go:embed corpus/*.test
var corpus embed.FS

// Corpus returns the cases that every engine must pass.
func Corpus() ([]*Case, error) {
	entries, err := corpus.ReadDir("corpus")
	if err != nil {
		return nil, err
	}
	var all []*Case
	var problems []error
	for _, e := range entries {
		text, err := corpus.ReadFile(path.Join("corpus", e.Name()))
		if err != nil {
			return nil, err
		}
		cases, wrong := Parse(e.Name(), text, nil)
		all = append(all, cases...)
		problems = append(problems, wrong...)
	}
	return all, errors.Join(problems...)
}
