package produce

import (
	"fmt"
	"strconv"
	"time"
)

// Progress is how far a run has come.
type Progress struct {
	Acknowledged int64 // records that Kafka has
	Odd          int64 // lines that could not become records
	Rate         float64
	// Left is the time left, negative if nobody knows.
	Left time.Duration
	// Share is the part of the input or of the limit that is done, negative if nobody knows.
	Share float64
}

// String is a line for people: 12,345 records, 4,115 a second, 41 %, 5 s left.
func (p Progress) String() string {
	text := fmt.Sprintf("%s records, %s a second", Thousands(p.Acknowledged), Thousands(int64(p.Rate)))
	if p.Share >= 0 {
		text += fmt.Sprintf(", %.0f %%", p.Share*100)
	}
	if p.Left >= 0 {
		text += fmt.Sprintf(", %s left", p.Left.Round(time.Second))
	}
	if p.Odd > 0 {
		text += ", " + oddLines(p.Odd)
	}
	return text
}

// Thousands writes a number with commas: 1,234,567.
func Thousands(n int64) string {
	digits := strconv.FormatInt(n, 10)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(digits) - 3; i > start; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func oddLines(n int64) string {
	if n == 1 {
		return "1 odd line"
	}
	return Thousands(n) + " odd lines"
}

// OddLine is a line of the input that cannot become a record.
type OddLine struct {
	Line   int64  `json:"line"`
	Reason string `json:"reason"`
}

// maxOddLines bounds the odd lines that a summary names.
const maxOddLines = 20

// Rejected counts the published records that the source's rules reject for one reason. The speed layer quarantines them.
type Rejected struct {
	Records   int64  `json:"records"`
	FirstLine int64  `json:"first_line"`
	Field     string `json:"field,omitempty"` // of the first
	Detail    string `json:"detail"`
}

// Summary is what a run did.
type Summary struct {
	Source  string  `json:"source"`
	Topic   string  `json:"topic"`
	Records int64   `json:"records"` // that Kafka acknowledged
	Seconds float64 `json:"seconds"`
	Rate    float64 `json:"records_per_second"`
	// Odd counts the lines that could not become records, OddLines names the first of them.
	Odd      int64     `json:"odd"`
	OddLines []OddLine `json:"odd_lines,omitempty"`
	// Rejected counts the records that will be quarantined, by reason.
	Rejected map[string]Rejected `json:"rejected,omitempty"`
	// Stopped says that the run ended before its input did, other than by its limit; NextLine is the line to go on from, 0 at the
	// input's end. Every line before it is acknowledged or odd; some behind it may be too.
	Stopped  bool  `json:"stopped"`
	NextLine int64 `json:"next_line,omitempty"`
}

// String is a line for people.
func (s Summary) String() string {
	text := fmt.Sprintf("%s records to %s in %.1f s, %s a second", Thousands(s.Records), s.Topic, s.Seconds, Thousands(int64(s.Rate)))
	if s.Odd > 0 {
		text += "; skipped " + oddLines(s.Odd)
	}
	var rejected int64
	for _, r := range s.Rejected {
		rejected += r.Records
	}
	if rejected > 0 {
		text += fmt.Sprintf("; the source's rules reject %s of them", Thousands(rejected))
	}
	if s.NextLine > 0 {
		text += fmt.Sprintf("; go on with --from-line %d", s.NextLine)
	}
	return text
}
