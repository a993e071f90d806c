package main

import (
	"fmt"

	"golang.org/x/sync/errgroup"

	"millrace/speed"
	"millrace/speed/archive"
)

// speedCmd runs the speed layer.
type speedCmd struct {
	storeFlags
	observeFlags
	Only string `help:"Run one part alone: fold (events into Redis) or archive (records into ClickHouse)." enum:",fold,archive" default:""`
}

func (speedCmd) Help() string {
	return `Consumes the sources' topics: folds events into the features' states in Redis, and keeps every record in ClickHouse.
Start as many as you like; the partitions are shared out. One that dies is taken over within seconds, and nothing is lost or
counted twice.

  millrace speed --definitions features/ --kafka broker:9092 --redis redis:6379 --clickhouse http://clickhouse:8123`
}

// Run consumes until it is told to stop.
func (c *speedCmd) Run(a *app) error {
	rdb, err := c.redisClient(a, -1)
	if err != nil {
		return err
	}
	defer func() { _ = rdb.Close() }()
	bound, err := c.bound(a.ctx, rdb)
	if err != nil {
		return err
	}
	o, err := c.observe(a, "speed")
	if err != nil {
		return err
	}
	defer o.stop()
	group, ctx := errgroup.WithContext(a.ctx)
	group.Go(func() error { return o.serve(ctx) })
	if c.Only != "archive" {
		folder, err := speed.NewFolder(speed.Config{
			Brokers: c.Kafka, Redis: rdb, Bound: bound, Logger: a.log, Meter: o.Meter, Tracer: o.Tracer,
		})
		if err != nil {
			return err
		}
		group.Go(func() error { return folder.Run(ctx) })
	}
	if c.Only != "fold" {
		conn, err := c.clickhouse(a, c.database(bound.Compiled))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		archiver, err := archive.New(archive.Config{
			Brokers: c.Kafka, Bound: bound, ClickHouse: conn, Logger: a.log, Meter: o.Meter, Tracer: o.Tracer,
		})
		if err != nil {
			return err
		}
		group.Go(func() error { return archiver.Run(ctx) })
	}
	if err := group.Wait(); err != nil {
		return tryAgain(fmt.Errorf("speed: %w", err))
	}
	return nil
}
