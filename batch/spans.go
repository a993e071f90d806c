package batch

import (
	"context"
	"fmt"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// eventsPerSpan is how many events a query reads at most, as long as no single entity has more. It bounds the memory of the
// engine and of this process, whatever the size of the archive; a few times as many are no faster.
const eventsPerSpan = 1 << 19

// spanner cuts the entities after a cursor into spans of about as many events, in order.
type spanner struct {
	conn      driver.Conn
	events    events
	perSpan   uint64
	at        cursor
	remaining []bucketRows
	total     uint64 // events in all of them
}

type bucketRows struct {
	bucket uint32
	rows   uint64
}

func newSpanner(ctx context.Context, conn driver.Conn, e events, within span, perSpan uint64) (*spanner, error) {
	s := &spanner{conn: conn, events: e, perSpan: perSpan, at: within.after}
	e = events{view: e.view, span: within}
	rows, err := conn.Query(ctx, "SELECT bucket, count() FROM "+e.table()+where(e.span.conditions())+" GROUP BY bucket ORDER BY bucket")
	if err != nil {
		return nil, fmt.Errorf("count events by bucket: %w", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var b bucketRows
		if err := rows.Scan(&b.bucket, &b.rows); err != nil {
			return nil, fmt.Errorf("count events by bucket: %w", err)
		}
		s.remaining = append(s.remaining, b)
		s.total += b.rows
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("count events by bucket: %w", err)
	}
	return s, nil
}

// next returns the next span and roughly how many events are in it; ok is false at the end.
func (s *spanner) next(ctx context.Context) (sp span, events uint64, ok bool, err error) {
	if len(s.remaining) == 0 {
		return span{}, 0, false, nil
	}
	sp.after = s.at
	if b := &s.remaining[0]; b.rows > 2*s.perSpan {
		key, found, err := s.keyBehind(ctx, b.bucket)
		if err != nil {
			return span{}, 0, false, err
		}
		if found {
			b.rows -= s.perSpan
			s.at = cursor{int64(b.bucket), key}
			sp.upTo = s.at
			return sp, s.perSpan, true, nil
		}
	}
	n := 0
	for n == 0 || n < len(s.remaining) && events+s.remaining[n].rows <= s.perSpan {
		events += s.remaining[n].rows
		n++
	}
	s.at = cursor{Bucket: int64(s.remaining[n-1].bucket)}
	sp.upTo = s.at
	s.remaining = s.remaining[n:]
	return sp, events, true, nil
}

// keyBehind returns the key of the event that comes a span's length of events behind the cursor in a bucket. The table is in
// that order, so that the engine reads no further than it must.
func (s *spanner) keyBehind(ctx context.Context, bucket uint32) (key []byte, found bool, err error) {
	conditions := []string{fmt.Sprintf("bucket = %d", bucket)}
	if s.at.Bucket == int64(bucket) {
		conditions = append(conditions, "key > "+text(s.at.Key))
	}
	rows, err := s.conn.Query(ctx, fmt.Sprintf("SELECT key FROM %s%s ORDER BY bucket, key LIMIT 1 OFFSET %d",
		s.events.table(), where(conditions), s.perSpan))
	if err != nil {
		return nil, false, fmt.Errorf("cut bucket %d: %w", bucket, err)
	}
	defer func() { _ = rows.Close() }()
	var text string
	if rows.Next() {
		found = true
		if err := rows.Scan(&text); err != nil {
			return nil, false, fmt.Errorf("cut bucket %d: %w", bucket, err)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, false, fmt.Errorf("cut bucket %d: %w", bucket, err)
	}
	return []byte(text), found, nil
}
