package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"millrace/features/tables"
	"millrace/windows"
)

// rows gathers rows of one table, column by column, until they are sent. A failed send leaves them as they are.
type rows struct {
	table   tables.Table
	columns []column
	n       int
}

// column is the values of one column; Append of the client takes slices of these types.
type column interface {
	send(to driver.BatchColumn) error
	reset()
}

type values[T any] struct{ list []T }

func (v *values[T]) add(x T)                          { v.list = append(v.list, x) }
func (v *values[T]) send(to driver.BatchColumn) error { return to.Append(v.list) }
func (v *values[T]) reset()                           { clear(v.list); v.list = v.list[:0] }

// send writes the rows in one insert. token makes a repetition of the same insert one that changes nothing.
func (r *rows) send(ctx context.Context, conn driver.Conn, token string) error {
	sum := sha256.Sum256([]byte(r.table.Name + " " + token))
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{
		"async_insert": 0, "insert_deduplication_token": hex.EncodeToString(sum[:]),
	}))
	batch, err := conn.PrepareBatch(ctx, r.table.Insert())
	if err != nil {
		return fmt.Errorf("insert into %s: %w", r.table.Name, err)
	}
	for i, c := range r.columns {
		if err := c.send(batch.Column(i)); err != nil {
			_ = batch.Abort()
			return fmt.Errorf("insert into %s, column %s: %w", r.table.Name, r.table.Columns[i].Name, err)
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("insert into %s: %w", r.table.Name, err)
	}
	return nil
}

func (r *rows) reset() {
	for _, c := range r.columns {
		c.reset()
	}
	r.n = 0
}

// positionColumns are in every table of records.
type positionColumns struct {
	log       values[uint32]
	partition values[int32]
	offset    values[int64]
}

func (p *positionColumns) add(at windows.Position) {
	p.log.add(at.Log)
	p.partition.add(at.Partition)
	p.offset.add(at.Offset)
}

// fieldColumn holds a declared field, null where the record has none.
type fieldColumn interface {
	column
	addValue(v windows.Value)
}

type nullable[T any] struct {
	values[*T]
	of func(windows.Value) T
}

func (n *nullable[T]) addValue(v windows.Value) {
	if v.Kind == windows.Null {
		n.add(nil)
		return
	}
	x := n.of(v)
	n.add(&x)
}

func newFieldColumn(t windows.Type) fieldColumn {
	switch t {
	case windows.String:
		// The text aliases the record, which is recycled.
		return &nullable[string]{of: func(v windows.Value) string { return string([]byte(v.Str)) }}
	case windows.Float64:
		return &nullable[float64]{of: windows.Value.Float}
	case windows.Bool:
		return &nullable[bool]{of: windows.Value.Bool}
	default:
		return &nullable[int64]{of: windows.Value.Int}
	}
}

// text copies bytes into a text that outlives the record; nil stays null.
func text(b []byte) *string {
	if b == nil {
		return nil
	}
	s := string(b)
	return &s
}

type times = values[time.Time]
