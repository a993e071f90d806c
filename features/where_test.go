package features

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"millrace/windows"
)

var whereFields = []Field{
	{Name: "n", Type: windows.Int64},
	{Name: "amount", Type: windows.Float64},
	{Name: "country", Type: windows.String, MaxBytes: 100},
	{Name: "vip", Type: windows.Bool},
	{Name: "user-id", Type: windows.String, MaxBytes: 100},
	{Name: "not", Type: windows.Bool},
}

func TestWhereCanonical(t *testing.T) {
	for _, test := range []struct{ texts, want string }{
		{"n=1 | n == 1 | ( n = 1 ) | ((n=1)) | n in (1) | n in (1,1) | not not n = 1 | `n`=1 | n=1 or n=1 | n=1 AND n=1", "n = 1"},
		{"n<>1 | n != 1 | n not in (1) | n NOT IN (1, 1)", "n != 1"},
		{"not n=1 | not (n = 1) | not not not n = 1", "not n = 1"},
		{"n<1", "n < 1"},
		{"n<=1", "n <= 1"},
		{"n>-1", "n > -1"},
		{"n>=-0", "n >= 0"},
		{"vip | vip = true | vip=TRUE | vip != false", "vip"},
		{"vip = false | vip<>true", "vip = false"},
		{"not vip | not vip = true | NOT(vip)", "not vip"},
		{"amount = 1 | amount = 1.0 | amount = 1e0 | amount=10e-1", "amount = 1.0"},
		{"amount < 1e300", "amount < 1e+300"},
		{"amount = -0.0 | amount = 0", "amount = 0.0"},
		{`country = "CH" | country='CH' | country = '\u0043\u0048'`, "country = 'CH'"},
		{`country = "it's" | country = 'it\'s'`, `country = 'it\'s'`},
		{`country = "a\\b\n\r\t\u0001\"é"`, `country = 'a\\b\n\r\t\u0001"é'`},
		{"country in ('b','a','b') | country in (\"a\",\"b\")", "country in ('a', 'b')"},
		{"n not in (10, 9)", "n not in (9, 10)"},
		{"not n in (9,10)", "not n in (9, 10)"},
		{"n is null | n IS NULL | not n is not null | not (n is not null)", "n is null"},
		{"n is not null | not n is null | not (n is null)", "n is not null"},
		{"n=1 and vip | vip and n=1 | (vip and (n=1)) | n=1 and vip and n=1", "n = 1 and vip"},
		{"n=1 or vip and n=2 | (n=2 and vip) or n=1", "n = 1 or n = 2 and vip"},
		{"(n=1 or vip) and n=2", "(n = 1 or vip) and n = 2"},
		{"n=1 or (n=2 or n=3) | (n=3 or n=2) or n=1", "n = 1 or n = 2 or n = 3"},
		{"not (n=1 and n=2)", "not (n = 1 and n = 2)"},
		{"not n=1 and n=2 | n=2 and (not n=1)", "n = 2 and not n = 1"},
		{"`user-id` = 'x' and `not`", "`not` and `user-id` = 'x'"},
	} {
		for text := range strings.SplitSeq(test.texts, " | ") {
			w, err := ParseWhere(text, whereFields)
			if err != nil {
				t.Errorf("%s: %v", text, err)
				continue
			}
			if got := w.String(); got != test.want {
				t.Errorf("%s: got %s, want %s", text, got, test.want)
			}
		}
	}
}

func TestWhereErrors(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", "offset 0: the filter is empty: leave it out to count every event"},
		{"  ", "offset 0: the filter is empty: leave it out to count every event"},
		{"amuont > 1", `offset 0: no field "amuont": did you mean amount?`},
		{"q > 1", `offset 0: no field "q": did you mean n?`},
		{"quantity > 1", `offset 0: no field "quantity": the source declares n, amount, country, vip, user-id, not`},
		{"n > 'x'", "offset 4: n is int64 and cannot be compared with a text: write it like 12"},
		{"n > 1.5", "offset 4: n is int64 and cannot be compared with a fraction: write it like 12"},
		{"n > 9223372036854775808", "offset 4: n is int64 and cannot be compared with an integer beyond 64 bits: write it like 12"},
		{"amount > 1e999", "offset 9: amount is float64 and cannot be compared with a number beyond 1.8e308: write it like 0.5"},
		{"country = 1", "offset 10: country is string and cannot be compared with an integer: write it like 'text'"},
		{"country = CH", "offset 10: `CH` where a literal should stand: a field compares with a literal only, and text stands between quotes"},
		{"vip > true", "offset 4: vip is bool, which is only = or !="},
		{"vip = 1", "offset 6: vip is bool and cannot be compared with an integer: write it like true"},
		{"n", "offset 0: n is int64: compare it, as in `n = 12`"},
		{"n = null", "offset 4: no comparison with null is ever true: write `n is null`"},
		{"n != null", "offset 5: no comparison with null is ever true: write `n is not null`"},
		{"n in (1, null)", "offset 9: n is int64 and cannot be compared with null (there is `is null`): write it like 12"},
		{"n in (1, 'x', 2.5) and country = 3 and vpi", "" +
			"offset 9: n is int64 and cannot be compared with a text: write it like 12\n" +
			"offset 14: n is int64 and cannot be compared with a fraction: write it like 12\n" +
			"offset 33: country is string and cannot be compared with an integer: write it like 'text'\n" +
			`offset 39: no field "vpi": did you mean vip?`},
		{"n in 1", "offset 5: a number after `in`: write the values in parentheses, `in (12, …)`"},
		{"n in ()", "offset 6: `)` where a literal should stand, such as 12"},
		{"n in (1 2)", "offset 8: a number within `in (…)`: put a comma between values and `)` behind the last"},
		{"n not 1", "offset 6: a number after `n not`: write `not in (…)`, or `not` before the field"},
		{"n is 1", "offset 5: a number after `is`: only `is null` and `is not null` exist, compare values by `=`"},
		{"1 = n", "offset 0: a number where a field should stand: a comparison is `field = literal`, in this order"},
		{"n = 1 and", "offset 9: the end where a field should stand: a comparison is `field = literal`, in this order"},
		{"n = 1 vip", "offset 6: `vip` after a complete comparison: join comparisons by `and` or `or`"},
		{"(n = 1", "offset 6: the end where the parenthesis at offset 0 should close"},
		{"n = 1)", "offset 5: `)` after a complete comparison: join comparisons by `and` or `or`"},
		{"n = 1 && vip", "offset 6: `&` means nothing here: write `and`"},
		{"n = 1 || vip", "offset 6: `|` means nothing here: write `or`"},
		{"!vip", "offset 0: `!` means nothing here: write `not`"},
		{"n % 2", "offset 2: '%' means nothing here: put text between quotes and an unusual field name between backquotes"},
		{"n = 1x", "offset 4: not a number: write it like 12, -0.5 or 1e9, and text between quotes"},
		{"n = -", "offset 4: not a number: write it like 12, -0.5 or 1e9, and text between quotes"},
		{"amount = 1.", "offset 9: not a number: write it like 12, -0.5 or 1e9, and text between quotes"},
		{"country = 'x", "offset 10: the text has no closing quote"},
		{`country = '\x'`, `offset 11: unknown escape: there are \\ \' \" \n \r \t \u00e9; a backslash itself is \\`},
		{`country = '\ud800'`, `offset 15: \u takes four hexadecimal digits of a character: \u00e9; write rarer ones as they are`},
		{"`n = 1", "offset 0: the name has no closing backquote"},
		{"country = '\xff'", "offset 0: the filter is not UTF-8: save the file in that encoding"},
		{strings.Repeat("(", 65) + "vip", "offset 64: more than 64 parentheses and nots inside each other: write the filter flatter"},
		{strings.Repeat(" ", 4097), "offset 4096: the filter has 4097 bytes, more than 4096: let the producer compute a field to filter by"},
	} {
		_, err := ParseWhere(test.text, whereFields)
		if err == nil || err.Error() != test.want {
			t.Errorf("%.60q:\n got %v\nwant %s", test.text, err, test.want)
		}
		if _, ok := errors.AsType[*WhereError](err); !ok {
			t.Errorf("%.60q: got a %T", test.text, err)
		}
	}
	if _, err := ParseWhere(strings.Repeat("(", 64)+"vip"+strings.Repeat(")", 64), whereFields); err != nil {
		t.Errorf("64 parentheses: %v", err)
	}
}

func TestWhereNull(t *testing.T) {
	null := make([]windows.Value, len(whereFields))
	for text, want := range map[string]bool{
		"n = 1": false, "n != 1": false, "n < 1": false, "n >= 1": false, "n in (1, 2)": false, "n not in (1, 2)": false,
		"not n = 1": true, "not n != 1": true, "not n not in (1, 2)": true, "n is null": true, "n is not null": false,
		"vip": false, "not vip": true, "vip = false": false, "vip != true": false, "country = ''": false, "country < 'x'": false,
		"amount != 0": false, "amount <= 0": false,
	} {
		w, err := ParseWhere(text, whereFields)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if got := w.Predicate()(null); got != want {
			t.Errorf("%s of null: got %t, want %t", text, got, want)
		}
	}
}

// randomWhere returns a filter in a random spelling, and what it means, told apart from the parser.
func randomWhere(r *rand.Rand, depth int) (string, windows.Predicate) {
	kind := r.IntN(6)
	if depth == 0 {
		kind = 3 + r.IntN(3)
	}
	switch kind {
	case 0, 1: // and, or
		text, p := randomWhere(r, depth-1)
		text = "(" + text + ")"
		for range 1 + r.IntN(2) {
			more, q := randomWhere(r, depth-1)
			left := p
			if kind == 0 {
				text, p = text+pick(r, " and ", " AND ")+"("+more+")", func(row []windows.Value) bool { return left(row) && q(row) }
			} else {
				text, p = text+pick(r, " or ", "\nOR\t")+"("+more+")", func(row []windows.Value) bool { return left(row) || q(row) }
			}
		}
		return text, p
	case 2:
		text, p := randomWhere(r, depth-1)
		return "not (" + text + ")", func(row []windows.Value) bool { return !p(row) }
	case 3:
		i := r.IntN(4)
		if r.IntN(2) == 0 {
			return whereFields[i].Name + " is null", func(row []windows.Value) bool { return row[i].Kind == windows.Null }
		}
		return whereFields[i].Name + " is not null", func(row []windows.Value) bool { return row[i].Kind != windows.Null }
	case 4:
		i := r.IntN(4)
		want := randomValue(r, i)
		op := pick(r, "=", "==", "!=", "<>", "<", "<=", ">", ">=")
		if i == 3 {
			op = pick(r, "=", "==", "!=", "<>")
		}
		return whereFields[i].Name + op + literal(r, want), func(row []windows.Value) bool {
			if row[i].Kind == windows.Null {
				return false
			}
			c := compareNaively(row[i], want)
			switch op {
			case "=", "==":
				return c == 0
			case "!=", "<>":
				return c != 0
			case "<":
				return c < 0
			case "<=":
				return c <= 0
			case ">":
				return c > 0
			default:
				return c >= 0
			}
		}
	default:
		i := r.IntN(4)
		var wants []windows.Value
		var texts []string
		for range 1 + r.IntN(4) {
			v := randomValue(r, i)
			wants, texts = append(wants, v), append(texts, literal(r, v))
		}
		negated := r.IntN(2) == 0
		return whereFields[i].Name + map[bool]string{true: " not in (", false: " in("}[negated] + strings.Join(texts, ",") + ")",
			func(row []windows.Value) bool {
				found := false
				for _, want := range wants {
					found = found || row[i].Kind != windows.Null && compareNaively(row[i], want) == 0
				}
				return row[i].Kind != windows.Null && found != negated
			}
	}
}

func compareNaively(a, b windows.Value) int {
	less := func(a, b windows.Value) bool {
		switch a.Kind {
		case windows.Integer:
			return a.Int() < b.Int()
		case windows.Float:
			return a.Float() < b.Float()
		case windows.Text:
			return a.Str < b.Str
		default:
			return !a.Bool() && b.Bool()
		}
	}
	switch {
	case less(a, b):
		return -1
	case less(b, a):
		return 1
	}
	return 0
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func randomValue(r *rand.Rand, field int) windows.Value {
	switch field {
	case 0:
		return windows.IntValue(int64(r.IntN(5) - 2))
	case 1:
		return windows.FloatValue(float64(r.IntN(5)-2) / 2)
	case 2:
		return windows.TextValue(pick(r, "", "a", "b", "ab", "é", "z\xff", "it's", `\`))
	default:
		return windows.BoolValue(r.IntN(2) == 0)
	}
}

func literal(r *rand.Rand, v windows.Value) string {
	if v.Kind == windows.Text {
		quote := pick(r, "'", `"`)
		s := strings.ToValidUTF8(v.Str, "")
		return quote + strings.NewReplacer(`\`, `\\`, quote, `\`+quote).Replace(s) + quote
	}
	return v.String()
}

func randomRow(r *rand.Rand) []windows.Value {
	row := make([]windows.Value, len(whereFields))
	for i := range row {
		if r.IntN(4) > 0 {
			row[i] = randomValue(r, i)
		}
	}
	return row
}

func TestWhereMeaning(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 5000 {
		text, want := randomWhere(r, r.IntN(4))
		if strings.Contains(text, "z") { // its value has bytes that a filter cannot hold
			continue
		}
		if len(text) > maxWhere/2 {
			continue
		}
		w, err := ParseWhere(text, whereFields)
		if err != nil {
			t.Fatalf("seed %d: %s: %v", seed, text, err)
		}
		again, err := ParseWhere(w.String(), whereFields)
		if err != nil || again.String() != w.String() {
			t.Fatalf("seed %d: %s: canonical %s parses to %v, %v", seed, text, w, again, err)
		}
		p, q := w.Predicate(), again.Predicate()
		for range 20 {
			row := randomRow(r)
			if got := p(row); got != want(row) || q(row) != got {
				t.Fatalf("seed %d: %s of %v: got %t, canonical %s %t, want %t", seed, text, row, got, w, q(row), want(row))
			}
		}
	}
}

func FuzzWhere(f *testing.F) {
	for _, text := range []string{
		"n = 1 and not (amount < 0.5 or vip)", "country in ('CH', \"LI\") or `user-id` is not null", "not `not`",
		`country != '\u00e9\n\''`, "n not in (1,2) and amount >= -1e-9", "((vip))", "a = b", "n = 'x' and q",
	} {
		f.Add(text, uint64(1))
	}
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		w, err := ParseWhere(text, whereFields)
		if err != nil {
			if _, ok := errors.AsType[*WhereError](err); !ok {
				t.Fatalf("got a %T", err)
			}
			return
		}
		if len(w.String()) > maxWhere { // spelled out, it may be longer than a person may write
			return
		}
		again, err := ParseWhere(w.String(), whereFields)
		if err != nil || again.String() != w.String() {
			t.Fatalf("canonical %s parses to %v, %v", w, again, err)
		}
		r := rand.New(rand.NewPCG(seed, 0))
		p, q := w.Predicate(), again.Predicate()
		for range 10 {
			if row := randomRow(r); p(row) != q(row) {
				t.Fatalf("canonical %s differs on %v: got %t, want %t", w, row, q(row), p(row))
			}
		}
	})
}

func ExampleParseWhere() {
	fields := []Field{{Name: "country", Type: windows.String}, {Name: "amount", Type: windows.Float64}}
	w, _ := ParseWhere(`amount>=10 AND country in ("LI", "CH")`, fields)
	fmt.Println(w)
	fmt.Println(w.Predicate()([]windows.Value{windows.TextValue("CH"), windows.FloatValue(12)}))
	_, err := ParseWhere(`amuont >= 10`, fields)
	fmt.Println(err)
	// Output:
	// amount >= 10.0 and country in ('CH', 'LI')
	// true
	// offset 0: no field "amuont": did you mean amount?
}
