// Package featurestest holds what every engine must agree with: a naive fold of the whole log, written so that it is obviously
// right, which shares no code with the folds of package windows.
package featurestest

import (
	"cmp"
	"math"
	"math/big"
	"slices"

	"millrace/features"
	"millrace/windows"
)

// Oracle returns the features of one entity at t by folding all its events, in any order and delivered any number of times.
func Oracle(v *features.CompiledView, events []windows.Event, t windows.Time) []windows.Result {
	list := slices.Clone(events)
	slices.SortFunc(list, func(a, b windows.Event) int {
		return cmp.Or(cmp.Compare(a.Time, b.Time), a.Position.Compare(b.Position))
	})
	list = slices.CompactFunc(list, func(a, b windows.Event) bool { return a.Position == b.Position })
	list = slices.DeleteFunc(list, func(e windows.Event) bool { return e.Time >= t || v.Where != nil && !v.Where(e.Row) })
	var results []windows.Result
	found := false
	for i := range v.Features {
		f := &v.Features[i]
		in := window(f.Window, list, t)
		found = found || len(in) > 0
		results = append(results, windows.Result{Value: value(f, in), Status: windows.StatusPresent})
	}
	for i := range results {
		r := &results[i]
		switch {
		case !found:
			r.Status = windows.StatusNotFound
		case v.TTL > 0 && num(t).Cmp(add(list[len(list)-1].Time, v.TTL)) > 0:
			*r = windows.Result{Status: windows.StatusOutsideMaxAge}
		case r.Value.Kind == windows.Null:
			r.Status = windows.StatusNull
		case r.Value.Kind == windows.Invalid:
			*r = windows.Result{Status: windows.StatusInvalid}
		}
	}
	return results
}

// window returns the events, all before t and in order of time, that lie in a window at t.
func window(w windows.Window, list []windows.Event, t windows.Time) []windows.Event {
	var from, to *big.Int
	switch w.Kind {
	case windows.Lifetime:
		return list
	case windows.Session:
		return session(w, list, t)
	case windows.Sliding:
		from, to = floor(sub(t, w.Size), w.Hop), num(t)
	case windows.Tumbling:
		to = floor(num(t), w.Size)
		from = new(big.Int).Sub(to, big.NewInt(int64(w.Size)))
	case windows.Hopping:
		from = floor(sub(t, w.Size), w.Hop)
		to = new(big.Int).Add(from, big.NewInt(int64(w.Size)))
	}
	var in []windows.Event
	for _, e := range list {
		if num(e.Time).Cmp(from) >= 0 && num(e.Time).Cmp(to) < 0 {
			in = append(in, e)
		}
	}
	return in
}

// session returns the open or the previous session at t.
func session(w windows.Window, list []windows.Event, t windows.Time) []windows.Event {
	if w.Retain > 0 {
		oldest := new(big.Int).Sub(floor(num(t), windows.Day), big.NewInt(int64(w.Retain)))
		list = slices.DeleteFunc(slices.Clone(list), func(e windows.Event) bool { return num(e.Time).Cmp(oldest) < 0 })
	}
	var sessions [][]windows.Event
	for i, e := range list {
		if i == 0 || num(e.Time).Cmp(add(list[i-1].Time, w.Gap)) >= 0 {
			sessions = append(sessions, nil)
		}
		sessions[len(sessions)-1] = append(sessions[len(sessions)-1], e)
	}
	n := len(sessions)
	open := n > 0 && num(t).Cmp(add(list[len(list)-1].Time, w.Gap)) < 0
	switch {
	case !w.Previous && open, w.Previous && !open && n > 0:
		return sessions[n-1]
	case w.Previous && open && n > 1:
		return sessions[n-2]
	}
	return nil
}

// value folds the events of a window into a feature.
func value(f *windows.Feature, in []windows.Event) windows.Value {
	if f.Kind != windows.Aggregated {
		if len(in) == 0 {
			return windows.Value{}
		}
		first, last := in[0].Time, in[len(in)-1].Time
		switch f.Kind {
		case windows.SessionStart:
			return windows.IntValue(int64(first))
		case windows.SessionEnd:
			return windows.IntValue(clamp(add(last, f.Window.Gap)))
		default:
			return windows.IntValue(clamp(new(big.Int).Sub(num(last), num(first))))
		}
	}
	var values []windows.Value
	for _, e := range in {
		v := windows.Value{Kind: windows.Boolean}
		if f.Field >= 0 {
			v = e.Row[f.Field]
		}
		if v.Kind != windows.Null && (f.Where == nil || f.Where(e.Row)) {
			values = append(values, v)
		}
	}
	sum := new(big.Rat)
	for _, v := range values {
		switch {
		case f.Op != windows.Sum && f.Op != windows.Mean && !spread(f.Op):
		case f.Type == windows.Float64:
			sum.Add(sum, grid(v.Float()))
		default:
			sum.Add(sum, new(big.Rat).SetInt64(v.Int()))
		}
	}
	switch {
	case f.Op == windows.Count:
		return windows.IntValue(int64(len(values)))
	case f.Op == windows.Sum && f.Type == windows.Float64:
		x, _ := sum.Float64()
		return windows.FloatValue(x)
	case f.Op == windows.Sum:
		if !sum.Num().IsInt64() {
			return windows.Value{Kind: windows.Invalid}
		}
		return windows.IntValue(sum.Num().Int64())
	case len(values) == 0:
		return windows.Value{}
	case spread(f.Op):
		return deviation(f, values, sum)
	case f.Op == windows.Mean:
		x, _ := sum.Quo(sum, new(big.Rat).SetInt64(int64(len(values)))).Float64()
		return windows.FloatValue(x)
	case f.Op == windows.First:
		return values[0]
	case f.Op == windows.Last:
		return values[len(values)-1]
	case f.Op == windows.Min:
		return slices.MinFunc(values, func(a, b windows.Value) int { return compare(f.Type, a, b) })
	default:
		return slices.MaxFunc(values, func(a, b windows.Value) int { return compare(f.Type, a, b) })
	}
}

func spread(op windows.Op) bool {
	return op == windows.VarPop || op == windows.VarSamp || op == windows.StddevPop || op == windows.StddevSamp
}

// deviation adds the squares of the distances from the exact mean.
func deviation(f *windows.Feature, values []windows.Value, sum *big.Rat) windows.Value {
	n := int64(len(values))
	mean, squares := new(big.Rat).Quo(sum, new(big.Rat).SetInt64(n)), new(big.Rat)
	for _, v := range values {
		x := new(big.Rat).SetInt64(v.Int())
		if f.Type == windows.Float64 {
			x = grid(v.Float())
		}
		x.Sub(x, mean)
		squares.Add(squares, x.Mul(x, x))
	}
	if f.Op == windows.VarSamp || f.Op == windows.StddevSamp {
		n--
	}
	if n == 0 {
		return windows.Value{}
	}
	squares.Quo(squares, new(big.Rat).SetInt64(n))
	if f.Op == windows.StddevPop || f.Op == windows.StddevSamp {
		root, _ := new(big.Float).SetPrec(400).Sqrt(new(big.Float).SetPrec(800).SetRat(squares)).Float64()
		return windows.FloatValue(root)
	}
	x, _ := squares.Float64()
	return windows.FloatValue(x)
}

func compare(t windows.Type, a, b windows.Value) int {
	if t == windows.Float64 {
		return cmp.Compare(a.Float(), b.Float())
	}
	return cmp.Or(cmp.Compare(a.Int(), b.Int()), cmp.Compare(a.Str, b.Str))
}

// grid rounds half to even to a multiple of 2^-40.
func grid(x float64) *big.Rat {
	unit := new(big.Rat).SetFrac64(1, 1<<windows.GridBits)
	if math.Abs(x) < 1<<23 {
		return unit.Mul(unit, new(big.Rat).SetInt64(int64(math.RoundToEven(x*(1<<windows.GridBits)))))
	}
	return new(big.Rat).SetFloat64(x) // a multiple already
}

func num(t windows.Time) *big.Int                 { return big.NewInt(int64(t)) }
func add(t windows.Time, d windows.Span) *big.Int { return num(t).Add(num(t), big.NewInt(int64(d))) }

func sub(t windows.Time, d windows.Span) *big.Int { return num(t).Sub(num(t), big.NewInt(int64(d))) }

func floor(t *big.Int, h windows.Span) *big.Int {
	d := big.NewInt(int64(h))
	q, _ := new(big.Int).DivMod(t, d, new(big.Int)) // Euclidean: rounds down for h > 0
	return q.Mul(q, d)
}

func clamp(x *big.Int) int64 {
	if x.IsInt64() {
		return x.Int64()
	}
	return int64(x.Sign()) * math.MaxInt64
}
