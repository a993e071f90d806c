package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/features"
	"millrace/features/keyspace"
	"millrace/features/tables"
)

// definitionFlags say where the definitions are.
type definitionFlags struct {
	Definitions string `help:"Folder (or file) with the definitions." default:"." placeholder:"PATH"`
}

// compiled reads, checks and compiles the definitions.
func (f definitionFlags) compiled() (*features.Compiled, error) {
	return compileDefinitions(f.Definitions)
}

// storeFlags say where the stores are. Passwords come from the environment (MILLRACE_REDIS_PASSWORD,
// MILLRACE_CLICKHOUSE_PASSWORD) or from the files that the same names with _FILE point to.
type storeFlags struct {
	definitionFlags
	Kafka      []string `help:"Kafka brokers, host:port." default:"127.0.0.1:9092" placeholder:"ADDR"`
	Redis      []string `help:"Redis, host:port; several addresses are a Redis Cluster." default:"127.0.0.1:6379" placeholder:"ADDR"`
	RedisTLS   bool     `help:"Talk TLS to Redis." name:"redis-tls"`
	Clickhouse string   `help:"ClickHouse, http://host:port or clickhouse://host:port." default:"http://127.0.0.1:8123" placeholder:"URL"`
	Database   string   `help:"ClickHouse database; the project's name if empty." placeholder:"NAME"`
}

// kafkaClient returns a client for administration and production.
func (f storeFlags) kafkaClient(opts ...kgo.Opt) (*kgo.Client, error) {
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(f.Kafka...)}, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	return client, nil
}

// redisClient returns a client; retries is how often it repeats a command whose outcome is unknown, -1 for never.
func (f storeFlags) redisClient(a *app, retries int) (redis.UniversalClient, error) {
	password, err := a.secret("MILLRACE_REDIS_PASSWORD")
	if err != nil {
		return nil, err
	}
	opts := &redis.UniversalOptions{
		Addrs: f.Redis, Password: password, MaxRetries: retries, DialTimeout: 2 * time.Second,
		ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
	}
	if f.RedisTLS {
		opts.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return redis.NewUniversalClient(opts), nil
}

// clickhouse opens a database, which need not exist yet when it is "".
func (f storeFlags) clickhouse(a *app, database string) (driver.Conn, error) {
	u, err := url.Parse(f.Clickhouse)
	if err != nil || u.Host == "" {
		return nil, usagef("--clickhouse %q: want http://host:port or clickhouse://host:port", f.Clickhouse)
	}
	password, err := a.secret("MILLRACE_CLICKHOUSE_PASSWORD")
	if err != nil {
		return nil, err
	}
	user := u.User.Username()
	if user == "" {
		user = "default"
	}
	opts := &clickhouse.Options{
		Addr: []string{u.Host},
		Auth: clickhouse.Auth{Database: database, Username: user, Password: password},
		// Batches are put together here: a server that gathers them again would acknowledge before it stores.
		Settings:    clickhouse.Settings{"async_insert": 0},
		DialTimeout: 5 * time.Second, ReadTimeout: 10 * time.Minute,
		MaxOpenConns: 8, MaxIdleConns: 8,
	}
	switch u.Scheme {
	case "http", "https":
		opts.Protocol = clickhouse.HTTP
	case "clickhouse", "clickhouses":
		opts.Protocol = clickhouse.Native
	default:
		return nil, usagef("--clickhouse %q: want http://host:port or clickhouse://host:port", f.Clickhouse)
	}
	if strings.HasSuffix(u.Scheme, "s") {
		opts.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	conn, err := clickhouse.Open(opts)
	if err != nil {
		return nil, fmt.Errorf("clickhouse %s: %w", u.Host, err)
	}
	return conn, nil
}

func (f storeFlags) database(c *features.Compiled) string {
	if f.Database != "" {
		return f.Database
	}
	return c.Project
}

// bound binds the definitions to the registry that Redis holds.
func (f storeFlags) bound(ctx context.Context, rdb redis.UniversalClient) (*features.Bound, error) {
	c, err := f.compiled()
	if err != nil {
		return nil, err
	}
	document, err := rdb.Get(ctx, keyspace.Space{Project: c.Project}.Registry()).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, tryAgain(fmt.Errorf("project %s has no registry in Redis: run `millrace apply`", c.Project))
	}
	if err != nil {
		return nil, tryAgain(fmt.Errorf("read the registry: %w", err))
	}
	registry, err := features.ParseRegistry(document)
	if err != nil {
		return nil, err
	}
	return registry.Bind(c)
}

// topicsOf returns the topics of a project's sources.
func topicsOf(c *features.Compiled) []string {
	var topics []string
	for _, s := range c.Sources {
		topics = append(topics, s.Topics...)
	}
	return topics
}

// createDatabase makes the database and the project's tables where they do not exist, and returns a connection to it.
func (f storeFlags) createDatabase(a *app, c *features.Compiled) (driver.Conn, error) {
	server, err := f.clickhouse(a, "")
	if err != nil {
		return nil, err
	}
	defer func() { _ = server.Close() }()
	name := f.database(c)
	if err := server.Exec(a.ctx, "CREATE DATABASE IF NOT EXISTS "+tables.Quote(name)+" ENGINE = Atomic"); err != nil {
		return nil, tryAgain(fmt.Errorf("create database %s: %w", name, err))
	}
	return f.clickhouse(a, name)
}
