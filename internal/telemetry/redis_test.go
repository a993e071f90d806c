package telemetry

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// startRedis starts a real server on a Unix socket and returns a client.
func startRedis(t *testing.T) *redis.Client {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		if program, err = exec.LookPath("valkey-server"); err != nil {
			t.Fatalf("%v: run `make deps`", err)
		}
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "redis.sock")
	server := exec.Command(program, "--port", "0", "--unixsocket", socket, "--dir", dir, "--save", "", "--daemonize", "no")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: socket, MaxRetries: 100, MinRetryBackoff: 10 * time.Millisecond, MaxRetryBackoff: 50 * time.Millisecond})
	t.Cleanup(func() {
		_ = client.Close()
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	if err := client.Ping(t.Context()).Err(); err != nil { // the retries wait until it listens
		t.Fatal(err)
	}
	return client
}

func TestRedisHook(t *testing.T) {
	client := startRedis(t)
	spans := tracetest.NewInMemoryExporter()
	tracers := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	tel := setup(t, nil)
	hook, err := RedisHook(tracers, tel.Meter)
	if err != nil {
		t.Fatal(err)
	}
	client.AddHook(hook)
	script := redis.NewScript("return redis.call('GET', KEYS[1])")

	for _, test := range []struct {
		name  string
		call  func(ctx context.Context) error
		names []string          // of the spans that the call makes
		last  map[string]string // attributes of the last one
	}{
		{"set", func(ctx context.Context) error { return client.Set(ctx, "secret-key", "secret-value", 0).Err() }, []string{"SET"}, nil},
		{"missing key", func(ctx context.Context) error {
			if err := client.Get(ctx, "gone").Err(); !errors.Is(err, redis.Nil) {
				return err
			}
			return nil
		}, []string{"GET"}, map[string]string{"error.type": ""}},
		{
			"script, loaded on the way", func(ctx context.Context) error { return script.Run(ctx, client, []string{"secret-key"}).Err() },
			[]string{"EVALSHA", "EVAL"},
			nil,
		},
		{
			"script", func(ctx context.Context) error { return script.Run(ctx, client, []string{"secret-key"}).Err() },
			[]string{"EVALSHA"},
			map[string]string{"db.stored_procedure.name": script.Hash()},
		},
		{"pipeline of one kind", func(ctx context.Context) error {
			_, err := client.Pipelined(ctx, func(p redis.Pipeliner) error { p.Ping(ctx); p.Ping(ctx); p.Ping(ctx); return nil })
			return err
		}, []string{"PIPELINE PING"}, map[string]string{"db.operation.batch.size": "3"}},
		{"mixed pipeline", func(ctx context.Context) error {
			_, err := client.Pipelined(ctx, func(p redis.Pipeliner) error { p.Ping(ctx); p.Get(ctx, "secret-key"); return nil })
			return err
		}, []string{"PIPELINE"}, map[string]string{"db.operation.batch.size": "2"}},
		{"transaction", func(ctx context.Context) error {
			_, err := client.TxPipelined(ctx, func(p redis.Pipeliner) error { p.Ping(ctx); return nil })
			return err
		}, []string{"MULTI"}, nil},
		{"wrong type", func(ctx context.Context) error {
			if err := client.HGetAll(ctx, "secret-key").Err(); err == nil {
				return errors.New("HGETALL of a string gave no error")
			}
			return nil
		}, []string{"HGETALL"}, map[string]string{"error.type": "WRONGTYPE"}},
		{"canceled", func(context.Context) error {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := client.Get(ctx, "secret-key").Err(); err == nil {
				return errors.New("canceled GET gave no error")
			}
			return nil
		}, []string{"GET"}, map[string]string{"error.type": "canceled"}},
	} {
		spans.Reset()
		if err := test.call(t.Context()); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		var names []string
		var last attribute.Set
		for _, span := range spans.GetSpans() {
			if span.Name == "HELLO" || span.Name == "PIPELINE CLIENT" {
				continue // the client opened another connection
			}
			names = append(names, span.Name)
			last = attribute.NewSet(span.Attributes...)
			for _, a := range span.Attributes {
				if strings.Contains(a.Value.String(), "secret") {
					t.Errorf("%s: attribute %s holds a key or a value", test.name, a.Key)
				}
			}
			if strings.Contains(span.Status.Description, "secret") {
				t.Errorf("%s: status holds a key or a value", test.name)
			}
		}
		if strings.Join(names, ", ") != strings.Join(test.names, ", ") {
			t.Errorf("%s: got spans %v, want %v", test.name, names, test.names)
			continue
		}
		for key, want := range test.last {
			got, _ := last.Value(attribute.Key(key))
			if text := got.String(); text != want && (want != "" || got.Type() != attribute.EMPTY) {
				t.Errorf("%s: %s is %q, want %q", test.name, key, text, want)
			}
		}
	}

	wantLines(t, scrape(t, tel, "text/plain"),
		`db_client_operation_duration_seconds_count{db_operation_name="SET",db_system_name="redis"} 1`,
		`db_client_operation_duration_seconds_count{db_operation_name="HGETALL",db_system_name="redis",error_type="WRONGTYPE"} 1`,
		`db_client_operation_duration_seconds_count{db_operation_name="PIPELINE PING",db_system_name="redis"} 1`)
}

func TestRedisHookOff(t *testing.T) {
	client := startRedis(t)
	hook, err := RedisHook(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	client.AddHook(hook)
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Error(err)
	}
}
