package features

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"millrace/windows"
)

// durationUnits are the units of a duration, greatest first: in this order they stand in it.
var durationUnits = []struct {
	name string
	span windows.Span
}{
	{"w", 7 * windows.Day}, {"d", windows.Day}, {"h", 3_600_000}, {"m", 60_000}, {"s", 1000}, {"ms", 1},
}

// maxSpan bounds durations, so that sums of them stay far from the limits of event time.
const maxSpan = 365_250 * windows.Day // 1000 years

const durationPattern = `^([0-9]{1,14}w)?([0-9]{1,14}d)?([0-9]{1,14}h)?([0-9]{1,14}m)?([0-9]{1,14}s)?([0-9]{1,14}ms)?$`

var (
	durationParts = regexp.MustCompile(durationPattern)
	digitsOnly    = regexp.MustCompile(`^[+-]?[0-9][0-9_]*$`)
	// what people write elsewhere, and the unit they mean
	looseDuration = regexp.MustCompile(`(?i)^\s*([0-9]+)\s*(milliseconds?|millis?|msecs?|seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|weeks?|ms|[smhdw])\s*$`)
)

// parseDuration reads a duration such as 1h30m; ok is false for what is none or is longer than maxSpan.
func parseDuration(text string) (d windows.Span, ok bool) {
	parts := durationParts.FindStringSubmatch(text)
	if parts == nil || text == "" {
		return 0, false
	}
	for i, unit := range durationUnits {
		digits := strings.TrimSuffix(parts[i+1], unit.name)
		if digits == "" {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n > int64(maxSpan/unit.span) {
			return 0, false
		}
		d += windows.Span(n) * unit.span
	}
	return d, d <= maxSpan
}

// formatDuration writes d as definitions do.
func formatDuration(d windows.Span) string {
	if d == 0 {
		return "0s"
	}
	var b strings.Builder
	for _, unit := range durationUnits[1:] { // days, not weeks: 30d and not 4w2d
		if n := d / unit.span; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, unit.name)
			d -= n * unit.span
		}
	}
	return b.String()
}

// explainDuration says what is wrong with a text that is no duration.
func explainDuration(text string) (message, remedy string) {
	if digitsOnly.MatchString(text) {
		n := strings.TrimLeft(text, "+-")
		return fmt.Sprintf("the duration %s has no unit", text), fmt.Sprintf("write %[1]sms, %[1]ss, %[1]sm, %[1]sh, %[1]sd or %[1]sw", n)
	}
	if m := looseDuration.FindStringSubmatch(text); m != nil {
		unit := strings.ToLower(m[2])
		switch {
		case strings.HasPrefix(unit, "mi") && !strings.HasPrefix(unit, "mil"):
			unit = "m"
		case strings.HasPrefix(unit, "m") && unit != "m":
			unit = "ms"
		default:
			unit = unit[:1]
		}
		return fmt.Sprintf("`%s` is not a duration", text), "write " + m[1] + unit
	}
	return fmt.Sprintf("`%s` is not a duration", text), "write whole numbers with units, the greatest first: 500ms, 30s, 5m, 1h30m, 7d, 2w"
}

// niceHops are the hops that a sliding window gets where it names none.
var niceHops = []windows.Span{
	1, 2, 5, 10, 20, 50, 100, 200, 500,
	1000, 2000, 5000, 10_000, 15_000, 30_000,
	60_000, 120_000, 300_000, 600_000, 900_000, 1_800_000,
	3_600_000, 7_200_000, 10_800_000, 14_400_000, 21_600_000, 43_200_000,
	1 * windows.Day, 2 * windows.Day, 5 * windows.Day, 10 * windows.Day, 20 * windows.Day, 50 * windows.Day, 100 * windows.Day,
	200 * windows.Day, 500 * windows.Day, 1000 * windows.Day, 2000 * windows.Day, 5000 * windows.Day,
}

// tailShare is the greatest part of a sliding window by which the rounding of its tail may lengthen it without a word: 1/50.
const tailShare = 50

// DefaultHop returns the hop of a sliding window that names none: the longest nice one that lengthens the window by at most
// 2 %.
func DefaultHop(size windows.Span) windows.Span {
	best := niceHops[0]
	for _, hop := range niceHops {
		if hop <= size/tailShare {
			best = hop
		}
	}
	return best
}
