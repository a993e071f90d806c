package featurestest

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"millrace/features"
	"millrace/windows"
)

// MismatchError says where an engine disagrees with a script: what it answered, what was expected, and the events that made it.
type MismatchError struct {
	Case    *Case
	Read    *Read
	Engine  string
	Variant string // how the log was cut and ordered; empty for as written
	Want    Want
	Got     windows.Result
}

func (m *MismatchError) Error() string {
	var b strings.Builder
	v := m.Read.View
	fmt.Fprintf(&b, "%s:%d: case %s: %s of %s %s at %d: want %s, got %s (%s) from %s", m.Case.File, m.Read.Line, m.Case.Name,
		v.Features[m.Want.Feature].Name, v.Definition.Name, keyText(v, m.Read.Key), m.Read.At, m.Want.Value, m.Got.Value, m.Got.Status, m.Engine)
	if m.Variant != "" {
		fmt.Fprintf(&b, " (%s)", m.Variant)
	}
	const most = 20
	events, err := m.Case.eventsBefore(m.Read)
	if err != nil {
		return b.String()
	}
	for i, e := range events {
		if i == most {
			fmt.Fprintf(&b, "\n    … and %d more", len(events)-most)
			break
		}
		r := m.Case.Records[e.Record]
		fmt.Fprintf(&b, "\n    %s/%d/%d at %d: %s", r.Topic, r.Partition, r.Offset, e.Time, r.Value)
	}
	return b.String()
}

func keyText(v *features.CompiledView, key []windows.Value) string {
	var parts []string
	for i, k := range v.Entity.Keys {
		parts = append(parts, k.Name+"="+key[i].String())
	}
	return strings.Join(parts, ",")
}

// Check compares an engine's answer with what a read expects; nil where they agree. An entity that has no event at all
// answers like one whose windows are empty.
func (c *Case) Check(r *Read, got []windows.Result, engine, variant string) error {
	for _, want := range r.Want {
		g := got[want.Feature]
		if want.Value.Kind == windows.Invalid && g.Status == windows.StatusInvalid {
			continue
		}
		if (g.Value != want.Value || g.Status == windows.StatusInvalid) && (g.Status != windows.StatusNotFound || want.Value.Kind != windows.Null && want.Value != windows.IntValue(0) && want.Value != windows.FloatValue(0)) {
			return &MismatchError{c, r, engine, variant, want, g}
		}
	}
	return nil
}

// eventsBefore returns the events of the read's entity before its moment, in order of arrival.
func (c *Case) eventsBefore(r *Read) ([]Event, error) {
	all, err := c.Events(r.View)
	if err != nil {
		return nil, err
	}
	key, ok := r.View.Entity.AppendKey(nil, r.Key)
	if !ok {
		return nil, fmt.Errorf("a key is null")
	}
	return slices.DeleteFunc(all, func(e Event) bool { return e.Key != string(key) || e.Time >= r.At }), nil
}

// RunOracle checks a case against the naive fold.
func RunOracle(c *Case) []error {
	return c.eachRead(func(r *Read, events []Event) error {
		return c.Check(r, Oracle(r.View, plain(events), r.At), "oracle", "")
	})
}

func (c *Case) eachRead(check func(r *Read, events []Event) error) (problems []error) {
	for i := range c.Reads {
		events, err := c.eventsBefore(&c.Reads[i])
		if err == nil {
			err = check(&c.Reads[i], events)
		}
		if err != nil {
			problems = append(problems, err)
		}
	}
	return problems
}

func plain(events []Event) []windows.Event {
	var list []windows.Event
	for _, e := range events {
		list = append(list, e.Event)
	}
	return list
}

// RunWindows checks a case against the states of package windows: as written, in other orders of arrival (all orders of up to
// five events), with the events dealt to one to three partitions, and with a base that holds any number of the first of them.
// Every state is encoded and decoded after each event, as by a worker that restarts. A record that is delivered again is not
// folded again: that is the log's business, not the algebra's.
func RunWindows(c *Case, rng *rand.Rand) []error {
	return c.eachRead(func(r *Read, events []Event) error {
		list := distinct(plain(events))
		return orders(len(list), rng, func(order []int) error {
			ordered := make([]windows.Event, len(list))
			for i, j := range order {
				ordered[i] = list[j]
			}
			for _, cut := range cuts(len(list), rng) {
				partitions := 1 + rng.IntN(3)
				got, err := merged(r, ordered[:cut], ordered[cut:], partitions, rng)
				if err != nil {
					return fmt.Errorf("%s:%d: case %s: %w", c.File, r.Line, c.Name, err)
				}
				variant := fmt.Sprintf("order %v, the first %d in the base, %d partitions", order, cut, partitions)
				if err := c.Check(r, got, "windows", variant); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func distinct(list []windows.Event) []windows.Event {
	seen := map[windows.Position]bool{}
	return slices.DeleteFunc(list, func(e windows.Event) bool {
		again := seen[e.Position]
		seen[e.Position] = true
		return again
	})
}

// orders calls each with permutations of n: all of up to five, else the given one and some random ones.
func orders(n int, rng *rand.Rand, each func(order []int) error) error {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	if n > 5 {
		for range 20 {
			if err := each(order); err != nil {
				return err
			}
			rng.Shuffle(n, func(i, j int) { order[i], order[j] = order[j], order[i] })
		}
		return nil
	}
	var permute func(k int) error
	permute = func(k int) error {
		if k == n {
			return each(order)
		}
		for i := k; i < n; i++ {
			order[k], order[i] = order[i], order[k]
			if err := permute(k + 1); err != nil {
				return err
			}
			order[k], order[i] = order[i], order[k]
		}
		return nil
	}
	return permute(0)
}

// cuts returns the places to divide n events into base and delta: all, or a sample of a long list.
func cuts(n int, rng *rand.Rand) []int {
	if n > 50 {
		return []int{0, rng.IntN(n), n}
	}
	all := make([]int, n+1)
	for i := range all {
		all[i] = i
	}
	return all
}

// merged folds events into a base and into the deltas of some partitions, and reads.
func merged(r *Read, base, delta []windows.Event, partitions int, rng *rand.Rand) ([]windows.Result, error) {
	v := r.View.View
	reader := v.NewReader()
	if len(base) > 0 {
		blocks, newest := map[windows.BlockID]*windows.Block{}, base[0].Time
		for i := range base {
			newest = max(newest, base[i].Time)
			if err := foldInto(v, blocks, &base[i]); err != nil {
				return nil, err
			}
		}
		var list []*windows.Block
		for _, b := range blocks {
			list = append(list, b)
		}
		slices.SortFunc(list, func(a, b *windows.Block) int {
			return cmp.Or(cmp.Compare(a.ID.Level, b.ID.Level), cmp.Compare(a.ID.No, b.ID.No))
		})
		if err := reader.AddBase(v.AppendBase(nil, 7, newest, list)); err != nil {
			return nil, err
		}
	}
	parts := make([]map[windows.BlockID]*windows.Block, partitions)
	for i := range delta {
		p := rng.IntN(partitions)
		if parts[p] == nil {
			parts[p] = map[windows.BlockID]*windows.Block{}
		}
		if err := foldInto(v, parts[p], &delta[i]); err != nil {
			return nil, err
		}
	}
	for _, blocks := range parts {
		for _, b := range blocks {
			if err := reader.AddBlock(b); err != nil {
				return nil, err
			}
		}
	}
	return reader.At(nil, r.At)
}

// foldInto folds an event into its blocks, each of which then goes through its encoding.
func foldInto(v *windows.View, blocks map[windows.BlockID]*windows.Block, e *windows.Event) error {
	for _, id := range v.BlocksOf(nil, e.Time) {
		b := blocks[id]
		if b == nil {
			b = &windows.Block{ID: id}
		}
		v.Fold(b, e)
		again, _, err := v.DecodeDelta(id, v.AppendDelta(nil, 1, b))
		if err != nil {
			return err
		}
		blocks[id] = again
	}
	return nil
}
