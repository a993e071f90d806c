package features_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"millrace/features"
)

func compiled(t *testing.T, text string) *features.Compiled {
	t.Helper()
	definitions, problems := features.Parse(map[string][]byte{"f.yaml": []byte(text)})
	if problems.Fatal() {
		t.Fatalf("%v in\n%s", problems, text)
	}
	c, err := features.Compile(definitions)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// planText is a plan as lines, without costs.
func planText(p *features.Plan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "generation %d, changed %t\n", p.Generation, p.Changed)
	for _, v := range p.Views {
		fmt.Fprintf(&b, "%s %s %d: %s; %s\n", v.View, v.Change, v.Version, v.Why, v.Work)
	}
	for _, n := range p.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	return b.String()
}

// TestPlan: what a plan says is what Apply then does.
func TestPlan(t *testing.T) {
	replaced := func(old, replacement string) string { return strings.Replace(hashed, old, replacement, 1) }
	extraView := "  w:\n    entity: e\n    source: s\n    batch: off\n    features: {c: {aggregate: count, window: {type: lifetime}}}\nservices:"
	const unchanged = "v unchanged 1: ; none: descriptions, ttl, batch and services change no state\n"
	for _, test := range []struct {
		name  string
		steps []string // applied one after the other; the plan is of the last
		want  string
	}{
		{"the first time", []string{hashed}, `generation 1, changed true
v new 0: no version of it was applied; folded from the beginning of its topics
note: topic t1 is new: it becomes a log, with epochs of 2^16 records
note: topic t2 is new: it becomes a log, with epochs of 2^16 records
note: entity e (id string) is new
`},
		{"nothing", []string{hashed, replaced("D4", "other words")}, "generation 1, changed false\n" + unchanged},
		{"a window", []string{hashed, replaced("size: 1h", "size: 2h")}, `generation 2, changed true
v changed 1: a window, field, filter, feature name or the source changed; new events are folded at once; its history is recomputed by the next batch run, and it is not served before
`},
		{"a view more, without batch", []string{hashed, replaced("services:", extraView)}, "generation 2, changed true\n" + unchanged +
			"w new 0: no version of it was applied; new events are folded at once; it has no history, because its topics are already read and `batch` is off\n"},
		{"a view less", []string{replaced("services:", extraView), hashed}, "generation 2, changed true\n" + unchanged +
			"w retired 2: no file declares it; nothing folds or serves it any more; declared again it is a new version\n"},
		{"a view that returns", []string{replaced("services:", extraView), hashed, replaced("services:", extraView)}, "generation 3, changed true\n" + unchanged +
			"w new 0: version 2 retired: what happened since is not in its states; new events are folded at once; it has no history, because its topics are already read and `batch` is off\n"},
		{"epochs", []string{hashed, replaced("epoch_bits: 16", "epoch_bits: 4")}, "generation 1, changed false\n" + unchanged +
			"note: epoch_bits of source s is 4, and the log of topic t1 keeps 16: epochs already in the stores cannot change; a topic that is made anew takes 4\n" +
			"note: epoch_bits of source s is 4, and the log of topic t2 keeps 16: epochs already in the stores cannot change; a topic that is made anew takes 4\n"},
		{"keys", []string{hashed, replaced("keys: {id: string}", "keys: {id: string, v: string}")}, `generation 2, changed true
v changed 1: it is about e (id string,v string), and was about e (id string); new events are folded at once; its history is recomputed by the next batch run, and it is not served before
note: entity e has other keys (id string,v string, were id string): it is a new entity, found by new keys, and its views are new versions
`},
		{"a topic and an entity less", []string{replaced("entities:", "entities:\n  extra: {keys: {n: int64}}"), replaced("[t1, t2]", "[t1, t3]")}, `generation 2, changed true
v changed 1: a window, field, filter, feature name or the source changed; new events are folded at once; its history is recomputed by the next batch run, and it is not served before
note: topic t3 is new: it becomes a log, with epochs of 2^16 records
note: topic t2 is read no more: log 2 keeps its number, its archive and its place, and goes on there if a source names the topic again
note: entity extra is declared no more: it keeps its number 1
`},
	} {
		topics := map[string]string{"t1": "one", "t2": "two", "t3": "three"}
		var r *features.Registry
		for i, text := range test.steps {
			c := compiled(t, text)
			plan, err := features.NewPlan(r, c)
			if err != nil {
				t.Fatal(err)
			}
			next, changed, err := features.Apply(r, c, topics)
			if err != nil {
				t.Fatal(err)
			}
			if plan.Changed != changed || plan.Generation != next.Generation {
				t.Errorf("%s, step %d: planned generation %d, changed %t; applied generation %d, changed %t", test.name, i, plan.Generation, plan.Changed, next.Generation, changed)
			}
			for _, v := range plan.Views {
				same := r != nil && reflect.DeepEqual(activeVersion(r, v.View), activeVersion(next, v.View))
				if same != (v.Change == features.Unchanged) {
					t.Errorf("%s, step %d: view %s planned as %s; active versions are the same: %t", test.name, i, v.View, v.Change, same)
				}
			}
			if i == len(test.steps)-1 && planText(plan) != test.want {
				t.Errorf("%s: got\n%s\nwant\n%s", test.name, planText(plan), test.want)
			}
			r = next
		}
	}
	other := &features.Registry{Project: "other"}
	if _, err := features.NewPlan(other, compiled(t, hashed)); err == nil || !strings.Contains(err.Error(), `"other"`) {
		t.Errorf("another project: got %v", err)
	}
}

func activeVersion(r *features.Registry, view string) *features.Version {
	for i := range r.Versions {
		if r.Versions[i].View == view && r.Versions[i].Active {
			return &r.Versions[i]
		}
	}
	return nil
}

func TestPlanCost(t *testing.T) {
	for _, test := range []struct{ window, want string }{
		{"{type: sliding, size: 1h, hop: 1m}", `{"rows":62,"unbounded":false,"bytes":186,"fields":1,"epoch_fields":1,"reads":62}`},
		{"{type: tumbling, size: 1h}", `{"rows":2,"unbounded":false,"bytes":6,"fields":1,"epoch_fields":1,"reads":1}`},
		{"{type: hopping, size: 1h, hop: 10m}", `{"rows":8,"unbounded":false,"bytes":24,"fields":1,"epoch_fields":1,"reads":6}`},
		{"{type: session, gap: 1h, retain: 1d}", `{"rows":25,"unbounded":false,"bytes":150,"fields":1,"epoch_fields":1,"reads":25}`},
		{"{type: session, gap: 1h, retain: all}", `{"rows":0,"unbounded":true,"bytes":0,"row_bytes":6,"fields":1,"epoch_fields":1,"reads":0}`},
		{"{type: lifetime}", `{"rows":1,"unbounded":false,"bytes":3,"fields":1,"epoch_fields":1,"reads":1}`},
	} {
		text := strings.Replace(hashed, "{type: sliding, size: 1h, hop: 1m}", test.window, 1)
		text = strings.Replace(text, "      b: {aggregate: sum, field: n, description: D5}\n", "", 1)
		plan, err := features.NewPlan(nil, compiled(t, text))
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(plan.Views[0].Cost)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != test.want {
			t.Errorf("%s: got %s, want %s", test.window, got, test.want)
		}
	}
}
