package featurestest

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"

	"millrace/windows"
)

// RandomDefinitions writes a project of random views over one source of two topics, law.a and law.b.
func RandomDefinitions(rng *rand.Rand, views int) string {
	var b strings.Builder
	b.WriteString(`project: law
sources:
  events:
    topics: [law.a, law.b]
    fields: {user: string, shop: int64, at: int64, n: int64, x: float64, s: string, b: bool}
    event_time: {field: at, unit: ms, min: any, max: any}
    max_future: any
    epoch_bits: 3
entities:
  person: {keys: {user: string}}
  pair: {keys: {shop: int64, user: string}}
views:
`)
	for i := range views {
		fmt.Fprintf(&b, "  v%d:\n    entity: %s\n    source: events\n", i, pick(rng, "person", "pair"))
		if rng.IntN(4) == 0 {
			fmt.Fprintf(&b, "    where: %s\n", randomWhere(rng))
		}
		if rng.IntN(5) == 0 {
			fmt.Fprintf(&b, "    ttl: %dms\n", 1+rng.IntN(400))
		}
		session := rng.IntN(2) == 0
		window := randomWindow(rng, session)
		fmt.Fprintf(&b, "    window: %s\n    features:\n", window)
		for j := range 2 + rng.IntN(5) {
			fmt.Fprintf(&b, "      f%d: {%s", j, randomAggregate(rng, session))
			if session && rng.IntN(2) == 0 {
				b.WriteString(", session: previous")
			}
			if !session && rng.IntN(4) == 0 {
				fmt.Fprintf(&b, ", window: %s", randomWindow(rng, false))
			}
			b.WriteString("}\n")
		}
	}
	return b.String()
}

func pick(rng *rand.Rand, of ...string) string { return of[rng.IntN(len(of))] }

func randomWindow(rng *rand.Rand, session bool) string {
	if session {
		return fmt.Sprintf("{type: session, gap: %sms, retain: all}", pick(rng, "1", "10", "50", "100", "250"))
	}
	size := []int{1, 10, 50, 60, 100, 300, 1000}[rng.IntN(7)]
	hop := 1 + rng.IntN(size)
	switch rng.IntN(5) {
	case 0:
		return fmt.Sprintf("{type: tumbling, size: %dms}", size)
	case 1:
		return fmt.Sprintf("{type: hopping, size: %dms, hop: %dms}", size, hop)
	case 2:
		return "{type: lifetime}"
	default:
		return fmt.Sprintf("{type: sliding, size: %dms, hop: %dms}", size, hop)
	}
}

func randomAggregate(rng *rand.Rand, session bool) string {
	if session && rng.IntN(4) == 0 {
		return "aggregate: " + pick(rng, "session_start", "session_end", "session_length")
	}
	op := windows.Ops()[rng.IntN(len(windows.Ops()))]
	text := "aggregate: " + op.String()
	if !op.Bare() || rng.IntN(2) == 0 {
		field := map[windows.Type]string{windows.Int64: "n", windows.Float64: "x", windows.String: "s", windows.Bool: "b"}
		text += ", field: " + field[op.Accepts()[rng.IntN(len(op.Accepts()))]]
	}
	if rng.IntN(3) == 0 {
		text += ", where: " + strconv.Quote(randomWhere(rng))
	}
	return text
}

func randomWhere(rng *rand.Rand) string {
	one := func() string {
		return pick(rng, "n > 0", "n <= 3", "x < 1.5", "b = true", "b = false", "s = 'a'", "s in ('a', '', 'ż')", "n is null", "x is not null", "shop != 2", "not (n = 1)")
	}
	switch rng.IntN(3) {
	case 0:
		return one() + " and " + one()
	case 1:
		return one() + " or " + one()
	default:
		return one()
	}
}

var lawUsers = []string{"a", "", "ż", "a b", "\x00", "{x}:1", "漢字", "'; DROP TABLE x --", "u1", "u2", "u3", "u4"}

// RandomEvent writes a record of that source: equal times, exact gaps, nulls, extremes, unusual texts, and now and then a record
// that cannot be decoded.
func RandomEvent(rng *rand.Rand) []byte {
	event := map[string]any{"user": lawUsers[rng.IntN(len(lawUsers))], "at": int64(rng.IntN(60))*50 - 700}
	switch rng.IntN(12) {
	case 0:
		event["at"] = int64(rng.IntN(3000)) - 700
	case 1:
		event["at"] = int64(rng.IntN(40)) + 100
	}
	if rng.IntN(20) != 0 {
		event["shop"] = rng.IntN(3)
	}
	if rng.IntN(5) != 0 {
		event["n"] = []int64{0, 1, 2, -3, 4, 1 << 53, -(1 << 62), 1<<63 - 1, -1 << 63}[rng.IntN(9)]
	}
	if rng.IntN(5) != 0 {
		event["x"] = []float64{
			0, 1, 0.1, -0.1, 1.5, 1e-13, 1e15, -3e17, rng.NormFloat64(), 8388607.3, -8388608.7, rng.NormFloat64() * 1e9, math.Ldexp(rng.Float64(), 62),
		}[rng.IntN(13)]
	}
	if rng.IntN(5) != 0 {
		event["s"] = []string{"a", "", "b", "ż", "\x00\x01", "\u2028"}[rng.IntN(6)]
	}
	if rng.IntN(5) != 0 {
		event["b"] = rng.IntN(2) == 0
	}
	data, err := json.Marshal(event)
	if err != nil {
		panic(err)
	}
	if rng.IntN(30) == 0 {
		return []byte(`{"user":"a"`) // rejected
	}
	return data
}
