package produce

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"millrace/internal/storetest"
)

// BenchmarkJSONLines publishes into kfake, which shares the cores.
func BenchmarkJSONLines(b *testing.B) {
	var lines strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&lines, `{"client":"user-%010d","event":"page_view","at":%d,"bytes":%d,"path":"/products/shoes/1234567890/reviews/1"}`+"\n",
			i*7919%10_000, 1_764_050_400_000+i, i)
	}
	brokers, _ := storetest.Kafka(b, 8, topic)
	b.ReportAllocs()
	b.SetBytes(int64(lines.Len() / 10_000))
	b.ResetTimer()
	s, err := Run(b.Context(), Config{
		Brokers: brokers, Definitions: weblog(b), Source: "access", Repeat: true, Limit: int64(b.N),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(lines.String())), nil },
	})
	if err != nil || s.Records != int64(b.N) {
		b.Fatalf("got %+v, %v", s, err)
	}
}
