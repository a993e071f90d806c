package serving

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"millrace/features"
	"millrace/windows"
)

func TestFeastRefusals(t *testing.T) {
	s := aShop(t).server()
	many := "[" + strings.Repeat("1,", maxRows) + "1]"
	for _, c := range []struct {
		body   string
		status int
		class  string
		part   string
	}{
		{`{"entities":{"user_id":[1]},"features":["nope:x"]}`, 404, "FeatureViewNotFoundException", "nope does not exist in project shop"},
		{`{"entities":{"user_id":[1]},"features":["spendin:n"]}`, 404, "FeatureViewNotFoundException", "nearest: spending"},
		{`{"entities":{"user_id":[1]},"features":["spending:m"]}`, 404, "FeastObjectNotFoundException", "nearest: n"},
		{`{"entities":{"user_id":[1]},"features":["spending@v2:n"]}`, 404, "FeatureViewVersionNotFound", "v1"},
		{`{"entities":{"user_id":[1]},"features":["spending@other:n"]}`, 404, "FeatureViewNotFoundException", "spending@other"},
		{`{"entities":{"user_id":[1]},"feature_service":"nope"}`, 404, "FeatureServiceNotFoundException", "nope"},
		{`{"entities":{"user_id":[1]},"features":["spending"]}`, 422, "FeastError", "view:feature"},
		{`{"entities":{"user_id":[1]},"features":[]}`, 422, "FeastError", "nothing is asked for"},
		{`{"entities":{"user_id":[1]},"features":null,"feature_service":null}`, 422, "FeastError", "nothing is asked for"},
		{`{"entities":{"user_id":[1]}}`, 422, "FeastError", "nothing is asked for"},
		{`{"entities":{"user_id":[1],"country":["NO"]},"features":["spending:n","by_market:n"]}`, 422, "FeatureNameCollisionError", "n"},
		{`{"entities":{"user_id":[1]},"features":["spending:n","spending:n"],"full_feature_names":true}`, 422, "FeatureNameCollisionError", "spending__n"},
		{`{"entities":{"user_id":[1]},"features":["spending:n","spending@v1:n"]}`, 422, "FeatureNameCollisionError", "n"},
		{`{"entities":{"user_id":[1,2],"country":["NO"]},"features":["by_market:n"]}`, 422, "FeastError", "length"},
		{`{"entities":{"user_id":[1]},"features":["by_market:n"]}`, 422, "FeastError", "missing join key country"},
		{`{"entities":{},"features":["spending:n"]}`, 422, "FeastError", "missing join key user_id"},
		{`{"entities":{"nope":[1]},"features":["spending:n"]}`, 422, "FeastError", "missing join key user_id"},
		{`{"entities":{"user_id":[1],"user_id":[2]},"features":["spending:n"]}`, 422, "FeastError", "twice"},
		{`{"entities":{"user_id":[1]},"request_context":{"user_id":[2]},"features":["spending:n"]}`, 422, "FeastError", "twice"},
		{`{"entities":{"user_id":["abc"]},"features":["spending:n"]}`, 422, "FeastError", "user_id, row 0"},
		{`{"entities":{"user_id":[1,1001.7]},"features":["spending:n"]}`, 422, "FeastError", "user_id, row 1"},
		{`{"entities":{"user_id":["1.0"]},"features":["spending:n"]}`, 422, "FeastError", "int64"},
		{"{\"entities\":{\"user_id\":[\"\xff\"]},\"features\":[\"spending:n\"]}", 422, "FeastError", "UTF-8"},
		{`{"entities":{"user_id":[true]},"features":["spending:n"]}`, 422, "FeastError", "int64"},
		{`{"entities":{"user_id":[1e3]},"features":["spending:n"]}`, 422, "FeastError", "int64"},
		{`{"entities":{"user_id":[[1]]},"features":["spending:n"]}`, 422, "FeastError", "int64"},
		{`{"entities":{"user_id":[9223372036854775808]},"features":["spending:n"]}`, 422, "FeastError", "int64"},
		{`{"entities":{"user_id":[-9223372036854775809]},"features":["spending:n"]}`, 422, "FeastError", "int64"},
		{`{"entities":{"user_id":[1],"country":[true]},"features":["by_market:n"]}`, 422, "FeastError", "string"},
		{`{"entities":{"user_id":[1],"country":["` + strings.Repeat("x", maxKeyBytes+1) + `"]},"features":["by_market:n"]}`, 422, "FeastError", strconv.Itoa(maxKeyBytes)},
		{`{"entities":{"user_id":` + many + `},"features":["spending:n"]}`, 422, "FeastError", strconv.Itoa(maxRows)},
		{`{"entities":{"user_id":[1]},"features":[` + strings.Repeat(`"spending:n",`, maxColumns) + `"spending:n"]}`, 422, "FeastError", strconv.Itoa(maxColumns)},
		{`{"entities":{"user_id":[1]},"features":["spending:n"],"pad":"` + strings.Repeat("x", maxBody) + `"}`, 413, "FeastError", strconv.Itoa(maxBody)},
	} {
		w := ask(t, s, http.MethodPost, "/get-online-features", c.body)
		class, message := feastError(t, w.Body.Bytes())
		if w.Code != c.status || class != c.class || !strings.Contains(message, c.part) {
			t.Errorf("%.200s: got %d %s %q, want %d %s %q", c.body, w.Code, class, message, c.status, c.class, c.part)
		}
		if w.Header().Get("Retry-After") != "" {
			t.Errorf("%.200s: a refusal asks to come again", c.body)
		}
	}
}

func TestFeastShapes(t *testing.T) {
	s := aShop(t).server()
	for _, c := range []struct{ body, kind, loc string }{
		{``, "json_invalid", `["body"]`},
		{`{"entities":{"user_id":[1]}`, "json_invalid", `["body"]`},
		{`{"entities":{"user_id":[1]}} x`, "json_invalid", `["body"]`},
		{`{"entities":{"user_id":[NaN]},"features":["spending:n"]}`, "json_invalid", `["body"]`},
		{`[]`, "model_attributes_type", `["body"]`},
		{`null`, "model_attributes_type", `["body"]`},
		{`{}`, "missing", `["body","entities"]`},
		{`{"entities":null}`, "dict_type", `["body","entities"]`},
		{`{"entities":[1]}`, "dict_type", `["body","entities"]`},
		{`{"entities":{"user_id":1}}`, "list_type", `["body","entities","user_id"]`},
		{`{"entities":{},"features":"spending:n"}`, "list_type", `["body","features"]`},
		{`{"entities":{},"features":["spending:n",1]}`, "string_type", `["body","features",1]`},
		{`{"entities":{},"feature_service":1}`, "string_type", `["body","feature_service"]`},
		{`{"entities":{},"full_feature_names":"yes"}`, "bool_type", `["body","full_feature_names"]`},
		{`{"entities":{},"as_of":1.5}`, "as_of", `["body","as_of"]`},
		{`{"entities":{},"as_of":"yesterday"}`, "as_of", `["body","as_of"]`},
		{`{"entities":{},"as_of":true}`, "as_of", `["body","as_of"]`},
		{`{"entities":{},"as_of":9223372036854775808}`, "as_of", `["body","as_of"]`},
	} {
		w := ask(t, s, http.MethodPost, "/get-online-features", c.body)
		var got struct {
			Detail []struct {
				Type, Msg string
				Loc       json.RawMessage
			}
		}
		strict(t, w.Body.Bytes(), &got)
		if w.Code != 422 || len(got.Detail) != 1 || got.Detail[0].Type != c.kind || string(got.Detail[0].Loc) != c.loc || got.Detail[0].Msg == "" {
			t.Errorf("%s: %d %s", c.body, w.Code, w.Body)
		}
	}
}

func TestFeastElsewhere(t *testing.T) {
	s := aShop(t).server()
	for path, want := range map[string]struct {
		status int
		part   string
	}{
		"/push": {422, "topic"}, "/write-to-online-store": {422, "topic"}, "/materialize": {422, "millrace batch"},
		"/materialize-incremental?async=true": {422, "millrace batch"}, "/search": {501, "vector search"}, "/retrieve-online-documents": {501, "vector search"},
	} {
		w := ask(t, s, http.MethodPost, path, `{}`)
		class, message := feastError(t, w.Body.Bytes())
		if w.Code != want.status || class != "FeastError" || !strings.Contains(message, want.part) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestProblems(t *testing.T) {
	s := aShop(t).server()
	for _, c := range []struct {
		method, path, body string
		status             int
		code, part         string
		pointer            string
	}{
		{"POST", "/v1/online-features", `{"entities":[{"user_id":1}],"features":["spendin:n"]}`, 404, "VIEW_NOT_FOUND", "nearest: spending", ""},
		{"POST", "/v1/online-features", `{"entities":[{"user_id":1}],"features":["spending:m"]}`, 404, "FEATURE_NOT_FOUND", "nearest", ""},
		{"POST", "/v1/online-features", `{"entities":[{"user_id":1}],"service":"nope"}`, 404, "SERVICE_NOT_FOUND", "nope", ""},
		{"POST", "/v1/online-features", `{"entities":[{"user_id":1}],"features":["spending:n","spending:n"]}`, 422, "NAME_COLLISION", "spending:n", ""},
		{"POST", "/v1/online-features", `{"entities":[{"user_id":1},{}],"features":["spending:n"]}`, 422, "BAD_REQUEST", "missing join key user_id in row 1", ""},
		{"POST", "/v1/online-features", `{"entities":[{},{"user_id":1}],"features":["spending:n"]}`, 422, "BAD_REQUEST", "missing join key user_id in row 0", ""},
		{"POST", "/v1/online-features", `{"entities":[{"user_id":1,"user_id":2}],"features":["spending:n"]}`, 422, "BAD_REQUEST", "twice", ""},
		{"POST", "/v1/online-features", `{"entities":[{"user_id":"x"}],"features":["spending:n"]}`, 422, "BAD_REQUEST", "row 0", ""},
		{"POST", "/v1/online-features", `{"entities":[{"user_id":1}]}`, 422, "BAD_REQUEST", "nothing is asked for", ""},
		{"POST", "/v1/online-features", `{"features":["spending:n"]}`, 422, "BODY_SHAPE", "entities", "#/entities"},
		{"POST", "/v1/online-features", `{"entities":[1],"features":["spending:n"]}`, 422, "BODY_SHAPE", "object", "#/entities/0"},
		{"POST", "/v1/online-features", `{"entities":{"user_id":[1]}}`, 422, "BODY_SHAPE", "array", "#/entities"},
		{"POST", "/v1/online-features", `{"entities":[],"features":["a",2]}`, 422, "BODY_SHAPE", "view:feature", "#/features/1"},
		{"POST", "/v1/online-features", `{"entities":[`, 422, "BODY_SHAPE", "JSON", "#"},
		{"POST", "/v1/online-features", `{"entities":[{}` + strings.Repeat(",{}", maxRows) + `]}`, 422, "BAD_REQUEST", strconv.Itoa(maxRows), ""},
		{"POST", "/v1/online-features", `{"pad":"` + strings.Repeat("x", maxBody) + `"}`, 413, "BODY_TOO_LARGE", strconv.Itoa(maxBody), ""},
		{"GET", "/v1/views/spendin", ``, 404, "VIEW_NOT_FOUND", "nearest: spending", ""},
		{"GET", "/v1/nope", ``, 404, "NOT_FOUND", "Not Found", ""},
		{"DELETE", "/v1/views", ``, 405, "METHOD_NOT_ALLOWED", "Method Not Allowed", ""},
	} {
		w := ask(t, s, c.method, c.path, c.body, "traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
		var p problem
		strict(t, w.Body.Bytes(), &p)
		if w.Code != c.status || p.Status != c.status || p.Code != c.code || !strings.Contains(p.Detail, c.part) || p.Instance != c.path || p.Title == "" || !strings.HasPrefix(p.Type, "/docs/errors/") {
			t.Errorf("%s %s %.100s: got %d %s", c.method, c.path, c.body, w.Code, w.Body)
		}
		if c.pointer != "" && (len(p.Errors) != 1 || p.Errors[0].Pointer != c.pointer) {
			t.Errorf("%s %.100s: got %+v, want %s", c.path, c.body, p.Errors, c.pointer)
		}
		if p.TraceID != "4bf92f3577b34da6a3ce929d0e0e4736" {
			t.Errorf("%s: trace %q", c.path, p.TraceID)
		}
	}
}

func TestNames(t *testing.T) {
	s := aShop(t).server()
	for body, want := range map[string]string{
		`{"entities":{"user_id":[1]},"features":["browsing:clicks","spending:n","browsing:page"]}`:                                                             "user_id clicks page n",
		`{"entities":{"user_id":[1]},"features":["spending:n","browsing:page"],"full_feature_names":true}`:                                                     "user_id spending__n browsing__page",
		`{"entities":{"user_id":[1]},"features":["spending@v1:n","spending@latest:total","spending@:hour"],"full_feature_names":true}`:                         "user_id spending@v1__n spending__total spending__hour",
		`{"entities":{"user_id":[1]},"features":["spending@V1:n"]}`:                                                                                            "user_id n",
		`{"entities":{"user_id":[1],"country":["NO"]},"features":["browsing:clicks"]}`:                                                                         "user_id country clicks",
		`{"entities":{"country":["NO"],"x":[1],"user_id":[1]},"features":["by_market:n"]}`:                                                                     "country user_id n",
		`{"entities":{"user_id":[1]},"features":["nope:x"],"feature_service":"ranking"}`:                                                                       "user_id page clicks total",
		`{"request_context":{"user_id":[1]},"entities":{},"features":["spending:n"],"feature_service":""}`:                                                     "user_id n",
		`{"entities":{"user_id":[1.0]},"features":["spending:n"],"full_feature_names":null,"as_of":null,"feature_service":null,"request_context":null}`:        "user_id n",
		`{"entities":{"user_id":["\u0031"]},"features":["spending:n"],"anything":[{"else":{}}],"full_feature_names":false}`:                                    "user_id n",
		`{"entities":{"user_id":[1],"country":[17]},"features":["by_market:n"]}`:                                                                               "user_id country n",
		`{"entities":{"user_id":[9007199254740993],"country":["\ud83d\ude00\u00e9"]},"features":["by_market:n"],"include_feature_view_version_metadata":true}`: "user_id country n",
	} {
		if got := strings.Join(readFeast(t, s, body).Metadata.Names, " "); got != want {
			t.Errorf("%s: got %s, want %s", body, got, want)
		}
	}
	a := readFeast(t, s, `{"entities":{"user_id":[9007199254740993,1.0],"country":["\ud83d\ude00\u00e9",17]},"features":["by_market:n"]}`)
	for _, want := range [][2]string{{"user_id", "9007199254740993"}, {"country", `"😀é"`}} {
		if got := a.cell(t, want[0], 0); got != want[1]+" PRESENT "+never {
			t.Errorf("echo: got %s, want %s", got, want[1])
		}
	}
	if a.cell(t, "user_id", 1) != "1 PRESENT "+never || a.cell(t, "country", 1) != `"17" PRESENT `+never {
		t.Errorf("echo: %+v", a)
	}
	if rows := readRows(t, s, `{"entities":[{"user_id":1},{"user_id":null,"x":2}],"features":["spending:n","spending@v1:total"]}`).Rows; len(rows) != 2 ||
		string(rows[0].Features["spending:n"]) != "3" || string(rows[0].Features["spending@v1:total"]) != "12.5" || rows[0].EventTimes != nil ||
		rows[1].Statuses["spending:n"] != "NOT_FOUND" || string(rows[1].Entity["user_id"]) != "null" || len(rows[1].Entity) != 1 {
		t.Errorf("%+v", rows)
	}
	if rows := readRows(t, s, `{"entities":[],"features":["spending:n"]}`).Rows; rows == nil || len(rows) != 0 {
		t.Errorf("%+v", rows)
	}
}

// TestRandomAnswers: whatever the values, the bytes obey the rules by which Feast's client tells types: a float shows that it
// is one and reads back to the same bits, an integer is exact, there are no lists, no objects, no NaN.
func TestRandomAnswers(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	f := newFixture(t, shop)
	v, names := f.view("spending"), []string{"total", "n", "latest", "gift", "units", "hour", "mean_hour"}
	for range 300 {
		rows := rng.IntN(4)
		p := &plan{rows: rows, keys: []keyColumn{{name: "user_id", typ: windows.Int64}}, names: names, views: []planView{{view: v, name: "spending", features: []int{0, 1, 2, 3, 4, 5, 6}}}}
		a := &answer{at: make([]windows.Time, rows), views: []viewAnswer{{rows: make([]rowAnswer, rows)}}}
		for row := range rows {
			p.keys[0].values = append(p.keys[0].values, windows.IntValue(int64(rng.Uint64())))
			a.views[0].rows[row] = rowAnswer{newest: windows.Time(rng.Uint64() >> rng.IntN(64)), known: rng.IntN(2) == 0}
			for range names {
				a.views[0].results = append(a.views[0].results, randomResult(rng))
			}
		}
		var got feastAnswer
		strict(t, appendFeast(nil, p, a, nil), &got)
		if len(got.Results) != 1+len(names) {
			t.Fatalf("%d columns", len(got.Results))
		}
		for i, column := range got.Results[1:] {
			if len(column.Values) != rows || len(column.Statuses) != rows || len(column.EventTimes) != rows {
				t.Fatalf("column of %d, %d, %d cells, want %d", len(column.Values), len(column.Statuses), len(column.EventTimes), rows)
			}
			for row := range rows {
				checkCell(t, column.Values[row], column.Statuses[row], column.EventTimes[row], a.views[0].results[row*len(names)+i])
			}
		}
		var byRow rowsAnswer
		strict(t, appendRows(nil, p, a, true), &byRow)
		for row := range rows {
			for i, name := range names {
				if !bytes.Equal(byRow.Rows[row].Features[name], got.Results[1+i].Values[row]) || byRow.Rows[row].Statuses[name] != got.Results[1+i].Statuses[row] {
					t.Fatalf("by row %s, by column %s", byRow.Rows[row].Features[name], got.Results[1+i].Values[row])
				}
			}
		}
	}
}

func randomResult(rng *rand.Rand) windows.Result {
	switch rng.IntN(8) {
	case 0:
		return windows.Result{Status: windows.Status(rng.IntN(2) * 2)} // INVALID or NULL_VALUE
	case 1:
		return windows.Result{Status: windows.StatusPresent, Value: windows.BoolValue(rng.IntN(2) == 0)}
	case 2, 3:
		return windows.Result{Status: windows.StatusPresent, Value: windows.IntValue(int64(rng.Uint64()) >> rng.IntN(64))}
	case 4:
		text := make([]byte, rng.IntN(12))
		for i := range text {
			text[i] = byte(rng.Uint32()) // mostly not UTF-8
		}
		return windows.Result{Status: windows.StatusPresent, Value: windows.TextValue(string(text))}
	case 5:
		text := make([]rune, rng.IntN(12))
		for i := range text {
			text[i] = []rune{'"', '\\', 0, '\n', 0x7f, 'é', '😀', '<', 0x2028, 0xfffd}[rng.IntN(10)]
		}
		return windows.Result{Status: windows.StatusPresent, Value: windows.TextValue(string(text))}
	default:
		for {
			f := math.Float64frombits(rng.Uint64())
			if rng.IntN(2) == 0 {
				f = float64(rng.IntN(100)-50) * math.Pow(10, float64(rng.IntN(40)-20))
			}
			if !math.IsNaN(f) && !math.IsInf(f, 0) {
				return windows.Result{Status: windows.StatusPresent, Value: windows.FloatValue(f)}
			}
		}
	}
}

func checkCell(t *testing.T, value json.RawMessage, status, at string, want windows.Result) {
	t.Helper()
	if status != want.Status.String() {
		t.Fatalf("status %s, want %s", status, want.Status)
	}
	if !slices.Contains([]int{len("2006-01-02T15:04:05Z"), len("2006-01-02T15:04:05.000Z")}, len(at)) {
		t.Fatalf("time %s", at)
	}
	if _, err := time.Parse(time.RFC3339, at); err != nil {
		t.Fatal(err)
	}
	text := string(value)
	switch want.Value.Kind {
	case windows.Float:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || windows.FloatValue(f) != want.Value || !strings.ContainsAny(text, ".e") || strings.HasPrefix(text, "-0.0") && f == 0 {
			t.Fatalf("float %s, want %v", text, want.Value)
		}
	case windows.Integer:
		if n, err := strconv.ParseInt(text, 10, 64); err != nil || n != want.Value.Int() {
			t.Fatalf("integer %s, want %v", text, want.Value)
		}
	case windows.Text:
		var s string
		if err := json.Unmarshal(value, &s); err != nil || s != strings.ToValidUTF8(want.Value.Str, "\ufffd") && s != string([]rune(want.Value.Str)) {
			t.Fatalf("text %s, want %q", text, want.Value.Str)
		}
	case windows.Boolean:
		if text != strconv.FormatBool(want.Value.Bool()) {
			t.Fatalf("truth %s", text)
		}
	case windows.Null, windows.Invalid:
		if text != "null" {
			t.Fatalf("null %s", text)
		}
	}
}

// FuzzRequests: no body makes an answer of the server's fault, and every answer fits its description.
func FuzzRequests(f *testing.F) {
	for _, seed := range []string{
		`{"entities":{"user_id":[1,null,"2"]},"features":["spending:n","browsing@v1:page"],"as_of":1795000000001}`,
		`{"entities":[{"user_id":1},{"user_id":null,"country":"NO"}],"service":"ranking","event_times":true,"as_of":"2026-11-25T08:00:00Z"}`,
		`{"entities":{"user_id":[1],"country":["\ud83d"]},"feature_service":"ranking","full_feature_names":true,"request_context":{"x":[{}]}}`,
		`{"entities":[[]],"features":[1e400,-0,"\u0000"]}`, `[`, ``, `{"entities":{"":[]}}`,
	} {
		f.Add([]byte(seed))
	}
	fx := aShop(f)
	s := fx.server()
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, path := range []string{"/get-online-features", "/v1/online-features"} {
			if w := ask(t, s, http.MethodPost, path, string(body)); w.Code >= 500 {
				t.Errorf("%s %q: %d %s", path, body, w.Code, w.Body)
			}
		}
	})
}

// Answers of a view without keys have one row where no key is given.
func TestNoKeys(t *testing.T) {
	d, problems := features.Parse(map[string][]byte{"test.yaml": []byte(shop)})
	if problems.Fatal() {
		t.Fatal(problems)
	}
	d.Entities[0].Keys = nil // which the language does not have
	f := bindFixture(t, d)
	f.complete("i")
	v := f.view("spending")
	f.fold(v, 0, f.event(v, 1000, 1, row{"amount": 2.0}))
	s := f.server()
	for _, entities := range []string{`{}`, `{"country":["NO"]}`} {
		if got := readFeast(t, s, fmt.Sprintf(`{"entities":%s,"features":["spending:total"]}`, entities)).cell(t, "total", 0); got != "2.0 PRESENT 1970-01-01T00:00:01Z" {
			t.Errorf("%s: got %s", entities, got)
		}
	}
}
