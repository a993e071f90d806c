package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// process is a child whose CPU time the system reports when it has ended.
type process struct {
	name string
	cmd  *exec.Cmd
	log  bytes.Buffer
	done chan error
}

// start starts a child that dies with this process.
func start(name, path string, args ...string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(path, args...), done: make(chan error, 1)} //nolint:noctx // ended by stop
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	return p, nil
}

// stop asks a child to end and returns the CPU time that it used.
func (p *process) stop() (cpu time.Duration, err error) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	return p.wait(20 * time.Second)
}

// wait waits until a child has ended by itself.
func (p *process) wait(limit time.Duration) (cpu time.Duration, err error) {
	select {
	case err = <-p.done:
	case <-time.After(limit):
		_ = p.cmd.Process.Kill()
		<-p.done //nolint:errcheck // how it ended is no news: it was killed
		return 0, fmt.Errorf("%s did not end within %s\n%s", p.name, limit, p.log.Bytes())
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", p.name, err, p.log.Bytes())
	}
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime(), nil
}

// maxRSS returns the peak memory of an ended child in MB.
func (p *process) maxRSS() float64 {
	if usage, ok := p.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		return float64(usage.Maxrss) / 1024
	}
	return 0
}

// freeAddr returns a loopback address with a port that is free now.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a local bind does not block
	if err != nil {
		return "", fmt.Errorf("free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}

// stage is the stores that a measurement runs on.
type stage struct {
	dir, millrace, definitions string
	kafka, redis, clickhouse   string
	rdb                        *redis.Client
	parts                      []*process
}

// build starts broker, Redis and, to apply the definitions, the ClickHouse engine.
func build(ctx context.Context, millrace, definitions string, partitions int) (_ *stage, err error) {
	s := &stage{millrace: millrace, definitions: definitions}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.dir, err = os.MkdirTemp("", "millrace-loadtest-"); err != nil {
		return nil, fmt.Errorf("scratch folder: %w", err)
	}
	for _, addr := range []*string{&s.kafka, &s.redis, &s.clickhouse} {
		if *addr, err = freeAddr(); err != nil {
			return nil, err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("own path: %w", err)
	}
	host, port, _ := net.SplitHostPort(s.redis)
	if err := s.add("redis-server", "redis-server", "--bind", host, "--port", port, "--dir", s.dir, "--save", "",
		"--hash-max-listpack-entries", "512", "--hash-max-listpack-value", "65536"); err != nil {
		return nil, err
	}
	if err := s.add("broker", self, "broker", "-listen", s.kafka); err != nil {
		return nil, err
	}
	engine, err := start("engine", millrace, "engine", "--listen", s.clickhouse, "--data-dir", filepath.Join(s.dir, "clickhouse"))
	if err != nil {
		return nil, err
	}
	s.rdb = redis.NewClient(&redis.Options{Addr: s.redis})
	apply := func() error {
		out, err := exec.CommandContext(ctx, millrace, append([]string{"apply", "--partitions", strconv.Itoa(partitions)}, s.flags()...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("millrace apply: %w: %s", err, out)
		}
		return nil
	}
	if err := patiently(ctx, time.Minute, apply); err != nil {
		_ = engine.cmd.Process.Kill()
		return nil, err
	}
	_, err = engine.stop() // only apply needs it
	return s, err
}

func (s *stage) flags() []string {
	return []string{"--definitions", s.definitions, "--kafka", s.kafka, "--redis", s.redis, "--clickhouse", "http://" + s.clickhouse}
}

func (s *stage) add(name, path string, args ...string) error {
	p, err := start(name, path, args...)
	if err == nil {
		s.parts = append(s.parts, p)
	}
	return err
}

func (s *stage) close() {
	for _, p := range s.parts {
		_ = p.cmd.Process.Kill()
		<-p.done //nolint:errcheck // how it ended is no news: it was killed
	}
	if s.rdb != nil {
		_ = s.rdb.Close()
	}
	_ = os.RemoveAll(s.dir)
}

// patiently repeats f until it succeeds.
func patiently(ctx context.Context, limit time.Duration, f func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := f()
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}
