package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"millrace/features"
	"millrace/features/featurestest"
)

// testCmd runs scripts of expected feature values.
type testCmd struct {
	Definitions string   `help:"Folder (or file) with the definitions that the scripts are about; none if the scripts bring their own." placeholder:"PATH"`
	Scripts     []string `arg:"" help:"Scripts, or folders with *.test files." placeholder:"SCRIPT"`
	Engine      []string `help:"Engines: oracle (a naive fold), windows (the states that are stored)." enum:"oracle,windows" default:"oracle,windows"`
	Seed        uint64   `help:"Seed of the orders and divisions that are tried; 0 for another one each time." default:"0"`
}

func (testCmd) Help() string {
	return `Runs scripts that say which events come and which values must then be read, without any server. Beside the order as written, the
engines try others, several partitions, and every division between batch and stream. A failing line shows what was wanted, what came,
and the events that made it.

  millrace test --definitions features/ features/

  case the second visit
    event clicks {"user": "ada", "at": 0, "page": "/"}
    event clicks {"user": "ada", "at": 1800000, "page": "/price"}
    expect visits {"user": "ada"} at 1800001: clicks=1 last_page="/price" prev_clicks=1`
}

// Run runs the scripts.
func (c *testCmd) Run(a *app) error {
	var compiled *features.Compiled
	if c.Definitions != "" {
		var err error
		if compiled, err = compileDefinitions(c.Definitions); err != nil {
			return err
		}
	}
	files, err := scriptFiles(c.Scripts)
	if err != nil {
		return err
	}
	if c.Seed == 0 {
		c.Seed = uint64(time.Now().UnixNano())
	}
	rng := rand.New(rand.NewPCG(c.Seed, 0)) //nolint:gosec // dice, no secrets
	cases, reads, failed := 0, 0, 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return usageError{err}
		}
		list, problems := featurestest.Parse(file, text, compiled)
		if len(problems) > 0 {
			failed += len(problems)
			_, _ = fmt.Fprintln(a.stdout, errors.Join(problems...))
			continue
		}
		for _, one := range list {
			var problems []error
			if slices.Contains(c.Engine, "oracle") {
				problems = append(problems, featurestest.RunOracle(one)...)
			}
			if slices.Contains(c.Engine, "windows") {
				problems = append(problems, featurestest.RunWindows(one, rng)...)
			}
			for _, p := range problems {
				_, _ = fmt.Fprintln(a.stdout, p)
			}
			failed += len(problems)
			cases++
			reads += len(one.Reads)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%s, %s: %d failed (--seed %d)", count(cases, "case"), count(reads, "read"), failed, c.Seed)
	}
	_, err = fmt.Fprintf(a.stdout, "%s, %s: fine\n", count(cases, "case"), count(reads, "read"))
	return err
}

// scriptFiles expands folders to the scripts in them.
func scriptFiles(paths []string) ([]string, error) {
	var files []string
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, usageError{err}
		}
		if !info.IsDir() {
			files = append(files, path)
			continue
		}
		in, err := filepath.Glob(filepath.Join(path, "*.test"))
		if err != nil {
			return nil, err
		}
		if len(in) == 0 {
			return nil, usagef("no *.test files in %s", path)
		}
		files = append(files, in...)
	}
	return files, nil
}
