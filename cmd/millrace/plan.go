package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"millrace/features"
)

// planCmd says what apply would change.
type planCmd struct {
	Path    string `arg:"" optional:"" default:"." help:"Folder (or file) with the definitions." placeholder:"PATH"`
	Against string `help:"Registry that is in force, as apply --json prints it; without it everything is new." placeholder:"FILE"`
	JSON    bool   `name:"json" help:"Print the plan as JSON."`
}

func (planCmd) Help() string {
	return `Compares definitions with what was applied, without asking a server: which views are new, changed or retired, what work
that means, and what one entity of each view costs.

  millrace plan features/
  millrace plan features/ --against registry.json
  millrace plan features/ --against registry.json --json | jq '.views[] | select(.change != "unchanged")'`
}

// Run plans.
func (c *planCmd) Run(a *app) error {
	compiled, err := compileDefinitions(c.Path)
	if err != nil {
		return err
	}
	var old *features.Registry
	if c.Against != "" {
		document, err := os.ReadFile(c.Against)
		if err != nil {
			return usagef("registry: %w", err)
		}
		if old, err = features.ParseRegistry(document); err != nil {
			return fmt.Errorf("%s: %w", c.Against, err)
		}
	}
	plan, err := features.NewPlan(old, compiled)
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(a.stdout).Encode(plan)
	}
	return printPlan(a.stdout, plan)
}

func printPlan(out io.Writer, plan *features.Plan) error {
	form := "project %s: nothing would change, generation %d stays\n\n"
	if plan.Changed {
		form = "project %s: would become generation %d\n\n"
	}
	if _, err := fmt.Fprintf(out, form, plan.Project, plan.Generation); err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "VIEW\tCHANGE\tVERSION\tROWS\tBYTES\tFIELDS\tREADS") // an error stays and comes from Flush
	for _, v := range plan.Views {
		version := "-"
		if v.Version != 0 {
			version = fmt.Sprint(v.Version)
		}
		cost := "-\t-\t-\t-"
		if k := v.Cost; k != nil {
			rows, bytes, reads := fmt.Sprint(k.Rows), fmt.Sprint(k.Bytes), fmt.Sprint(k.Reads)
			if k.Unbounded {
				rows, reads = plus(k.Rows, "1 a session"), plus(k.Reads, "1 a session")
				bytes = plus(k.Bytes, fmt.Sprintf("%d a session", k.RowBytes))
			}
			cost = fmt.Sprintf("%s\t%s\t%d + %d an epoch\t%s", rows, bytes, k.Fields, k.EpochFields, reads)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", v.View, v.Change, version, cost)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, v := range plan.Views {
		if v.Change == features.Unchanged {
			continue
		}
		if _, err := fmt.Fprintf(out, "\n%s is %s: %s.\n  Work: %s.\n", v.View, v.Change, v.Why, v.Work); err != nil {
			return err
		}
	}
	for i, n := range plan.Notes {
		if i == 0 {
			n = "\n" + "Note: " + n
		} else {
			n = "Note: " + n
		}
		if _, err := fmt.Fprintln(out, n+"."); err != nil {
			return err
		}
	}
	_, err := fmt.Fprint(out, "\nCosts are of one entity, at most: rows and bytes of state, fields of its hash, rows that a read merges.\n")
	return err
}

// plus leaves out a zero.
func plus(n int64, more string) string {
	if n == 0 {
		return more
	}
	return fmt.Sprintf("%d + %s", n, more)
}
