package archive

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"millrace/features"
	"millrace/features/tables"
)

// ErrTable is returned for a table that is missing or was not made as this version writes it. Waiting does not help.
var ErrTable = errors.New("the archive's tables are not those of the definitions")

// EnsureTables creates the tables of a project that do not exist, and checks those that do.
func EnsureTables(ctx context.Context, conn driver.Conn, c *features.Compiled) error {
	for _, t := range tables.All(c) {
		if err := conn.Exec(ctx, t.Create()); err != nil {
			return fmt.Errorf("create table %s: %w", t.Name, err)
		}
	}
	return CheckTables(ctx, conn, c)
}

// found is a table as ClickHouse describes it.
type found struct {
	engine, full, key string
	columns           []tables.Column
}

// CheckTables fails with ErrTable unless every table of a project has the columns, the engine, the order and the deduplication
// that exactness rests on.
func CheckTables(ctx context.Context, conn driver.Conn, c *features.Compiled) error {
	have, err := describe(ctx, conn)
	if err != nil {
		return err
	}
	for _, t := range tables.All(c) {
		f := have[t.Name]
		if f == nil {
			return fmt.Errorf("%w: table %s does not exist: run `millrace apply`", ErrTable, t.Name)
		}
		if err := f.check(t); err != nil {
			return fmt.Errorf("%w: table %s: %w", ErrTable, t.Name, err)
		}
	}
	return nil
}

func describe(ctx context.Context, conn driver.Conn) (map[string]*found, error) {
	have := map[string]*found{}
	if err := each(ctx, conn, "SELECT name, engine, engine_full, sorting_key FROM system.tables WHERE database = currentDatabase()", func(rows driver.Rows) error {
		var name string
		f := &found{}
		err := rows.Scan(&name, &f.engine, &f.full, &f.key)
		have[name] = f
		return err
	}); err != nil {
		return nil, fmt.Errorf("describe tables: %w", err)
	}
	if err := each(ctx, conn, "SELECT table, name, type FROM system.columns WHERE database = currentDatabase() ORDER BY table, position", func(rows driver.Rows) error {
		var table string
		var c tables.Column
		err := rows.Scan(&table, &c.Name, &c.Type)
		if f := have[table]; f != nil {
			f.columns = append(f.columns, c)
		}
		return err
	}); err != nil {
		return nil, fmt.Errorf("describe columns: %w", err)
	}
	return have, nil
}

func each(ctx context.Context, conn driver.Conn, query string, row func(driver.Rows) error) error {
	// A user's profile may hide what is asked for, or answer from a cache.
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"use_query_cache": 0}))
	rows, err := conn.Query(ctx, query)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

var (
	engineOf = regexp.MustCompile(`ENGINE = (\w+)`)
	orderOf  = regexp.MustCompile(`ORDER BY (?:\(([^)]*)\)|(\w+))`)
	windowOf = regexp.MustCompile(`non_replicated_deduplication_window = (\d+)`)
)

// check compares a table with how it is created. A cluster's Replicated engines count as the plain ones: they deduplicate by
// themselves.
func (f *found) check(t tables.Table) error {
	create := t.Create()
	want := engineOf.FindStringSubmatch(create)[1]
	replicated := strings.HasPrefix(f.engine, "Replicated") || strings.HasPrefix(f.engine, "Shared")
	if strings.TrimPrefix(strings.TrimPrefix(f.engine, "Replicated"), "Shared") != want {
		return fmt.Errorf("its engine is %s, not %s", f.engine, want)
	}
	order := orderOf.FindStringSubmatch(create)
	if key := order[1] + order[2]; f.key != key {
		return fmt.Errorf("it is ordered by (%s), not (%s)", f.key, key)
	}
	if window := windowOf.FindStringSubmatch(create); window != nil && !replicated {
		least, _ := strconv.Atoi(window[1])
		n := 0
		if m := windowOf.FindStringSubmatch(f.full); m != nil {
			n, _ = strconv.Atoi(m[1])
		}
		if n < least {
			return fmt.Errorf("its non_replicated_deduplication_window is %d, less than %d: a repeated insert would double its rows", n, least)
		}
	}
	for i, c := range t.Columns {
		if i >= len(f.columns) || f.columns[i] != c {
			return fmt.Errorf("it has no column %s of type %s in place %d", c.Name, c.Type, i+1)
		}
	}
	return nil
}
