package batch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"millrace/features"
	"millrace/features/keyspace"
	"millrace/windows"
)

// ErrUnknownView is returned for a name that no view has, or one whose view takes no bases.
var ErrUnknownView = errors.New("no such view for the batch layer")

// Run writes the bases of the named views, or of all that take bases, one view after the other.
//
// A run that did not come to its end, because its process died or was stopped, is resumed: its positions never change, so that
// it writes the same bases, and those that it had written are left out. Two processes may do that at once, or run the same
// view anew: where they meet, the base of the later run stays, and the earlier run counts the entity as newer.
//
// A view that is not ready does not keep the others from running; the error then says so (ErrNotReady).
func (r *Runner) Run(ctx context.Context, views []string) error {
	chosen, err := r.choose(views)
	if err != nil {
		return err
	}
	var notReady error
	for _, v := range chosen {
		err := r.runView(ctx, v)
		switch {
		case errors.Is(err, ErrNotReady):
			notReady = errors.Join(notReady, err)
		case err != nil:
			return errors.Join(notReady, err)
		}
	}
	return notReady
}

func (r *Runner) choose(names []string) ([]*features.BoundView, error) {
	if len(names) == 0 {
		return slices.DeleteFunc(slices.Clone(r.cfg.Bound.Views), func(v *features.BoundView) bool { return !v.Definition.Batch }), nil
	}
	var chosen []*features.BoundView
	for _, name := range names {
		v := r.cfg.Bound.View(name)
		switch {
		case v == nil:
			return nil, fmt.Errorf("view %q: %w", name, ErrUnknownView)
		case !v.Definition.Batch:
			return nil, fmt.Errorf("view %q has `batch: off`, its log alone rebuilds it: %w", name, ErrUnknownView)
		case !slices.Contains(chosen, v):
			chosen = append(chosen, v)
		}
	}
	return chosen, nil
}

func (r *Runner) runView(ctx context.Context, v *features.BoundView) error {
	ctx, span := r.tracer.Start(ctx, "batch run", trace.WithAttributes(attribute.String("millrace.view", v.Definition.Name)))
	defer span.End()
	began := time.Now()
	j, err := r.begin(ctx, v)
	if err == nil {
		span.SetAttributes(attribute.Int64("millrace.run", int64(j.run.ID)))
		err = j.work(ctx)
	}
	if errors.Is(err, ErrNotReady) {
		return err // nothing was tried
	}
	state := stateSuccess
	if err != nil {
		state = stateFailed
		span.SetStatus(codes.Error, "")
	}
	r.metrics.runs.Add(ctx, 1, metric.WithAttributes(kindAttr, stateAttr(state)))
	r.metrics.duration.Record(ctx, time.Since(began).Seconds(), metric.WithAttributes(kindAttr, stateAttr(state)))
	if err != nil && j != nil {
		// Its record of how far it came stands; this row only says why it is not further.
		_ = r.record(ctx, v, j.run, stateFailed, err.Error())
	}
	return err
}

// job is one run at work.
type job struct {
	conn     driver.Conn
	redis    redis.UniversalClient
	log      *slog.Logger
	space    keyspace.Space
	runner   *Runner
	view     *features.BoundView
	run      features.Run
	document []byte
	field    string // of the base in an entity's hash
	events   events

	progress           Progress
	began              time.Time
	at                 cursor // everything up to it is in Redis
	recorded, reported time.Time
	unrecorded         uint64 // entities since the last record
	again              bool   // entities are written that were counted before
}

// begin resumes the view's unfinished run, or plans a new one.
func (r *Runner) begin(ctx context.Context, v *features.BoundView) (*job, error) {
	run, from, resumed, err := r.unfinished(ctx, v.Version.ID)
	if err != nil {
		return nil, err
	}
	if resumed {
		// The speed layer may have taken the version up since, and the run's positions are too early for it then.
		switch err := r.checkStarts(ctx, v, run.Positions); {
		case errors.Is(err, ErrNotReady):
			if err := r.record(ctx, v, run, stateSkipped, err.Error()); err != nil {
				return nil, err
			}
			resumed = false
		case err != nil:
			return nil, err
		}
	}
	if !resumed {
		from = mark{At: start}
		if run, err = r.plan(ctx, v); err != nil {
			return nil, err
		}
	}
	j := &job{
		conn: r.cfg.ClickHouse, redis: r.cfg.Redis, space: r.space, runner: r, view: v, run: run, document: document(run),
		log:    r.cfg.Logger.With("view", v.Definition.Name, "run", run.ID),
		field:  string(keyspace.AppendBase(nil, run.Version)),
		events: events{view: v.CompiledView, positions: run.Positions, span: everything},
		began:  time.Now(),
	}
	if j.events.positions == nil {
		j.events.positions = []features.Position{} // nothing is archived: an empty base, not all of the archive
	}
	j.progress = Progress{
		View: v.Definition.Name, Version: run.Version, Run: run.ID, State: stateRunning, Resumed: resumed, At: run.Positions,
	}
	if err := j.announce(ctx); err != nil {
		return nil, err
	}
	if j.at, err = j.lastWritten(ctx, from.At); err != nil {
		return nil, err
	}
	if resumed {
		j.log.InfoContext(ctx, "resuming an unfinished run", "entities", from.Entities, "from_start", j.at.Bucket < 0)
	} else {
		j.log.InfoContext(ctx, "run planned", "positions", run.Positions)
	}
	return j, nil
}

// work writes all bases that are not written yet, then the headers.
func (j *job) work(ctx context.Context) error {
	if err := j.write(ctx, span{j.at, everything.upTo}); err != nil {
		return err
	}
	buckets := make([]keyspace.Bucket, j.runner.cfg.Bound.Registry.Buckets)
	for b := range buckets {
		buckets[b] = keyspace.Bucket(b)
	}
	// Folding of the version may have begun in a unit that did not know it when the run was planned.
	if err := j.runner.checkStarts(ctx, j.view, j.run.Positions); err != nil {
		if errors.Is(err, ErrNotReady) {
			_ = j.runner.record(ctx, j.view, j.run, stateSkipped, err.Error())
		}
		return err
	}
	for n := 0; ; n++ {
		lost, err := j.putHeaders(ctx, buckets)
		if err != nil {
			return err
		}
		if len(lost) == 0 {
			break
		}
		if n == retries {
			return fmt.Errorf("run %d of view %s: Redis lost the headers of %d buckets %d times", j.run.ID, j.view.Definition.Name, len(lost), n+1)
		}
		j.log.WarnContext(ctx, "redis lost buckets, writing them again", "buckets", len(lost))
		if err := j.announce(ctx); err != nil {
			return err
		}
		j.again = true
		for _, b := range lost {
			if err := j.write(ctx, span{cursor{Bucket: int64(b) - 1}, cursor{Bucket: int64(b)}}); err != nil {
				return err
			}
		}
		buckets = lost
	}
	j.progress.State = stateSuccess
	j.report(0)
	j.log.InfoContext(ctx, "run complete", "entities", j.progress.Entities, "newer", j.progress.Newer,
		"deltas_removed", j.progress.Deltas, "seconds", time.Since(j.began).Seconds())
	return j.runner.record(ctx, j.view, j.run, stateSuccess, string(document(j.progress)))
}

// portion is the states of the entities of one span, a stateRows per level.
type portion struct {
	span   span
	events uint64
	levels []*stateRows
}

// write computes and writes the bases of the entities within a span. The engine computes one portion while another is written.
func (j *job) write(ctx context.Context, within span) error {
	spans, err := newSpanner(ctx, j.conn, j.events, within, j.runner.sizes.span)
	if err != nil {
		return fmt.Errorf("view %s: %w", j.view.Definition.Name, err)
	}
	if !j.again {
		j.progress.Total += spans.total
	}
	portions := make(chan portion)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(portions)
		for {
			p, ok, err := j.compute(ctx, spans)
			if err != nil {
				return fmt.Errorf("view %s: %w", j.view.Definition.Name, err)
			}
			if !ok {
				return nil
			}
			select {
			case portions <- p:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	group.Go(func() error {
		for p := range portions {
			if err := j.upload(ctx, p); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	err = group.Wait()
	if markErr := j.mark(ctx); err == nil {
		err = markErr
	}
	return err
}

// compute asks for the states of the next span.
func (j *job) compute(ctx context.Context, spans *spanner) (p portion, ok bool, err error) {
	if p.span, p.events, ok, err = spans.next(ctx); err != nil || !ok {
		return p, false, err
	}
	e := j.events
	e.span = p.span
	for i := range j.view.Levels {
		rows, err := read(ctx, j.conn, e.partials(i), 3, j.view.Level(i))
		if err != nil {
			return p, false, fmt.Errorf("level %d: %w", i, err)
		}
		p.levels = append(p.levels, rows)
	}
	return p, true, nil
}

// maxChunk bounds the bytes of one exchange with Redis.
const maxChunk = 4 << 20

// upload writes the bases of a portion, chunk by chunk. A stop takes effect between two chunks.
func (j *job) upload(ctx context.Context, p portion) error {
	var chunk []base
	size := 0
	flush := func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(chunk) == 0 {
			return nil
		}
		o, err := j.put(context.WithoutCancel(ctx), chunk)
		if err != nil {
			return fmt.Errorf("view %s: %w", j.view.Definition.Name, err)
		}
		j.wrote(ctx, chunk, o)
		chunk, size = chunk[:0], 0
		if j.unrecorded >= j.runner.sizes.record && time.Since(j.recorded) >= j.runner.sizes.every {
			return j.mark(ctx)
		}
		return nil
	}
	err := inStep(p.levels, func(id entityRows, of []entityRows) error {
		b := base{
			at:    cursor{int64(id.bucket), []byte(id.key)},
			hash:  j.space.Entity(keyspace.Bucket(id.bucket), j.view.EntityID, []byte(id.key)),
			value: j.encode(p.levels, of),
		}
		chunk, size = append(chunk, b), size+len(b.value)
		if len(chunk) >= j.runner.sizes.pipeline || size >= maxChunk {
			return flush()
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := flush(); err != nil {
		return err
	}
	if !j.again {
		j.at = p.span.upTo
	}
	j.progress.Events += p.events
	return nil
}

// encode puts the rows of an entity into a base. An entity is known by its newest event even where no read can reach a state
// of it any more: the age of that event decides about the view's ttl, and its base covers deltas.
func (j *job) encode(levels []*stateRows, of []entityRows) []byte {
	newest := windows.MinTime
	for i, rows := range of {
		if rows.hi > rows.lo {
			newest = max(newest, windows.Time(levels[i].a[rows.lo]))
		}
	}
	var blocks []*windows.Block
	for i, rows := range of {
		var b *windows.Block
		for row := rows.lo; row < rows.hi; row++ {
			at := levels[i].b[row]
			if !j.view.Reachable(i, at, newest) {
				continue
			}
			if id := j.view.BlockOf(i, at); b == nil || b.ID != id {
				b = &windows.Block{ID: id}
				blocks = append(blocks, b)
			}
			j.view.AppendRow(b, at, windows.Time(levels[i].c[row]), levels[i].partial(row))
		}
	}
	return j.view.AppendBase(nil, j.run.ID, newest, blocks)
}

// wrote counts a chunk.
func (j *job) wrote(ctx context.Context, chunk []base, o outcome) {
	n := uint64(len(chunk))
	if !j.again {
		j.at = chunk[len(chunk)-1].at
		j.progress.Entities += n
		j.progress.Newer += o.newer
		j.unrecorded += n
	}
	j.progress.Deltas += o.deltas
	view := viewAttr(j.view.Definition.Name)
	j.runner.metrics.entities.Add(ctx, int64(n-o.newer), metric.WithAttributes(view, resultAttr("written")))
	j.runner.metrics.entities.Add(ctx, int64(o.newer), metric.WithAttributes(view, resultAttr("newer")))
	j.runner.metrics.deltas.Add(ctx, int64(o.deltas), metric.WithAttributes(view))
	j.report(time.Second)
}

// report calls Progress, unless it was called less than that long ago.
func (j *job) report(after time.Duration) {
	if j.runner.cfg.Progress == nil || time.Since(j.reported) < after {
		return
	}
	j.reported = time.Now()
	p := j.progress
	p.Elapsed = time.Since(j.began)
	if p.State == stateRunning && p.Events > 0 && p.Total > p.Events {
		p.Left = time.Duration(float64(p.Elapsed) * float64(p.Total-p.Events) / float64(p.Events))
	}
	j.runner.cfg.Progress(p)
}

// mark records how far the run is.
func (j *job) mark(ctx context.Context) error {
	if j.unrecorded == 0 {
		return nil
	}
	j.recorded, j.unrecorded = time.Now(), 0
	return j.runner.record(ctx, j.view, j.run, stateRunning, string(document(mark{j.at, j.progress.Entities})))
}
