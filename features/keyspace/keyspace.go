// Package keyspace says where the states of a project lie in Redis: the names of keys and hash fields that the speed and batch
// layers write and serving reads, and the marker that a unit of state is guarded by.
//
// It builds and parses names only; it talks to no store.
package keyspace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"millrace/windows"
)

// Bucket spreads entities over the project's buckets. All keys of a bucket carry its hash tag, so that one script may touch
// them together, also in a Redis Cluster.
type Bucket uint32

// BucketOf returns the bucket of an entity key.
func BucketOf(key []byte, buckets uint32) Bucket {
	return Bucket(xxhash.Sum64(key) % uint64(buckets))
}

// Space names the keys of one project.
type Space struct{ Project string }

func (s Space) in(b Bucket, rest string) string {
	return s.Project + ":{" + strconv.FormatUint(uint64(b), 10) + "}:" + rest
}

// Entity is the hash with all views of one entity.
func (s Space) Entity(b Bucket, entity uint32, key []byte) string {
	buf := make([]byte, 0, len(s.Project)+len(key)+16)
	return string(s.AppendEntity(buf, b, entity, key))
}

// AppendEntity appends the name that Entity returns.
func (s Space) AppendEntity(dst []byte, b Bucket, entity uint32, key []byte) []byte {
	dst = append(dst, s.Project...)
	dst = append(dst, ":{"...)
	dst = strconv.AppendUint(dst, uint64(b), 10)
	dst = append(dst, "}:e"...)
	dst = strconv.AppendUint(dst, uint64(entity), 10)
	dst = append(dst, ':')
	return append(dst, key...)
}

// Marker is the string that guards a unit: the state of one bucket that comes from one partition of a log.
func (s Space) Marker(b Bucket, log uint32, partition int32) string {
	return s.in(b, fmt.Sprintf("m:%d/%d", log, partition))
}

// Starts is the hash that says, for a unit, what its fields hold of each view version (field: version in decimal, value: a
// Start).
func (s Space) Starts(b Bucket, log uint32, partition int32) string {
	return s.in(b, fmt.Sprintf("s:%d/%d", log, partition))
}

// Header is the hash that names the last complete batch run of each view version in a bucket (field: version in decimal,
// value: the run as JSON).
func (s Space) Header(b Bucket) string { return s.in(b, "base") }

// Registry is the string with the project's registry.
func (s Space) Registry() string { return s.Project + ":registry" }

// Runs is the hash with every batch run that a base may name (field: run in decimal, value: the run as JSON).
func (s Space) Runs() string { return s.Project + ":runs" }

// Incarnation is the string with a random token that the speed layer writes where there is none: a reader that finds it
// missing or changed knows that the store was lost.
func (s Space) Incarnation() string { return s.Project + ":incarnation" }

// Partitions is the hash with the number of partitions of each log (field: log in decimal).
func (s Space) Partitions() string { return s.Project + ":partitions" }

// Marker is the value of a marker: everything below Next is in the unit's fields; Generation is the registry's when the
// owner took over; Token is random, one per owner and takeover, and makes two markers of the same offset differ.
type Marker struct {
	Next       int64
	Generation uint64
	Token      string
}

// String returns the stored form.
func (m Marker) String() string {
	return strconv.FormatInt(m.Next, 10) + ":" + strconv.FormatUint(m.Generation, 10) + ":" + m.Token
}

// ParseMarker reads the stored form.
func ParseMarker(text string) (Marker, error) {
	next, rest, ok1 := strings.Cut(text, ":")
	generation, token, ok2 := strings.Cut(rest, ":")
	n, err1 := strconv.ParseInt(next, 10, 64)
	g, err2 := strconv.ParseUint(generation, 10, 64)
	if !ok1 || !ok2 || err1 != nil || err2 != nil || n < 0 {
		return Marker{}, fmt.Errorf("marker %q: want <offset>:<generation>:<token>", text)
	}
	return Marker{n, g, token}, nil
}

// Start says what a unit's delta fields hold of a view version. The version's history in the unit is whole once the unit's
// marker has passed Until and, where From is not 0, a base reaches at least to From.
type Start struct {
	From  int64 // the first offset that was folded; 0: the log from its beginning
	Until int64 // the end of the log when folding began: before it, the unit is catching up
}

// String returns the stored form.
func (s Start) String() string {
	return strconv.FormatInt(s.From, 10) + ":" + strconv.FormatInt(s.Until, 10)
}

// ParseStart reads the stored form.
func ParseStart(text string) (Start, error) {
	from, until, ok := strings.Cut(text, ":")
	f, err1 := strconv.ParseInt(from, 10, 64)
	u, err2 := strconv.ParseInt(until, 10, 64)
	if !ok || err1 != nil || err2 != nil {
		return Start{}, fmt.Errorf("start %q: want <from>:<until>", text)
	}
	return Start{f, u}, nil
}

// Field is a parsed field name of an entity's hash: the base of a version, or the delta that one partition's records of one
// epoch left in one block.
type Field struct {
	Version   uint32
	Base      bool
	Log       uint32
	Partition int32
	Epoch     int64 // the epoch's first offset
	Block     windows.BlockID
}

// AppendBase appends the name of the base field of a version.
func AppendBase(dst []byte, version uint32) []byte {
	return append(binary.AppendUvarint(dst, uint64(version)), 'b')
}

// AppendDelta appends the name of a delta field.
func AppendDelta(dst []byte, version, log uint32, partition int32, epoch int64, block windows.BlockID) []byte {
	dst = append(binary.AppendUvarint(dst, uint64(version)), 'd')
	dst = binary.AppendUvarint(dst, uint64(log))
	dst = binary.AppendUvarint(dst, uint64(partition))
	dst = binary.AppendUvarint(dst, uint64(epoch))
	dst = binary.AppendUvarint(dst, uint64(block.Level))
	return binary.AppendVarint(dst, block.No)
}

// ErrField is returned for a field name that this package did not make.
var ErrField = errors.New("not a field of an entity's hash")

// ParseField reads a field name.
func ParseField(name string) (f Field, err error) {
	p := parser{rest: name}
	f.Version = uint32(p.uvarint())
	if p.bad || len(p.rest) == 0 {
		return Field{}, ErrField
	}
	kind := p.rest[0]
	p.rest = p.rest[1:]
	switch kind {
	case 'b':
		f.Base = true
	case 'd':
		f.Log, f.Partition, f.Epoch = uint32(p.uvarint()), int32(p.uvarint()), int64(p.uvarint())
		f.Block.Level = int(p.uvarint())
		u := p.uvarint()
		f.Block.No = int64(u>>1) ^ -int64(u&1)
	default:
		return Field{}, ErrField
	}
	if p.bad || p.rest != "" {
		return Field{}, ErrField
	}
	return f, nil
}

type parser struct {
	rest string
	bad  bool
}

func (p *parser) uvarint() (v uint64) {
	for i := 0; i < len(p.rest) && i < binary.MaxVarintLen64; i++ {
		c := p.rest[i]
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			p.rest = p.rest[i+1:]
			return v
		}
	}
	p.bad = true
	return 0
}
