package main

import (
	"encoding/json"
	"fmt"

	"millrace/batch"
)

// batchCmd recomputes bases from the archive.
type batchCmd struct {
	storeFlags
	Views []string `arg:"" optional:"" help:"Views to recompute; all with a batch side if none is named."`
	JSON  bool     `help:"Print one JSON object per step of progress." name:"json"`
}

func (batchCmd) Help() string {
	return `Folds the archived history in ClickHouse and writes the result as the base of each entity, up to log positions that the archive
has completely. It never changes a served value: what the base takes over, the deltas give up. A run that was cut off is
resumed by the next.

  millrace batch --definitions features/
  millrace batch visits`
}

// Run runs the batch layer once.
func (c *batchCmd) Run(a *app) error {
	rdb, err := c.redisClient(a, 3)
	if err != nil {
		return err
	}
	defer func() { _ = rdb.Close() }()
	bound, err := c.bound(a.ctx, rdb)
	if err != nil {
		return err
	}
	conn, err := c.clickhouse(a, c.database(bound.Compiled))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	o, err := observeFlags{}.observe(a, "batch")
	if err != nil {
		return err
	}
	defer o.stop()
	runner, err := batch.New(batch.Config{
		ClickHouse: conn, Redis: rdb, Bound: bound, Logger: a.log, Meter: o.Meter, Tracer: o.Tracer, Progress: c.progress(a),
	})
	if err != nil {
		return err
	}
	if err := runner.Run(a.ctx, c.Views); err != nil {
		return tryAgain(err)
	}
	return nil
}

// progress prints how a run comes along.
func (c *batchCmd) progress(a *app) func(batch.Progress) {
	return func(p batch.Progress) {
		if c.JSON {
			_ = json.NewEncoder(a.stdout).Encode(p)
			return
		}
		left := ""
		if p.Left > 0 {
			left = fmt.Sprintf(", %.0f s left", p.Left.Seconds())
		}
		_, _ = fmt.Fprintf(a.stdout, "%-12s run %d %s: %d entities, %.0f/s, %d deltas replaced%s\n", p.View, p.Run, p.State, p.Entities, p.Rate(), p.Deltas, left)
	}
}
