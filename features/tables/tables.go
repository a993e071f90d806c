// Package tables says what the archive in ClickHouse looks like: the names, columns and definitions of the tables that the
// speed layer writes and the batch layer reads. It is text only; the layers run it.
package tables

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"millrace/features"
	"millrace/windows"
)

// Quote quotes an identifier for ClickHouse.
func Quote(name string) string {
	return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`").Replace(name) + "`"
}

// Column is a column of a table and its type.
type Column struct{ Name, Type string }

// Table is a table of the archive.
type Table struct {
	Name    string
	Columns []Column
	engine  string
}

// Create returns the statement that makes the table where it does not exist.
func (t Table) Create() string {
	var cols []string
	for _, c := range t.Columns {
		cols = append(cols, Quote(c.Name)+" "+c.Type)
	}
	return fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s (%s) ENGINE = %s", Quote(t.Name), strings.Join(cols, ", "), t.engine)
}

// Insert returns the statement that a batch of rows of all columns is prepared with.
func (t Table) Insert() string {
	var cols []string
	for _, c := range t.Columns {
		cols = append(cols, Quote(c.Name))
	}
	return fmt.Sprintf("INSERT INTO %s (%s)", Quote(t.Name), strings.Join(cols, ", "))
}

// A retried insert with the same token is dropped by the table; what slips through collapses by position, because every
// reader reads FINAL.
const dedup = " SETTINGS non_replicated_deduplication_window = 1000"

var positionColumns = []Column{{"log", "UInt32"}, {"partition", "Int32"}, {"offset", "Int64"}}

// Raw holds every record of a source as it came.
func Raw(s *features.Source) Table {
	return Table{
		Name: "raw_" + s.Name,
		Columns: append(append([]Column{}, positionColumns...),
			Column{"kafka_time", "Int64"}, // milliseconds, part of the record
			Column{"received_at", "DateTime64(3, 'UTC')"},
			Column{"key", "Nullable(String)"},
			Column{"value", "Nullable(String)"},
			Column{"header_names", "Array(String)"},
			Column{"header_values", "Array(String)"}),
		engine: "ReplacingMergeTree ORDER BY (log, partition, offset)" + dedup,
	}
}

// Clean holds the admitted events of a source that touch an entity: typed, one row an event, in the order in which a sweep
// reads them. Its name carries a digest of what decides its rows, so that changed fields make a new table beside the old.
func Clean(s *features.Source, e *features.Entity) Table {
	var digest strings.Builder
	fmt.Fprintf(&digest, "%+v %v %d ", s.EventTime, s.Topics, s.MaxFuture)
	for _, f := range s.Fields {
		fmt.Fprintf(&digest, "%s %s %t %d;", f.Name, f.Type, f.Required, f.MaxBytes)
	}
	for _, k := range e.Keys {
		fmt.Fprintf(&digest, "%s %s;", k.Type, s.KeyField(k.Name))
	}
	sum := sha256.Sum256([]byte(digest.String()))
	columns := []Column{{"bucket", "UInt32"}, {"key", "String"}, {"event_time", "Int64"}}
	columns = append(columns, positionColumns...)
	for _, f := range s.Fields {
		columns = append(columns, Column{Field(f.Name), "Nullable(" + typeOf(f.Type) + ")"})
	}
	return Table{
		Name:    "clean_" + s.Name + "_" + e.Name + "_" + hex.EncodeToString(sum[:4]),
		Columns: columns,
		engine:  "ReplacingMergeTree ORDER BY (bucket, key, event_time, log, partition, offset)" + dedup,
	}
}

// Field returns the column of a declared field.
func Field(name string) string { return "f_" + name }

func typeOf(t windows.Type) string {
	switch t {
	case windows.Int64:
		return "Int64"
	case windows.Float64:
		return "Float64"
	case windows.String:
		return "String"
	case windows.Bool:
		return "Bool"
	}
	panic("BUG: column of " + t.String())
}

// Quarantine holds rejected records, with the reason.
func Quarantine() Table {
	return Table{
		Name: "quarantine",
		Columns: append(append([]Column{{"source", "String"}}, positionColumns...),
			Column{"kafka_time", "Int64"},
			Column{"received_at", "DateTime64(3, 'UTC')"},
			Column{"reason", "LowCardinality(String)"},
			Column{"field", "String"},
			Column{"detail", "String"},
			Column{"key", "Nullable(String)"},
			Column{"value", "Nullable(String)"}),
		engine: "ReplacingMergeTree ORDER BY (source, log, partition, offset)" + dedup,
	}
}

// Progress says how far into each partition a table is complete: everything below next. Written after the rows it speaks of.
func Progress() Table {
	return Table{
		Name:    "progress",
		Columns: append(append([]Column{{"table_name", "String"}}, positionColumns[:2]...), Column{"next", "Int64"}),
		engine:  "ReplacingMergeTree(next) ORDER BY (table_name, log, partition)",
	}
}

// Runs is the history of batch runs: one row per change of state.
func Runs() Table {
	return Table{
		Name: "runs",
		Columns: []Column{
			{"run", "UInt64"},
			{"view", "String"},
			{"version", "UInt32"},
			{"state", "LowCardinality(String)"},
			{"document", "String"},
			{"detail", "String"},
			{"at", "DateTime64(3, 'UTC')"},
		},
		engine: "MergeTree ORDER BY (run, at)",
	}
}

// Registry is the history of registries: the row of the highest generation is in force.
func Registry() Table {
	return Table{
		Name:    "registry",
		Columns: []Column{{"generation", "UInt64"}, {"document", "String"}, {"at", "DateTime64(3, 'UTC')"}},
		engine:  "MergeTree ORDER BY generation",
	}
}

// All returns every table of a project.
func All(c *features.Compiled) []Table {
	all := []Table{Registry(), Quarantine(), Progress(), Runs()}
	for _, s := range c.Sources {
		all = append(all, Raw(s))
		for _, e := range EntitiesOf(c, s) {
			all = append(all, Clean(s, e))
		}
	}
	return all
}

// EntitiesOf returns the entities that have views over a source, in declared order.
func EntitiesOf(c *features.Compiled, s *features.Source) []*features.Entity {
	var list []*features.Entity
	for _, e := range c.Entities {
		for _, v := range c.Views {
			if v.Source == s && v.Entity == e {
				list = append(list, e)
				break
			}
		}
	}
	return list
}
