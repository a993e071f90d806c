package archive

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unsafe"

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

// times are moments, sent as milliseconds since 1970.
type times struct{ values[int64] }

func (t *times) add(at time.Time) { t.values.add(at.UnixMilli()) }

// send writes the rows in one insert. A repetition with the same token changes nothing.
func (r *rows) send(ctx context.Context, conn driver.Conn, token string) error {
	types := make([]clickhouse.ColumnNameAndType, len(r.table.Columns))
	for i, c := range r.table.Columns {
		types[i] = clickhouse.ColumnNameAndType{Name: c.Name, Type: c.Type}
	}
	ctx = clickhouse.Context(ctx,
		clickhouse.WithColumnNamesAndTypes(types), // else each insert over HTTP asks for them first
		clickhouse.WithSettings(clickhouse.Settings{
			"async_insert":               0, // acknowledged once the rows are a part of the table
			"insert_deduplicate":         1,
			"insert_deduplication_token": token,
		}))
	batch, err := conn.PrepareBatch(ctx, r.table.Insert())
	if err != nil {
		return fmt.Errorf("insert into %s: %w", r.table.Name, err)
	}
	defer func() { _ = batch.Close() }()
	for i, c := range r.columns {
		if err := c.send(batch.Column(i)); err != nil {
			return fatal{fmt.Errorf("insert into %s, column %s: %w", r.table.Name, r.table.Columns[i].Name, err)}
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
	slab slab[T]
	of   func(windows.Value) T
}

func (n *nullable[T]) addValue(v windows.Value) {
	if v.Kind == windows.Null {
		n.add(nil)
		return
	}
	n.add(n.slab.add(n.of(v)))
}

func newFieldColumn(t windows.Type) fieldColumn {
	switch t {
	case windows.String:
		var kept arena // the text aliases the record, which is recycled
		return &nullable[string]{of: func(v windows.Value) string { return kept.text(v.Str) }}
	case windows.Float64:
		return &nullable[float64]{of: windows.Value.Float}
	case windows.Bool:
		return &nullable[bool]{of: windows.Value.Bool}
	default:
		return &nullable[int64]{of: windows.Value.Int}
	}
}

// texts is a column of bytes that may be null.
type texts struct {
	nullable[string]
	kept arena
}

func (t *texts) addBytes(b []byte) {
	if b == nil {
		t.add(nil)
		return
	}
	t.add(t.slab.add(t.kept.bytes(b)))
}

// slab hands out places for values, many at a time: a value each would be most of the archiver's allocations.
type slab[T any] struct{ free []T }

func (s *slab[T]) add(x T) *T {
	if len(s.free) == 0 {
		s.free = make([]T, 1024)
	}
	p := &s.free[0]
	s.free = s.free[1:]
	*p = x
	return p
}

// arena copies texts that outlive what they were read from.
type arena struct{ free []byte }

func (a *arena) bytes(b []byte) string { return a.text(unsafe.String(unsafe.SliceData(b), len(b))) }

func (a *arena) text(s string) string {
	const block = 64 << 10
	if len(s) > block/4 {
		return strings.Clone(s)
	}
	if len(a.free) < len(s) {
		a.free = make([]byte, block)
	}
	n := copy(a.free, s)
	kept := unsafe.String(unsafe.SliceData(a.free), n)
	a.free = a.free[n:]
	return kept
}
