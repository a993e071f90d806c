package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"millrace/features"
)

// checkCmd checks definitions.
type checkCmd struct {
	Path   string `arg:"" optional:"" default:"." help:"Folder (or file) with the definitions." placeholder:"PATH"`
	JSON   bool   `name:"json" help:"Print the problems as JSON."`
	Schema bool   `help:"Print the JSON Schema of definitions, for editors, and check nothing."`
}

func (checkCmd) Help() string {
	return `Reads the *.yaml and *.yml files of a folder, needs no server, and says all that is wrong with them at once, each
problem with its place and its remedy. The exit status is 1 if something must be mended; warnings alone leave it at 0.

  millrace check features/
  millrace check features/ --json | jq -r '.problems[].message'
  millrace check --schema > definitions.schema.json`
}

// checkResult is what --json prints.
type checkResult struct {
	Project  string            `json:"project,omitempty"`
	Sources  int               `json:"sources"`
	Entities int               `json:"entities"`
	Views    int               `json:"views"`
	Features int               `json:"features"`
	Services int               `json:"services"`
	Problems features.Problems `json:"problems"`
}

// Run checks.
func (c *checkCmd) Run(a *app) error {
	if c.Schema {
		_, err := a.stdout.Write(features.JSONSchema())
		return err
	}
	definitions, problems, err := loadDefinitions(c.Path)
	if err != nil {
		return err
	}
	result := checkResult{Problems: problems}
	if definitions != nil {
		result.Project, result.Sources, result.Entities = definitions.Project, len(definitions.Sources), len(definitions.Entities)
		result.Views, result.Services = len(definitions.Views), len(definitions.Services)
		for _, v := range definitions.Views {
			result.Features += len(v.Features)
		}
	}
	if c.JSON {
		if problems == nil {
			result.Problems = features.Problems{}
		}
		if err := json.NewEncoder(a.stdout).Encode(result); err != nil {
			return err
		}
	} else {
		for _, p := range problems {
			if _, err := fmt.Fprintln(a.stderr, p); err != nil {
				return err
			}
		}
	}
	warnings := ""
	if n := problems.Count(features.Warning); n > 0 {
		warnings = ", " + count(n, "warning")
	}
	if problems.Fatal() {
		return errors.New(count(problems.Count(features.Error), "problem") + warnings)
	}
	if c.JSON {
		return nil
	}
	_, err = fmt.Fprintf(a.stdout, "%s, %s, %s: fine%s\n", count(result.Views, "view"), count(result.Features, "feature"), count(result.Sources, "source"), warnings)
	return err
}

// count says how many there are of something.
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
