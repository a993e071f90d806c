package features

import (
	"fmt"
	"slices"

	"millrace/windows"
)

// Plan is what applying definitions would change, and what that costs. It is made from the registry alone: no store is asked.
type Plan struct {
	Project string `json:"project"`
	// Generation is the one that would be in force.
	Generation uint64     `json:"generation"`
	Changed    bool       `json:"changed"`
	Views      []ViewPlan `json:"views"` // in declared order, then those that retire
	// Notes explain what happens to topics and entities.
	Notes []string `json:"notes"`
}

// Change is what happens to a view.
type Change string

// The changes. A changed view is a new version beside the old one, which retires.
const (
	Unchanged Change = "unchanged"
	New       Change = "new"
	Changed   Change = "changed"
	Retired   Change = "retired"
)

// ViewPlan is what happens to one view.
type ViewPlan struct {
	View   string `json:"view"`
	Change Change `json:"change"`
	// Version is the one in force now, 0 for none.
	Version uint32 `json:"version,omitempty"`
	Why     string `json:"why,omitempty"`
	Work    string `json:"work"`
	Cost    *Cost  `json:"cost,omitempty"` // nil for a view that retires
}

// Cost estimates what one entity of a view takes.
type Cost struct {
	// Rows is the greatest number of tiles and session fragments that are kept of an entity: all of those that a window can
	// reach, if there are events in each. With Unbounded it is that of the other windows, and each session adds one.
	Rows      int64 `json:"rows"`
	Unbounded bool  `json:"unbounded"`
	// Bytes is Rows with the average size of a row, summed over the levels of the view; RowBytes is that of one session
	// where they are unbounded.
	Bytes    int64 `json:"bytes"`
	RowBytes int64 `json:"row_bytes,omitempty"`
	// Fields is the number of fields in the entity's hash that a base takes (one), and that events of one epoch and partition
	// add until a base covers it: one per level, if they lie in one block of event time.
	Fields      int `json:"fields"`
	EpochFields int `json:"epoch_fields"`
	// Reads is the greatest number of tiles and fragments that a read of all features merges.
	Reads int64 `json:"reads"`
}

// NewPlan compares definitions with the registry that is in force, nil for none.
func NewPlan(old *Registry, c *Compiled) (*Plan, error) {
	if old == nil {
		old = &Registry{Project: c.Project}
	}
	if old.Project != c.Project {
		return nil, fmt.Errorf("the registry belongs to project %q, the definitions to %q", old.Project, c.Project)
	}
	p := &Plan{Project: c.Project, Generation: old.Generation, Views: []ViewPlan{}, Notes: []string{}}
	p.topics(old, c)
	p.entities(old, c)
	for _, v := range c.Views {
		p.Views = append(p.Views, planView(old, v))
	}
	for _, x := range old.Versions {
		if x.Active && c.View(x.View) == nil {
			p.Views = append(p.Views, ViewPlan{
				View: x.View, Change: Retired, Version: x.ID, Why: "no file declares it",
				Work: "nothing folds or serves it any more; declared again it is a new version",
			})
		}
	}
	for _, v := range p.Views {
		p.Changed = p.Changed || v.Change != Unchanged
	}
	if p.Changed {
		p.Generation++
	}
	return p, nil
}

func planView(old *Registry, v *CompiledView) ViewPlan {
	p := ViewPlan{View: v.Definition.Name, Change: New, Cost: costOf(v)}
	var before *Version
	for i := range old.Versions {
		if x := &old.Versions[i]; x.View == p.View && (before == nil || x.Active || !before.Active) {
			before = x
		}
	}
	switch {
	case before == nil:
		p.Why = "no version of it was applied"
	case !before.Active:
		p.Why = fmt.Sprintf("version %d retired: what happened since is not in its states", before.ID)
	case before.Hash == v.Hash:
		p.Change, p.Version, p.Work = Unchanged, before.ID, "none: descriptions, ttl, batch and services change no state"
		return p
	default:
		p.Change, p.Version = Changed, before.ID
		// Of what was applied only a digest is stored.
		p.Why = "a window, field, filter, feature name or the source changed"
		if e := old.entityOf(before.Entity); e != nil && (e.Name != v.Entity.Name || e.Keys != keyTypes(v.Entity)) {
			p.Why = fmt.Sprintf("it is about %s (%s), and was about %s (%s)", v.Entity.Name, keyTypes(v.Entity), e.Name, e.Keys)
		}
	}
	known := slices.ContainsFunc(v.Source.Topics, func(t string) bool {
		return slices.ContainsFunc(old.Logs, func(l Log) bool { return l.Topic == t })
	})
	switch {
	case !known:
		p.Work = "folded from the beginning of its topics"
	case v.Definition.Batch:
		p.Work = "new events are folded at once; its history is recomputed by the next batch run, and it is not served before"
	default:
		p.Work = "new events are folded at once; it has no history, because its topics are already read and `batch` is off"
	}
	return p
}

func (r *Registry) entityOf(id uint32) *EntityEntry {
	for i := range r.Entities {
		if r.Entities[i].ID == id {
			return &r.Entities[i]
		}
	}
	return nil
}

func (p *Plan) notef(format string, args ...any) {
	p.Notes = append(p.Notes, fmt.Sprintf(format, args...))
}

func (p *Plan) topics(old *Registry, c *Compiled) {
	newest := map[string]Log{}
	for _, l := range old.Logs {
		newest[l.Topic] = l
	}
	read := map[string]bool{}
	for _, s := range c.Sources {
		for _, t := range s.Topics {
			read[t] = true
			l, known := newest[t]
			switch {
			case !known:
				p.Changed = true
				p.notef("topic %s is new: it becomes a log, with epochs of 2^%d records", t, s.EpochBits)
			case l.EpochBits != s.EpochBits:
				p.notef("epoch_bits of source %s is %d, and the log of topic %s keeps %d: epochs already in the stores cannot change; a topic that is made anew takes %d",
					s.Name, s.EpochBits, t, l.EpochBits, s.EpochBits)
			}
		}
	}
	for _, t := range sortedKeys(newest) {
		if !read[t] {
			p.notef("topic %s is read no more: log %d keeps its number, its archive and its place, and goes on there if a source names the topic again", t, newest[t].ID)
		}
	}
}

func (p *Plan) entities(old *Registry, c *Compiled) {
	for _, e := range c.Entities {
		if old.entity(e) != nil {
			continue
		}
		p.Changed = true
		i := slices.IndexFunc(old.Entities, func(x EntityEntry) bool { return x.Name == e.Name })
		if i < 0 {
			p.notef("entity %s (%s) is new", e.Name, keyTypes(e))
			continue
		}
		p.notef("entity %s has other keys (%s, were %s): it is a new entity, found by new keys, and its views are new versions", e.Name, keyTypes(e), old.Entities[i].Keys)
	}
	for _, x := range old.Entities {
		if c.Entity(x.Name) == nil {
			p.notef("entity %s is declared no more: it keeps its number %d", x.Name, x.ID)
		}
	}
}

// costOf estimates what one entity takes. The rows of a level:
//
//	sliding    size/hop + 2: a partial tile at either end
//	tumbling   2: the one that ended and the one that is open
//	hopping    (size + hop)/gcd(size, hop) + 1
//	session    retain/gap + 1, as sessions begin at least a gap apart; without end where all are kept
//	lifetime   1
//
// and the bytes of a row: 2 for its place (5 with the extent of a fragment), and for each aggregate the average of its
// encoding (averageOf).
func costOf(v *CompiledView) *Cost {
	c := &Cost{Fields: 1, EpochFields: len(v.Levels)}
	kept := make([]int64, len(v.Levels))
	unbounded := make([]bool, len(v.Levels))
	for _, r := range v.Reads() {
		w := r.Window
		var reach, reads int64
		switch w.Kind {
		case windows.Sliding:
			reads = int64(w.Size/w.Hop) + 2
			reach = reads
		case windows.Tumbling:
			reads, reach = 1, 2
		case windows.Hopping:
			tile := gcd(w.Size, w.Hop)
			reads, reach = int64(w.Size/tile), int64((w.Size+w.Hop)/tile)+1
		case windows.Session:
			if w.Retain > 0 {
				reach = int64(w.Retain/w.Gap) + 1
			} else {
				unbounded[r.Level] = true
			}
			reads = reach
		case windows.Lifetime:
			reads, reach = 1, 1
		}
		kept[r.Level] = max(kept[r.Level], reach)
		c.Reads += reads
	}
	for i := range v.Levels {
		info := v.Level(i)
		row := int64(2)
		if info.Session {
			row = 5
		}
		for _, col := range info.Columns {
			text := 0
			if col.Field >= 0 {
				text = v.Source.Fields[col.Field].MaxBytes
			}
			row += averageOf(col.Op, col.Type, text)
		}
		c.Rows += kept[i]
		c.Bytes += kept[i] * row
		if unbounded[i] {
			c.Unbounded = true
			c.RowBytes += row
		}
	}
	return c
}

// averageOf is the usual number of bytes in which a state is encoded: small counts, sums of a few thousand, texts of a quarter
// of what they may have and of at most 32 bytes. An edge also keeps a time and a position.
func averageOf(op windows.Op, t windows.Type, maxText int) int64 {
	value := int64(3)
	switch t {
	case windows.Float64:
		value = 8
	case windows.Bool:
		value = 1
	case windows.String:
		value = 1 + int64(min(maxText/4, 32))
	case windows.Int64:
	}
	switch op {
	case windows.Count:
		return 1
	case windows.Sum, windows.Mean:
		if t == windows.Float64 {
			value = 9 // in units of 2^-40
		}
		if op == windows.Mean {
			value++
		}
		return value
	case windows.VarPop, windows.VarSamp, windows.StddevPop, windows.StddevSamp:
		if t == windows.Float64 {
			return 30
		}
		return 12
	case windows.Min, windows.Max:
		return 1 + value
	case windows.First, windows.Last:
		return 13 + value
	}
	return value
}
