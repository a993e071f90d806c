package archive

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"millrace/features"
	"millrace/windows"
)

// chunk is what is written together. Its records are rows of the sources' tables already.
type chunk struct {
	quarantine *quarantineRows
	dead       []*kgo.Record
	counts     tally
	lost       map[string]int64 // offsets by topic
	links      links
	n, bytes   int
	opened     time.Time // when the first record came; zero for an empty chunk

	// Once writing begins nothing is added. steps are done in turn; a write that is cut short goes on at the next one.
	steps   []step
	next    int
	extents []extent
	began   time.Time
}

type step struct {
	name string
	run  func(context.Context) error
}

// extent is how far a partition is archived once the chunk is written.
type extent struct {
	part *part
	next int64
}

func newChunk(tracer trace.TracerProvider) *chunk {
	return &chunk{quarantine: newQuarantineRows(), counts: tally{}, lost: map[string]int64{}, links: newLinks(tracer)}
}

// take adds the records of one partition.
func (c *chunk) take(p *part, records []*kgo.Record, received time.Time) {
	for _, r := range records {
		if r.Offset >= p.next { // a fetch may repeat records
			c.add(p, r, received)
			p.next = r.Offset + 1
		}
		r.Recycle()
	}
}

func (c *chunk) open(at time.Time) {
	if c.opened.IsZero() {
		c.opened = at
	}
}

func (c *chunk) add(p *part, r *kgo.Record, received time.Time) {
	if r.Attrs.IsControl() {
		return // a mark in the log, no record
	}
	at := windows.Position{Log: p.log, Partition: p.id, Offset: r.Offset}
	for i, s := range p.sources {
		if r.Offset < p.reached[i] {
			continue
		}
		why := s.add(r, at, received)
		if why == nil {
			c.counts[[2]string{s.source.Name, ""}]++
			continue
		}
		c.counts[[2]string{s.source.Name, why.Reason}]++
		c.quarantine.add(s.source.Name, r, at, received, why)
		c.dead = append(c.dead, deadLetter(r, s.source.Name, why, received))
		c.bytes += len(r.Value)
	}
	const row = 128 // what a record takes beside its bytes, about
	c.bytes += len(r.Key) + len(r.Value) + row
	for _, h := range r.Headers {
		c.bytes += len(h.Key) + len(h.Value) + 32
	}
	c.n++
	c.links.saw(r)
}

// reasonLost is the quarantine's reason for offsets that were never seen.
const reasonLost = "lost"

// gap is offsets [from, to) of a partition that a source has no records of.
type gap struct {
	source   *features.Source
	from, to int64
	reason   string
	detail   string
}

// takeGaps records offsets that could not be read, one row of the quarantine for each range, at its first position.
func (c *chunk) takeGaps(p *part, found time.Time) {
	for _, g := range p.gaps {
		nothing := &kgo.Record{Timestamp: found}
		at := windows.Position{Log: p.log, Partition: p.id, Offset: g.from}
		c.quarantine.add(g.source.Name, nothing, at, found, &features.Rejection{Reason: g.reason, Detail: g.detail})
		c.lost[p.topic] += g.to - g.from
	}
	p.gaps = nil
}

// freeze decides what the chunk's write does. It reports whether there is anything to do.
func (a *Archiver) freeze(c *chunk) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	c.began = time.Now()
	c.extents = nil
	for _, p := range a.parts {
		c.takeGaps(p, c.began) // here, so that no progress passes a gap that is not recorded
		if p.next > p.written {
			c.extents = append(c.extents, extent{p, p.next})
		}
	}
	// Records of partitions that went to another member are written as well, and do no harm; how far that partition is
	// archived is the other's to say.
	if c.n == 0 && c.quarantine.n == 0 && len(c.extents) == 0 {
		c.opened = time.Time{}
		return false
	}
	id := newToken()
	for _, s := range a.all {
		for _, t := range s.all() {
			c.insert(a, t, id)
		}
	}
	c.insert(a, &c.quarantine.rows, id)
	if len(c.dead) > 0 {
		c.steps = append(c.steps, step{"dead letters", func(ctx context.Context) (err error) {
			c.dead, err = a.dead.send(ctx, c.dead)
			return err
		}})
	}
	progress := newProgress()
	for _, e := range c.extents {
		for i, s := range e.part.sources {
			if e.next <= e.part.reached[i] {
				continue
			}
			progress.add(s.raw.table.Name, e.part.log, e.part.id, e.next)
			for _, t := range s.clean {
				if !e.part.behind(t) {
					progress.add(t.table.Name, e.part.log, e.part.id, e.next)
				}
			}
		}
	}
	c.insert(a, &progress.rows, id)
	return true
}

// insert adds the step that inserts rows. Its token is of this one insert: it makes a repetition of it change nothing. A token
// made of the content would also swallow rows that are rightly written again, after somebody removed them.
func (c *chunk) insert(a *Archiver, r *rows, id string) {
	if r.n > 0 {
		c.steps = append(c.steps, step{r.table.Name, func(ctx context.Context) error {
			return r.send(ctx, a.cfg.ClickHouse, r.table.Name+" "+id)
		}})
	}
}

func newToken() string { return fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64()) }

// thaw makes a chunk whose write was cut short one that records may be added to. It will be written anew, with other tokens;
// what was written already collapses by position.
func (c *chunk) thaw() { c.steps, c.next = nil, 0 }

// write writes the chunk in hand: raw records, clean rows, quarantine, dead letters, and last how far the tables reach. After
// a crash between two steps the next run does all of it again.
func (a *Archiver) write(ctx context.Context) error {
	c := a.chunk
	if c.steps == nil && !a.freeze(c) {
		return nil
	}
	ctx, span := a.tracer.Start(ctx, "archive chunk", trace.WithLinks(c.links.take()...),
		trace.WithAttributes(attribute.Int("messaging.batch.message_count", c.n)))
	defer span.End()
	for ; c.next < len(c.steps); c.next++ {
		if err := a.persist(ctx, c.steps[c.next].name, c.steps[c.next].run); err != nil {
			span.RecordError(err)
			return fmt.Errorf("archive: %s: %w", c.steps[c.next].name, err)
		}
	}
	a.written(ctx, c)
	return nil
}

// written notes that the chunk is durable.
func (a *Archiver) written(ctx context.Context, c *chunk) {
	a.metrics.chunk.Record(ctx, time.Since(c.began).Seconds())
	a.metrics.archived(ctx, c.counts)
	for topic, n := range c.lost {
		a.metrics.lost.Add(ctx, n, topicAttrs(topic))
	}
	a.mu.Lock()
	for _, e := range c.extents {
		e.part.written = max(e.part.written, e.next)
		for i := range e.part.reached {
			e.part.reached[i] = max(e.part.reached[i], e.next)
		}
	}
	a.mu.Unlock()
	a.resetRows()
	a.chunk = &chunk{quarantine: c.quarantine, dead: c.dead[:0], counts: tally{}, lost: map[string]int64{}, links: c.links}
	a.chunk.quarantine.reset()
	a.commit(ctx)
}

// commit commits group offsets, which only lag tools read.
func (a *Archiver) commit(ctx context.Context) {
	const every = time.Second
	if time.Since(a.committed) < every {
		return
	}
	a.committed = time.Now()
	if offsets := a.reached(); len(offsets) > 0 {
		a.client.CommitOffsets(ctx, offsets, nil)
	}
}

// reached is how far the partitions of this member are archived.
func (a *Archiver) reached() map[string]map[int32]kgo.EpochOffset {
	a.mu.Lock()
	defer a.mu.Unlock()
	offsets := map[string]map[int32]kgo.EpochOffset{}
	for at, p := range a.parts {
		if offsets[at.topic] == nil {
			offsets[at.topic] = map[int32]kgo.EpochOffset{}
		}
		offsets[at.topic][at.id] = kgo.EpochOffset{Epoch: -1, Offset: max(p.written, 0)}
	}
	return offsets
}
