package batch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"millrace/features"
	"millrace/features/keyspace"
	"millrace/windows"
)

// baseScript writes the base of one entity, unless a newer run did, and removes the delta fields that it covers. KEYS: the
// entity's hash. ARGV: the base's field, its value, the fields to remove. The numbers of the runs are the bytes 2 to 9 of the
// values, compared one by one: Lua compares texts by the server's locale, and its numbers are not exact.
var baseScript = redis.NewScript(`
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored then
	for i = 2, 9 do
		local theirs, ours = string.byte(stored, i) or 0, string.byte(ARGV[2], i)
		if theirs > ours then return 0 end
		if theirs < ours then break end
	end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
for i = 3, #ARGV, 1000 do
	redis.call('HDEL', KEYS[1], unpack(ARGV, i, math.min(i + 999, #ARGV)))
end
return 1`)

// headerScript writes the header of a bucket, unless a newer run did. KEYS: the header. ARGV: the version, the run's document,
// its number.
var headerScript = redis.NewScript(`
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored and cjson.decode(stored).id > tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1`)

// base is an entity's base that is to be written.
type base struct {
	at    cursor
	hash  string
	value []byte
}

// outcome is what became of a chunk of bases.
type outcome struct{ newer, deltas uint64 }

// put writes bases. All of it may be done twice.
func (j *job) put(ctx context.Context, bases []base) (o outcome, err error) {
	err = j.retry(ctx, func() error {
		o, err = j.tryPut(ctx, bases)
		return err
	})
	return o, err
}

func (j *job) tryPut(ctx context.Context, bases []base) (o outcome, err error) {
	names := make([]*redis.StringSliceCmd, len(bases))
	pipe := j.redis.Pipeline()
	for i, b := range bases {
		names[i] = pipe.HKeys(ctx, b.hash)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return o, fmt.Errorf("read the fields of %d entities: %w", len(bases), err)
	}
	calls := make([]call, len(bases))
	for i, b := range bases {
		calls[i] = call{key: b.hash, args: []any{j.field, b.value}}
		for _, name := range names[i].Val() {
			f, err := keyspace.ParseField(name)
			if err != nil {
				return o, fmt.Errorf("entity %s, field %x: %w", b.hash, name, err)
			}
			if !f.Base && f.Version == j.run.Version && j.run.Covers(f.Log, f.Partition, f.Epoch) {
				calls[i].args = append(calls[i].args, name)
			}
		}
	}
	written, err := j.call(ctx, baseScript, calls)
	if err != nil {
		return o, fmt.Errorf("write %d bases: %w", len(bases), err)
	}
	for i, w := range written {
		if !w {
			o.newer++
			continue
		}
		o.deltas += uint64(len(calls[i].args) - 2)
	}
	return o, nil
}

// call is one run of a script.
type call struct {
	key  string
	args []any
}

// call runs a script once per call in one pipeline and returns which of them wrote.
func (j *job) call(ctx context.Context, script *redis.Script, calls []call) ([]bool, error) {
	wrote := make([]bool, len(calls))
	pending := make([]int, len(calls))
	for i := range pending {
		pending[i] = i
	}
	for load := true; len(pending) > 0; load = false {
		pipe := j.redis.Pipeline()
		cmds := make([]*redis.Cmd, len(pending))
		for i, c := range pending {
			if load {
				cmds[i] = pipe.EvalSha(ctx, script.Hash(), []string{calls[c].key}, calls[c].args...)
			} else { // a server that does not know the script is given it with each call, whichever server that is
				cmds[i] = script.Eval(ctx, pipe, []string{calls[c].key}, calls[c].args...)
			}
		}
		_, _ = pipe.Exec(ctx) // each command has its own error
		var unknown []int
		for i, c := range pending {
			n, err := cmds[i].Int()
			switch {
			case load && redis.HasErrorPrefix(err, "NOSCRIPT"):
				unknown = append(unknown, c)
			case err != nil:
				return nil, err
			default:
				wrote[c] = n == 1
			}
		}
		pending = unknown
	}
	return wrote, nil
}

// retries and firstBackoff let a failover of Redis pass, some twelve seconds, before a run stops; it can be resumed then.
const (
	retries      = 8
	firstBackoff = 50 * time.Millisecond
)

func (j *job) retry(ctx context.Context, do func() error) error {
	backoff := firstBackoff
	for n := 0; ; n++ {
		err := do()
		if err == nil || n == retries || ctx.Err() != nil || errors.Is(err, keyspace.ErrField) || errors.Is(err, redis.ErrClosed) {
			return err
		}
		j.log.WarnContext(ctx, "redis did not answer, trying again", "error", err, "attempt", n+1)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(backoff):
		}
		backoff *= 2
	}
}

// announce writes the run's document, which bases and headers name. It is there already unless Redis lost it.
func (j *job) announce(ctx context.Context) error {
	return j.retry(ctx, func() error {
		if err := j.redis.HSetNX(ctx, j.space.Runs(), strconv.FormatUint(j.run.ID, 10), j.document).Err(); err != nil {
			return fmt.Errorf("write the document of run %d: %w", j.run.ID, err)
		}
		return nil
	})
}

// putHeaders says in each bucket that the version is complete there, and returns the buckets in which that does not stand
// afterwards. Redis keeps the order of its writes, so that a header that stands says that the bases before it do.
func (j *job) putHeaders(ctx context.Context, buckets []keyspace.Bucket) (lost []keyspace.Bucket, err error) {
	version := strconv.FormatUint(uint64(j.run.Version), 10)
	calls := make([]call, len(buckets))
	for i, b := range buckets {
		calls[i] = call{j.space.Header(b), []any{version, j.document, j.run.ID}}
	}
	err = j.retry(ctx, func() error {
		if _, err := j.call(ctx, headerScript, calls); err != nil {
			return fmt.Errorf("write headers: %w", err)
		}
		lost, err = j.withoutHeader(ctx, buckets)
		return err
	})
	return lost, err
}

// withoutHeader returns the buckets whose header names neither this run nor a newer one.
func (j *job) withoutHeader(ctx context.Context, buckets []keyspace.Bucket) (lost []keyspace.Bucket, err error) {
	version := strconv.FormatUint(uint64(j.run.Version), 10)
	pipe := j.redis.Pipeline()
	headers := make([]*redis.StringCmd, len(buckets))
	for i, b := range buckets {
		headers[i] = pipe.HGet(ctx, j.space.Header(b), version)
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("read headers: %w", err)
	}
	for i, h := range headers {
		var run features.Run
		text, err := h.Bytes()
		switch {
		case errors.Is(err, redis.Nil):
		case err != nil:
			return nil, fmt.Errorf("read headers: %w", err)
		default:
			if err := json.Unmarshal(text, &run); err != nil {
				return nil, fmt.Errorf("header of bucket %d: %w", buckets[i], err)
			}
		}
		if run.ID < j.run.ID {
			lost = append(lost, buckets[i])
		}
	}
	return lost, nil
}

// lastWritten tells from which cursor on a resumed run has to write: the one recorded, or, where Redis has lost writes since,
// the start of the first bucket whose last entity before that cursor has no base of this run or a newer one. Redis keeps the
// order of its writes, so that a bucket's last one stands for all of them.
func (j *job) lastWritten(ctx context.Context, at cursor) (cursor, error) {
	if at.Bucket < 0 {
		return at, nil
	}
	e := j.events
	e.span = span{start, at}
	rows, err := j.conn.Query(ctx, "SELECT bucket, max(key) FROM "+e.table()+where(e.conditions())+" GROUP BY bucket ORDER BY bucket"+settings)
	if err != nil {
		return at, fmt.Errorf("find the last entity of each bucket: %w", err)
	}
	defer func() { _ = rows.Close() }()
	pipe := j.redis.Pipeline()
	var buckets []uint32
	var bases []*redis.StringCmd
	for rows.Next() {
		var bucket uint32
		var key string
		if err := rows.Scan(&bucket, &key); err != nil {
			return at, fmt.Errorf("find the last entity of each bucket: %w", err)
		}
		buckets = append(buckets, bucket)
		bases = append(bases, pipe.HGet(ctx, j.space.Entity(keyspace.Bucket(bucket), j.view.EntityID, []byte(key)), j.field))
	}
	if err := rows.Err(); err != nil {
		return at, fmt.Errorf("find the last entity of each bucket: %w", err)
	}
	if len(bases) == 0 {
		return at, nil
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return at, fmt.Errorf("read bases: %w", err)
	}
	for i, cmd := range bases {
		value, err := cmd.Bytes()
		if err != nil && !errors.Is(err, redis.Nil) {
			return at, fmt.Errorf("read bases: %w", err)
		}
		if run, err := windows.BaseRun(value); err != nil || run < j.run.ID { // missing, or an older one
			return cursor{Bucket: int64(buckets[i]) - 1}, nil
		}
	}
	return at, nil
}
