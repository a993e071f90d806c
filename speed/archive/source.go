package archive

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/features"
	"millrace/features/keyspace"
	"millrace/features/tables"
	"millrace/windows"
)

// sourceRows turns the records of one source into rows.
type sourceRows struct {
	source  *features.Source
	decoder *features.Decoder
	row     []windows.Value
	raw     *rawRows
	clean   []*cleanRows
}

func newSourceRows(b *features.Bound, s *features.Source) *sourceRows {
	r := &sourceRows{source: s, decoder: features.NewDecoder(s), row: make([]windows.Value, len(s.Fields)), raw: newRawRows(s)}
	for _, e := range tables.EntitiesOf(b.Compiled, s) {
		r.clean = append(r.clean, newCleanRows(b, s, e))
	}
	return r
}

// add adds a record to the tables; a rejection is the caller's to quarantine.
func (s *sourceRows) add(r *kgo.Record, at windows.Position, received time.Time) *features.Rejection {
	s.raw.add(r, at, received)
	t, rejection := s.decoder.Decode(r.Value, windows.Time(r.Timestamp.UnixMilli()), s.row)
	if rejection != nil {
		return rejection
	}
	for _, c := range s.clean {
		c.add(s.row, t, at)
	}
	return nil
}

// all returns the tables, raw first: what is clean was raw before.
func (s *sourceRows) all() []*rows {
	list := []*rows{&s.raw.rows}
	for _, c := range s.clean {
		list = append(list, &c.rows)
	}
	return list
}

// rawRows are rows of a raw table.
type rawRows struct {
	rows
	position             positionColumns
	kafkaTime            values[int64]
	received             times
	key, value           texts
	headers, headerTexts values[[]string]
}

func newRawRows(s *features.Source) *rawRows {
	r := &rawRows{rows: rows{table: tables.Raw(s)}}
	r.columns = []column{
		&r.position.log, &r.position.partition, &r.position.offset, &r.kafkaTime, &r.received, &r.key, &r.value, &r.headers, &r.headerTexts,
	}
	return r
}

func (r *rawRows) add(rec *kgo.Record, at windows.Position, received time.Time) {
	r.position.add(at)
	r.kafkaTime.add(rec.Timestamp.UnixMilli())
	r.received.add(received)
	r.key.addBytes(rec.Key)
	r.value.addBytes(rec.Value)
	var names, texts []string
	if n := len(rec.Headers); n > 0 {
		both := make([]string, 2*n)
		names, texts = both[:n], both[n:]
		for i, h := range rec.Headers {
			names[i], texts[i] = string([]byte(h.Key)), string(h.Value)
		}
	}
	r.headers.add(names)
	r.headerTexts.add(texts)
	r.n++
}

// cleanRows are rows of a clean table.
type cleanRows struct {
	rows
	view     *features.CompiledView // any view of the source and the entity: it finds the key
	buckets  uint32
	scratch  []byte
	kept     arena
	bucket   values[uint32]
	key      values[string]
	time     values[int64]
	position positionColumns
	fields   []fieldColumn
}

func newCleanRows(b *features.Bound, s *features.Source, e *features.Entity) *cleanRows {
	i := slices.IndexFunc(b.Compiled.Views, func(v *features.CompiledView) bool { return v.Source == s && v.Entity == e })
	r := &cleanRows{rows: rows{table: tables.Clean(s, e)}, view: b.Compiled.Views[i], buckets: b.Registry.Buckets}
	r.columns = []column{&r.bucket, &r.key, &r.time, &r.position.log, &r.position.partition, &r.position.offset}
	for _, f := range s.Fields {
		c := newFieldColumn(f.Type)
		r.fields = append(r.fields, c)
		r.columns = append(r.columns, c)
	}
	return r
}

// add adds the event unless it does not touch the entity.
func (r *cleanRows) add(row []windows.Value, t windows.Time, at windows.Position) {
	var ok bool
	if r.scratch, ok = r.view.AppendKey(r.scratch[:0], row); !ok {
		return
	}
	r.bucket.add(uint32(keyspace.BucketOf(r.scratch, r.buckets)))
	r.key.add(r.kept.bytes(r.scratch))
	r.time.add(int64(t))
	r.position.add(at)
	for i, f := range r.fields {
		f.addValue(row[i])
	}
	r.n++
}

// quarantineRows are rows of the quarantine.
type quarantineRows struct {
	rows
	source                values[string]
	position              positionColumns
	kafkaTime             values[int64]
	received              times
	reason, field, detail values[string]
	key, value            texts
}

func newQuarantineRows() *quarantineRows {
	r := &quarantineRows{rows: rows{table: tables.Quarantine()}}
	r.columns = []column{
		&r.source, &r.position.log, &r.position.partition, &r.position.offset, &r.kafkaTime, &r.received, &r.reason, &r.field, &r.detail, &r.key, &r.value,
	}
	return r
}

func (r *quarantineRows) add(source string, rec *kgo.Record, at windows.Position, received time.Time, why *features.Rejection) {
	r.source.add(source)
	r.position.add(at)
	r.kafkaTime.add(rec.Timestamp.UnixMilli())
	r.received.add(received)
	r.reason.add(why.Reason)
	r.field.add(why.Field)
	r.detail.add(why.Detail)
	r.key.addBytes(rec.Key)
	r.value.addBytes(rec.Value)
	r.n++
}
