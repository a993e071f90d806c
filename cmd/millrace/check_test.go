package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"millrace/features"
)

const checked = `project: shop
sources:
  orders:
    topic: orders.v1
    fields: {user: string, amount: float64, at: int64}
    event_time: {field: at, unit: ms}
entities:
  user: {keys: {user: string}}
views:
  spend:
    entity: user
    source: orders
    window: {type: session, gap: 30m, retain: all}
    features:
      total: {aggregate: sum, field: amount}
      total_1h: {aggregate: sum, field: amount, window: {type: sliding, size: 1h}}
`

// writeFiles makes a folder with these files.
func writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestCheck(t *testing.T) {
	fine := writeFiles(t, map[string]string{"a.yaml": checked})
	warned := writeFiles(t, map[string]string{"a.yaml": checked, "b.yaml": "entities:\n  shop: {keys: {id: string}}\n"})
	wrong := writeFiles(t, map[string]string{"a.yaml": checked, "b.yaml": "services:\n  s: {features: [spent]}\n  t: {}\n"})
	warning := filepath.Join(warned, "b.yaml") + ":2:3: warning: no view uses the entity `shop`; remove it, or add a view\n"
	problems := filepath.Join(wrong, "b.yaml") + ":2:18: there is no view `spent`; did you mean `spend`?\n" +
		filepath.Join(wrong, "b.yaml") + ":3:3: a service needs `features`; add `features: [<view>]`\n" +
		"millrace: 2 problems\n"
	for _, test := range []struct {
		path           string
		status         int
		stdout, stderr string
	}{
		{fine, exitDone, "1 view, 2 features, 1 source: fine\n", ""},
		{filepath.Join(fine, "a.yaml"), exitDone, "1 view, 2 features, 1 source: fine\n", ""},
		{warned, exitDone, "1 view, 2 features, 1 source: fine, 1 warning\n", warning},
		{wrong, exitFailed, "", problems},
	} {
		status, stdout, stderr := call(t, nil, "check", test.path)
		if status != test.status || stdout != test.stdout || stderr != test.stderr {
			t.Errorf("%s: got status %d\n%s%s\nwant status %d\n%s%s", test.path, status, stdout, stderr, test.status, test.stdout, test.stderr)
		}
	}
	if status, _, stderr := call(t, nil, "check", filepath.Join(fine, "gone")); status != exitUsage || !strings.Contains(stderr, "no such file") {
		t.Errorf("a folder that does not exist: status %d, %s", status, stderr)
	}

	status, stdout, stderr := call(t, nil, "check", "--json", wrong)
	var got checkResult
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	want := features.Problem{
		File: filepath.Join(wrong, "b.yaml"), Line: 2, Column: 18, Severity: features.Error, Message: "there is no view `spent`", Remedy: "did you mean `spend`?",
	}
	if status != exitFailed || stderr != "millrace: 2 problems\n" || len(got.Problems) != 2 || got.Problems[0] != want {
		t.Errorf("check --json: status %d, %s%s", status, stdout, stderr)
	}
	if status, stdout, stderr = call(t, nil, "check", "--json", fine); status != exitDone || stderr != "" ||
		stdout != `{"project":"shop","sources":1,"entities":1,"views":1,"features":2,"services":0,"problems":[]}`+"\n" {
		t.Errorf("check --json: status %d, %s%s", status, stdout, stderr)
	}
	if status, stdout, _ = call(t, nil, "check", "--schema"); status != exitDone || !json.Valid([]byte(stdout)) {
		t.Errorf("check --schema: status %d, %s", status, stdout)
	}
}

// TestExamplesAreFine: what the repository shows has neither problems nor warnings.
func TestExamplesAreFine(t *testing.T) {
	dirs, err := filepath.Glob(filepath.Join(root, "examples", "*", "*.yaml"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, dir := range dirs {
		if status, stdout, stderr := call(t, nil, "check", filepath.Dir(dir)); status != exitDone || stderr != "" {
			t.Errorf("%s: status %d, %s%s", dir, status, stdout, stderr)
		}
	}
}

func TestPlan(t *testing.T) {
	dir := writeFiles(t, map[string]string{"a.yaml": checked})
	status, stdout, stderr := call(t, nil, "plan", dir)
	want := `project shop: would become generation 1

VIEW   CHANGE  VERSION  ROWS              BYTES                FIELDS          READS
spend  new     -        62 + 1 a session  682 + 14 a session  1 + 2 an epoch  62 + 1 a session

spend is new: no version of it was applied.
  Work: folded from the beginning of its topics.

Note: topic orders.v1 is new: it becomes a log, with epochs of 2^16 records.
Note: entity user (user string) is new.

Costs are of one entity, at most: rows and bytes of state, fields of its hash, rows that a read merges.
`
	if strings.Join(strings.Fields(stdout), " ") != strings.Join(strings.Fields(want), " ") || status != exitDone || stderr != "" {
		t.Errorf("status %d, %s, got\n%s\nwant\n%s", status, stderr, stdout, want)
	}

	compiled, err := compileDefinitions(dir)
	if err != nil {
		t.Fatal(err)
	}
	registry, _, err := features.Apply(nil, compiled, map[string]string{"orders.v1": "id"})
	if err != nil {
		t.Fatal(err)
	}
	against := filepath.Join(t.TempDir(), "registry.json")
	if err := os.WriteFile(against, registry.Encode(), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, stdout, stderr = call(t, nil, "plan", dir, "--against", against); status != exitDone || stderr != "" ||
		!strings.HasPrefix(stdout, "project shop: nothing would change, generation 1 stays\n") || strings.Contains(stdout, "Work:") {
		t.Errorf("against what was applied: status %d, %s%s", status, stdout, stderr)
	}
	changed := writeFiles(t, map[string]string{"a.yaml": strings.Replace(checked, "size: 1h", "size: 2h", 1)})
	status, stdout, stderr = call(t, nil, "plan", changed, "--against", against, "--json")
	var plan features.Plan
	if err := json.Unmarshal([]byte(stdout), &plan); err != nil || status != exitDone || stderr != "" {
		t.Fatalf("plan --json: status %d, %v, %s%s", status, err, stdout, stderr)
	}
	if plan.Generation != 2 || len(plan.Views) != 1 || plan.Views[0].Change != features.Changed || plan.Views[0].Version != 1 {
		t.Errorf("plan --json: got %+v", plan)
	}
	broken := writeFiles(t, map[string]string{"a.yaml": "project: Shop"})
	if status, _, stderr = call(t, nil, "plan", broken); status != exitFailed || !strings.Contains(stderr, "a.yaml:1:10: ") {
		t.Errorf("broken definitions: status %d, %s", status, stderr)
	}
	if status, _, stderr = call(t, nil, "plan", dir, "--against", against+".gone"); status != exitUsage {
		t.Errorf("a registry that does not exist: status %d, %s", status, stderr)
	}
}
