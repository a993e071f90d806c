package main

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/batch"
	"millrace/features"
	"millrace/features/featurestest"
	"millrace/windows"
)

// TestCorpusOnTheWholePath runs the corpus over the wire and in SQL. Each read is asked at its moment, when the events before it
// are in the log, and those after it are not; between the moments the speed layer crashes and the batch layer runs.
func TestCorpusOnTheWholePath(t *testing.T) {
	t.Logf("seed %d", *lawSeed)
	rng := rand.New(rand.NewPCG(*lawSeed, 13))
	cases, err := featurestest.Corpus()
	if err != nil {
		t.Fatal(err)
	}
	// All cases in window notation are one project with a view for each window; their keys are kept apart by a prefix.
	var list []string
	var notation, others []*onPath
	for i, c := range cases {
		if w, ok := c.Window(); ok {
			view := slices.Index(list, w)
			if view < 0 {
				view = len(list)
				list = append(list, w)
			}
			notation = append(notation, newOnPath(c, func(string) string { return "v" + strconv.Itoa(view) }, strconv.Itoa(i)+"/"))
		} else {
			others = append(others, newOnPath(c, func(name string) string { return name }, ""))
		}
	}
	parsed, problems := features.Parse(map[string][]byte{"corpus.yaml": []byte(featurestest.NotationDefinitions(list))})
	if problems.Fatal() {
		t.Fatal(problems)
	}
	compiled, err := features.Compile(parsed)
	if err != nil {
		t.Fatal(err)
	}
	runOnPath(t, rng, compiled, notation)
	for _, c := range others {
		runOnPath(t, rng, c.Compiled, []*onPath{c})
	}
}

// onPath is a case on its way.
type onPath struct {
	*featurestest.Case
	view   func(name string) string // of the project that it runs in
	prefix string                   // of its keys
	times  map[int]windows.Time     // of its records
	reads  []*featurestest.Read     // by moment
}

func newOnPath(c *featurestest.Case, view func(string) string, prefix string) *onPath {
	p := &onPath{Case: c, view: view, prefix: prefix}
	for i := range c.Reads {
		p.reads = append(p.reads, &c.Reads[i])
	}
	slices.SortStableFunc(p.reads, func(a, b *featurestest.Read) int { return cmp.Compare(a.At, b.At) })
	return p
}

func runOnPath(t *testing.T, rng *rand.Rand, compiled *features.Compiled, cases []*onPath) {
	t.Helper()
	partitions, rounds := int32(3), 0
	for _, c := range cases {
		for _, r := range c.Records {
			partitions = max(partitions, r.Partition+1)
		}
		rounds = max(rounds, len(c.reads))
	}
	p := newCompiledPath(t, compiled, partitions)
	p.startServing()
	w := p.startSpeed()
	over := 0
	for round := range rounds {
		var due []*onPath
		for _, c := range cases {
			if round < len(c.reads) {
				due = append(due, c)
			}
		}
		p.produceBefore(rng, due, round)
		if rng.IntN(3) == 0 {
			w.crash()
			w = p.startSpeed()
		}
		p.waitForEnd()
		for _, c := range due {
			over += p.checkServed(c, c.reads[round])
		}
		if rng.IntN(3) == 0 || round+1 == rounds {
			if err := p.runner.Run(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.crash()
	for _, c := range cases {
		p.checkServed(c, c.reads[len(c.reads)-1]) // the same from a base
	}
	p.checkSQL(cases)
	t.Logf("%d cases, %d reads over HTTP", len(cases), over)
}

// produceBefore publishes the records of each case that come before its next moment, in the order of their positions.
func (p *path) produceBefore(rng *rand.Rand, cases []*onPath, round int) {
	p.t.Helper()
	var records []*kgo.Record
	for _, c := range cases {
		if c.times == nil {
			c.times = map[int]windows.Time{}
			for _, v := range c.Compiled.Views {
				events, err := c.Events(v)
				if err != nil {
					p.t.Fatal(err)
				}
				for _, e := range events {
					c.times[e.Record] = e.Time
				}
			}
		}
		var due []int
		for i, at := range c.times {
			if at < c.reads[round].At {
				due = append(due, i)
			}
		}
		slices.SortFunc(due, func(a, b int) int {
			x, y := &c.Records[a], &c.Records[b]
			return cmp.Or(strings.Compare(x.Topic, y.Topic), cmp.Compare(x.Partition, y.Partition), cmp.Compare(x.Offset, y.Offset), cmp.Compare(a, b))
		})
		for i, record := range due {
			r := &c.Records[record]
			delete(c.times, record)
			if i > 0 {
				if before := &c.Records[due[i-1]]; before.Topic == r.Topic && before.Partition == r.Partition && before.Offset == r.Offset {
					continue // one record, delivered again
				}
			}
			part := r.Partition
			if !c.Placed {
				part = int32(rng.IntN(3))
			}
			value := []byte(strings.Replace(string(r.Value), `{"k":"`, `{"k":"`+c.prefix, 1))
			p.log[r.Topic][part] = append(p.log[r.Topic][part], value)
			records = append(records, &kgo.Record{Topic: r.Topic, Partition: part, Value: value})
		}
	}
	if err := p.client.ProduceSync(p.t.Context(), records...).FirstErr(); err != nil {
		p.t.Fatal(err)
	}
}

// at returns where a read goes in the project that its case runs in.
func (p *path) at(c *onPath, r *featurestest.Read) (view *features.BoundView, key string) {
	view = p.bound.View(c.view(r.View.Definition.Name))
	values := slices.Clone(r.Key)
	if c.prefix != "" {
		values[0].Str = c.prefix + values[0].Str
	}
	bytes, ok := view.Entity.AppendKey(nil, values)
	if !ok {
		p.t.Fatalf("%s:%d: a key is null", c.File, r.Line)
	}
	return view, string(bytes)
}

func (p *path) checkServed(c *onPath, r *featurestest.Read) int {
	p.t.Helper()
	view, key := p.at(c, r)
	columns := p.ask(view, []string{key}, r.At)
	for _, want := range r.Want {
		value, status := columns[want.Feature].Values[0], columns[want.Feature].Statuses[0]
		empty := want.Value.Kind == windows.Null || want.Value == windows.IntValue(0) || want.Value == windows.FloatValue(0)
		switch {
		case status == windows.StatusNotFound.String() && empty:
		case want.Value.Kind == windows.Invalid && status == windows.StatusInvalid.String():
		case status == windows.StatusInvalid.String(), !sameValue(value, want.Value):
			p.t.Errorf("%s:%d: case %s: %s at %d: want %s, served %s %s", c.File, r.Line, c.Name, view.Features[want.Feature].Name, r.At, want.Value, value, status)
		}
	}
	return 1
}

// checkSQL asks for every read in SQL over the whole archive.
func (p *path) checkSQL(cases []*onPath) {
	p.t.Helper()
	type moment struct {
		view string
		at   windows.Time
	}
	type asked struct {
		c   *onPath
		r   *featurestest.Read
		key string
	}
	all := map[moment][]asked{}
	for _, c := range cases {
		for _, r := range c.reads {
			view, key := p.at(c, r)
			m := moment{view.Definition.Name, r.At}
			all[m] = append(all[m], asked{c, r, key})
		}
	}
	for _, m := range slices.SortedFunc(maps.Keys(all), func(a, b moment) int { return cmp.Or(strings.Compare(a.view, b.view), cmp.Compare(a.at, b.at)) }) {
		var keys [][]byte
		for _, a := range all[m] {
			keys = append(keys, []byte(a.key))
		}
		answers := map[string][]windows.Result{}
		if err := batch.AtKeys(p.t.Context(), p.conn, p.bound.View(m.view).CompiledView, m.at, keys, func(key []byte, _ windows.Time, results []windows.Result) error {
			answers[string(key)] = slices.Clone(results)
			return nil
		}); err != nil {
			p.t.Fatal(err)
		}
		for _, a := range all[m] {
			got := answers[a.key]
			if got == nil { // no event before the moment
				got = slices.Repeat([]windows.Result{{Status: windows.StatusNotFound}}, len(p.bound.View(m.view).Features))
			}
			if err := a.c.Check(a.r, got, "SQL", ""); err != nil {
				p.t.Error(err)
			}
		}
	}
}
