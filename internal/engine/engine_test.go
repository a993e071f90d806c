package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strings"
	"sync"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"

	"millrace/internal/storetest"
)

func TestValuesSurvive(t *testing.T) {
	conn := storetest.ClickHouseConn(t)
	ctx := t.Context()
	if err := conn.Exec(ctx, `CREATE TABLE v (i Int64, u UInt64, f Float64, b Bool, s String, n Nullable(String), big Int128,
		a Array(UInt64), t Array(String), m Map(String, UInt64), p Tuple(Int64, String), low LowCardinality(String)) ENGINE = MergeTree ORDER BY i`); err != nil {
		t.Fatal(err)
	}
	odd := "a\x00\xff'`\\\n"
	huge := new(big.Int).Neg(new(big.Int).Lsh(big.NewInt(1), 127))
	batch, err := conn.PrepareBatch(ctx, "INSERT INTO v")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = batch.Close() }()
	if err := batch.Append(int64(math.MinInt64), uint64(math.MaxUint64), math.Pi, true, odd, nil, huge,
		[]uint64{1, math.MaxUint64}, []string{"", odd}, map[string]uint64{odd: 7}, []any{int64(-1), odd}, "x"); err != nil {
		t.Fatal(err)
	}
	if err := batch.Send(); err != nil {
		t.Fatal(err)
	}
	var (
		i   int64
		u   uint64
		f   float64
		b   bool
		s   string
		n   *string
		bi  big.Int
		a   []uint64
		st  []string
		m   map[string]uint64
		low string
	)
	if err := conn.QueryRow(ctx, "SELECT i, u, f, b, s, n, big, a, t, m, low FROM v WHERE s = {odd:String}", clickhouse.Named("odd", odd)).
		Scan(&i, &u, &f, &b, &s, &n, &bi, &a, &st, &m, &low); err != nil {
		t.Fatal(err)
	}
	if i != math.MinInt64 || u != math.MaxUint64 || f != math.Pi || !b || s != odd || n != nil || bi.Cmp(huge) != 0 ||
		len(a) != 2 || a[1] != math.MaxUint64 || st[1] != odd || m[odd] != 7 || low != "x" {
		t.Fatal(i, u, f, b, s, n, &bi, a, st, m, low)
	}
}

func TestAMillionRows(t *testing.T) {
	conn := storetest.ClickHouseConn(t)
	ctx := t.Context()
	if err := conn.Exec(ctx, "CREATE TABLE n (x UInt64, s String) ENGINE = MergeTree ORDER BY x"); err != nil {
		t.Fatal(err)
	}
	batch, err := conn.PrepareBatch(ctx, "INSERT INTO n (x, s)")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = batch.Close() }()
	const rows = 1_000_000
	for i := range uint64(rows) {
		if err := batch.Append(i, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := batch.Send(); err != nil {
		t.Fatal(err)
	}
	got, err := conn.Query(ctx, "SELECT x, s FROM n ORDER BY x")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = got.Close() }()
	next := uint64(0)
	for got.Next() {
		var x uint64
		var s string
		if err := got.Scan(&x, &s); err != nil {
			t.Fatal(err)
		}
		if x != next || s != fmt.Sprint(x) {
			t.Fatalf("row %d is %d %q", next, x, s)
		}
		next++
	}
	if err := got.Err(); err != nil || next != rows {
		t.Fatalf("%d rows, %v", next, err)
	}
}

func TestErrorsCarryTheirCode(t *testing.T) {
	conn := storetest.ClickHouseConn(t)
	err := conn.Exec(t.Context(), "SELECT no_such_column")
	var exception *clickhouse.Exception
	if !errors.As(err, &exception) && !strings.Contains(fmt.Sprint(err), "Code: 47") {
		t.Fatalf("got %v, want code 47", err)
	}
}

func TestDatabasesAndSettingsDoNotLeak(t *testing.T) {
	var group sync.WaitGroup
	for range 8 {
		conn := storetest.ClickHouseConn(t)
		group.Go(func() {
			ctx := clickhouse.Context(context.Background(), clickhouse.WithSettings(clickhouse.Settings{"max_block_size": 7}))
			if err := conn.Exec(ctx, "CREATE TABLE own (x Int64) ENGINE = Memory"); err != nil {
				t.Error(err)
				return
			}
			for i := range 20 {
				var have string
				ask := context.Background()
				want := ""
				if i%2 == 0 {
					ask, want = ctx, "7"
				}
				if err := conn.QueryRow(ask, "SELECT toString(getSetting('max_block_size')) FROM (SELECT count() FROM own)").Scan(&have); err != nil {
					t.Error(err)
					return
				}
				if (have == "7") != (want == "7") {
					t.Errorf("max_block_size is %s", have)
				}
			}
		})
	}
	group.Wait()
}

func TestRetriedInsertIsDroppedByItsToken(t *testing.T) {
	conn := storetest.ClickHouseConn(t)
	if err := conn.Exec(t.Context(), "CREATE TABLE d (x Int64) ENGINE = MergeTree ORDER BY x SETTINGS non_replicated_deduplication_window = 100"); err != nil {
		t.Fatal(err)
	}
	ctx := clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"insert_deduplication_token": "one"}))
	for range 3 {
		batch, err := conn.PrepareBatch(ctx, "INSERT INTO d")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = batch.Close() }()
		if err := batch.Append(int64(1)); err != nil {
			t.Fatal(err)
		}
		if err := batch.Send(); err != nil {
			t.Fatal(err)
		}
	}
	var n uint64
	if err := conn.QueryRow(t.Context(), "SELECT count() FROM d").Scan(&n); err != nil || n != 1 {
		t.Fatalf("%d rows, %v", n, err)
	}
}

func TestLargeText(t *testing.T) {
	conn := storetest.ClickHouseConn(t)
	if err := conn.Exec(t.Context(), "CREATE TABLE l (s String) ENGINE = MergeTree ORDER BY tuple()"); err != nil {
		t.Fatal(err)
	}
	large := bytes.Repeat([]byte("x"), 5<<20)
	batch, err := conn.PrepareBatch(t.Context(), "INSERT INTO l")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = batch.Close() }()
	if err := errors.Join(batch.Append(string(large)), batch.Send()); err != nil {
		t.Fatal(err)
	}
	var s string
	if err := conn.QueryRow(t.Context(), "SELECT s FROM l").Scan(&s); err != nil || s != string(large) {
		t.Fatalf("%d bytes, %v", len(s), err)
	}
}
