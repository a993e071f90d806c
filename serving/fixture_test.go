package serving

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"millrace/features"
	"millrace/features/keyspace"
	"millrace/internal/storetest"
	"millrace/windows"
)

// fixture is a project on a Redis of the test's own, with states written by the encoders of the layers that write them.
type fixture struct {
	t     testing.TB
	rdb   *redis.Client
	bound *features.Bound
	space keyspace.Space
}

// newFixture applies definitions; nothing is complete yet.
func newFixture(t testing.TB, definitions string) *fixture {
	t.Helper()
	d, problems := features.Parse(map[string][]byte{"test.yaml": []byte(definitions)})
	if problems.Fatal() {
		t.Fatal(problems)
	}
	return bindFixture(t, d)
}

func bindFixture(t testing.TB, d *features.Definitions) *fixture {
	t.Helper()
	compiled, err := features.Compile(d)
	if err != nil {
		t.Fatal(err)
	}
	topics := map[string]string{}
	for _, s := range d.Sources {
		for _, topic := range s.Topics {
			topics[topic] = "id-" + topic
		}
	}
	registry, _, err := features.Apply(nil, compiled, topics)
	if err != nil {
		t.Fatal(err)
	}
	bound, err := registry.Bind(compiled)
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(&redis.Options{Addr: storetest.Redis(t)})
	t.Cleanup(func() { _ = rdb.Close() })
	f := &fixture{t: t, rdb: rdb, bound: bound, space: keyspace.Space{Project: d.Project}}
	f.do(rdb.Set(t.Context(), f.space.Registry(), registry.Encode(), 0).Err())
	return f
}

func (f *fixture) do(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) view(name string) *features.BoundView {
	f.t.Helper()
	v := f.bound.View(name)
	if v == nil {
		f.t.Fatalf("no view %s", name)
	}
	return v
}

// complete writes what the speed layer does for a log of one partition that it folds from its beginning.
func (f *fixture) complete(incarnation string) {
	f.t.Helper()
	f.do(f.rdb.Set(f.t.Context(), f.space.Incarnation(), incarnation, 0).Err())
	for _, l := range f.bound.Logs {
		f.do(f.rdb.HSet(f.t.Context(), f.space.Partitions(), strconv.FormatUint(uint64(l.ID), 10), 1).Err())
	}
	for _, v := range f.bound.Views {
		for b := range f.bound.Registry.Buckets {
			f.unit(v, keyspace.Bucket(b), keyspace.Marker{Next: 100, Generation: 1, Token: "t"}, keyspace.Start{Until: 10})
		}
	}
}

// unit writes the marker of a unit and what it says of a view.
func (f *fixture) unit(v *features.BoundView, b keyspace.Bucket, m keyspace.Marker, s keyspace.Start) {
	f.t.Helper()
	log := f.bound.Logs[v.Source.Topics[0]].ID
	pipe := f.rdb.Pipeline()
	pipe.Set(f.t.Context(), f.space.Marker(b, log, 0), m.String(), 0)
	pipe.HSet(f.t.Context(), f.space.Starts(b, log, 0), strconv.FormatUint(uint64(v.Version.ID), 10), s.String())
	_, err := pipe.Exec(f.t.Context())
	f.do(err)
}

// row is an event as an object of field values.
type row map[string]any

// event makes an event of a source; numbers are int64 or float64 by their Go type.
func (f *fixture) event(v *features.BoundView, at windows.Time, offset int64, r row) windows.Event {
	f.t.Helper()
	e := windows.Event{Time: at, Position: windows.Position{Log: f.bound.Logs[v.Source.Topics[0]].ID, Offset: offset}, Row: make([]windows.Value, len(v.Source.Fields))}
	for name, x := range r {
		i := v.Source.FieldIndex(name)
		if i < 0 {
			f.t.Fatalf("no field %s", name)
		}
		e.Row[i] = valueOf(f.t, x)
	}
	return e
}

func valueOf(t testing.TB, x any) windows.Value {
	t.Helper()
	switch x := x.(type) {
	case nil:
		return windows.Value{}
	case int:
		return windows.IntValue(int64(x))
	case int64:
		return windows.IntValue(x)
	case float64:
		return windows.FloatValue(x)
	case string:
		return windows.TextValue(x)
	case bool:
		return windows.BoolValue(x)
	}
	t.Fatalf("value %v", x)
	return windows.Value{}
}

// hash returns the key of the entity that an event of a view is about.
func (f *fixture) hash(v *features.BoundView, e *windows.Event) string {
	f.t.Helper()
	key, ok := v.AppendKey(nil, e.Row)
	if !ok {
		f.t.Fatal("null key")
	}
	return f.space.Entity(keyspace.BucketOf(key, f.bound.Registry.Buckets), v.EntityID, key)
}

// blocks folds events.
func blocks(v *features.BoundView, events []windows.Event) map[windows.BlockID]*windows.Block {
	folded := map[windows.BlockID]*windows.Block{}
	for i := range events {
		e := &events[i]
		if v.Where != nil && !v.Where(e.Row) {
			continue
		}
		for _, id := range v.BlocksOf(nil, e.Time) {
			if folded[id] == nil {
				folded[id] = &windows.Block{ID: id}
			}
			v.Fold(folded[id], e)
		}
	}
	return folded
}

// fold writes events of one entity as the delta of an epoch.
func (f *fixture) fold(v *features.BoundView, epoch int64, events ...windows.Event) {
	f.t.Helper()
	log := f.bound.Logs[v.Source.Topics[0]].ID
	for id, b := range blocks(v, events) {
		field := keyspace.AppendDelta(nil, v.Version.ID, log, 0, epoch, id)
		f.do(f.rdb.HSet(f.t.Context(), f.hash(v, &events[0]), field, v.AppendDelta(nil, uint64(len(events)), b)).Err())
	}
}

// base writes events of one entity as the base of a run that reaches to a position.
func (f *fixture) base(v *features.BoundView, run uint64, reaches int64, events ...windows.Event) {
	f.t.Helper()
	folded := blocks(v, events)
	var list []*windows.Block
	var newest windows.Time
	for level := range v.Levels {
		for no := int64(-1 << 20); len(list) < len(folded) && no < 1<<20; no++ {
			if b := folded[windows.BlockID{Level: level, No: no}]; b != nil {
				list = append(list, b)
				newest = max(newest, b.Newest)
			}
		}
	}
	if len(list) != len(folded) {
		f.t.Fatal("a block outside the search")
	}
	f.do(f.rdb.HSet(f.t.Context(), f.hash(v, &events[0]), keyspace.AppendBase(nil, v.Version.ID), v.AppendBase(nil, run, newest, list)).Err())
	f.do(f.rdb.HSet(f.t.Context(), f.space.Runs(), strconv.FormatUint(run, 10), f.run(v, run, reaches)).Err())
}

// run is the document of a batch run.
func (f *fixture) run(v *features.BoundView, run uint64, reaches int64) []byte {
	f.t.Helper()
	log := f.bound.Logs[v.Source.Topics[0]].ID
	document, err := json.Marshal(features.Run{ID: run, Version: v.Version.ID, Positions: []features.Position{{Log: log, Offset: reaches}}})
	f.do(err)
	return document
}

// testNow is the moment of reads that name none.
const testNow windows.Time = 1_795_000_000_000 // 2026-11-18T11:06:40Z

// server returns a server over the fixture.
func (f *fixture) server(change ...func(*Config)) *Server {
	f.t.Helper()
	cfg := Config{Redis: f.rdb, Bound: f.bound, Now: func() windows.Time { return testNow }}
	for _, c := range change {
		c(&cfg)
	}
	s, err := New(cfg)
	f.do(err)
	return s
}

// ask sends one request through the whole stack of handlers. Every answer must be one that the API's description allows.
func ask(t testing.TB, s *Server, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, "http://localhost"+path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	if t, ok := t.(*testing.T); ok { // a benchmark measures the answer alone
		contract(t, s, r, w)
	}
	return w
}

// feastAnswer is an answer of POST /get-online-features with the values as they were written.
type feastAnswer struct {
	Results []struct {
		Values     []json.RawMessage `json:"values"`
		Statuses   []string          `json:"statuses"`
		EventTimes []string          `json:"event_timestamps"`
	} `json:"results"`
	Metadata struct {
		Names    []string        `json:"feature_names"`
		AsOf     []int64         `json:"as_of"`
		Versions json.RawMessage `json:"feature_view_metadata"`
	} `json:"metadata"`
}

// column returns value, status and event time of a row of a column, as text.
func (a *feastAnswer) cell(t testing.TB, name string, row int) string {
	t.Helper()
	for i, n := range a.Metadata.Names {
		if n == name {
			c := a.Results[i]
			return string(c.Values[row]) + " " + c.Statuses[row] + " " + c.EventTimes[row]
		}
	}
	t.Fatalf("no column %s in %v", name, a.Metadata.Names)
	return ""
}

func readFeast(t testing.TB, s *Server, body string) *feastAnswer {
	t.Helper()
	w := ask(t, s, http.MethodPost, "/get-online-features", body)
	if w.Code != http.StatusOK {
		t.Fatalf("%s: status %d: %s", body, w.Code, w.Body)
	}
	a := &feastAnswer{}
	strict(t, w.Body.Bytes(), a)
	return a
}

// strict decodes exactly one JSON document.
func strict(t testing.TB, data []byte, to any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(to); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	if _, err := d.Token(); err != io.EOF { // Token returns it as it is
		t.Fatalf("bytes behind the document: %s", data)
	}
}

// feastError takes class and message out of an error body, which is encoded twice.
func feastError(t testing.TB, body []byte) (class, message string) {
	t.Helper()
	var inner string
	strict(t, body, &inner)
	var e struct{ Module, Class, Message string }
	strict(t, []byte(inner), &e)
	if e.Module != "feast.errors" {
		t.Errorf("module %q", e.Module)
	}
	return e.Class, e.Message
}
