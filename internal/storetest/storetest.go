// Package storetest gives tests real stores: a redis-server, the ClickHouse engine, and a Kafka broker in the process. It
// starts what a test asks for and ends it with the test; what is missing fails the test with what to do about it.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/internal/engine"
)

// Redis starts a server of the test's own, in memory, and returns its address, host:port.
func Redis(t testing.TB) (addr string) {
	t.Helper()
	return RedisProcess(t, "--appendonly", "no").Addr
}

// Server is a redis-server process that a test may kill and start again on the same data.
type Server struct {
	Addr string
	t    testing.TB
	args []string
	path string
	cmd  *exec.Cmd
}

// RedisProcess starts a redis-server with further arguments; its data folder is the test's.
func RedisProcess(t testing.TB, args ...string) *Server {
	t.Helper()
	s := &Server{t: t}
	for _, name := range []string{"redis-server", "valkey-server"} {
		if path, err := exec.LookPath(name); err == nil {
			s.path = path
			break
		}
	}
	if s.path == "" {
		t.Fatal("this test needs redis-server: run `make deps`")
	}
	s.Addr = freeAddr(t)
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	s.args = append([]string{
		"--bind", host, "--port", port, "--dir", t.TempDir(), "--save", "", "--loglevel", "warning",
		"--hash-max-listpack-entries", "512", "--hash-max-listpack-value", "65536",
	}, args...)
	s.Start()
	t.Cleanup(s.Kill)
	return s
}

// Start starts the server and waits until it answers.
func (s *Server) Start() {
	s.t.Helper()
	s.cmd = exec.Command(s.path, s.args...) //nolint:noctx // ended by Kill
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		c, err := net.Dial("tcp", s.Addr) //nolint:noctx // loopback
		if err == nil {
			_, err = c.Write([]byte("PING\r\n"))
			answer := make([]byte, 7)
			if err == nil {
				_, err = c.Read(answer)
			}
			_ = c.Close()
			if err == nil && strings.HasPrefix(string(answer), "+PONG") {
				return
			}
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("redis-server at %s does not answer: %v", s.Addr, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Kill ends the server as a crash does.
func (s *Server) Kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// Restart kills the server and starts it again on what it has stored.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	s.Start()
}

// Kafka starts a broker with topics in this process and returns its address, host:port. MILLRACE_TEST_KAFKA may give the
// address of a broker of Apache Kafka instead; the topics are then made anew on it, and no cluster is returned.
func Kafka(t testing.TB, partitions int32, topics ...string) ([]string, *kfake.Cluster) {
	t.Helper()
	if addr := os.Getenv("MILLRACE_TEST_KAFKA"); addr != "" {
		makeTopics(t, addr, partitions, topics)
		return []string{addr}, nil
	}
	opts := []kfake.Opt{kfake.NumBrokers(1)}
	if len(topics) > 0 {
		opts = append(opts, kfake.SeedTopics(partitions, topics...))
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster.ListenAddrs(), cluster
}

// makeTopics removes all topics, which earlier tests left, and makes those of this test. It returns once each can be written.
func makeTopics(t testing.TB, addr string, partitions int32, topics []string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	old, err := admin.ListTopics(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(old) > 0 {
		if _, err := admin.DeleteTopics(ctx, old.Names()...); err != nil {
			t.Fatal(err)
		}
	}
	for len(topics) > 0 {
		made, err := admin.CreateTopics(ctx, partitions, 1, nil, topics...)
		if err != nil {
			t.Fatal(err)
		}
		err = made.Error()
		if err == nil {
			break
		}
		if !errors.Is(err, kerr.TopicAlreadyExists) { // a deletion takes a moment
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	for ready := false; !ready; time.Sleep(20 * time.Millisecond) {
		ends, err := admin.ListEndOffsets(ctx, topics...)
		ready = err == nil && ends.Error() == nil && len(ends) == len(topics)
		if ctx.Err() != nil {
			t.Fatalf("topics %v are not ready: %v %v", topics, err, ends.Error())
		}
	}
}

// clickHouse is the engine of this test process, open while a test uses it: a process may have one.
var clickHouse struct {
	mu    sync.Mutex
	users int
	addr  string
	close func() error
	next  int
}

// ClickHouse returns the address of a ClickHouse, http://host:port, and the name of a database of the test's own. The engine
// runs in the test's process, unless MILLRACE_TEST_CLICKHOUSE gives the address of a server, host:port.
func ClickHouse(t testing.TB) (url, database string) {
	t.Helper()
	clickHouse.mu.Lock()
	defer clickHouse.mu.Unlock()
	if clickHouse.users == 0 {
		if err := openClickHouse(); err != nil {
			t.Fatal(err)
		}
	}
	clickHouse.users++
	t.Cleanup(func() {
		clickHouse.mu.Lock()
		defer clickHouse.mu.Unlock()
		if clickHouse.users--; clickHouse.users > 0 {
			return
		}
		if err := clickHouse.close(); err != nil {
			t.Error(err)
		}
	})
	clickHouse.next++
	database = fmt.Sprintf("test_%d_%d", os.Getpid(), clickHouse.next)
	server := connect(t, clickHouse.addr, "")
	if err := server.Exec(t.Context(), "CREATE DATABASE "+database+" ENGINE = Atomic"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Exec(context.Background(), "DROP DATABASE "+database+" SYNC"); err != nil { // the test's context has ended
			t.Error(err)
		}
		_ = server.Close()
	})
	return "http://" + clickHouse.addr, database
}

func openClickHouse() error {
	if addr := os.Getenv("MILLRACE_TEST_CLICKHOUSE"); addr != "" {
		clickHouse.addr, clickHouse.close = addr, func() error { return nil }
		return nil
	}
	library, err := engine.Locate(context.Background(), os.Getenv("MILLRACE_CACHE_DIR"), os.Stderr)
	if err != nil {
		return fmt.Errorf("this test needs the ClickHouse engine: run `make deps`: %w", err)
	}
	e, err := engine.Open(engine.Config{Library: library})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a local bind does not block
	if err != nil {
		return errors.Join(err, e.Close())
	}
	server := &http.Server{Handler: e.Handler(), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }()
	clickHouse.addr = l.Addr().String()
	clickHouse.close = func() error { return errors.Join(server.Close(), e.Close()) }
	return nil
}

// ClickHouseConn returns a connection to a database of the test's own.
func ClickHouseConn(t testing.TB) driver.Conn {
	t.Helper()
	url, database := ClickHouse(t)
	conn := connect(t, strings.TrimPrefix(url, "http://"), database)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func connect(t testing.TB, addr, database string) driver.Conn {
	t.Helper()
	conn, err := clickhouse.Open(&clickhouse.Options{
		Addr: []string{addr}, Protocol: clickhouse.HTTP, Auth: clickhouse.Auth{Database: database}, Settings: clickhouse.Settings{"async_insert": 0},
	})
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a local bind does not block
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
