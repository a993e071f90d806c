package archive

import (
	"context"
	"fmt"

	"millrace/features/tables"
	"millrace/windows"
)

// backfillRows is how many raw records are decoded together.
const backfillRows = 50_000

// backfill makes clean tables whole that lag behind the raw records: those of fields or keys that were declared anew. The
// records are decoded again, by the same decoder; what it rejects was quarantined, or is no loss to this table alone.
func (a *Archiver) backfill(ctx context.Context) error {
	reached, err := a.readProgressPatiently(ctx)
	if err != nil {
		return err
	}
	for topic, list := range a.sources {
		log := a.cfg.Bound.Logs[topic].ID
		for _, s := range list {
			for key, end := range reached {
				if key.table != s.raw.table.Name || key.log != log {
					continue
				}
				for _, c := range s.clean {
					from := reached[progressKey{c.table.Name, log, key.partition}]
					if err := a.backfillTable(ctx, s, c, windows.Position{Log: log, Partition: key.partition, Offset: from}, end); err != nil {
						return fmt.Errorf("backfill %s: %w", c.table.Name, err)
					}
				}
			}
		}
	}
	return nil
}

// backfillTable decodes the raw records [at.Offset, end) of one partition into a clean table.
func (a *Archiver) backfillTable(ctx context.Context, s *sourceRows, c *cleanRows, at windows.Position, end int64) error {
	for at.Offset < end {
		n, next, err := a.backfillChunk(ctx, s, c, at, end)
		if err != nil {
			return err
		}
		if n < backfillRows {
			next = end
		}
		token := fmt.Sprintf("backfill %d/%d:%d-%d", at.Log, at.Partition, at.Offset, next)
		if err := a.insert(ctx, &c.rows, token); err != nil {
			return err
		}
		c.reset()
		progress := newProgress()
		progress.add(c.table.Name, at.Log, at.Partition, next)
		if err := a.insert(ctx, &progress.rows, token); err != nil {
			return err
		}
		a.log.Info("backfilled", "table", c.table.Name, "partition", at.Partition, "next", next, "of", end)
		at.Offset = next
	}
	return nil
}

func (a *Archiver) backfillChunk(ctx context.Context, s *sourceRows, c *cleanRows, at windows.Position, end int64) (n int, next int64, err error) {
	rows, err := a.cfg.ClickHouse.Query(ctx, fmt.Sprintf(
		"SELECT offset, kafka_time, value FROM %s FINAL WHERE log = %d AND partition = %d AND offset >= %d AND offset < %d ORDER BY offset LIMIT %d",
		tables.Quote(s.raw.table.Name), at.Log, at.Partition, at.Offset, end, backfillRows))
	if err != nil {
		return 0, 0, fmt.Errorf("read raw records: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var kafkaTime int64
		var value *string
		if err := rows.Scan(&at.Offset, &kafkaTime, &value); err != nil {
			return 0, 0, fmt.Errorf("read raw records: %w", err)
		}
		var data []byte
		if value != nil {
			data = []byte(*value)
		}
		_ = s.addClean(data, kafkaTime, at, []*cleanRows{c}) // a rejected record has no clean row
		n, next = n+1, at.Offset+1
	}
	return n, next, rows.Err()
}
