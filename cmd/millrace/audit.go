package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"

	"millrace/batch"
	"millrace/features"
	"millrace/features/keyspace"
	"millrace/features/tables"
	"millrace/windows"
)

// auditCmd compares what is served with what the archive says.
type auditCmd struct {
	storeFlags
	Views []string      `arg:"" optional:"" help:"Views to audit; all of them if none is named."`
	URL   string        `help:"HTTP API to ask." default:"http://127.0.0.1:6566" placeholder:"URL"`
	AsOf  *int64        `help:"Moment of all reads, in milliseconds since 1970; 1 ms after the newest event if not given."`
	Wait  time.Duration `help:"How long to wait until both layers have reached the end of the log." default:"1m"`
	JSON  bool          `help:"Print the outcome as JSON."`
}

func (auditCmd) Help() string {
	return `Asks the HTTP API for every feature of every entity in the archive, computes the same values in ClickHouse from the
archived events alone, and compares them to the bit. The last line counts: compared N, different D.

  millrace audit --definitions examples/weblog
  millrace audit visits --as-of 1432155959001`
}

// difference is one served value that is not the archive's.
type difference struct {
	View    string `json:"view"`
	Entity  string `json:"entity"`
	Feature string `json:"feature"`
	Served  string `json:"served"`
	Archive string `json:"archive"`
}

type auditOutcome struct {
	Entities  int           `json:"entities"`
	Compared  int           `json:"compared"`
	Different int           `json:"different"`
	AsOf      windows.Time  `json:"as_of"`
	Shown     []difference  `json:"differences"`
	Took      time.Duration `json:"took_ns"`
}

// maxShown bounds the differences that are listed; all are counted.
const maxShown = 20

// errDifferent is returned where a served value is not the archive's.
var errDifferent = errors.New("served values differ from the archive's")

// Run audits.
func (c *auditCmd) Run(a *app) error {
	rdb, err := c.redisClient(a, 3)
	if err != nil {
		return err
	}
	defer func() { _ = rdb.Close() }()
	bound, err := c.bound(a.ctx, rdb)
	if err != nil {
		return err
	}
	conn, err := c.clickhouse(a, c.database(bound.Compiled))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	views, err := chooseViews(bound, c.Views)
	if err != nil {
		return err
	}
	if err := c.waitForEnd(a, bound, rdb, conn); err != nil {
		return err
	}
	outcome, err := c.audit(a, bound, conn, views)
	if err != nil {
		return err
	}
	if err := outcome.print(a.stdout, c.JSON); err != nil {
		return err
	}
	if outcome.Different > 0 {
		return errDifferent
	}
	return nil
}

func chooseViews(bound *features.Bound, names []string) ([]*features.BoundView, error) {
	if len(names) == 0 {
		return bound.Views, nil
	}
	var views []*features.BoundView
	for _, name := range names {
		v := bound.View(name)
		if v == nil {
			return nil, usagef("no view %q in project %s", name, bound.Project)
		}
		views = append(views, v)
	}
	return views, nil
}

func (c *auditCmd) audit(a *app, bound *features.Bound, conn driver.Conn, views []*features.BoundView) (*auditOutcome, error) {
	start := time.Now()
	asOf, err := c.moment(a.ctx, conn, bound)
	if err != nil {
		return nil, err
	}
	outcome := &auditOutcome{AsOf: asOf}
	for _, v := range views {
		check := viewAudit{url: c.URL, view: v, asOf: asOf, outcome: outcome, client: &http.Client{Timeout: time.Minute}}
		err := batch.At(a.ctx, conn, v.CompiledView, asOf, func(key []byte, _ windows.Time, results []windows.Result) error {
			return check.add(a.ctx, key, results)
		})
		if err == nil {
			err = check.ask(a.ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("audit view %s: %w", v.Definition.Name, err)
		}
		a.log.Info("audited", "view", v.Definition.Name, "compared", outcome.Compared, "different", outcome.Different)
	}
	outcome.Took = time.Since(start)
	return outcome, nil
}

// moment returns the time of all reads: after the newest event of all, so that every read can be answered from the states.
func (c *auditCmd) moment(ctx context.Context, conn driver.Conn, bound *features.Bound) (windows.Time, error) {
	if c.AsOf != nil {
		return windows.Time(*c.AsOf), nil
	}
	newest := windows.MinTime
	for _, s := range bound.Sources {
		for _, e := range tables.EntitiesOf(bound.Compiled, s) {
			var latest *int64
			if err := conn.QueryRow(ctx, "SELECT maxOrNull(event_time) FROM "+tables.Quote(tables.Clean(s, e).Name)).Scan(&latest); err != nil {
				return 0, fmt.Errorf("newest event: %w", err)
			}
			if latest != nil {
				newest = max(newest, windows.Time(*latest))
			}
		}
	}
	return newest.Add(1), nil
}

// waitForEnd waits until folder and archiver have both passed the end that the log had when it began.
func (c *auditCmd) waitForEnd(a *app, bound *features.Bound, rdb redis.UniversalClient, conn driver.Conn) error {
	client, err := c.kafkaClient()
	if err != nil {
		return err
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(a.ctx, topicsOf(bound.Compiled)...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return tryAgain(fmt.Errorf("end of the log: %w", err))
	}
	deadline := time.Now().Add(c.Wait)
	for {
		behind, err := firstBehind(a.ctx, bound, rdb, conn, ends)
		if err != nil {
			return err
		}
		if behind == "" {
			return nil
		}
		if time.Now().After(deadline) {
			return tryAgain(fmt.Errorf("after %s %s: is `millrace speed` running?", c.Wait, behind))
		}
		select {
		case <-a.ctx.Done():
			return a.ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// firstBehind names a place that has not reached the ends, or nothing.
func firstBehind(ctx context.Context, bound *features.Bound, rdb redis.UniversalClient, conn driver.Conn, ends kadm.ListedOffsets) (string, error) {
	progress, err := readProgress(ctx, conn)
	if err != nil {
		return "", err
	}
	space := keyspace.Space{Project: bound.Project}
	for _, s := range bound.Sources {
		for _, topic := range s.Topics {
			log := bound.Logs[topic].ID
			for id, end := range ends[topic] {
				if end.Offset == 0 {
					continue
				}
				names := []string{tables.Raw(s).Name}
				for _, e := range tables.EntitiesOf(bound.Compiled, s) {
					names = append(names, tables.Clean(s, e).Name)
				}
				for _, name := range names {
					if at := progress[progressKey{name, log, id}]; at < end.Offset {
						return fmt.Sprintf("table %s has %s/%d up to %d of %d", name, topic, id, at, end.Offset), nil
					}
				}
				pipe := rdb.Pipeline()
				var markers []*redis.StringCmd
				for b := range bound.Registry.Buckets {
					markers = append(markers, pipe.Get(ctx, space.Marker(keyspace.Bucket(b), log, id)))
				}
				if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
					return "", tryAgain(fmt.Errorf("read markers: %w", err))
				}
				for _, cmd := range markers {
					m, err := keyspace.ParseMarker(cmd.Val())
					if err != nil || m.Next < end.Offset {
						return fmt.Sprintf("the states have %s/%d up to %d of %d", topic, id, m.Next, end.Offset), nil //nolint:nilerr // no marker yet: nothing is folded
					}
				}
			}
		}
	}
	return "", nil
}

type progressKey struct {
	table     string
	log       uint32
	partition int32
}

func readProgress(ctx context.Context, conn driver.Conn) (map[progressKey]int64, error) {
	rows, err := conn.Query(ctx, "SELECT table_name, log, partition, max(next) FROM "+tables.Quote(tables.Progress().Name)+" GROUP BY table_name, log, partition")
	if err != nil {
		return nil, tryAgain(fmt.Errorf("read progress: %w", err))
	}
	defer func() { _ = rows.Close() }()
	progress := map[progressKey]int64{}
	for rows.Next() {
		var k progressKey
		var next int64
		if err := rows.Scan(&k.table, &k.log, &k.partition, &next); err != nil {
			return nil, fmt.Errorf("read progress: %w", err)
		}
		progress[k] = next
	}
	return progress, rows.Err()
}

// viewAudit gathers entities of one view and asks for them together.
type viewAudit struct {
	url     string
	view    *features.BoundView
	asOf    windows.Time
	outcome *auditOutcome
	client  *http.Client

	keys [][]windows.Value
	want [][]windows.Result
}

const auditBatch = 500

func (v *viewAudit) add(ctx context.Context, key []byte, results []windows.Result) error {
	values, err := v.view.Entity.ParseKey(key)
	if err != nil {
		return err
	}
	v.keys = append(v.keys, values)
	v.want = append(v.want, append([]windows.Result(nil), results...))
	if len(v.keys) >= auditBatch {
		return v.ask(ctx)
	}
	return nil
}

// ask fetches the gathered entities over HTTP and compares.
func (v *viewAudit) ask(ctx context.Context) error {
	if len(v.keys) == 0 {
		return nil
	}
	columns := map[string][]any{}
	for i, k := range v.view.Entity.Keys {
		column := make([]any, len(v.keys))
		for row, values := range v.keys {
			column[row] = plain(values[i])
		}
		columns[k.Name] = column
	}
	refs := make([]string, len(v.view.Features))
	for i, f := range v.view.Features {
		refs[i] = v.view.Definition.Name + ":" + f.Name
	}
	answer, err := onlineFeatures(ctx, v.client, v.url, map[string]any{"entities": columns, "features": refs, "as_of": int64(v.asOf)})
	if err != nil {
		return err
	}
	for i, f := range v.view.Features {
		served, ok := answer.column(f.Name)
		if !ok || len(served.Values) != len(v.keys) {
			return fmt.Errorf("the answer has no whole column %q", f.Name)
		}
		for row := range v.keys {
			want := v.want[row][i]
			v.outcome.Compared++
			if served.Statuses[row] == want.Status.String() && sameValue(served.Values[row], want.Value) {
				continue
			}
			v.outcome.Different++
			if len(v.outcome.Shown) < maxShown {
				v.outcome.Shown = append(v.outcome.Shown, difference{
					v.view.Definition.Name, showKey(v.keys[row]), f.Name,
					string(served.Values[row]) + " " + served.Statuses[row], want.Value.String() + " " + want.Status.String(),
				})
			}
		}
	}
	v.outcome.Entities += len(v.keys)
	v.keys, v.want = v.keys[:0], v.want[:0]
	return nil
}

func plain(v windows.Value) any {
	switch v.Kind {
	case windows.Integer:
		return v.Int()
	case windows.Boolean:
		return v.Bool()
	default:
		return v.Str
	}
}

func showKey(values []windows.Value) string {
	parts := make([]string, len(values))
	for i, v := range values {
		parts[i] = v.String()
	}
	return strings.Join(parts, ",")
}

// sameValue compares a served value with the archive's to the bit: as text for integers, by the bits for floats.
func sameValue(served json.RawMessage, want windows.Value) bool {
	text := string(served)
	switch want.Kind {
	case windows.Null:
		return text == "null"
	case windows.Integer, windows.Boolean:
		return text == want.String()
	case windows.Float:
		f, err := strconv.ParseFloat(text, 64)
		return err == nil && strings.ContainsAny(text, ".eE") && windows.FloatValue(f) == want
	case windows.Text:
		var s string
		return json.Unmarshal(served, &s) == nil && s == want.Str
	case windows.Invalid:
	}
	return false
}

func (o *auditOutcome) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(o)
	}
	var b bytes.Buffer
	for _, d := range o.Shown {
		fmt.Fprintf(&b, "%s %s %s: served %s, archive %s\n", d.View, d.Entity, d.Feature, d.Served, d.Archive)
	}
	if o.Different > len(o.Shown) {
		fmt.Fprintf(&b, "… and %d more\n", o.Different-len(o.Shown))
	}
	fmt.Fprintf(&b, "%d entities as of %d, %.1f s\ncompared %d, different %d\n", o.Entities, o.AsOf, o.Took.Seconds(), o.Compared, o.Different)
	_, err := w.Write(b.Bytes())
	return err
}
