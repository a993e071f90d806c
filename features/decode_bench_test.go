package features

import (
	"testing"

	"github.com/go-faster/jx"

	"millrace/windows"
)

// The event of the benchmarks: 130 bytes, five members of which three are declared.
var (
	benchEvent  = []byte(`{"user_id":"user-0000123456","event":"page_view","at":1764050400123,"amount":129.95,"page":"/products/shoes/1234567890/reviews/1"}`)
	benchSource = &Source{
		Name: "events",
		Fields: []Field{
			{Name: "user_id", Type: windows.String, MaxBytes: 64, Required: true},
			{Name: "at", Type: windows.Int64},
			{Name: "amount", Type: windows.Float64},
		},
		EventTime: EventTime{Field: "at", Unit: Milliseconds, Min: 0, Max: windows.MaxTime},
		MaxFuture: 60_000,
	}
)

const benchKafkaTime windows.Time = 1764050400500

func TestDecodeAllocatesNothing(t *testing.T) {
	if len(benchEvent) != 130 {
		t.Fatalf("the event has %d bytes", len(benchEvent))
	}
	row := make([]windows.Value, 3)
	for _, value := range [][]byte{
		benchEvent,
		[]byte(` { "amount" : 1e3, "tags":[{"a":"b\n"}], "at":1764050400123, "user_id" : "\u00e9 and é" } `),
		[]byte(`{"user_id":"u","at":1764050400123,"amount":0.12345678901234567890123456789}`),
	} {
		d := NewDecoder(benchSource)
		if _, r := d.Decode(value, benchKafkaTime, row); r != nil {
			t.Fatal(r)
		}
		if n := testing.AllocsPerRun(100, func() { d.Decode(value, benchKafkaTime, row) }); n != 0 {
			t.Errorf("%s: got %v allocations, want none", value, n)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	d := NewDecoder(benchSource)
	row := make([]windows.Value, 3)
	b.ReportAllocs()
	b.SetBytes(int64(len(benchEvent)))
	for b.Loop() {
		if _, r := d.Decode(benchEvent, benchKafkaTime, row); r != nil {
			b.Fatal(r)
		}
	}
}

// BenchmarkDecodeByHand is what one would write for these three fields with a fast decoder, and without any of the checks.
func BenchmarkDecodeByHand(b *testing.B) {
	var (
		d      jx.Decoder
		user   []byte
		at     int64
		amount float64
		err    error
	)
	member := func(d *jx.Decoder, key []byte) error {
		switch string(key) {
		case "user_id":
			user, err = d.StrBytes()
		case "at":
			at, err = d.Int64()
		case "amount":
			amount, err = d.Float64()
		default:
			err = d.Skip()
		}
		return err
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(benchEvent)))
	for b.Loop() {
		d.ResetBytes(benchEvent)
		if err := d.ObjBytes(member); err != nil {
			b.Fatal(err)
		}
	}
	if len(user) != 15 || at != 1764050400123 || amount != 129.95 {
		b.Fatal(user, at, amount)
	}
}
