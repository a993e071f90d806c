package speed

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/features"
	"millrace/features/keyspace"
)

// store is the protocol of the units in Redis: every change of a unit's fields goes with a change of its marker, in one
// script that first compares the marker with the one this worker last wrote.
type store struct {
	rdb   redis.UniversalClient
	space keyspace.Space
}

// flushScript compares, then writes fields and marker. KEYS: marker, hashes. ARGV: the marker expected (empty: none), the new
// one, then for each hash the number of arguments that follow for it, fields and values. It returns the marker found, which
// is the new one where it was written; another one says that another owner is there, or that Redis lost acknowledged writes, and that
// nothing was written.
var flushScript = redis.NewScript(`
local found = redis.call('GET', KEYS[1]) or ''
if found ~= ARGV[1] then return found end
local at = 3
for i = 2, #KEYS do
	local n = tonumber(ARGV[at])
	redis.call('HSET', KEYS[i], unpack(ARGV, at + 1, at + n))
	at = at + n + 1
end
redis.call('SET', KEYS[1], ARGV[2])
return ARGV[2]`)

// takeoverScript compares, then writes the marker and, for each view version that the unit does not know, where its history
// in the unit starts. KEYS: marker, starts. ARGV: the marker expected, the new one, then versions and starts.
var takeoverScript = redis.NewScript(`
local found = redis.call('GET', KEYS[1]) or ''
if found ~= ARGV[1] then return found end
for i = 3, #ARGV, 2 do redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 1]) end
redis.call('SET', KEYS[1], ARGV[2])
return ARGV[2]`)

// outcome is what a flush of one unit came to: the marker found, equal to the new one if it was written.
type outcome struct {
	unit  *unit
	next  keyspace.Marker
	found string
}

// conflict reports whether the unit was found in other hands.
func (o outcome) conflict() bool { return o.found != o.next.String() }

// flush writes the dirty cells of units of one partition, each unit with its marker in one script call, and advances the
// markers of clean ones. A unit whose outcome is a conflict is unchanged, in Redis and in memory.
func (s *store) flush(ctx context.Context, p *partition, units []*unit) ([]outcome, error) {
	outcomes := make([]outcome, len(units))
	calls := make([]call, len(units))
	for i, u := range units {
		// A unit may be ahead of its partition, which reads from its least marker on: a marker never goes back.
		next := keyspace.Marker{Next: max(p.next, u.from), Generation: u.marker.Generation, Token: u.marker.Token}
		outcomes[i] = outcome{unit: u, next: next}
		calls[i] = s.flushCall(p, u, next)
	}
	found, err := s.run(ctx, flushScript, calls)
	if err != nil {
		return nil, fmt.Errorf("flush %s/%d: %w", p.topic, p.id, err)
	}
	for i := range outcomes {
		outcomes[i].found = found[i]
		if !outcomes[i].conflict() {
			outcomes[i].unit.clean(outcomes[i].next)
		}
	}
	return outcomes, nil
}

// call is one run of a compare-and-set script.
type call struct {
	keys []string
	args []any // expected marker, new marker, …
}

func (s *store) flushCall(p *partition, u *unit, next keyspace.Marker) call {
	keys := make([]string, 1, len(u.dirty)+1)
	keys[0] = s.space.Marker(u.bucket, p.plan.log.ID, p.id)
	args := make([]any, 2, 2+len(u.dirty)+2*u.fields)
	args[0], args[1] = u.marker.String(), next.String()
	for _, e := range u.dirty {
		keys = append(keys, e.hash)
		args = append(args, 2*len(e.dirty))
		for _, c := range e.dirty {
			covered := min(p.next-c.epoch, 1<<p.plan.log.EpochBits)
			field := keyspace.AppendDelta(nil, c.view.Version.ID, p.plan.log.ID, p.id, c.epoch, c.block.ID)
			args = append(args, field, c.view.AppendDelta(nil, uint64(covered), &c.block))
		}
	}
	return call{keys, args}
}

// maxPipeline bounds the arguments that are on their way in one pipeline.
const maxPipeline = 40_000

// run runs calls in pipelines and returns the marker that each found. An error of the connection leaves the outcome unknown:
// run finds it out by reading the marker, which no two attempts share unless they write the same.
func (s *store) run(ctx context.Context, script *redis.Script, calls []call) ([]string, error) {
	found := make([]string, 0, len(calls))
	for len(calls) > 0 {
		n, size := 0, 0
		for n < len(calls) && (n == 0 || size+len(calls[n].args) <= maxPipeline) {
			size += len(calls[n].args)
			n++
		}
		batch, err := s.runBatch(ctx, script, calls[:n])
		if err != nil {
			return nil, err
		}
		found = append(found, batch...)
		calls = calls[n:]
	}
	return found, nil
}

func (s *store) runBatch(ctx context.Context, script *redis.Script, calls []call) ([]string, error) {
	found := make([]string, len(calls))
	pending := make([]int, len(calls))
	for i := range pending {
		pending[i] = i
	}
	for backoff := 10 * time.Millisecond; ; backoff = min(2*backoff, time.Second) {
		pipe := s.rdb.Pipeline()
		cmds := make([]*redis.Cmd, len(pending))
		for i, c := range pending {
			cmds[i] = pipe.EvalSha(ctx, script.Hash(), calls[c].keys, calls[c].args...)
		}
		_, execErr := pipe.Exec(ctx)
		var failed []int
		var lastErr error
		for i, c := range pending {
			text, err := cmds[i].Text()
			if err != nil {
				failed, lastErr = append(failed, c), err
				continue
			}
			found[c] = text
		}
		if len(failed) == 0 {
			return found, nil
		}
		if !retryable(lastErr) {
			return nil, lastErr
		}
		if redis.HasErrorPrefix(lastErr, "NOSCRIPT") {
			if err := script.Load(ctx, s.rdb).Err(); err != nil && ctx.Err() != nil {
				return nil, err
			}
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), execErr)
		case <-time.After(backoff):
		}
		pending = s.resolve(ctx, calls, failed, found)
	}
}

// resolve reads the markers of calls whose outcome is unknown. One that has the new marker was applied; one that has the
// expected marker was not, and is tried again: should the first attempt still arrive, one of the two fails its compare and
// the marker is right either way. Anything else is a conflict, reported as found.
func (s *store) resolve(ctx context.Context, calls []call, failed []int, found []string) (again []int) {
	pipe := s.rdb.Pipeline()
	cmds := make([]*redis.StringCmd, len(failed))
	for i, c := range failed {
		cmds[i] = pipe.Get(ctx, calls[c].keys[0])
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	for i, c := range failed {
		text, err := cmds[i].Result()
		switch {
		case errors.Is(err, redis.Nil):
			text = ""
		case err != nil:
			again = append(again, c)
			continue
		}
		if text == calls[c].args[0] {
			again = append(again, c)
			continue
		}
		found[c] = text
	}
	return again
}

// retryable reports whether an error is of the connection or of Redis' present state, not of the call.
func retryable(err error) bool {
	for _, prefix := range []string{"WRONGTYPE", "ERR", "NOPERM", "NOAUTH", "WRONGPASS"} {
		if redis.HasErrorPrefix(err, prefix) {
			return false
		}
	}
	return true
}

// read returns the hashes of entities.
func (s *store) read(ctx context.Context, hashes []string) ([]map[string]string, error) {
	pipe := s.rdb.Pipeline()
	cmds := make([]*redis.MapStringStringCmd, len(hashes))
	for i, h := range hashes {
		cmds[i] = pipe.HGetAll(ctx, h)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read %d entities: %w", len(hashes), err)
	}
	values := make([]map[string]string, len(hashes))
	for i, cmd := range cmds {
		values[i] = cmd.Val()
	}
	return values, nil
}

// stored is what Redis holds of a unit at a takeover.
type stored struct {
	marker string // empty: none
	starts map[string]string
	header map[string]string
}

// inspect reads all units of a partition.
func (s *store) inspect(ctx context.Context, log uint32, partition int32, buckets int) ([]stored, error) {
	pipe := s.rdb.Pipeline()
	markers := make([]*redis.StringCmd, buckets)
	starts := make([]*redis.MapStringStringCmd, buckets)
	headers := make([]*redis.MapStringStringCmd, buckets)
	for b := range buckets {
		bucket := keyspace.Bucket(b)
		markers[b] = pipe.Get(ctx, s.space.Marker(bucket, log, partition))
		starts[b] = pipe.HGetAll(ctx, s.space.Starts(bucket, log, partition))
		headers[b] = pipe.HGetAll(ctx, s.space.Header(bucket))
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("read markers: %w", err)
	}
	list := make([]stored, buckets)
	for b := range buckets {
		marker, err := markers[b].Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return nil, fmt.Errorf("read marker: %w", err)
		}
		list[b] = stored{marker, starts[b].Val(), headers[b].Val()}
	}
	return list, nil
}

// announce writes what readers need to know of the speed layer: that this store is alive under one incarnation, the registry
// where Redis lost it, and how many partitions a log has.
func (s *store) announce(ctx context.Context, registry *features.Registry, log uint32, partitions int) error {
	pipe := s.rdb.Pipeline()
	pipe.SetNX(ctx, s.space.Incarnation(), newToken(), 0)
	pipe.SetNX(ctx, s.space.Registry(), registry.Encode(), 0)
	pipe.HSet(ctx, s.space.Partitions(), strconv.FormatUint(uint64(log), 10), partitions)
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	return nil
}

func newToken() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
