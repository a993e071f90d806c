package speed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"millrace/features/keyspace"
	"millrace/speed/kafka"
)

// Folder folds the records of a project's topics into Redis, as one member of a consumer group.
type Folder struct {
	cfg     Config
	log     *slog.Logger
	plan    map[string]*topicPlan
	store   *store
	metrics metrics
	traces  *traces
	client  *kgo.Client
	admin   *kadm.Client

	mu    sync.Mutex // the group's callbacks come on the client's goroutines
	parts map[place]*partition

	flushed, compared time.Time
}

// place names a partition of a topic.
type place struct {
	topic string
	id    int32
}

// NewFolder checks the configuration.
func NewFolder(cfg Config) (*Folder, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Meter)
	if err != nil {
		return nil, err
	}
	return &Folder{
		cfg: cfg, log: cfg.Logger, metrics: m, traces: newTraces(cfg.Tracer), plan: newPlan(cfg.Bound),
		store: &store{rdb: cfg.Redis, space: keyspace.Space{Project: cfg.Bound.Project}},
		parts: map[place]*partition{},
	}, nil
}

// Run consumes and folds until ctx ends, then flushes what is in memory and leaves the group. It returns nil on a requested
// stop.
func (f *Folder) Run(ctx context.Context) error {
	if err := checkRedis(ctx, f.cfg.Redis, f.log); err != nil {
		return err
	}
	topics := make([]string, 0, len(f.plan))
	for t := range f.plan {
		topics = append(topics, t)
	}
	opts := kafka.GroupOptions(kafka.Group{Brokers: f.cfg.Brokers, Name: "millrace." + f.cfg.Bound.Project + ".speed", Topics: topics})
	opts = append(opts,
		kgo.AdjustFetchOffsetsFn(f.assigned),
		kgo.OnPartitionsRevoked(f.revoked),
		kgo.OnPartitionsLost(f.lost))
	var err error
	if f.admin, err = kafka.OpenAdmin(ctx, f.cfg.Brokers, f.cfg.Bound, f.cfg.ClientOptions...); err != nil {
		return err
	}
	defer f.admin.Close()
	f.mu.Lock() // callbacks may come before the client is ours to keep
	f.client, err = kgo.NewClient(append(opts, f.cfg.ClientOptions...)...)
	f.mu.Unlock()
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer f.client.CloseAllowingRebalance()
	for ctx.Err() == nil {
		if err := f.step(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	// The last flush has a time of its own: the one that ended is the caller's.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.cfg.StopWithin)
	defer cancel()
	f.mu.Lock()
	defer f.mu.Unlock()
	err = f.flush(last, f.all(), true)
	clear(f.parts) // flushed, or as good as crashed: leaving the group must not try again
	return err
}

// step polls once, folds what came, and flushes what is due.
func (f *Folder) step(ctx context.Context) error {
	poll, cancel := context.WithTimeout(ctx, f.wait())
	fetches := f.client.PollRecords(poll, f.cfg.MaxPoll)
	cancel()
	defer f.client.AllowRebalance()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.parts {
		p.stale = false
	}
	var failed error
	fetches.EachError(func(topic string, id int32, err error) {
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			failed = errors.Join(failed, f.fetchError(topic, id, err))
		}
	})
	if failed != nil {
		return failed
	}
	fetches.EachPartition(func(fp kgo.FetchTopicPartition) {
		p := f.parts[place{fp.Topic, fp.Partition}]
		if p == nil || p.stale || failed != nil {
			return // given up, taken away, or to be read again from earlier on
		}
		p.end = fp.HighWatermark
		failed = f.fold(ctx, p, fp.Records)
	})
	if failed != nil {
		return failed
	}
	return f.flushDue(ctx, fetches.NumRecords() >= f.cfg.MaxPoll/2)
}

// wait is how long a poll may last: until the next flush or compare is due.
func (f *Folder) wait() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	due := f.compared.Add(f.cfg.CompareEvery)
	if f.dirty() {
		due = f.flushed.Add(f.cfg.FlushAfter)
	}
	return max(time.Until(due), time.Millisecond)
}

func (f *Folder) dirty() bool {
	for _, p := range f.parts {
		for i := range p.units {
			if p.units[i].fields > 0 {
				return true
			}
		}
	}
	return false
}

// fetchError decides what an error of a partition's fetch means.
func (f *Folder) fetchError(topic string, id int32, err error) error {
	var loss *kgo.ErrDataLoss
	switch {
	case errors.As(err, &loss):
		return fmt.Errorf("%s/%d: the log was cut from %d to %d, the state holds records that no longer exist: %w", topic, id, loss.ConsumedTo, loss.ResetTo, err)
	case topic == "":
		return fmt.Errorf("poll: %w", err)
	}
	f.log.Warn("fetch", "topic", topic, "partition", id, "error", err.Error())
	return nil
}

// fold folds records of one partition, epoch by epoch.
func (f *Folder) fold(ctx context.Context, p *partition, records []*kgo.Record) error {
	for len(records) > 0 {
		epoch := p.plan.log.Epoch(records[0].Offset)
		n := 1
		for n < len(records) && p.plan.log.Epoch(records[n].Offset) == epoch {
			n++
		}
		restarted, err := f.foldEpoch(ctx, p, epoch, records[:n])
		if err != nil || restarted {
			return err // after a restart the rest of the batch comes again
		}
		records = records[n:]
	}
	return nil
}

// foldEpoch folds records of one epoch. restarted says that p must be read again from its markers.
func (f *Folder) foldEpoch(ctx context.Context, p *partition, epoch int64, records []*kgo.Record) (restarted bool, err error) {
	if epoch != p.epoch && records[len(records)-1].Offset >= p.next {
		p.begin(epoch)
	}
	if err := f.loadMissing(ctx, p, records); err != nil {
		return false, err
	}
	folded := int64(0)
	for _, r := range records {
		f.traces.saw(r)
		full, rejected := p.fold(r)
		for _, rejection := range rejected {
			f.metrics.events.Add(ctx, 1, metric.WithAttributes(topicAttr(p.topic), resultAttr(rejection.Reason)))
		}
		if len(rejected) == 0 {
			folded++
		}
		if full != nil {
			if restarted, err = f.flushUnits(ctx, p, []*unit{full}); err != nil || restarted {
				return restarted, err
			}
		}
	}
	f.metrics.events.Add(ctx, folded, metric.WithAttributes(topicAttr(p.topic), resultAttr("folded")))
	for _, r := range records {
		r.Recycle()
	}
	return false, nil
}

// loadMissing reads the fields of entities that an earlier owner of the epoch may have written.
func (f *Folder) loadMissing(ctx context.Context, p *partition, records []*kgo.Record) error {
	missing := p.missing(records)
	const batch = 500
	for len(missing) > 0 {
		n := min(batch, len(missing))
		hashes := make([]string, n)
		for i, a := range missing[:n] {
			hashes[i] = a.hash
		}
		values, err := f.store.read(ctx, hashes)
		if err != nil {
			return err
		}
		for i, a := range missing[:n] {
			if err := p.load(a, values[i]); err != nil {
				return err
			}
		}
		missing = missing[n:]
	}
	return nil
}

// flushDue flushes what has waited long enough, and compares the markers of quiet units.
func (f *Folder) flushDue(ctx context.Context, busy bool) error {
	now := time.Now()
	if now.Sub(f.compared) >= f.cfg.CompareEvery {
		f.compared = now
		if err := f.flush(ctx, f.all(), true); err != nil {
			return err
		}
		f.report(ctx)
		return nil
	}
	wait := f.cfg.FlushAfter
	if busy {
		wait = f.cfg.FlushEvery
	}
	if now.Sub(f.flushed) < wait || !f.dirty() {
		return nil
	}
	return f.flush(ctx, f.all(), false)
}

func (f *Folder) all() []*partition {
	list := make([]*partition, 0, len(f.parts))
	for _, p := range f.parts {
		list = append(list, p)
	}
	return list
}

// flush writes the dirty units of partitions, or with quiet all of them.
func (f *Folder) flush(ctx context.Context, parts []*partition, quiet bool) error {
	start := time.Now()
	ctx, done := f.traces.flush(ctx)
	defer done()
	for _, p := range parts {
		var units []*unit
		for i := range p.units {
			if u := &p.units[i]; quiet || u.fields > 0 {
				units = append(units, u)
			}
		}
		if len(units) == 0 {
			continue
		}
		restarted, err := f.flushUnits(ctx, p, units)
		if err != nil {
			return err
		}
		if !restarted && f.entities() > f.cfg.MaxEntities && quiet {
			p.evict()
		}
	}
	f.flushed = time.Now()
	f.metrics.flush.Record(ctx, f.flushed.Sub(start).Seconds())
	return nil
}

func (f *Folder) entities() (n int) {
	for _, p := range f.parts {
		n += p.entities
	}
	return n
}

// flushUnits flushes units of one partition. Where one is found in other hands, the partition starts again from its markers.
func (f *Folder) flushUnits(ctx context.Context, p *partition, units []*unit) (restarted bool, err error) {
	fields := 0
	for _, u := range units {
		fields += u.fields
	}
	outcomes, err := f.store.flush(ctx, p, units)
	if err != nil {
		return false, err
	}
	f.metrics.fields.Add(ctx, int64(fields))
	for _, o := range outcomes {
		if o.conflict() {
			f.metrics.conflicts.Add(ctx, 1, metric.WithAttributes(topicAttr(p.topic)))
			return true, f.recover(ctx, p, o)
		}
	}
	return false, nil
}

// recover starts a partition again after a refused flush. Where the marker found has this worker's own token, Redis went back
// in time; where there is none, it lost the unit; in both cases the markers say from where the log must be folded again. If
// the token is another's, the group decides who may go on.
func (f *Folder) recover(ctx context.Context, p *partition, o outcome) error {
	found, err := keyspace.ParseMarker(o.found)
	if o.found != "" && err != nil {
		return err
	}
	own := o.found == "" || found.Token == o.unit.marker.Token
	f.log.Warn("marker conflict", "topic", p.topic, "partition", p.id, "bucket", int(o.unit.bucket), "own", own, "found", o.found, "expected", o.unit.marker.String())
	if !own {
		commit := kadm.Offsets{}
		commit.AddOffset(p.topic, p.id, p.next, -1)
		if err := f.commit(ctx, commit); err != nil {
			f.log.Warn("partition given up: the group does not accept this member", "topic", p.topic, "partition", p.id, "error", err.Error())
			delete(f.parts, place{p.topic, p.id})
			return nil
		}
	}
	from, err := f.takeOver(ctx, p)
	if errors.Is(err, errGivenUp) {
		f.log.Error("partition given up", "topic", p.topic, "partition", p.id, "error", err.Error())
		delete(f.parts, place{p.topic, p.id})
		return nil
	}
	if err != nil {
		return err
	}
	f.metrics.rewinds.Add(ctx, 1, metric.WithAttributes(topicAttr(p.topic)))
	p.stale = true
	f.client.SetOffsets(map[string]map[int32]kgo.EpochOffset{p.topic: {p.id: {Epoch: -1, Offset: from}}})
	return nil
}

// commit commits group offsets as this member; only a member that the group knows succeeds.
func (f *Folder) commit(ctx context.Context, offsets kadm.Offsets) error {
	uncommitted := map[string]map[int32]kgo.EpochOffset{}
	for topic, partitions := range offsets {
		uncommitted[topic] = map[int32]kgo.EpochOffset{}
		for id, o := range partitions {
			uncommitted[topic][id] = kgo.EpochOffset{Epoch: -1, Offset: o.At}
		}
	}
	return kafka.CommitSync(ctx, f.client, uncommitted)
}

// takeOver claims all units of p from what the broker and Redis hold now.
func (f *Folder) takeOver(ctx context.Context, p *partition) (int64, error) {
	log, partitions, err := kafka.Bounds(ctx, f.admin, p.topic, p.id)
	if err != nil {
		return 0, err
	}
	if err := f.store.announce(ctx, f.cfg.Bound.Registry, p.plan.log.ID, partitions); err != nil {
		return 0, err
	}
	return f.store.takeOver(ctx, p, bounds{log.Start, log.End})
}

// assigned takes over the partitions that the group gives this member, and tells the client where to read from. It is called
// before anything of them is fetched, with a context that ends when the group takes them away again.
func (f *Folder) assigned(ctx context.Context, given map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	for topic, ids := range given {
		for id := range ids {
			p := newPartition(topic, id, f.plan[topic], f.cfg.Bound)
			from, err := f.takeOverPatiently(ctx, p)
			switch {
			case errors.Is(err, errGivenUp):
				f.log.Error("partition given up", "topic", topic, "partition", id, "error", err.Error())
				delete(ids, id)
				continue
			case err != nil:
				return nil, err
			}
			f.log.Info("partition taken over", "topic", topic, "partition", id, "from", from)
			ids[id] = kgo.NewOffset().At(from).WithEpoch(-1)
			f.mu.Lock()
			f.parts[place{topic, id}] = p
			f.mu.Unlock()
		}
	}
	return given, nil
}

// takeOverPatiently tries until a store that is away comes back.
func (f *Folder) takeOverPatiently(ctx context.Context, p *partition) (int64, error) {
	for backoff := 50 * time.Millisecond; ; backoff = min(2*backoff, time.Second) {
		from, err := f.takeOver(ctx, p)
		if err == nil || errors.Is(err, errGivenUp) || ctx.Err() != nil {
			return from, err
		}
		f.log.Warn("takeover", "topic", p.topic, "partition", p.id, "error", err.Error())
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(backoff):
		}
	}
}

// revoked flushes partitions that another member will own. That the group still counts this member in is not certain here;
// the markers decide.
func (f *Folder) revoked(ctx context.Context, _ *kgo.Client, gone map[string][]int32) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.StopWithin)
	defer cancel()
	f.mu.Lock()
	defer f.mu.Unlock()
	var parts []*partition
	for topic, ids := range gone {
		for _, id := range ids {
			if p := f.parts[place{topic, id}]; p != nil {
				parts = append(parts, p)
				delete(f.parts, place{topic, id})
			}
		}
	}
	for _, p := range parts {
		units := make([]*unit, len(p.units))
		for i := range p.units {
			units[i] = &p.units[i]
		}
		// A refused unit is the next owner's already, which has folded it from its marker.
		if _, err := f.store.flush(ctx, p, units); err != nil {
			f.log.Warn("last flush", "topic", p.topic, "partition", p.id, "error", err.Error())
		}
	}
}

// lost forgets partitions that another member owns by now.
func (f *Folder) lost(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for topic, ids := range gone {
		for _, id := range ids {
			delete(f.parts, place{topic, id})
		}
	}
}

// report publishes the lag of each partition and commits group offsets, which only lag tools read.
func (f *Folder) report(ctx context.Context) {
	offsets := map[string]map[int32]kgo.EpochOffset{}
	for at, p := range f.parts {
		if p.end > 0 {
			f.metrics.lag.Record(ctx, max(p.end-p.next, 0), metric.WithAttributes(topicAttr(at.topic), attribute.String("partition", strconv.Itoa(int(at.id)))))
		}
		if offsets[at.topic] == nil {
			offsets[at.topic] = map[int32]kgo.EpochOffset{}
		}
		offsets[at.topic][at.id] = kgo.EpochOffset{Epoch: -1, Offset: p.next}
	}
	if len(offsets) > 0 {
		f.client.CommitOffsets(ctx, offsets, nil)
	}
}
