package features

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"millrace/windows"
)

// DefaultBuckets is B, the number of buckets that the entities of a project are spread over. It is fixed when a project is
// first applied.
const DefaultBuckets = 64

// Registry is what a project has ever applied: the short numbers that stand for topics, entities and view versions in the
// stores. Numbers are never used again. It is kept as one JSON document that only Apply changes.
type Registry struct {
	Project    string        `json:"project"`
	Generation uint64        `json:"generation"`
	Buckets    uint32        `json:"buckets"`
	Logs       []Log         `json:"logs"`
	Entities   []EntityEntry `json:"entities"`
	Versions   []Version     `json:"versions"`
}

// Log is one incarnation of a topic. A topic that was deleted and made again is another log.
type Log struct {
	ID        uint32 `json:"id"`
	Topic     string `json:"topic"`
	TopicID   string `json:"topic_id"`
	EpochBits uint8  `json:"epoch_bits"`
}

// EntityEntry numbers an entity by its name and key types.
type EntityEntry struct {
	ID   uint32 `json:"id"`
	Name string `json:"name"`
	Keys string `json:"keys"`
}

// Version numbers what determines the values of a view.
type Version struct {
	ID         uint32 `json:"id"`
	View       string `json:"view"`
	Hash       string `json:"hash"`
	Entity     uint32 `json:"entity"`
	Generation uint64 `json:"generation"` // that it came with
	Active     bool   `json:"active"`     // the current definition of its view
}

// ParseRegistry reads the document.
func ParseRegistry(data []byte) (*Registry, error) {
	r := &Registry{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	return r, nil
}

// Encode writes the document.
func (r *Registry) Encode() []byte {
	data, err := json.Marshal(r)
	if err != nil {
		panic("BUG: registry does not encode: " + err.Error())
	}
	return data
}

// Apply returns the registry that follows old (nil for none) when c is applied, and whether anything changed. topicIDs holds
// the id that the broker gives each topic.
func Apply(old *Registry, c *Compiled, topicIDs map[string]string) (next *Registry, changed bool, err error) {
	next = &Registry{Project: c.Project, Buckets: DefaultBuckets}
	if old != nil {
		if old.Project != c.Project {
			return nil, false, fmt.Errorf("these stores belong to project %q, the definitions to %q", old.Project, c.Project)
		}
		*next = *old
		next.Logs, next.Entities, next.Versions = slices.Clone(old.Logs), slices.Clone(old.Entities), slices.Clone(old.Versions)
	}
	next.Generation++
	// New logs are numbered in the byte order of their topics, so that ties between topics break the same way on every
	// fresh start.
	topics := map[string]uint8{}
	for _, s := range c.Sources {
		for _, t := range s.Topics {
			topics[t] = s.EpochBits
		}
	}
	for _, t := range sortedKeys(topics) {
		id, ok := topicIDs[t]
		if !ok {
			return nil, false, fmt.Errorf("topic %s does not exist", t)
		}
		if slices.ContainsFunc(next.Logs, func(l Log) bool { return l.Topic == t && l.TopicID == id }) {
			continue
		}
		next.Logs = append(next.Logs, Log{uint32(len(next.Logs) + 1), t, id, topics[t]})
		changed = true
	}
	for _, e := range c.Entities {
		if next.entity(e) == nil {
			next.Entities = append(next.Entities, EntityEntry{uint32(len(next.Entities) + 1), e.Name, keyTypes(e)})
			changed = true
		}
	}
	active := map[uint32]bool{}
	for _, v := range c.Views {
		// A version that was retired is not taken up again: what happened meanwhile is not in its states.
		i := slices.IndexFunc(next.Versions, func(x Version) bool { return x.Active && x.View == v.Definition.Name && x.Hash == v.Hash })
		if i < 0 {
			i = len(next.Versions)
			next.Versions = append(next.Versions, Version{
				ID: uint32(i + 1), View: v.Definition.Name, Hash: v.Hash, Entity: next.entity(v.Entity).ID, Generation: next.Generation,
			})
			changed = true
		}
		active[next.Versions[i].ID] = true
	}
	for i := range next.Versions {
		if x := &next.Versions[i]; x.Active != active[x.ID] {
			x.Active, changed = active[x.ID], true
		}
	}
	if !changed && old != nil {
		return old, false, nil
	}
	return next, true, nil
}

func keyTypes(e *Entity) string {
	var types []string
	for _, k := range e.Keys {
		types = append(types, k.Name+" "+k.Type.String())
	}
	return strings.Join(types, ",")
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (r *Registry) entity(e *Entity) *EntityEntry {
	for i := range r.Entities {
		if r.Entities[i].Name == e.Name && r.Entities[i].Keys == keyTypes(e) {
			return &r.Entities[i]
		}
	}
	return nil
}

// Bound is a compiled project with the numbers that the stores know it by.
type Bound struct {
	*Compiled
	Registry *Registry
	Views    []*BoundView
	// Logs are the logs of each source's topics, by topic.
	Logs map[string]Log
}

// BoundView is a view with its version and entity numbers.
type BoundView struct {
	*CompiledView
	Version  Version
	EntityID uint32
}

// Bind finds the numbers of c in r; it fails if c is not what was applied last.
func (r *Registry) Bind(c *Compiled) (*Bound, error) {
	b := &Bound{Compiled: c, Registry: r, Logs: map[string]Log{}}
	if r.Project != c.Project {
		return nil, fmt.Errorf("these stores belong to project %q, the definitions to %q", r.Project, c.Project)
	}
	for _, v := range c.Views {
		i := slices.IndexFunc(r.Versions, func(x Version) bool { return x.View == v.Definition.Name && x.Hash == v.Hash && x.Active })
		if i < 0 {
			return nil, fmt.Errorf("view %s is not what was applied last: run `millrace apply`", v.Definition.Name)
		}
		b.Views = append(b.Views, &BoundView{CompiledView: v, Version: r.Versions[i], EntityID: r.Versions[i].Entity})
	}
	for _, s := range c.Sources {
		for _, t := range s.Topics {
			for _, l := range r.Logs { // the newest incarnation wins
				if l.Topic == t {
					b.Logs[t] = l
				}
			}
			if _, ok := b.Logs[t]; !ok {
				return nil, fmt.Errorf("topic %s is not what was applied last: run `millrace apply`", t)
			}
		}
	}
	return b, nil
}

// View returns the bound view of that name, or nil.
func (b *Bound) View(name string) *BoundView {
	return find(b.Views, func(v *BoundView) bool { return v.Definition.Name == name })
}

// Log returns the log with that number.
func (r *Registry) Log(id uint32) (Log, bool) {
	i := slices.IndexFunc(r.Logs, func(l Log) bool { return l.ID == id })
	if i < 0 {
		return Log{}, false
	}
	return r.Logs[i], true
}

// Epoch returns the first offset of the epoch that an offset lies in.
func (l Log) Epoch(offset int64) int64 { return offset >> l.EpochBits << l.EpochBits }

// Position is how far into each partition of each log something reaches: everything below the offset.
type Position struct {
	Log       uint32 `json:"log"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

// Run is one run of the batch layer over one view version. Its positions never change.
type Run struct {
	ID        uint64       `json:"id"`
	Version   uint32       `json:"version"`
	Positions []Position   `json:"positions"`
	Started   windows.Time `json:"started"`
}

// Covers reports whether the run folded everything of an epoch of a partition that starts at that offset.
func (r *Run) Covers(log uint32, partition int32, epoch int64) bool {
	for _, p := range r.Positions {
		if p.Log == log && p.Partition == partition {
			return epoch < p.Offset
		}
	}
	return false
}
