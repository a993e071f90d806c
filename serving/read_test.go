package serving

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/features/keyspace"
	"millrace/internal/storetest"
	"millrace/windows"
)

const shop = `
project: shop
sources:
  orders:
    topic: shop.orders.v1
    fields: {user_id: int64, country: string, at: int64, amount: float64, gift: bool, units: int64}
    event_time: {field: at, unit: ms}
    epoch_bits: 4
  clicks:
    topic: shop.clicks.v1
    fields: {user_id: int64, at: int64, page: string}
    event_time: {field: at, unit: ms}
    epoch_bits: 4
entities:
  customer:
    description: Who buys.
    keys: {user_id: int64}
  market: {keys: {user_id: int64, country: string}}
views:
  spending:
    description: What a customer spends.
    entity: customer
    source: orders
    window: {type: lifetime}
    features:
      total: {aggregate: sum, field: amount, description: In euros.}
      n: {aggregate: count}
      latest: {aggregate: last, field: amount}
      gift: {aggregate: last, field: gift}
      units: {aggregate: sum, field: units}
      hour: {aggregate: sum, field: amount, window: {type: sliding, size: 1h, hop: 1m}}
      mean_hour: {aggregate: mean, field: amount, window: {type: sliding, size: 1h, hop: 1m}}
  browsing:
    entity: customer
    source: clicks
    ttl: 1d
    window: {type: lifetime}
    features:
      page: {aggregate: last, field: page}
      clicks: {aggregate: count}
  by_market:
    entity: market
    source: orders
    window: {type: lifetime}
    features:
      n: {aggregate: count}
services:
  ranking:
    description: What ranking asks for.
    features: [browsing, spending:total]
`

// aShop has one customer with orders in a base and in deltas, and clicks after them.
func aShop(t testing.TB) *fixture {
	f := newFixture(t, shop)
	f.complete("i1")
	v, market, clicks := f.view("spending"), f.view("by_market"), f.view("browsing")
	order := func(offset, ms int64, amount float64) windows.Event {
		return f.event(v, testNow.Sub(windows.Span(ms)), offset, row{"user_id": 1, "country": "NO", "amount": amount, "gift": false, "units": 3})
	}
	first, second, third := order(3, 7_200_000, 10), order(17, 1_800_000, 0.5), order(33, 60_000, 2)
	// The base reaches to offset 32: the deltas of the epochs 0 and 16 are in it, and stand in the hash all the same.
	f.base(v, 7, 32, first, second)
	f.fold(v, 0, first)
	f.fold(v, 16, second)
	f.fold(v, 32, third)
	f.fold(market, 0, first, second, third)
	f.fold(clicks, 0, f.event(clicks, testNow.Sub(30_000), 5, row{"user_id": 1, "page": "/a\"<é"}))
	f.fold(clicks, 0, f.event(clicks, testNow.Sub(windows.Day), 6, row{"user_id": 2, "page": "b"}))
	f.fold(clicks, 0, f.event(clicks, testNow.Sub(windows.Day+1), 7, row{"user_id": 3, "page": "c"}))
	return f
}

func TestMerge(t *testing.T) {
	s := aShop(t).server()
	a := readFeast(t, s, `{"entities":{"user_id":[1,9,null,1]},"features":["spending:total","spending:n","spending:latest","spending:gift","spending:units","spending:hour","spending:mean_hour"]}`)
	const at, never = "2026-11-18T11:05:40Z", "1970-01-01T00:00:00Z"
	for _, want := range []struct {
		column string
		known  string
		empty  string
	}{
		{"total", "12.5 PRESENT " + at, "0.0 NOT_FOUND " + never},
		{"n", "3 PRESENT " + at, "0 NOT_FOUND " + never},
		{"latest", "2.0 PRESENT " + at, "null NOT_FOUND " + never},
		{"gift", "false PRESENT " + at, "null NOT_FOUND " + never},
		{"units", "9 PRESENT " + at, "0 NOT_FOUND " + never},
		{"hour", "2.5 PRESENT " + at, "0.0 NOT_FOUND " + never},
		{"mean_hour", "1.25 PRESENT " + at, "null NOT_FOUND " + never},
	} {
		for row, text := range []string{want.known, want.empty, want.empty, want.known} {
			if got := a.cell(t, want.column, row); got != text {
				t.Errorf("%s, row %d: got %s, want %s", want.column, row, got, text)
			}
		}
	}
	for row, text := range []string{"1", "9", "null", "1"} {
		if got := a.cell(t, "user_id", row); got != text+" PRESENT "+never {
			t.Errorf("key, row %d: %s", row, got)
		}
	}
	if got := readFeast(t, s, `{"entities":{"country":["NO","SE"],"user_id":[1,"1"]},"features":["by_market:n"]}`); got.cell(t, "n", 0) != "3 PRESENT "+at || got.cell(t, "n", 1) != "0 NOT_FOUND "+never {
		t.Errorf("composite key: %+v", got)
	}
}

func TestTTL(t *testing.T) {
	s := aShop(t).server()
	a := readFeast(t, s, `{"entities":{"user_id":[1,2,3]},"features":["browsing:page","browsing:clicks"]}`)
	want := []string{
		`"/a\"<é" PRESENT 2026-11-18T11:06:10Z`,
		`"b" PRESENT 2026-11-17T11:06:40Z`, // exactly as old as the ttl
		`null OUTSIDE_MAX_AGE 2026-11-17T11:06:39.999Z`,
	}
	for i := range want {
		if got := a.cell(t, "page", i); got != want[i] {
			t.Errorf("got %s, want %s", got, want[i])
		}
	}
	if got := a.cell(t, "clicks", 2); got != "null OUTSIDE_MAX_AGE 2026-11-17T11:06:39.999Z" {
		t.Errorf("got %s", got)
	}
}

// rowsAnswer is an answer of POST /v1/online-features.
type rowsAnswer struct {
	Rows []struct {
		AsOf       windows.Time               `json:"as_of"`
		Entity     map[string]json.RawMessage `json:"entity"`
		Features   map[string]json.RawMessage `json:"features"`
		Statuses   map[string]string          `json:"statuses"`
		Reasons    map[string]string          `json:"reasons"`
		EventTimes map[string]*windows.Time   `json:"event_times"`
		Complete   bool                       `json:"complete"`
	} `json:"rows"`
}

func readRows(t testing.TB, s *Server, body string) *rowsAnswer {
	t.Helper()
	w := ask(t, s, http.MethodPost, "/v1/online-features", body)
	if w.Code != http.StatusOK {
		t.Fatalf("%s: status %d: %s", body, w.Code, w.Body)
	}
	a := &rowsAnswer{}
	strict(t, w.Body.Bytes(), a)
	return a
}

// TestOneMoment: the views of a row are read at one moment, which is after the newest event of all of them.
func TestOneMoment(t *testing.T) {
	f := aShop(t)
	clicks, orders := testNow.Sub(30_000), testNow.Sub(60_000)
	for _, c := range []struct {
		name, asOf string
		now        windows.Time
		want       windows.Time
		invalid    string
	}{
		{"now is later", "null", testNow, testNow, ""},
		{"now is before the newest event of one view", "null", clicks, clicks + 1, ""},
		{"a clock far behind", "null", 0, clicks + 1, ""},
		{"as_of is later", strconv.FormatInt(int64(testNow)+5, 10), testNow, testNow + 5, ""},
		{"as_of as text", `"2026-11-18T11:06:40.0021+00:00"`, 0, testNow + 3, ""},
		{"as_of just after the newest event", strconv.FormatInt(int64(clicks)+1, 10), testNow, clicks + 1, ""},
		{"as_of at the newest event of one view", strconv.FormatInt(int64(clicks), 10), testNow, clicks, "browsing"},
		{"as_of between the views", strconv.FormatInt(int64(orders)+1, 10), testNow, orders + 1, "browsing"},
		{"as_of before both", strconv.FormatInt(int64(orders), 10), testNow, orders, "browsing spending"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := f.server(func(cfg *Config) { cfg.Now = func() windows.Time { return c.now } })
			a := readRows(t, s, `{"entities":[{"user_id":1}],"features":["browsing:clicks","spending:n"],"event_times":true,"as_of":`+c.asOf+`}`)
			r := a.Rows[0]
			if r.AsOf != c.want || !r.Complete {
				t.Errorf("read at %d, complete %t, want %d, true", r.AsOf, r.Complete, c.want)
			}
			for view, feature := range map[string]string{"browsing": "browsing:clicks", "spending": "spending:n"} {
				invalid := strings.Contains(c.invalid, view)
				if got := r.Statuses[feature]; (got == "INVALID") != invalid || (r.Reasons[view] != "") != invalid {
					t.Errorf("%s: %s, reason %q", feature, got, r.Reasons[view])
				}
				if invalid && (string(r.Features[feature]) != "null" || r.EventTimes[view] != nil || r.Reasons[view] != reasonEarly) {
					t.Errorf("%s: %s at %v: %s", feature, r.Features[feature], r.EventTimes[view], r.Reasons[view])
				}
			}
			feast := readFeast(t, s, `{"entities":{"user_id":[1,8]},"features":["browsing:clicks","spending:n"],"as_of":`+c.asOf+`}`)
			if feast.Metadata.AsOf[0] != int64(c.want) {
				t.Errorf("as_of of the columns: %v", feast.Metadata.AsOf)
			}
		})
	}
}

func TestReadsEachEntityOnce(t *testing.T) {
	f := aShop(t)
	s := f.server()
	readFeast(t, s, `{"entities":{"user_id":[1]},"features":["spending:n"]}`) // the first looks at the store
	calls := func() int {
		info, err := f.rdb.Info(t.Context(), "commandstats").Result()
		f.do(err)
		_, after, _ := strings.Cut(info, "cmdstat_hgetall:calls=")
		text, _, _ := strings.Cut(after, ",")
		n, err := strconv.Atoi(text)
		f.do(err)
		return n
	}
	for body, want := range map[string]int{
		`{"entities":{"user_id":[1]},"features":["spending:n","browsing:clicks"]}`:                                        1,
		`{"entities":{"user_id":[1,2,1,2,1]},"features":["spending:n","browsing:clicks"]}`:                                2,
		`{"entities":{"user_id":[1],"country":["NO"]},"features":["spending:total","by_market:n","browsing:clicks"]}`:     2,
		`{"entities":{"user_id":[1,1],"country":["NO",null]},"features":["browsing:clicks","by_market:n"]}`:               2,
		`{"entities":{"user_id":[null]},"features":["spending:n"]}`:                                                       0,
		`{"entities":{"user_id":[]},"features":["spending:n"]}`:                                                           0,
		`{"entities":{"user_id":[1]},"features":["spending@v1:n","spending:n"],"full_feature_names":true}`:                1,
		`{"entities":{"user_id":[1],"country":["NO"]},"features":["spending:total"],"include":{"unknown":["member",{}]}}`: 1,
	} {
		before := calls()
		readFeast(t, s, body)
		if got := calls() - before; got != want {
			t.Errorf("%s: %d hashes read, want %d", body, got, want)
		}
	}
}

// TestSameBytes: the same request gives the same bytes, whatever was asked before and whatever order Redis answers in.
func TestSameBytes(t *testing.T) {
	s := aShop(t).server()
	for path, body := range map[string]string{
		"/get-online-features": `{"entities":{"user_id":[1,2,3,9]},"features":["browsing:clicks","spending:total","browsing:page","spending:n"],"as_of":1795000000001}`,
		"/v1/online-features":  `{"entities":[{"user_id":1},{"user_id":9}],"service":"ranking","as_of":1795000000001}`,
	} {
		want := ask(t, s, http.MethodPost, path, body).Body.String()
		for range 20 {
			if got := ask(t, s, http.MethodPost, path, body).Body.String(); got != want {
				t.Fatalf("got  %s\nwant %s", got, want)
			}
		}
	}
}

func TestUnreadableState(t *testing.T) {
	f := aShop(t)
	v := f.view("browsing")
	e := f.event(v, 0, 0, row{"user_id": 1})
	field := keyspace.AppendDelta(nil, v.Version.ID, 1, 0, 48, windows.BlockID{})
	for name, write := range map[string][2]string{
		"a value that nobody wrote": {string(field), "\x07nonsense"},
		"a base of an unknown run":  {string(keyspace.AppendBase(nil, v.Version.ID)), string(v.AppendBase(nil, 99, 1, nil))},
	} {
		f.do(f.rdb.HSet(t.Context(), f.hash(v, &e), write[0], write[1]).Err())
		a := readRows(t, f.server(), `{"entities":[{"user_id":1},{"user_id":2}],"features":["browsing:clicks","spending:n"]}`)
		if r := a.Rows[0]; r.Statuses["browsing:clicks"] != "INVALID" || r.Reasons["browsing"] != reasonState || r.Statuses["spending:n"] != "PRESENT" {
			t.Errorf("%s: %+v", name, r)
		}
		if r := a.Rows[1]; r.Statuses["browsing:clicks"] != "PRESENT" {
			t.Errorf("%s: another entity: %+v", name, r)
		}
		f.do(f.rdb.HDel(t.Context(), f.hash(v, &e), write[0]).Err())
	}
	f.do(f.rdb.HSet(t.Context(), f.hash(v, &e), "not a field", "").Err())
	if r := readRows(t, f.server(), `{"entities":[{"user_id":1}],"features":["browsing:clicks","spending:n"]}`).Rows[0]; r.Reasons["browsing"] != reasonState || r.Reasons["spending"] != reasonState {
		t.Errorf("a field that nobody writes: %+v", r)
	}
}

// eventually asks until an answer comes that is right: the store is looked at again beside the requests.
func eventually(t *testing.T, want func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		err := want()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestReadiness(t *testing.T) {
	f := aShop(t)
	v := f.view("spending")
	const body = `{"entities":[{"user_id":1},{"user_id":9}],"features":["spending:n","browsing:clicks"]}`
	expect := func(s *Server, status string) func() error {
		return func() error {
			for i, r := range readRows(t, s, body).Rows {
				want := status
				if i == 1 && status == "PRESENT" {
					want = "NOT_FOUND"
				}
				if got := r.Statuses["spending:n"]; got != want || r.Complete != (status == "PRESENT") || (r.Reasons["spending"] == "") != r.Complete {
					return fmt.Errorf("got %+v, want %s", r, want)
				}
			}
			return nil
		}
	}
	unit := func(next, from, until int64) {
		t.Helper()
		f.unit(v, 11, keyspace.Marker{Next: next, Generation: 1, Token: "t"}, keyspace.Start{From: from, Until: until})
	}
	header := func(reaches int64) {
		t.Helper()
		f.do(f.rdb.HSet(t.Context(), f.space.Header(11), strconv.FormatUint(uint64(v.Version.ID), 10), f.run(v, 3, reaches)).Err())
	}
	log := f.bound.Logs[v.Source.Topics[0]].ID
	id := strconv.FormatUint(uint64(v.Version.ID), 10)
	for _, c := range []struct {
		name   string
		change func()
		whole  bool
	}{
		{"whole from the beginning", func() {}, true},
		{"one unit is catching up", func() { unit(49, 0, 50) }, false},
		{"it has caught up", func() { unit(50, 0, 50) }, true},
		{"one unit was folded from later on", func() { unit(100, 32, 10) }, false},
		{"a base does not reach it", func() { header(31) }, false},
		{"a base reaches it", func() { header(32) }, true},
		{"the header is of another run's partition", func() {
			f.do(f.rdb.HSet(t.Context(), f.space.Header(11), id, `{"id":3,"positions":[{"log":1,"partition":1,"offset":90}]}`).Err())
		}, false},
		{"the header is whole again", func() { header(32) }, true},
		{"one unit does not know the version", func() { f.do(f.rdb.HDel(t.Context(), f.space.Starts(11, log, 0), id).Err()) }, false},
		{"it does again", func() { unit(100, 0, 10) }, true},
		{"one unit has no marker", func() { f.do(f.rdb.Del(t.Context(), f.space.Marker(11, log, 0)).Err()) }, false},
		{"the marker is there", func() { unit(100, 0, 10) }, true},
		{"a partition was added", func() { f.do(f.rdb.HSet(t.Context(), f.space.Partitions(), log, 2).Err()) }, false},
		{"the log is not known", func() { f.do(f.rdb.HDel(t.Context(), f.space.Partitions(), strconv.FormatUint(uint64(log), 10)).Err()) }, false},
		{"the log is known", func() { f.do(f.rdb.HSet(t.Context(), f.space.Partitions(), log, 1).Err()) }, true},
	} {
		c.change()
		s := f.server() // which has seen nothing
		status := "INVALID"
		if c.whole {
			status = "PRESENT"
		}
		if err := expect(s, status)(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if r := readRows(t, s, body).Rows[0]; r.Statuses["browsing:clicks"] != "PRESENT" {
			t.Errorf("%s: a view of another log: %+v", c.name, r)
		}
	}

	// A server that runs all the while.
	s := f.server()
	for _, step := range []struct {
		name   string
		change func()
		status string
		atOnce bool
	}{
		{"whole", func() {}, "PRESENT", true},
		{"whole is for good: a rewound marker is caught up with in a moment", func() { unit(3, 0, 10) }, "PRESENT", true},
		{"another store", func() { f.do(f.rdb.Set(t.Context(), f.space.Incarnation(), "i2", 0).Err()) }, "INVALID", true},
		{"rebuilt", func() { unit(100, 0, 10) }, "PRESENT", false},
		{"a lost store", func() { f.do(f.rdb.FlushAll(t.Context()).Err()) }, "INVALID", true},
		{"markers without an incarnation", func() { f.complete("i3"); f.do(f.rdb.Del(t.Context(), f.space.Incarnation()).Err()) }, "INVALID", true},
	} {
		step.change()
		want := expect(s, step.status)
		if step.atOnce {
			if err := want(); err != nil {
				t.Errorf("%s: %v", step.name, err)
			}
		} else {
			eventually(t, want)
		}
	}
	f.complete("i3")
	eventually(t, func() error {
		if r := readRows(t, s, body).Rows[0]; !r.Complete || r.Statuses["spending:n"] != "NOT_FOUND" {
			return fmt.Errorf("after the store was lost and rebuilt empty: %+v", r)
		}
		return nil
	})
}

// TestStateOlderThanCompleteness: states that were read before a version became complete are not taken for whole ones.
func TestStateOlderThanCompleteness(t *testing.T) {
	f := aShop(t)
	s := f.server()
	v := f.view("spending")
	f.do(f.rdb.Set(t.Context(), f.space.Incarnation(), "old", 0).Err())
	readRows(t, s, `{"entities":[{"user_id":1}],"features":["spending:n"]}`)
	before := s.store.ready.state.Load()
	if !before.done[v.Version.ID] || before.incarnation != "old" {
		t.Fatalf("%+v", before)
	}
	f.do(f.rdb.Set(t.Context(), f.space.Incarnation(), "new", 0).Err())
	after, err := s.store.ready.judge(t.Context(), before, "new")
	f.do(err)
	if after == before || after.incarnation != "new" || !after.done[v.Version.ID] {
		t.Fatalf("judged by %+v", after)
	}
	if again, err := s.store.ready.judge(t.Context(), before, "new"); err != nil || again != after {
		t.Fatalf("a second look at the same store: %+v, %v", again, err)
	}
}

func TestRetiredVersion(t *testing.T) {
	f := aShop(t)
	registry := *f.bound.Registry
	registry.Generation++
	registry.Versions = append(registry.Versions[:0:0], registry.Versions...)
	for i := range registry.Versions {
		if registry.Versions[i].View == "spending" {
			registry.Versions[i].Active = false
		}
	}
	f.do(f.rdb.Set(t.Context(), f.space.Registry(), registry.Encode(), 0).Err())
	s := f.server()
	r := readRows(t, s, `{"entities":[{"user_id":1}],"features":["spending:n","browsing:clicks"]}`).Rows[0]
	if r.Statuses["spending:n"] != "INVALID" || r.Statuses["browsing:clicks"] != "PRESENT" {
		t.Errorf("%+v", r)
	}
	if w := ask(t, s, http.MethodGet, "/readyz", ""); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "restart this server") {
		t.Errorf("readyz: %d %s", w.Code, w.Body)
	}
}

func TestStoreAway(t *testing.T) {
	f := aShop(t)
	server := storetest.RedisProcess(t)
	away := redis.NewClient(&redis.Options{Addr: server.Addr, MaxRetries: -1, DialTimeout: 200 * time.Millisecond})
	t.Cleanup(func() { _ = away.Close() })
	server.Kill()
	s := f.server(func(c *Config) { c.Redis = away })
	for _, body := range []string{`{"entities":{"user_id":[1]},"features":["spending:n"]}`, `{"entities":{"user_id":[1,2]},"features":["spending:n"]}`} {
		start := time.Now()
		w := ask(t, s, http.MethodPost, "/get-online-features", body)
		class, message := feastError(t, w.Body.Bytes())
		if w.Code != 503 || w.Header().Get("Retry-After") != "1" || class != "FeastError" || strings.Contains(message, "127.0.0.1") {
			t.Errorf("%d %s %v", w.Code, w.Body, w.Header())
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("answered after %s", took)
		}
	}
	w := ask(t, s, http.MethodPost, "/v1/online-features", `{"entities":[{"user_id":1}],"features":["spending:n"]}`)
	if w.Code != 503 || !strings.HasPrefix(w.Header().Get("Content-Type"), "application/problem+json") || strings.Contains(w.Body.String(), "127.0.0.1") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for path, want := range map[string]int{"/health": 503, "/readyz": 503, "/healthz": 200} {
		if w := ask(t, s, http.MethodGet, path, ""); w.Code != want || strings.Contains(w.Body.String(), "127.0.0.1") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}
