package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kfake"
)

// devCmd starts everything on one machine.
type devCmd struct {
	definitionFlags
	DataDir    string `help:"Folder that keeps the log, the states and the archive." default:".millrace" placeholder:"DIR"`
	Partitions int32  `help:"Partitions of the topics that are created." default:"4"`
	Ports      ports  `embed:"" prefix:"port-"`
	CacheDir   string `help:"Folder that keeps the ClickHouse engine once it was fetched." placeholder:"DIR"`
}

// ports are where the parts listen, on loopback; 0 chooses a free one.
type ports struct {
	Kafka      int `help:"Port of the Kafka broker." default:"9092"`
	Redis      int `help:"Port of Redis." default:"6379"`
	Clickhouse int `help:"Port of the ClickHouse engine." default:"8123"`
	HTTP       int `help:"Port of the HTTP API." name:"http" default:"6566"`
	Admin      int `help:"Port of the HTTP API's metrics." default:"6567"`
	Speed      int `help:"Port of the speed layer's metrics." default:"6568"`
}

func (devCmd) Help() string {
	return `Starts an embedded Kafka broker, Redis and ClickHouse with the speed layer and the HTTP API on top, applies the definitions,
and keeps all data in one folder: stop it and start it again, and it goes on where it was.

  millrace dev --definitions examples/weblog

The other commands find the parts at their default ports. With ports of your own, source the folder's endpoints.env first.`
}

// endpoints are the addresses that the parts ended up at.
type endpoints struct {
	Kafka      string `json:"kafka"`
	Redis      string `json:"redis"`
	Clickhouse string `json:"clickhouse"`
	HTTP       string `json:"http"`
	Admin      string `json:"admin"`
	Speed      string `json:"speed"`
	RedisKind  string `json:"redis_kind"`
}

// stopGrace is how long a part may take to stop before it is killed; every part may be killed at any time.
const stopGrace = 15 * time.Second

// Run starts the parts and stops them, last first, when it is told to.
func (c *devCmd) Run(a *app) error {
	if _, err := c.compiled(); err != nil { // before anything starts
		return err
	}
	dir, err := filepath.Abs(c.DataDir)
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	unlock, err := lockFolder(dir)
	if err != nil {
		return err
	}
	defer unlock()
	at, err := c.Ports.choose()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("own path: %w", err)
	}
	// Parts outlive the caller's context until their turn to stop comes.
	d := &devTree{app: a, self: self, dir: dir, at: at, logs: a.stderr}
	defer d.stopAll()
	start := time.Now()
	if err := d.startBroker(c.Partitions); err != nil {
		return err
	}
	if err := d.startRedis(); err != nil {
		return err
	}
	engine := []string{"engine", "--data-dir", filepath.Join(dir, "clickhouse"), "--listen", strings.TrimPrefix(at.Clickhouse, "http://")}
	if c.CacheDir != "" {
		engine = append(engine, "--cache-dir", c.CacheDir)
	}
	d.spawn("engine", self, engine...)
	if err := d.waitFor("the ClickHouse engine", 15*time.Minute, d.engineReady); err != nil { // the first start may download it
		return err
	}
	stores := []string{"--definitions", c.Definitions, "--kafka", at.Kafka, "--redis", at.Redis, "--clickhouse", at.Clickhouse}
	apply := applyCmd{Partitions: c.Partitions, storeFlags: storeFlags{
		definitionFlags: c.definitionFlags, Kafka: []string{at.Kafka}, Redis: []string{at.Redis}, Clickhouse: at.Clickhouse,
	}}
	if err := d.applyPatiently(&apply); err != nil {
		return err
	}
	d.spawn("speed", self, append([]string{"speed", "--metrics-listen", at.Speed}, stores...)...)
	d.spawn("serve", self, append([]string{"serve", "--listen", at.HTTP, "--admin-listen", at.Admin}, stores...)...)
	if err := d.waitFor("the HTTP API", time.Minute, d.ready); err != nil {
		return err
	}
	if err := d.at.write(dir); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(a.stdout, "millrace is up after %.1f s\n  HTTP API    http://%s\n  Kafka       %s\n  Redis       %s (%s)\n  ClickHouse  %s\n  data        %s\nCtrl-C stops it.\n",
		time.Since(start).Seconds(), d.at.HTTP, d.at.Kafka, d.at.Redis, d.at.RedisKind, d.at.Clickhouse, dir)
	<-a.ctx.Done()
	return nil
}

// choose fills in free ports and refuses ports that are taken.
func (p ports) choose() (at endpoints, err error) {
	for _, want := range []struct {
		name string
		port int
		to   *string
	}{
		{"kafka", p.Kafka, &at.Kafka},
		{"redis", p.Redis, &at.Redis},
		{"clickhouse", p.Clickhouse, &at.Clickhouse},
		{"http", p.HTTP, &at.HTTP},
		{"admin", p.Admin, &at.Admin},
		{"speed", p.Speed, &at.Speed},
	} {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(want.port))) //nolint:noctx // a local bind does not block
		if err != nil {
			return at, tryAgain(fmt.Errorf("port %d is taken (is another millrace dev running?): choose one with --port-%s: %w", want.port, want.name, err))
		}
		defer func() { _ = l.Close() }()
		*want.to = l.Addr().String()
	}
	at.Clickhouse = "http://" + at.Clickhouse
	return at, nil
}

// write leaves the addresses where scripts and the other commands find them.
func (e endpoints) write(dir string) error {
	document, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return fmt.Errorf("endpoints: %w", err)
	}
	env := fmt.Sprintf("export MILLRACE_KAFKA=%s\nexport MILLRACE_REDIS=%s\nexport MILLRACE_CLICKHOUSE=%s\nexport MILLRACE_URL=http://%s\n", e.Kafka, e.Redis, e.Clickhouse, e.HTTP)
	for name, content := range map[string][]byte{"endpoints.json": append(document, '\n'), "endpoints.env": []byte(env)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return fmt.Errorf("endpoints: %w", err)
		}
	}
	return nil
}

// lockFolder refuses a folder that another process uses: two brokers on one log would ruin it.
func lockFolder(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock of the data folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, tryAgain(fmt.Errorf("data folder %s is in use by another millrace", dir))
	}
	return func() { _ = f.Close() }, nil
}

// devTree is the running parts, in the order in which they were started.
type devTree struct {
	app   *app
	self  string
	dir   string
	at    endpoints
	logs  io.Writer
	parts []stopper
}

type stopper struct {
	name string
	stop func()
}

// stopAll stops the parts, last first, so that none loses a store under its feet.
func (d *devTree) stopAll() {
	for _, p := range slices.Backward(d.parts) {
		d.app.log.Info("stopping", "part", p.name)
		p.stop()
	}
}

func (d *devTree) startBroker(partitions int32) error {
	_, port, err := net.SplitHostPort(d.at.Kafka)
	if err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	broker, err := kfake.NewCluster(
		kfake.NumBrokers(1), kfake.Ports(n), kfake.DefaultNumPartitions(int(partitions)),
		kfake.DataDir(filepath.Join(d.dir, "kafka")), kfake.SyncWrites())
	if err != nil {
		return fmt.Errorf("kafka broker: %w", err)
	}
	d.parts = append(d.parts, stopper{"kafka", broker.Close})
	return nil
}

// startRedis starts a real server where there is one, else one in this process that forgets everything when it stops: then
// the log rebuilds it.
func (d *devTree) startRedis() error {
	for _, name := range []string{"redis-server", "valkey-server"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		d.at.RedisKind = name
		dir := filepath.Join(d.dir, "redis")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("redis: %w", err)
		}
		host, port, err := net.SplitHostPort(d.at.Redis)
		if err != nil {
			return fmt.Errorf("redis: %w", err)
		}
		d.spawn("redis", path, "--bind", host, "--port", port, "--dir", dir, "--save", "", "--appendonly", "yes", "--appendfsync", "everysec",
			"--maxmemory-policy", "noeviction", "--hash-max-listpack-entries", "512", "--hash-max-listpack-value", "65536", "--loglevel", "warning", "--logfile", filepath.Join(dir, "redis.log"))
		return d.waitFor("Redis", time.Minute, d.redisReady)
	}
	d.at.RedisKind = "in-process miniredis: install redis-server to keep states over restarts"
	server := miniredis.NewMiniRedis()
	if err := server.StartAddr(d.at.Redis); err != nil {
		return fmt.Errorf("miniredis: %w", err)
	}
	d.parts = append(d.parts, stopper{"redis", server.Close})
	return nil
}

// spawn keeps a part running in a process of its own until it is stopped: one that ends by itself is started again.
func (d *devTree) spawn(name, path string, args ...string) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(d.app.ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		keepRunning(ctx, d.app, name, func() *exec.Cmd {
			cmd := exec.CommandContext(ctx, path, args...)
			cmd.Stdout, cmd.Stderr = d.logs, d.logs
			cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
			cmd.WaitDelay = stopGrace
			cmd.Env = os.Environ()
			return cmd
		})
	}()
	d.parts = append(d.parts, stopper{name, func() { cancel(); <-done }})
}

// applyPatiently applies the definitions; stores that have just started may need a moment.
func (d *devTree) applyPatiently(c *applyCmd) error {
	return d.waitFor("the definitions", 30*time.Second, func(context.Context) error {
		compiled, err := c.compiled()
		if err != nil {
			return err
		}
		_, _, err = c.apply(d.app, compiled)
		return err
	})
}

// waitFor asks until a part is ready.
func (d *devTree) waitFor(what string, limit time.Duration, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(d.app.ctx, limit)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		var again tryAgainError
		if _, transient := errors.AsType[net.Error](err); !transient && !errors.As(err, &again) && !errors.Is(err, errNotReady) {
			return err
		}
		select {
		case <-ctx.Done():
			if d.app.ctx.Err() != nil {
				return fmt.Errorf("stopped while waiting for %s", what)
			}
			return fmt.Errorf("%s did not come up within %s: %w", what, limit, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

var errNotReady = errors.New("not ready")

func (d *devTree) redisReady(ctx context.Context) error {
	client := redis.NewClient(&redis.Options{Addr: d.at.Redis, MaxRetries: -1})
	defer func() { _ = client.Close() }()
	if err := client.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("%w: %w", errNotReady, err)
	}
	return nil
}

func (d *devTree) engineReady(ctx context.Context) error { return ping(ctx, d.at.Clickhouse+"/ping") }

func (d *devTree) ready(ctx context.Context) error { return ping(ctx, "http://"+d.at.HTTP+"/readyz") }
