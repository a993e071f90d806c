package archive

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
	"unsafe"

	"millrace/features/tables"
	"millrace/windows"
)

// lag is the records of one partition of a log that a clean table does not have yet, because fields or keys were declared
// anew: the raw table has them, [next, end). They are decoded again by the same decoder; what it rejects is in the
// quarantine already, or is no loss to this table alone.
type lag struct {
	source    *sourceRows
	clean     *cleanRows
	fresh     *cleanRows // rows of this work; clean's are the chunk's
	log       uint32
	partition int32
	next, end int64
	span      int64 // offsets of the next query
	told      time.Time
}

// lags finds what clean tables lack of a partition. Partitions of earlier incarnations of its topic are dealt out among those
// of the current one.
func (a *Archiver) lags(p *part, reached map[progressKey]int64, partitions int32) (list []*lag) {
	for _, s := range p.sources {
		for key, end := range reached {
			if key.table != s.raw.table.Name {
				continue
			}
			if log, ok := a.cfg.Bound.Registry.Log(key.log); !ok || log.Topic != p.topic {
				continue
			}
			if key.log == p.log && key.partition != p.id || key.log != p.log && key.partition%max(partitions, 1) != p.id {
				continue
			}
			for i, c := range s.clean {
				next := reached[progressKey{c.table.Name, key.log, key.partition}]
				if next >= end {
					continue
				}
				list = append(list, &lag{
					source: s, clean: c, fresh: newCleanRows(a.cfg.Bound, s.source, tables.EntitiesOf(a.cfg.Bound.Compiled, s.source)[i]),
					log: key.log, partition: key.partition, next: next, end: end, span: int64(a.cfg.ChunkRows),
				})
			}
		}
	}
	slices.SortFunc(list, func(x, y *lag) int {
		return cmp.Or(cmp.Compare(x.clean.table.Name, y.clean.table.Name), cmp.Compare(x.log, y.log), cmp.Compare(x.partition, y.partition))
	})
	return list
}

// backfill does one piece of work on a clean table that lags, so that consuming goes on beside it.
func (a *Archiver) backfill(ctx context.Context) error {
	a.mu.Lock()
	var p *part
	for _, candidate := range a.parts {
		if len(candidate.lagging) > 0 {
			p = candidate
			break
		}
	}
	a.mu.Unlock()
	if p == nil {
		return nil
	}
	l := p.lagging[0]
	name := l.clean.table.Name
	if l.told.IsZero() {
		l.told = time.Now()
		a.log.Info("backfill begins", "table", name, "log", l.log, "partition", l.partition, "next", l.next, "end", l.end)
	}
	next, id := l.next, newToken()
	if err := a.persist(ctx, "backfill read", func(ctx context.Context) (err error) {
		next, err = a.decodeAgain(ctx, l)
		return err
	}); err != nil {
		return fmt.Errorf("backfill %s: %w", name, err)
	}
	rows := int64(l.fresh.n)
	if rows > 0 {
		if err := a.persist(ctx, "backfill "+name, func(ctx context.Context) error { return l.fresh.send(ctx, a.cfg.ClickHouse, name+" "+id) }); err != nil {
			return fmt.Errorf("backfill: %w", err)
		}
	}
	l.fresh.reset()
	progress := newProgress()
	progress.add(name, l.log, l.partition, a.reachedBy(p, l, next))
	if err := a.persist(ctx, "backfill progress", func(ctx context.Context) error {
		return progress.send(ctx, a.cfg.ClickHouse, progress.table.Name+" "+id)
	}); err != nil {
		return fmt.Errorf("backfill: %w", err)
	}
	a.metrics.backfilled(ctx, l.source.source.Name, rows)
	l.next = next
	a.mu.Lock()
	defer a.mu.Unlock()
	if next >= l.end {
		p.lagging = p.lagging[1:]
		a.log.Info("backfill ends", "table", name, "log", l.log, "partition", l.partition, "end", l.end)
	} else if time.Since(l.told) >= progressEvery {
		l.told = time.Now()
		a.log.Info("backfill goes on", "table", name, "log", l.log, "partition", l.partition, "next", next, "end", l.end)
	}
	return nil
}

// reachedBy is how far the table reaches when everything below next is decoded. At the end of its lag it has also what was
// written to it since by chunks.
func (a *Archiver) reachedBy(p *part, l *lag, next int64) int64 {
	if next < l.end || l.log != p.log || l.partition != p.id {
		return next
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return max(next, p.reached[slices.Index(p.sources, l.source)])
}

// decodeAgain decodes the next raw records and returns the offset below which all are done.
func (a *Archiver) decodeAgain(ctx context.Context, l *lag) (int64, error) {
	l.fresh.reset()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a query that is left early stops
	to := min(l.next+l.span, l.end)
	rows, err := a.cfg.ClickHouse.Query(ctx, fmt.Sprintf(
		"SELECT offset, kafka_time, value FROM %s FINAL WHERE log = %d AND partition = %d AND offset >= %d AND offset < %d ORDER BY offset",
		tables.Quote(l.source.raw.table.Name), l.log, l.partition, l.next, to))
	if err != nil {
		return l.next, fmt.Errorf("read raw records: %w", err)
	}
	defer func() { _ = rows.Close() }()
	n, bytes := 0, 0
	for rows.Next() {
		var offset, kafkaTime int64
		var value *string
		if err := rows.Scan(&offset, &kafkaTime, &value); err != nil {
			return l.next, fmt.Errorf("read raw records: %w", err)
		}
		var data []byte
		if value != nil {
			data = unsafe.Slice(unsafe.StringData(*value), len(*value)) // the decoder only reads
		}
		if t, rejection := l.source.decoder.Decode(data, windows.Time(kafkaTime), l.source.row); rejection == nil {
			l.fresh.add(l.source.row, t, windows.Position{Log: l.log, Partition: l.partition, Offset: offset})
		}
		n, bytes = n+1, bytes+len(data)
		if bytes >= a.cfg.ChunkBytes {
			cancel()
			return offset + 1, nil
		}
	}
	if err := rows.Err(); err != nil {
		return l.next, fmt.Errorf("read raw records: %w", err)
	}
	if n == 0 {
		l.span *= 2 // far between: look further
	} else {
		l.span = int64(a.cfg.ChunkRows)
	}
	return to, nil
}
