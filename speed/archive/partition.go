package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/features"
)

// place names a partition of a topic.
type place struct {
	topic string
	id    int32
}

// part is a partition while this member has it.
type part struct {
	place
	log     uint32
	sources []*sourceRows // that read the topic
	// reached is how far the raw table of each source reaches; a record below is not taken again.
	reached []int64
	written int64 // how far all of them reach, as it is written
	next    int64 // records below are taken
	end     int64 // the high watermark when last fetched
	gaps    []gap // not recorded yet
	broken  error // why fetching has stopped
	lagging []*lag
}

// behind says whether a clean table does not have the whole partition yet. New events are written to it all the same, but
// how far it reaches is not, until the older ones are there.
func (p *part) behind(c *cleanRows) bool {
	return slices.ContainsFunc(p.lagging, func(l *lag) bool { return l.clean == c && l.log == p.log && l.partition == p.id })
}

// extents are the offsets that the broker holds of the partitions of topics.
type extents map[place]struct{ start, end int64 }

// offered asks the broker what it holds.
func (a *Archiver) offered(ctx context.Context, topics ...string) (extents, error) {
	starts, err := a.admin.ListStartOffsets(ctx, topics...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("starts of %v: %w", topics, err)
	}
	ends, err := a.admin.ListEndOffsets(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ends of %v: %w", topics, err)
	}
	all := extents{}
	for topic, ids := range ends {
		for id, end := range ids {
			start, ok := starts.Lookup(topic, id)
			if !ok {
				return nil, fmt.Errorf("start of %s/%d: not told", topic, id)
			}
			all[place{topic, id}] = struct{ start, end int64 }{start.Offset, end.Offset}
		}
	}
	return all, nil
}

func (e extents) partitions(topic string) (n int32) {
	for at := range e {
		if at.topic == topic {
			n = max(n, at.id+1)
		}
	}
	return n
}

// assigned tells the client where to read each partition from: where the raw tables end. Nothing of a partition is fetched
// before, and ctx ends when the group takes the partitions away again.
func (a *Archiver) assigned(ctx context.Context, given map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	var topics []string
	for topic := range given {
		topics = append(topics, topic)
	}
	if len(topics) == 0 {
		return given, nil
	}
	var reached map[progressKey]int64
	var offered extents
	if err := a.persist(ctx, "takeover", func(ctx context.Context) (err error) {
		if reached, err = a.readProgress(ctx); err == nil {
			offered, err = a.offered(ctx, topics...)
		}
		return err
	}); err != nil {
		return nil, err
	}
	for topic, ids := range given {
		for id := range ids {
			p, err := a.newPart(place{topic, id}, reached, offered)
			if err != nil {
				a.log.Error("partition given up", "topic", topic, "partition", id, "error", err.Error())
				delete(ids, id)
				continue
			}
			a.log.Info("partition taken over", "topic", topic, "partition", id, "from", p.next, "tables_behind", len(p.lagging))
			ids[id] = kgo.NewOffset().At(p.next).WithEpoch(-1)
			a.mu.Lock()
			a.parts[p.place] = p
			a.mu.Unlock()
		}
	}
	return given, nil
}

var errLogCut = errors.New("the archive reaches past the end of the log: its topic was cut")

// newPart finds out where a partition goes on.
func (a *Archiver) newPart(at place, reached map[progressKey]int64, offered extents) (*part, error) {
	p := &part{place: at, log: a.cfg.Bound.Logs[at.topic].ID, sources: a.sources[at.topic], written: -1}
	have := offered[at]
	p.end = have.end
	for _, s := range p.sources {
		from, known := reached[progressKey{s.raw.table.Name, p.log, at.id}]
		if from > have.end {
			return nil, fmt.Errorf("%w: offset %d, the log ends at %d", errLogCut, from, have.end)
		}
		if known && from < have.start {
			a.lose(p, s.source, from, have.start)
		}
		p.reached = append(p.reached, from)
		if p.written < 0 || from < p.written {
			p.written = from
		}
	}
	p.next = max(p.written, have.start)
	p.lagging = a.lags(p, reached, offered.partitions(at.topic))
	return p, nil
}

// lose notes that offsets [from, to) were removed before they were archived.
func (a *Archiver) lose(p *part, s *features.Source, from, to int64) {
	a.log.Error("records are gone that were not archived", "source", s.Name, "topic", p.topic, "partition", p.id, "lost_records", to-from, "from", from, "log_start", to)
	p.gaps = append(p.gaps, gap{s, from, to, reasonLost, fmt.Sprintf("%d offsets, %d to %d, were removed from the topic before they were archived", to-from, from, to-1)})
}

// repair goes on with partitions whose fetching has stopped.
func (a *Archiver) repair(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.parts {
		if p.broken == nil {
			continue
		}
		if err := a.mend(ctx, p); errors.Is(err, errLogCut) {
			a.log.Error("partition given up", "topic", p.topic, "partition", p.id, "error", err.Error())
			delete(a.parts, p.place)
		} else if err != nil {
			a.log.Warn("fetch", "topic", p.topic, "partition", p.id, "error", err.Error())
		}
	}
}

func (a *Archiver) mend(ctx context.Context, p *part) error {
	if bomb, ok := errors.AsType[*kgo.ErrDecompressTooLarge](p.broken); ok {
		a.log.Error("a batch is too large to decompress", "topic", p.topic, "partition", p.id, "from", bomb.Offset, "next", bomb.NextOffset)
		from := max(p.next, bomb.Offset)
		for _, s := range p.sources {
			p.gaps = append(p.gaps, gap{s.source, from, bomb.NextOffset, features.ReasonTooLarge, fmt.Sprintf("offsets %d to %d: their batch is larger than this program decompresses", from, bomb.NextOffset-1)})
		}
		a.goOn(p, bomb.NextOffset, bomb.Epoch)
		return nil
	}
	const within = 2 * time.Second // a rebalance waits for it
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	offered, err := a.offered(ctx, p.topic)
	if err != nil {
		return err
	}
	have := offered[p.place]
	if p.next > have.end {
		return fmt.Errorf("%w: offset %d, the log ends at %d", errLogCut, p.next, have.end)
	}
	if p.next < have.start {
		for _, s := range p.sources {
			a.lose(p, s.source, p.next, have.start)
		}
	}
	a.goOn(p, max(p.next, have.start), -1)
	return nil
}

func (a *Archiver) goOn(p *part, next int64, epoch int32) {
	p.next, p.broken = next, nil
	a.client.SetOffsets(map[string]map[int32]kgo.EpochOffset{p.topic: {p.id: {Epoch: epoch, Offset: next}}})
}

// revoked writes what is in hand before partitions go to another member. Whether it still may does not matter: what it writes
// is true in any case, and what it does not write the other reads again.
func (a *Archiver) revoked(ctx context.Context, _ *kgo.Client, gone map[string][]int32) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.StopWithin)
	defer cancel()
	select {
	case a.busy <- struct{}{}:
		if err := a.write(ctx); err != nil {
			a.log.Warn("records in hand are left to the next owner", "error", err.Error())
			a.chunk.thaw()
		}
		<-a.busy
	case <-ctx.Done():
	}
	a.forget(gone)
}

// lost forgets partitions that another member owns by now.
func (a *Archiver) lost(_ context.Context, _ *kgo.Client, gone map[string][]int32) { a.forget(gone) }

func (a *Archiver) forget(gone map[string][]int32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for topic, ids := range gone {
		for _, id := range ids {
			delete(a.parts, place{topic, id})
		}
	}
}

// backfilling says whether a clean table of a partition at hand is not whole.
func (a *Archiver) backfilling() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.parts {
		if len(p.lagging) > 0 {
			return true
		}
	}
	return false
}

// progressEvery is how often a long backfill says how far it is.
const progressEvery = 5 * time.Second
