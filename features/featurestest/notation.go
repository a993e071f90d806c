package featurestest

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"millrace/features"
	"millrace/windows"
)

// The window notation tells a case about windows in two lines, in the form in which reference tables of window semantics are
// written: events `key:value@time`, expectations `key [start,end) n=2 s=5`. Its definitions are always the same source with one
// view, so that many cases fit into one project.

// notation is what a case in window notation declares.
type notation struct {
	text    string // of the definition
	session bool
	size    int64 // or gap
	hop     int64
	aligned bool // tumbling or hopping
}

// Topics of the notation's source.
var notationTopics = []string{"app", "eu", "ev", "us", "web"}

// NotationDefinitions returns a project with one view v0, v1, … for each window, as they stand in a definition.
func NotationDefinitions(list []string) string {
	var b strings.Builder
	b.WriteString("project: corpus\nsources:\n  ev:\n    topics: [" + strings.Join(notationTopics, ", ") + "]\n")
	b.WriteString("    fields: {k: string, v: int64, at: int64}\n    event_time: {field: at, unit: ms, min: any, max: any}\n    max_future: any\n    epoch_bits: 2\n")
	b.WriteString("entities:\n  key: {keys: {k: string}}\nviews:\n")
	for i, w := range list {
		fmt.Fprintf(&b, "  v%d:\n    entity: key\n    source: ev\n    window: {%s}\n    features:\n", i, w)
		writeFeatures(&b, "", "")
		if strings.Contains(w, "session") {
			b.WriteString("      start: {aggregate: session_start}\n      end: {aggregate: session_end}\n      length: {aggregate: session_length}\n")
			writeFeatures(&b, "p_", ", session: previous")
			b.WriteString("      p_start: {aggregate: session_start, session: previous}\n      p_end: {aggregate: session_end, session: previous}\n")
		}
	}
	return b.String()
}

func writeFeatures(b *strings.Builder, prefix, more string) {
	fmt.Fprintf(b, "      %sn: {aggregate: count%s}\n", prefix, more)
	fmt.Fprintf(b, "      %ss: {aggregate: sum, field: v%s}\n", prefix, more)
	for _, op := range []string{"mean", "min", "max", "first", "last"} {
		fmt.Fprintf(b, "      %s%s: {aggregate: %s, field: v%s}\n", prefix, op, op, more)
	}
}

// Window returns the window of a case in window notation, as it stands in a definition, and whether the case has one.
func (c *Case) Window() (string, bool) {
	if c.window == nil {
		return "", false
	}
	return c.window.text, true
}

// setWindow reads `session gap=10`, `sliding size=10 hop=2`, …; spans are in milliseconds.
func (c *Case) setWindow(text string) error {
	if c.window != nil || len(c.Records) > 0 {
		return fmt.Errorf("a case has one window, before its events")
	}
	words := strings.Fields(text)
	if len(words) == 0 {
		return fmt.Errorf("want `window session gap=10`, `window sliding size=10 hop=2`, …")
	}
	w := &notation{session: words[0] == "session", aligned: words[0] == "tumbling" || words[0] == "hopping"}
	w.text = "type: " + words[0]
	for _, word := range words[1:] {
		name, value, _ := strings.Cut(word, "=")
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return fmt.Errorf("%q: want name=milliseconds", word)
		}
		w.text += fmt.Sprintf(", %s: %dms", name, n)
		if name == "hop" {
			w.hop = n
		} else {
			w.size = n
		}
	}
	if words[0] == "tumbling" {
		w.hop = w.size
	}
	if w.session {
		w.text += ", retain: all"
	}
	parsed, problems := features.Parse(map[string][]byte{"window.yaml": []byte(NotationDefinitions([]string{w.text}))})
	if problems.Fatal() {
		return fmt.Errorf("window %s: %w", text, problems)
	}
	compiled, err := features.Compile(parsed)
	if err != nil {
		return err
	}
	c.Compiled, c.window = compiled, w
	return nil
}

// addEvents reads `key:value@time#topic/partition/offset …`, where the value is 1 if it is left out, and
// `key@from..to/step`.
func (c *Case) addEvents(line int, text string) error {
	if c.window == nil {
		return fmt.Errorf("`events` needs a `window` before it; with definitions of your own write `event SOURCE {json}`")
	}
	for word := range strings.FieldsSeq(text) {
		event, position, placed := strings.Cut(word, "#")
		who, when, ok := strings.Cut(event, "@")
		if !ok {
			return fmt.Errorf("event %q: want key@time or key:value@time", word)
		}
		key, number, valued := strings.Cut(who, ":")
		if !valued {
			number = "1"
		}
		if _, err := strconv.ParseInt(number, 10, 64); err != nil {
			return fmt.Errorf("event %q: the value is no integer", word)
		}
		times, err := parseTimes(when)
		if err != nil {
			return fmt.Errorf("event %q: %w", word, err)
		}
		name, err := json.Marshal(key)
		if err != nil {
			return fmt.Errorf("event %q: %w", word, err)
		}
		for _, at := range times {
			r := Record{Line: line, Topic: "ev", Offset: -1, Time: windows.MaxTime, Value: fmt.Appendf(nil, `{"k":%s,"v":%s,"at":%d}`, name, number, at)}
			if placed {
				c.Placed = true
				if r.Topic, r.Partition, r.Offset, err = parsePosition(position); err != nil {
					return err
				}
				if !slices.Contains(notationTopics, r.Topic) {
					return fmt.Errorf("event %q: the topics of this notation are %v", word, notationTopics)
				}
			}
			c.Records = append(c.Records, r)
		}
	}
	return nil
}

func parseTimes(text string) ([]windows.Time, error) {
	from, rest, ranged := strings.Cut(text, "..")
	first, err := parseMoment(from)
	if err != nil || !ranged {
		return []windows.Time{first}, err
	}
	to, by, _ := strings.Cut(rest, "/")
	last, err1 := parseMoment(to)
	step, err2 := strconv.ParseInt(by, 10, 64)
	const most = 100_000
	if err1 != nil || err2 != nil || step <= 0 || last < first || uint64(last-first)/uint64(step) >= most {
		return nil, fmt.Errorf("want from..to/step, at most %d times", most)
	}
	var times []windows.Time
	for i := range uint64(last-first)/uint64(step) + 1 {
		times = append(times, first+windows.Time(i)*windows.Time(step))
	}
	return times, nil
}

// expectWindows reads items between semicolons: all windows of a key, `key [start,end) n=2 s=5`, or a read of it,
// `key t=10: n=2 s=5`, `key t=10: cur [0,12) n=2, prev -`.
func (c *Case) expectWindows(line int, text string) error {
	whole := map[string][]interval{} // the windows stated of a key
	for item := range strings.SplitSeq(text, ";") {
		key, rest, ok := strings.Cut(strings.TrimSpace(item), " ")
		if !ok {
			return fmt.Errorf("%q: want `key [start,end) n=…` or `key t=…: n=…`", item)
		}
		var err error
		if strings.HasPrefix(rest, "[") {
			var in interval
			if in, err = parseInterval(rest); err == nil {
				whole[key] = append(whole[key], in)
			}
		} else {
			err = c.expectRead(line, key, rest)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", strings.TrimSpace(item), err)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(whole)) { // in one order, so that a seed repeats a run
		if err := c.expectAll(line, key, whole[key]); err != nil {
			return fmt.Errorf("key %s: %w", key, err)
		}
	}
	return nil
}

// interval is a stated window; times are unbounded.
type interval struct {
	from, to *big.Int
	values   numbers
}

// parseInterval reads `[start,end) n=2 s=5`.
func parseInterval(text string) (in interval, err error) {
	bounds, values, _ := strings.Cut(text, ")")
	from, to, ok := strings.Cut(strings.TrimPrefix(bounds, "["), ",")
	if !ok {
		return in, fmt.Errorf("want [start,end)")
	}
	if in.from, err = bigTime(from); err == nil {
		if in.to, err = bigTime(to); err == nil {
			in.values, err = parseNumbers(values)
		}
	}
	return in, err
}

// bigTime reads a time that may lie past what a Time holds.
func bigTime(text string) (*big.Int, error) {
	base := new(big.Int)
	rest, ok := strings.CutPrefix(text, "MAX")
	if ok {
		base = num(windows.MaxTime)
	} else if rest, ok = strings.CutPrefix(text, "MIN"); ok {
		base = num(windows.MinTime)
	}
	if ok && rest == "" {
		return base, nil
	}
	n, err := strconv.ParseInt(rest, 10, 64)
	return base.Add(base, big.NewInt(n)), err
}

// parseNumbers reads `n=2 s=5 min=None`; None is no value.
func parseNumbers(text string) (numbers, error) {
	values := numbers{}
	for word := range strings.FieldsSeq(text) {
		name, value, _ := strings.Cut(word, "=")
		if value == "None" {
			values[name] = nil
			continue
		}
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q: want name=integer", word)
		}
		values[name] = &n
	}
	return values, nil
}

// numbers are stated values by feature; nil is no value.
type numbers map[string]*int64

func (in interval) count() int64 {
	if n := in.values["n"]; n != nil {
		return *n
	}
	return 0
}

// wants turns stated numbers into expectations.
func (c *Case) wants(prefix string, values numbers) ([]Want, error) {
	view := c.Compiled.Views[0]
	var list []Want
	for name, n := range values {
		i := view.FeatureIndex(prefix + name)
		if i < 0 {
			return nil, fmt.Errorf("no feature %q: there are n, s, mean, min, max, first, last", name)
		}
		var v windows.Value
		switch {
		case n == nil:
		case view.Features[i].ResultType() == windows.Float64:
			v = windows.FloatValue(float64(*n))
		default:
			v = windows.IntValue(*n)
		}
		list = append(list, Want{i, v})
	}
	return list, nil
}

func (c *Case) addRead(line int, key string, at windows.Time, want []Want) {
	c.Reads = append(c.Reads, Read{line, c.Compiled.Views[0], []windows.Value{windows.TextValue(key)}, at, want})
}

// expectRead reads `t=10: n=2 s=5` or `t=10: cur [0,12) n=2, prev -`.
func (c *Case) expectRead(line int, key, text string) error {
	moment, rest, ok := strings.Cut(text, ": ")
	moment, timed := strings.CutPrefix(moment, "t=")
	if !ok || !timed {
		return fmt.Errorf("want `t=TIME: …`")
	}
	at, err := parseMoment(moment)
	if err != nil {
		return err
	}
	if !c.window.session {
		values, err := parseNumbers(rest)
		if err != nil {
			return err
		}
		want, err := c.wants("", values)
		c.addRead(line, key, at, want)
		return err
	}
	current, previous, ok := strings.Cut(rest, ", prev ")
	current, named := strings.CutPrefix(current, "cur ")
	if !ok || !named {
		return fmt.Errorf("want `cur …, prev …`")
	}
	var want []Want
	for prefix, stated := range map[string]string{"": current, "p_": previous} {
		list, err := c.session(prefix, stated)
		if err != nil {
			return err
		}
		want = append(want, list...)
	}
	c.addRead(line, key, at, want)
	return nil
}

// session turns `[0,12) n=2` or `-` into expectations.
func (c *Case) session(prefix, text string) ([]Want, error) {
	if strings.TrimSpace(text) == "-" {
		return c.wants(prefix, numbers{"n": new(int64), "s": new(int64), "start": nil, "end": nil, "min": nil, "first": nil})
	}
	in, err := parseInterval(text)
	if err != nil {
		return nil, err
	}
	return c.wants(prefix, in.stated())
}

// stated is what an interval says of a session.
func (in interval) stated() numbers {
	from, to := clamp(in.from), clamp(in.to)
	values := numbers{"start": &from, "end": &to}
	maps.Copy(values, in.values)
	return values
}

// expectAll states all windows of a key that are not empty, and that there are no others.
func (c *Case) expectAll(line int, key string, list []interval) error {
	var times []*big.Int
	seen := map[string]bool{}
	for _, r := range c.Records {
		at := fmt.Sprint(r.Topic, "/", r.Partition, "/", r.Offset)
		if r.Offset >= 0 && seen[at] {
			continue // delivered before
		}
		seen[at] = true
		row := make([]windows.Value, 3)
		t, rejection := features.NewDecoder(c.Compiled.Sources[0]).Decode(r.Value, r.Time, row)
		if rejection != nil {
			return fmt.Errorf("%s", rejection)
		}
		if row[0].Str == key {
			times = append(times, num(t))
		}
	}
	slices.SortFunc(list, func(a, b interval) int { return a.from.Cmp(b.from) })
	slices.SortFunc(times, (*big.Int).Cmp)
	if c.window.session {
		return c.expectSessions(line, key, list, len(times))
	}
	if !c.window.aligned {
		return fmt.Errorf("a sliding window has no list of windows: state reads, `t=TIME: …`")
	}
	// The windows that an event lies in are known from its time alone.
	hop, size := big.NewInt(c.window.hop), big.NewInt(c.window.size)
	count := map[string]int64{}
	for _, t := range times {
		for s := floor(t, windows.Span(c.window.hop)); new(big.Int).Add(s, size).Cmp(t) > 0; s = new(big.Int).Sub(s, hop) {
			count[s.String()]++
		}
	}
	if len(count) != len(list) {
		return fmt.Errorf("%d windows are not empty, %d are stated", len(count), len(list))
	}
	for _, in := range list {
		if count[in.from.String()] != in.count() {
			return fmt.Errorf("window [%s,%s) has %d events, %d are stated", in.from, in.to, count[in.from.String()], in.count())
		}
		want, err := c.wants("", in.values)
		if err != nil {
			return err
		}
		c.addRead(line, key, windows.Time(clamp(in.to)), want)
	}
	return nil
}

// expectSessions reads each session while it is whole and open, and as the previous one at the moment of its end.
func (c *Case) expectSessions(line int, key string, list []interval, events int) error {
	total := int64(0)
	for i, in := range list {
		total += in.count()
		last := new(big.Int).Sub(in.to, big.NewInt(c.window.size))
		current, err := c.wants("", in.stated())
		if err != nil {
			return err
		}
		c.addRead(line, key, windows.Time(clamp(last.Add(last, big.NewInt(1)))), current)
		if !in.to.IsInt64() {
			continue
		}
		previous, err := c.wants("p_", in.stated())
		if err != nil {
			return err
		}
		none, err := c.session("", "-")
		if err != nil {
			return err
		}
		if i+1 == len(list) || list[i+1].from.Cmp(in.to) >= 0 {
			c.addRead(line, key, windows.Time(in.to.Int64()), append(previous, none...))
		}
	}
	if total != int64(events) {
		return fmt.Errorf("%d events, but the sessions stated have %d", events, total)
	}
	return nil
}
