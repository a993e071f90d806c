package archive

import (
	"context"
	"fmt"

	"millrace/features/tables"
)

// progressRows say how far into each partition a table is complete.
type progressRows struct {
	rows
	name      values[string]
	log       values[uint32]
	partition values[int32]
	next      values[int64]
}

func newProgress() *progressRows {
	p := &progressRows{rows: rows{table: tables.Progress()}}
	p.columns = []column{&p.name, &p.log, &p.partition, &p.next}
	return p
}

func (p *progressRows) add(table string, log uint32, partition int32, next int64) {
	p.name.add(table)
	p.log.add(log)
	p.partition.add(partition)
	p.next.add(next)
	p.n++
}

// progressKey names a partition of a log as one table has it.
type progressKey struct {
	table     string
	log       uint32
	partition int32
}

// readProgress returns how far every table reaches. A partition that a table has nothing of is absent.
func (a *Archiver) readProgress(ctx context.Context) (map[progressKey]int64, error) {
	rows, err := a.cfg.ClickHouse.Query(ctx, "SELECT table_name, log, partition, max(next) FROM "+tables.Quote(tables.Progress().Name)+" GROUP BY table_name, log, partition")
	if err != nil {
		return nil, fmt.Errorf("read progress: %w", err)
	}
	defer func() { _ = rows.Close() }()
	reached := map[progressKey]int64{}
	for rows.Next() {
		var k progressKey
		var next int64
		if err := rows.Scan(&k.table, &k.log, &k.partition, &next); err != nil {
			return nil, fmt.Errorf("read progress: %w", err)
		}
		reached[k] = next
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read progress: %w", err)
	}
	return reached, nil
}
