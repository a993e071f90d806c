package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"

	"millrace/features"
	"millrace/features/keyspace"
	"millrace/features/tables"
	"millrace/speed/kafka"
)

// applyCmd puts definitions into force.
type applyCmd struct {
	storeFlags
	Partitions int32 `help:"Create missing topics with this many partitions; 0 to refuse where one is missing." default:"0"`
	JSON       bool  `help:"Print the registry as JSON."`
}

func (applyCmd) Help() string {
	return `Numbers what is new in the definitions, creates the archive's tables, and writes the registry to ClickHouse and Redis.
Nothing is ever renumbered or dropped: a changed view becomes a new version beside the old one.

  millrace apply --definitions features/
  millrace apply --definitions features/ --partitions 8`
}

// Run applies.
func (c *applyCmd) Run(a *app) error {
	compiled, err := c.compiled()
	if err != nil {
		return err
	}
	registry, changed, err := c.apply(a, compiled)
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(a.stdout).Encode(registry)
	}
	what := "nothing changed"
	if changed {
		what = "applied"
	}
	_, err = fmt.Fprintf(a.stdout, "project %s: %s, generation %d, %d views\n", compiled.Project, what, registry.Generation, len(compiled.Views))
	return err
}

func (c *applyCmd) apply(a *app, compiled *features.Compiled) (_ *features.Registry, changed bool, err error) {
	client, err := c.kafkaClient()
	if err != nil {
		return nil, false, err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	ids, err := c.topicIDs(a.ctx, admin, compiled)
	if err != nil {
		return nil, false, err
	}
	conn, err := c.createDatabase(a, compiled)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = conn.Close() }()
	for _, t := range tables.All(compiled) {
		if err := conn.Exec(a.ctx, t.Create()); err != nil {
			return nil, false, tryAgain(fmt.Errorf("create table %s: %w", t.Name, err))
		}
	}
	rdb, err := c.redisClient(a, 3)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = rdb.Close() }()
	old, err := latestRegistry(a.ctx, conn, rdb, compiled.Project)
	if err != nil {
		return nil, false, err
	}
	next, changed, err := features.Apply(old, compiled, ids)
	if err != nil {
		return nil, false, err
	}
	if changed {
		table := tables.Registry()
		if err := conn.Exec(a.ctx, table.Insert()+" VALUES ({generation:UInt64}, {document:String}, now64(3))",
			clickhouse.Named("generation", next.Generation), clickhouse.Named("document", string(next.Encode()))); err != nil {
			return nil, false, tryAgain(fmt.Errorf("write the registry: %w", err))
		}
	}
	// Redis holds a mirror, which it may have lost: it is written also when nothing changed.
	if err := rdb.Set(a.ctx, keyspace.Space{Project: compiled.Project}.Registry(), next.Encode(), 0).Err(); err != nil {
		return nil, false, tryAgain(fmt.Errorf("write the registry to Redis: %w", err))
	}
	return next, changed, nil
}

// topicIDs finds the ids of the project's topics, creating them if asked to.
func (c *applyCmd) topicIDs(ctx context.Context, admin *kadm.Client, compiled *features.Compiled) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	topics := topicsOf(compiled)
	ids, err := kafka.TopicIDs(ctx, admin, topics)
	if err != nil {
		return nil, tryAgain(err)
	}
	var missing []string
	for _, t := range topics {
		if _, ok := ids[t]; !ok {
			missing = append(missing, t)
		}
	}
	if len(missing) == 0 {
		return ids, nil
	}
	if c.Partitions == 0 {
		return nil, fmt.Errorf("topics %q do not exist: create them, or let apply do it with --partitions", missing)
	}
	created, err := admin.CreateTopics(ctx, c.Partitions, -1, nil, missing...)
	if err != nil {
		return nil, tryAgain(fmt.Errorf("create topics: %w", err))
	}
	for _, t := range created.Sorted() {
		if t.Err != nil {
			return nil, fmt.Errorf("create topic %s: %w", t.Topic, t.Err)
		}
		ids[t.Topic] = t.ID.String()
	}
	// Workers that start now must find them: a broker tells of new topics a moment after it made them.
	for {
		seen, err := kafka.TopicIDs(ctx, admin, topics)
		if err == nil && len(seen) == len(ids) {
			return ids, nil
		}
		select {
		case <-ctx.Done():
			return nil, tryAgain(fmt.Errorf("topics %q were created, but the broker does not list them yet: %w", missing, errors.Join(err, ctx.Err())))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// latestRegistry returns the newest registry of a project in either store, or nil.
func latestRegistry(ctx context.Context, conn driver.Conn, rdb redis.UniversalClient, project string) (*features.Registry, error) {
	var latest *features.Registry
	keep := func(document []byte) error {
		r, err := features.ParseRegistry(document)
		if err == nil && (latest == nil || r.Generation > latest.Generation) {
			latest = r
		}
		return err
	}
	var document string
	rows, err := conn.Query(ctx, "SELECT document FROM "+tables.Quote(tables.Registry().Name)+" ORDER BY generation DESC, at DESC LIMIT 1")
	if err != nil {
		return nil, tryAgain(fmt.Errorf("read the registry: %w", err))
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := rows.Scan(&document); err != nil {
			return nil, fmt.Errorf("read the registry: %w", err)
		}
		if err := keep([]byte(document)); err != nil {
			return nil, err
		}
	}
	if err := rows.Err(); err != nil {
		return nil, tryAgain(fmt.Errorf("read the registry: %w", err))
	}
	mirror, err := rdb.Get(ctx, keyspace.Space{Project: project}.Registry()).Bytes()
	switch {
	case errors.Is(err, redis.Nil):
	case err != nil:
		return nil, tryAgain(fmt.Errorf("read the registry from Redis: %w", err))
	default:
		if err := keep(mirror); err != nil {
			return nil, err
		}
	}
	return latest, nil
}
