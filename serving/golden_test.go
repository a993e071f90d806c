package serving

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/windows"
)

// The recordings of testdata/feast-golden replayed. Each case is compared whole, with what was declared beforehand as another
// answer of ours, or says why it cannot be asked.

const golden = `
project: golden
sources:
  user_activity:
    topic: golden.activity.v1
    fields: {user_id: int64, at: int64, clicks_1h: int64, amount_sum_1h: float64}
    event_time: {field: at, unit: ms}
  user_profile:
    topic: golden.profile.v1
    fields: {user_id: int64, at: int64, country: string, age: int64, score: float64}
    event_time: {field: at, unit: ms}
  user_types:
    topic: golden.types.v1
    fields: {user_id: int64, at: int64, f32: float64, f64: float64, i32: int64, i64: int64, flag: bool, text: string, doc: string, unix: int64, age: int64}
    event_time: {field: at, unit: ms}
  user_expired:
    topic: golden.expired.v1
    fields: {user_id: int64, at: int64, old: int64}
    event_time: {field: at, unit: ms}
  user_merchant:
    topic: golden.spend.v1
    fields: {user_id: int64, merchant_id: string, at: int64, spend: float64, visits: int64}
    event_time: {field: at, unit: ms}
  merchant_stats:
    topic: golden.merchants.v1
    fields: {merchant_id: string, at: int64, rating: float64}
    event_time: {field: at, unit: ms}
entities:
  user: {keys: {user_id: int64}}
  merchant: {keys: {merchant_id: string}}
  user_and_merchant: {keys: {user_id: int64, merchant_id: string}}
views:
  user_activity:
    {entity: user, source: user_activity, window: {type: lifetime}, features: {clicks_1h: {aggregate: last, field: clicks_1h}, amount_sum_1h: {aggregate: last, field: amount_sum_1h}}}
  user_profile:
    {entity: user, source: user_profile, window: {type: lifetime}, features: {country: {aggregate: last, field: country}, age: {aggregate: last, field: age}, score: {aggregate: last, field: score}}}
  user_types:
    entity: user
    source: user_types
    window: {type: lifetime}
    features:
      f32: {aggregate: last, field: f32}
      f64: {aggregate: last, field: f64}
      i32: {aggregate: last, field: i32}
      i64: {aggregate: last, field: i64}
      flag: {aggregate: last, field: flag}
      text: {aggregate: last, field: text}
      doc: {aggregate: last, field: doc}
      at: {aggregate: last, field: unix}
      age: {aggregate: last, field: age}
  user_expired: {entity: user, source: user_expired, ttl: 1s, window: {type: lifetime}, features: {old: {aggregate: last, field: old}}}
  user_merchant:
    {entity: user_and_merchant, source: user_merchant, window: {type: lifetime}, features: {spend: {aggregate: last, field: spend}, visits: {aggregate: last, field: visits}}}
  merchant_stats: {entity: merchant, source: merchant_stats, window: {type: lifetime}, features: {rating: {aggregate: last, field: rating}}}
services:
  ranking: {features: [user_activity:clicks_1h, user_activity:amount_sum_1h]}
  wide: {features: [user_activity:clicks_1h, user_profile:country, user_profile:age, user_profile:score]}
`

// Columns of the recordings that definitions cannot express. They are left out of request and answer.
var inexpressible = map[string]string{
	"last_amounts": "a list", "ints": "a list", "floats": "a list", "names": "a list", "blob": "bytes", "attrs": "a map",
}

// goldenCase says how a recording is compared. The zero value: the answer is Feast's, but for the differences that all answers
// have: NOT_FOUND and NULL_VALUE where Feast says PRESENT beside null, event times cut to milliseconds, as_of in the metadata.
type goldenCase struct {
	because string // our answer is another, or there is none
	skip    bool   // definitions cannot express what is asked
	// ours checks an answer that is another.
	ours func(t *testing.T, status int, body []byte)
}

// refusal is an error of the caller's: one try, and the message arrives in the caller's exception.
func refusal(status int, class string, parts ...string) func(*testing.T, int, []byte) {
	return func(t *testing.T, got int, body []byte) {
		t.Helper()
		gotClass, message := feastError(t, body)
		if got != status || gotClass != class {
			t.Errorf("got %d %s %q, want %d %s", got, gotClass, message, status, class)
		}
		for _, part := range parts {
			if !strings.Contains(message, part) {
				t.Errorf("message %q lacks %q", message, part)
			}
		}
	}
}

// cells checks single cells of an answer of status 200: column, then one text per row.
func cells(columns ...[]string) func(*testing.T, int, []byte) {
	return func(t *testing.T, status int, body []byte) {
		t.Helper()
		var a feastAnswer
		strict(t, body, &a)
		if status != 200 || len(a.Results) != len(columns) {
			t.Fatalf("status %d: %s", status, body)
		}
		for i, c := range columns {
			if a.Metadata.Names[i] != c[0] || len(a.Results[i].Values) != len(c)-1 {
				t.Errorf("column %d: got %s", i, body)
				continue
			}
			for row, want := range c[1:] {
				if got := a.cell(t, c[0], row); got != want {
					t.Errorf("%s, row %d: got %s, want %s", c[0], row, got, want)
				}
			}
		}
	}
}

const never = "1970-01-01T00:00:00Z"

var goldenCases = map[string]goldenCase{
	"01-health":               {},
	"02-one-user":             {},
	"03-three-users":          {},
	"04-order-and-duplicates": {},
	"05-big-key":              {},
	"06-null-values":          {},
	"07-types":                {},
	"08-nan-and-infinity": {because: "a record with NaN or an infinity never enters a fold: the user is unknown", ours: cells(
		[]string{"user_id", "1004 PRESENT " + never}, []string{"f64", "null NOT_FOUND " + never}, []string{"f32", "null NOT_FOUND " + never})},
	"09-empty-list":          {skip: true, because: "only lists are asked for"},
	"10-full-names":          {},
	"11-two-views":           {},
	"12-service":             {},
	"13-composite-key":       {},
	"14-composite-key-half":  {because: "half a key finds nothing: it is refused", ours: refusal(422, "FeastError", "merchant_id", "user_merchant")},
	"15-two-entities":        {},
	"16-no-entity-with-rows": {skip: true, because: "an entity has at least one key"},
	"17-expired": {because: "the view's ttl holds online", ours: cells(
		[]string{"user_id", "1001 PRESENT " + never}, []string{"old", "null OUTSIDE_MAX_AGE 2020-01-01T00:00:00Z"})},
	"18-version-metadata": {because: "versions are counted from 1, and 0 is what Feast leaves out", ours: func(t *testing.T, status int, body []byte) {
		t.Helper()
		cells([]string{"user_id", "1001 PRESENT " + never}, []string{"clicks_1h", "7 PRESENT 2026-11-20T10:00:00Z"})(t, status, body)
		if !bytes.Contains(body, []byte(`"feature_view_metadata":[{"name":"user_activity","version":1}]`)) {
			t.Errorf("got %s", body)
		}
	}},
	"19-on-demand":               {skip: true, because: "there are no request-time features"},
	"20-on-demand-missing-input": {skip: true, because: "there are no request-time features"},
	"21-key-as-text":             {},
	"22-key-null": {because: "a null key is an unknown entity, and harms no other row", ours: cells(
		[]string{"user_id", "1001 PRESENT " + never, "null PRESENT " + never}, []string{"clicks_1h", "7 PRESENT 2026-11-20T10:00:00Z", "null NOT_FOUND " + never})},
	"23-zero-rows":          {because: "no rows are an answer", ours: cells([]string{"user_id"}, []string{"clicks_1h"})},
	"24-ragged":             {because: "a caller's mistake is not tried again", ours: refusal(422, "FeastError", "length", "user_id", "merchant_id")},
	"25-unknown-column-too": {},
	"26-unknown-view":       {},
	"27-unknown-feature":    {because: "a caller's mistake is not tried again", ours: refusal(404, "FeastObjectNotFoundException", "nope", "user_activity")},
	"28-unknown-service":    {},
	"29-name-collision":     {because: "a caller's mistake is not tried again", ours: refusal(422, "FeatureNameCollisionError", "age", "full_feature_names")},
	"30-entities-missing": {because: "the request is not repeated in the answer", ours: func(t *testing.T, status int, body []byte) {
		t.Helper()
		if got := strings.TrimSpace(string(body)); status != 422 || got != `{"detail":[{"loc":["body","entities"],"msg":"Field required","type":"missing"}]}` {
			t.Errorf("got %d %s", status, got)
		}
	}},
	"31-unknown-path": {},
	"32-wrong-method": {},

	"sdk-01-features":              {},
	"sdk-02-columnar":              {},
	"sdk-03-service-object":        {},
	"sdk-04-service-from-registry": {},
	"sdk-05-version-metadata": {because: "versions are counted from 1", ours: cells(
		[]string{"user_id", "1001 PRESENT " + never}, []string{"clicks_1h", "7 PRESENT 2026-11-20T10:00:00Z"})},
	"sdk-06-composite-key":         {},
	"sdk-07-on-demand":             {skip: true, because: "there are no request-time features"},
	"sdk-08-unknown-view":          {},
	"sdk-09-unknown-feature":       {because: "a caller's mistake is not tried again", ours: refusal(404, "FeastObjectNotFoundException", "nope")},
	"sdk-10-online-read":           {},
	"sdk-11-online-read-composite": {because: "half a key finds nothing: it is refused", ours: refusal(422, "FeastError", "user_id", "user_merchant")},
	"sdk-20-no-entity-read":        {skip: true, because: "an entity has at least one key"},
}

// writes are the recordings that change something; this server takes no writes.
var goldenWrites = []string{"33", "34", "35", "36", "37", "38", "39", "40", "41", "42", "43", "44", "45", "46", "sdk-12", "sdk-13", "sdk-14", "sdk-15", "sdk-16", "sdk-17", "sdk-18", "sdk-19"}

type recorded struct {
	Request struct {
		Method string          `json:"method"`
		Path   string          `json:"path"`
		JSON   json.RawMessage `json:"json"`
	} `json:"request"`
	Response struct {
		Status  int               `json:"status"`
		Headers map[string]string `json:"headers"`
		Text    string            `json:"text"`
	} `json:"response"`
}

// goldenFixture writes the rows of the recordings.
func goldenFixture(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t, golden)
	f.complete("g")
	data, err := os.ReadFile("testdata/feast-golden/rows.json")
	f.do(err)
	var writes []struct {
		View string                       `json:"feature_view_name"`
		DF   map[string][]json.RawMessage `json:"df"`
	}
	f.do(json.Unmarshal(data, &writes))
	for _, w := range writes {
		v := f.bound.View(w.View)
		if v == nil {
			if w.View != "global_stats" {
				t.Fatalf("no view %s", w.View)
			}
			continue
		}
		for i, at := range w.DF["event_timestamp"] {
			var text string
			f.do(json.Unmarshal(at, &text))
			when, err := time.Parse("2006-01-02T15:04:05.999999", text)
			f.do(err)
			r := row{}
			for name, column := range w.DF {
				field := name
				if name == "at" {
					field = "unix"
				}
				if k := v.Source.FieldIndex(field); k >= 0 && string(column[i]) != "null" {
					r[field] = goldenValue(t, v.Source.Fields[k].Type, name, column[i])
				}
			}
			f.fold(v, 0, f.event(v, windows.Time(when.UnixMilli()), int64(i), r))
		}
	}
	return f
}

func goldenValue(t *testing.T, typ windows.Type, name string, data json.RawMessage) any {
	t.Helper()
	decode := func(to any) {
		if err := json.Unmarshal(data, to); err != nil {
			t.Fatal(err)
		}
	}
	switch typ {
	case windows.Int64:
		var v int64
		decode(&v)
		return v
	case windows.Float64:
		var v float64
		decode(&v)
		if name == "f32" {
			v = float64(float32(v))
		}
		return v
	case windows.Bool:
		var v bool
		decode(&v)
		return v
	default:
		var v string
		decode(&v)
		return v
	}
}

func TestFeastGolden(t *testing.T) {
	s := goldenFixture(t).server(func(c *Config) {
		c.Now = func() windows.Time { return windows.Time(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC).UnixMilli()) }
	})
	files, err := filepath.Glob("testdata/feast-golden/*-*.json")
	if err != nil || len(files) != 66 {
		t.Fatalf("%d recordings, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		c, known := goldenCases[name]
		writes := slices.ContainsFunc(goldenWrites, func(prefix string) bool { return strings.HasPrefix(name, prefix+"-") })
		if known == writes {
			t.Errorf("%s: nothing says how it is compared", name)
			continue
		}
		if writes || c.skip {
			continue
		}
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var r recorded
			if strings.HasPrefix(name, "sdk-") {
				var calls struct {
					Requests []recorded `json:"requests"`
				}
				if err := json.Unmarshal(data, &calls); err != nil || len(calls.Requests) != 1 {
					t.Fatalf("%d requests, %v", len(calls.Requests), err)
				}
				r = calls.Requests[0]
			} else if err := json.Unmarshal(data, &r); err != nil {
				t.Fatal(err)
			}
			compareGolden(t, s, r, c)
		})
	}
}

func compareGolden(t *testing.T, s *Server, r recorded, c goldenCase) {
	t.Helper()
	body := ""
	if len(r.Request.JSON) > 0 && string(r.Request.JSON) != "null" {
		body = string(expressible(t, r.Request.JSON))
	}
	w := ask(t, s, r.Request.Method, r.Request.Path, body)
	got := w.Body.Bytes()
	if c.ours != nil {
		c.ours(t, w.Code, got)
		return
	}
	if w.Code != r.Response.Status {
		t.Fatalf("status %d, want %d: %s", w.Code, r.Response.Status, got)
	}
	if allow := r.Response.Headers["allow"]; allow != "" && !strings.Contains(w.Header().Get("Allow"), allow) {
		t.Errorf("Allow %q, want %q", w.Header().Get("Allow"), allow)
	}
	switch {
	case r.Response.Text == "":
		if len(got) != 0 {
			t.Errorf("body %q, want none", got)
		}
		return
	case r.Response.Status != 200:
		if text := strings.TrimSpace(string(got)); unspaced(t, text) != unspaced(t, r.Response.Text) {
			t.Errorf("got  %s\nwant %s", text, r.Response.Text)
		}
		return
	}
	var have, want feastAnswer
	strict(t, got, &have)
	strict(t, []byte(r.Response.Text), &want)
	if string(have.Metadata.Versions) != string(want.Metadata.Versions) {
		t.Errorf("versions: got %s, want %s", have.Metadata.Versions, want.Metadata.Versions)
	}
	columns := 0
	for i, name := range want.Metadata.Names {
		if inexpressible[name] != "" {
			continue
		}
		columns++
		for row, value := range want.Results[i].Values {
			status, at := want.Results[i].Statuses[row], want.Results[i].EventTimes[row]
			if string(value) == "null" {
				status = "NULL_VALUE"
				if at == never {
					status = "NOT_FOUND"
				}
			}
			if before, after, ok := strings.Cut(at, "."); ok && len(after) == len("123456Z") {
				at = before + "." + after[:3] + "Z"
			}
			if cell := have.cell(t, name, row); cell != string(value)+" "+status+" "+at {
				t.Errorf("%s, row %d: got %s, want %s %s %s", name, row, cell, value, status, at)
			}
		}
	}
	if columns != len(have.Results) {
		t.Errorf("%d columns, want %d", len(have.Results), columns)
	}
}

// unspaced returns an error's text in one form: Feast puts blanks into JSON, and a string that holds JSON is opened.
func unspaced(t *testing.T, text string) string {
	t.Helper()
	var v any
	strict(t, []byte(text), &v)
	if inner, ok := v.(string); ok {
		return "string of " + unspaced(t, inner)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// expressible leaves the features out of a request that definitions cannot express.
func expressible(t *testing.T, body json.RawMessage) []byte {
	t.Helper()
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		t.Fatal(err)
	}
	if members["features"] == nil {
		return body
	}
	var refs []string
	if err := json.Unmarshal(members["features"], &refs); err != nil {
		t.Fatal(err)
	}
	refs = slices.DeleteFunc(refs, func(ref string) bool {
		_, feature, _ := strings.Cut(ref, ":")
		return inexpressible[feature] != ""
	})
	var err error
	if members["features"], err = json.Marshal(refs); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestTilesMerge: Feast's tiled windows add up where they may not; the values of windows must be those of their events.
func TestTilesMerge(t *testing.T) {
	f := newFixture(t, `
project: tiles
sources:
  s: {topic: tiles.events.v1, fields: {user_id: int64, at: int64, v: float64}, event_time: {field: at, unit: ms}}
entities: {user: {keys: {user_id: int64}}}
views:
  w:
    {entity: user, source: s, window: {type: sliding, size: 1h, hop: 5m}, features: {sum: {aggregate: sum, field: v}, n: {aggregate: count}, mean: {aggregate: mean, field: v}, min: {aggregate: min, field: v}, max: {aggregate: max, field: v}}}
`)
	f.complete("t")
	v := f.view("w")
	const minute = 60_000
	at := func(m windows.Time, value float64) windows.Event {
		return f.event(v, m*minute, int64(m), row{"user_id": 1, "v": value})
	}
	s := f.server(func(c *Config) { c.Now = func() windows.Time { return math.MinInt64 } })
	events := []windows.Event{at(1, 10), at(6, 20), at(11, 30), at(72, 5)}
	for _, c := range []struct {
		t      string
		events int // that have come by then
		want   string
	}{
		{"600000", 2, "30.0 2 15.0 10.0 20.0"},
		{"900000", 3, "60.0 3 20.0 10.0 30.0"},
		{"3900000", 3, "50.0 2 25.0 20.0 30.0"},
		{"4200000", 3, "30.0 1 30.0 30.0 30.0"},
		{"4500000", 4, "5.0 1 5.0 5.0 5.0"},
	} {
		f.do(f.rdb.Del(t.Context(), f.hash(v, &events[0])).Err())
		f.fold(v, 0, events[:c.events]...)
		a := readFeast(t, s, `{"entities":{"user_id":[1]},"features":["w:sum","w:n","w:mean","w:min","w:max"],"as_of":`+c.t+`}`)
		var got []string
		for _, r := range a.Results[1:] {
			got = append(got, string(r.Values[0]))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("at %s: got %v, want %s", c.t, got, c.want)
		}
	}
}
