package speed

import (
	"slices"

	"millrace/features"
	"millrace/features/keyspace"
	"millrace/windows"
)

// topicPlan is what the folder does with the records of one topic.
type topicPlan struct {
	log     features.Log
	sources []sourcePlan
}

// sourcePlan decodes a record as an event of one source and folds it into the views of each entity that it touches.
type sourcePlan struct {
	decoder  *features.Decoder
	row      []windows.Value
	name     string
	entities []entityPlan
}

// entityPlan is the views over one source that share an entity, and so a hash in Redis.
type entityPlan struct {
	id    uint32
	views []*features.BoundView
}

// newPlan arranges the views of a project by topic.
func newPlan(b *features.Bound) map[string]*topicPlan {
	plan := map[string]*topicPlan{}
	for _, s := range b.Sources {
		for _, topic := range s.Topics {
			t := plan[topic]
			if t == nil {
				t = &topicPlan{log: b.Logs[topic]}
				plan[topic] = t
			}
			sp := sourcePlan{decoder: features.NewDecoder(s), row: make([]windows.Value, len(s.Fields)), name: s.Name}
			for _, v := range b.Views {
				if v.Source != s {
					continue
				}
				i := slices.IndexFunc(sp.entities, func(e entityPlan) bool { return e.id == v.EntityID })
				if i < 0 {
					i = len(sp.entities)
					sp.entities = append(sp.entities, entityPlan{id: v.EntityID})
				}
				sp.entities[i].views = append(sp.entities[i].views, v)
			}
			t.sources = append(t.sources, sp)
		}
	}
	return plan
}

// versions returns the view versions that a topic's records are folded into.
func (t *topicPlan) versions() []*features.BoundView {
	var all []*features.BoundView
	for _, s := range t.sources {
		for _, e := range s.entities {
			all = append(all, e.views...)
		}
	}
	return all
}

// viewOf returns the view with that version, or nil.
func (t *topicPlan) viewOf(version uint32) *features.BoundView {
	for _, v := range t.versions() {
		if v.Version.ID == version {
			return v
		}
	}
	return nil
}

// bucketOf returns the bucket of an entity key.
func bucketOf(b *features.Bound, key []byte) keyspace.Bucket {
	return keyspace.BucketOf(key, b.Registry.Buckets)
}
