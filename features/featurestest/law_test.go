package featurestest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"millrace/features"
	"millrace/windows"
)

// TestLaw: on random definitions and random logs, the states of package windows, dealt to partitions and divided into base
// and delta anywhere, folded in any order and encoded after each event, answer what the naive fold of the log answers.
func TestLaw(t *testing.T) {
	t.Logf("seed %d", *seed)
	cases := 8000
	if testing.Short() {
		cases = 500
	}
	var compiled *features.Compiled
	for i := range cases {
		rng := rand.New(rand.NewPCG(*seed, uint64(i)))
		if i%50 == 0 {
			parsed, problems := features.Parse(map[string][]byte{"law.yaml": []byte(RandomDefinitions(rng, 50))})
			if problems.Fatal() {
				t.Fatal(problems)
			}
			var err error
			if compiled, err = features.Compile(parsed); err != nil {
				t.Fatal(err)
			}
		}
		view := compiled.Views[i%50]
		if err := lawCase(view, rng); err != nil {
			t.Fatalf("seed %d, case %d, view %+v: %v", *seed, i, *view.Definition, err)
		}
	}
}

func lawCase(view *features.CompiledView, rng *rand.Rand) error {
	decoder := features.NewDecoder(view.Source)
	var events []windows.Event
	at := windows.Time(rng.IntN(3000) - 700)
	for offset := range rng.IntN(30) {
		row := make([]windows.Value, len(view.Source.Fields))
		when, rejection := decoder.Decode(RandomEvent(rng), 0, row)
		if rejection == nil && when < at && (view.Where == nil || view.Where(row)) {
			for i := range row {
				row[i].Str = string([]byte(row[i].Str))
			}
			events = append(events, windows.Event{Time: when, Row: row, Position: windows.Position{Log: uint32(1 + rng.IntN(2)), Partition: int32(rng.IntN(3)), Offset: int64(offset)}})
		}
	}
	want := Oracle(view, events, at)
	rng.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	cut := rng.IntN(len(events) + 1)
	got, err := merged(&Read{View: view, At: at}, events[:cut], events[cut:], 1+rng.IntN(3), rng)
	if err != nil {
		return err
	}
	if !slices.Equal(got, want) {
		return fmt.Errorf("at %d: got %v, want %v of %v, %d in the base", at, got, want, events, cut)
	}
	return nil
}
