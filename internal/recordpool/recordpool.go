// Package recordpool reuses the memory of fetched Kafka records: a consumer that recycles each record when it is done with it
// allocates next to nothing.
//
// Whoever uses it keeps no slice of a record beyond Record.Recycle.
package recordpool

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Pool implements kgo's pools of records and of decompressed batches.
type Pool struct {
	records, bytes sync.Pool
}

var (
	_ kgo.PoolRecords         = (*Pool)(nil)
	_ kgo.PoolDecompressBytes = (*Pool)(nil)
)

// expansion is how much larger a decompressed batch is taken to be; one that is larger grows the slice for the next.
const expansion = 4

// New returns an empty pool.
func New() *Pool { return &Pool{} }

// GetRecords returns a slice with capacity for n records.
func (p *Pool) GetRecords(n int) []kgo.Record {
	if s, ok := p.records.Get().(*[]kgo.Record); ok && cap(*s) >= n {
		return (*s)[:0]
	}
	return make([]kgo.Record, 0, n)
}

// PutRecords takes a slice back.
func (p *Pool) PutRecords(s []kgo.Record) { p.records.Put(&s) }

// GetDecompressBytes returns a slice to decompress into.
func (p *Pool) GetDecompressBytes(compressed []byte, _ kgo.CompressionCodecType) []byte {
	if s, ok := p.bytes.Get().(*[]byte); ok && cap(*s) >= len(compressed) {
		return (*s)[:0]
	}
	return make([]byte, 0, expansion*len(compressed))
}

// PutDecompressBytes takes a slice back.
func (p *Pool) PutDecompressBytes(s []byte) { p.bytes.Put(&s) }
