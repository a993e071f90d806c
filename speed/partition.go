package speed

import (
	"encoding/binary"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/features"
	"millrace/features/keyspace"
	"millrace/windows"
)

// partition is the work on one partition of one log between a takeover and its end: position, units and, in memory, the
// states of the epoch being folded.
type partition struct {
	id    int32
	topic string
	plan  *topicPlan
	bound *features.Bound

	next  int64 // records below are folded or skipped
	end   int64 // the partition's high watermark when last fetched
	epoch int64 // first offset of the epoch whose states are in memory
	units []unit

	// stale says that what is left of the polled batch was fetched before the partition was started again, further back.
	stale bool

	entities int // in memory
	event    windows.Event
	// ident is the number of the entity's kind and its key, in one string of bytes: what entities in memory are found by.
	ident []byte
	key   []byte // the key's part of ident
}

// unit is the state of one bucket that comes from one partition: what one marker guards.
type unit struct {
	bucket keyspace.Bucket
	marker keyspace.Marker // as this worker last wrote it
	// from is where this unit's own folding begins: what lies below is in Redis already.
	from int64
	// loadEpoch is the epoch in which Redis may hold fields that are not in memory, because the unit was taken over, or its
	// memory given up, in the middle of it; -1 for none. In any other epoch a field that is not in memory does not exist.
	loadEpoch int64
	entities  map[string]*entity // by ident
	dirty     []*entity
	fields    int // dirty cells
	bytes     int // roughly, of dirty cells
}

// entity is the states of one entity in memory: of this partition and epoch alone.
type entity struct {
	hash  string // its Redis key
	cells []*cell
	dirty []*cell
	// Most entities have one cell, and it is found without another visit to memory.
	first cell
	one   [1]*cell
}

// cell is one field of the entity's hash: one block of one view version.
type cell struct {
	view  *features.BoundView
	epoch int64
	block windows.Block
	dirty bool
}

// A unit is flushed before it passes these: one flush is one script call, which is never split and blocks Redis.
const (
	maxUnitFields = 450
	maxUnitBytes  = 200 << 10
)

func newPartition(topic string, id int32, plan *topicPlan, bound *features.Bound) *partition {
	p := &partition{topic: topic, id: id, plan: plan, bound: bound, epoch: -1}
	p.units = make([]unit, bound.Registry.Buckets)
	for i := range p.units {
		p.units[i].bucket = keyspace.Bucket(i)
	}
	return p
}

// restart sets everything to where the markers say that Redis is and forgets the memory. It returns the offset from which
// the partition must be read again.
func (p *partition) restart() int64 {
	p.next, p.epoch, p.entities = -1, -1, 0
	for i := range p.units {
		u := &p.units[i]
		u.from = u.marker.Next
		u.forget(p.plan.log)
		if p.next < 0 || u.from < p.next {
			p.next = u.from
		}
	}
	return p.next
}

// forget drops the memory of a unit whose fields are all in Redis up to from.
func (u *unit) forget(log features.Log) {
	u.entities = map[string]*entity{}
	u.dirty, u.fields, u.bytes = nil, 0, 0
	u.loadEpoch = log.Epoch(u.from)
	if u.loadEpoch == u.from {
		u.loadEpoch = -1 // nothing of the epoch was folded yet
	}
}

// evict gives up the memory of a partition whose units are all clean.
func (p *partition) evict() {
	for i := range p.units {
		u := &p.units[i]
		u.from = max(u.from, p.next)
		u.forget(p.plan.log)
	}
	p.entities = 0
}

// fold folds one record of the current epoch. It returns the unit that has grown large enough to be flushed, or nil; rejected names the reasons
// for which sources refused the record.
func (p *partition) fold(r *kgo.Record) (full *unit, rejected []*features.Rejection) {
	if r.Offset < p.next {
		return nil, nil // seen: a fetch may repeat records without a rebalance
	}
	for i := range p.plan.sources {
		s := &p.plan.sources[i]
		at, rejection := s.decoder.Decode(r.Value, windows.Time(r.Timestamp.UnixMilli()), s.row)
		if rejection != nil {
			rejected = append(rejected, rejection)
			continue
		}
		p.event = windows.Event{
			Time: at, Row: s.row,
			Position: windows.Position{Log: p.plan.log.ID, Partition: p.id, Offset: r.Offset},
		}
		for j := range s.entities {
			e := &s.entities[j]
			u, ok := p.unitOf(e, s.row, r.Offset)
			if !ok {
				continue
			}
			p.foldEntity(u, e)
			if u.fields >= maxUnitFields || u.bytes >= maxUnitBytes {
				full = u
			}
		}
	}
	p.next = r.Offset + 1
	return full, rejected
}

// begin turns to another epoch. What is dirty of the one before stays listed until it is flushed; the rest of it is final.
func (p *partition) begin(epoch int64) {
	p.epoch = epoch
	p.entities = 0
	for i := range p.units {
		if len(p.units[i].entities) > 0 {
			p.units[i].entities = map[string]*entity{}
		}
	}
}

// unitOf returns the unit of the entity that a row is about and leaves its identity in p.ident; ok is false if the record does
// not touch the entity or the unit has it already.
func (p *partition) unitOf(e *entityPlan, row []windows.Value, offset int64) (*unit, bool) {
	var ok bool
	p.ident = binary.AppendUvarint(p.ident[:0], uint64(e.id))
	kind := len(p.ident)
	if p.ident, ok = e.views[0].AppendKey(p.ident, row); !ok {
		return nil, false
	}
	p.key = p.ident[kind:]
	u := &p.units[bucketOf(p.bound, p.key)]
	return u, offset >= u.from
}

// foldEntity folds p.event into the views of the entity p.ident.
func (p *partition) foldEntity(u *unit, plan *entityPlan) {
	var e *entity
	for _, v := range plan.views {
		if v.Where != nil && !v.Where(p.event.Row) {
			continue
		}
		if e == nil {
			e = p.entityOf(u, plan)
		}
		for level := range v.Levels {
			c := e.cell(v, p.epoch, v.BlockAt(level, p.event.Time))
			v.Fold(&c.block, &p.event)
			u.mark(e, c)
		}
	}
}

// entityOf returns the entity p.ident, made if it is not in memory.
func (p *partition) entityOf(u *unit, plan *entityPlan) *entity {
	if e, ok := u.entities[string(p.ident)]; ok {
		return e
	}
	e := &entity{hash: p.hash(u, plan)}
	u.entities[string(p.ident)] = e
	p.entities++
	return e
}

// hash names the Redis hash of the entity p.ident.
func (p *partition) hash(u *unit, plan *entityPlan) string {
	return keyspace.Space{Project: p.bound.Project}.Entity(u.bucket, plan.id, p.key)
}

func (e *entity) cell(v *features.BoundView, epoch int64, id windows.BlockID) *cell {
	for _, c := range e.cells {
		if c.view == v && c.block.ID == id {
			return c
		}
	}
	c := e.newCell()
	*c = cell{view: v, epoch: epoch, block: windows.Block{ID: id}}
	return c
}

func (e *entity) newCell() *cell {
	if len(e.cells) == 0 {
		e.one[0] = &e.first
		e.cells = e.one[:]
		return &e.first
	}
	c := new(cell)
	e.cells = append(e.cells, c)
	return c
}

// mark notes that a cell must be flushed.
func (u *unit) mark(e *entity, c *cell) {
	if c.dirty {
		return
	}
	c.dirty = true
	if len(e.dirty) == 0 {
		u.dirty = append(u.dirty, e)
		u.bytes += len(e.hash)
	}
	e.dirty = append(e.dirty, c)
	u.fields++
	u.bytes += 24 + c.block.Size()
}

// clean notes that everything was flushed with that marker.
func (u *unit) clean(marker keyspace.Marker) {
	for _, e := range u.dirty {
		for _, c := range e.dirty {
			c.dirty = false
		}
		e.dirty = e.dirty[:0]
	}
	u.dirty, u.fields, u.bytes = u.dirty[:0], 0, 0
	u.marker = marker
}

// absent is an entity whose fields of the current epoch may be in Redis and are not in memory.
type absent struct {
	unit  *unit
	ident string
	hash  string
}

// missing returns the absent entities that records of the current epoch touch. It changes no state.
func (p *partition) missing(records []*kgo.Record) []absent {
	loading := false
	for i := range p.units {
		loading = loading || p.units[i].loadEpoch == p.epoch
	}
	if !loading {
		return nil
	}
	var list []absent
	listed := map[string]bool{}
	for _, r := range records {
		if r.Offset < p.next {
			continue
		}
		for i := range p.plan.sources {
			s := &p.plan.sources[i]
			if _, rejection := s.decoder.Decode(r.Value, windows.Time(r.Timestamp.UnixMilli()), s.row); rejection != nil {
				continue
			}
			for j := range s.entities {
				u, ok := p.unitOf(&s.entities[j], s.row, r.Offset)
				if !ok || u.loadEpoch != p.epoch {
					continue
				}
				if _, known := u.entities[string(p.ident)]; known || listed[string(p.ident)] {
					continue
				}
				listed[string(p.ident)] = true
				list = append(list, absent{u, string(p.ident), p.hash(u, &s.entities[j])})
			}
		}
	}
	return list
}

// load takes the fields of an entity's hash that belong to this partition and the current epoch.
func (p *partition) load(a absent, fields map[string]string) error {
	e := &entity{hash: a.hash}
	for name, value := range fields {
		f, err := keyspace.ParseField(name)
		if err != nil {
			return fmt.Errorf("field %x of %q: %w", name, a.hash, err)
		}
		if f.Base || f.Log != p.plan.log.ID || f.Partition != p.id || f.Epoch != p.epoch {
			continue
		}
		v := p.plan.viewOf(f.Version)
		if v == nil {
			continue // of a version that is no longer folded
		}
		b, _, err := v.DecodeDelta(f.Block, []byte(value))
		if err != nil {
			return fmt.Errorf("field %x of %q: %w", name, a.hash, err)
		}
		*e.newCell() = cell{view: v, epoch: p.epoch, block: *b}
	}
	a.unit.entities[a.ident] = e
	p.entities++
	return nil
}
