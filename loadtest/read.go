package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

var tenFeatures = []string{"count", "sum", "max", "min", "mean", "first", "last", "start", "end", "length"}

// measureRead compares reads of 1 entity × 10 features with those of a server that does the least: the same HTTP framework,
// JSON in and out, one packed value from Redis through an automatic pipeline.
func measureRead(ctx context.Context, args []string, out io.Writer) error {
	f := flags("read")
	millrace := f.String("millrace", "bin/millrace", "the program to measure")
	definitions := f.String("definitions", "loadtest/testdata/ten.yaml", "the view of ten features")
	events := f.Int("events", 300_000, "events behind the states")
	users := f.Int("users", 100_000, "users")
	conns := f.Int("connections", 8, "connections")
	rounds := f.Int("rounds", 5, "rounds; floor and product take turns")
	length := f.Duration("round", 2*time.Second, "length of a round")
	seed := f.Uint64("seed", uint64(time.Now().UnixNano()), "seed of the events")
	_ = f.Parse(args)
	_, _ = fmt.Fprintf(out, "read: %d users, %d connections, %d rounds of %s, seed %d\n", *users, *conns, *rounds, *length, *seed)

	s, err := build(ctx, *millrace, *definitions, 4)
	if err != nil {
		return err
	}
	defer s.close()
	const topic = "loadtest10.events.v1"
	g := newGenerator(*seed, *users)
	if err := produce(ctx, g, s.kafka, topic, *events); err != nil {
		return err
	}
	speed, err := start("millrace speed", *millrace, append([]string{"speed", "--only", "fold", "--log-level", "warn", "--metrics-listen", ""}, s.flags()...)...)
	if err != nil {
		return err
	}
	err = s.waitFolded(ctx, speed, topic)
	if _, stopErr := speed.stop(); err != nil || stopErr != nil {
		return errors.Join(err, stopErr)
	}
	server, addr, err := s.serve(ctx)
	if err != nil {
		return err
	}
	defer func() { _, _ = server.stop() }()
	floorAddr, err := s.startFloor(ctx, *users)
	if err != nil {
		return err
	}

	features := make([]string, len(tenFeatures))
	for i, name := range tenFeatures {
		features[i] = "session:" + name
	}
	requests := make([][]byte, 4096)
	for i := range requests {
		body, err := json.Marshal(map[string]any{
			"entities": map[string]any{"user": []string{userName(rand.IntN(*users))}}, "features": features, "as_of": int64(g.now) + 1,
		})
		if err != nil {
			return fmt.Errorf("request: %w", err)
		}
		requests[i] = fmt.Appendf(nil, "POST /get-online-features HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}
	var product, floor []round
	for range *rounds {
		for _, side := range []struct {
			addr string
			to   *[]round
		}{{floorAddr, &floor}, {addr, &product}} {
			r, err := load(ctx, side.addr, requests, *conns, *length)
			if err != nil {
				return err
			}
			*side.to = append(*side.to, r)
		}
	}
	have, base := median(product, round.rate), median(floor, round.rate)
	_, _ = fmt.Fprintf(out, "millrace serve %8.0f requests/s, p50 %.2f ms, p99 %.2f ms\n", have, median(product, round.p50), median(product, round.p99))
	_, _ = fmt.Fprintf(out, "floor          %8.0f requests/s, p50 %.2f ms, p99 %.2f ms\n", base, median(floor, round.p50), median(floor, round.p99))
	result(out, "floor_read_1x10", base, "requests/s", 1, "itself")
	result(out, "read_1x10", have, "requests/s", have/base, "echo_autopipeline")
	return nil
}

// startFloor writes one packed value per user and starts the floor's server.
func (s *stage) startFloor(ctx context.Context, users int) (string, error) {
	pipe := s.rdb.Pipeline()
	for i := range users {
		pipe.Set(ctx, "floor:"+userName(i), packed(i), 0)
		if i%1000 == 999 || i == users-1 {
			if _, err := pipe.Exec(ctx); err != nil {
				return "", fmt.Errorf("floor's values: %w", err)
			}
		}
	}
	addr, err := freeAddr()
	if err != nil {
		return "", err
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("own path: %w", err)
	}
	if err := s.add("floor-serve", self, "floor-serve", "-listen", addr, "-redis", s.redis); err != nil {
		return "", err
	}
	return addr, patiently(ctx, 10*time.Second, func() error {
		c, err := net.Dial("tcp", addr) //nolint:noctx // bounded by patiently
		if err != nil {
			return fmt.Errorf("floor: %w", err)
		}
		return c.Close()
	})
}

// round is one stretch of load.
type round struct {
	requests int
	took     time.Duration
	times    []time.Duration
}

func (r round) rate() float64 { return float64(r.requests) / r.took.Seconds() }
func (r round) p50() float64  { return r.quantile(0.50) }
func (r round) p99() float64  { return r.quantile(0.99) }

func (r round) quantile(q float64) float64 {
	return r.times[min(int(q*float64(len(r.times))), len(r.times)-1)].Seconds() * 1000
}

func median(rounds []round, of func(round) float64) float64 {
	values := make([]float64, len(rounds))
	for i, r := range rounds {
		values[i] = of(r)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// load asks over keep-alive connections, each with one request under way. It speaks the least of HTTP itself, because it
// shares the cores with what it measures.
func load(ctx context.Context, addr string, requests [][]byte, conns int, length time.Duration) (round, error) {
	group, _ := errgroup.WithContext(ctx)
	times := make([][]time.Duration, conns)
	begin := time.Now()
	for i := range conns {
		group.Go(func() error {
			conn, err := net.Dial("tcp", addr) //nolint:noctx // loopback
			if err != nil {
				return fmt.Errorf("load: %w", err)
			}
			defer func() { _ = conn.Close() }()
			in := bufio.NewReaderSize(conn, 16<<10)
			for n := i; time.Since(begin) < length; n++ {
				at := time.Now()
				if _, err := conn.Write(requests[n%len(requests)]); err != nil {
					return fmt.Errorf("load: %w", err)
				}
				if err := readAnswer(in); err != nil {
					return fmt.Errorf("load %s: %w", addr, err)
				}
				times[i] = append(times[i], time.Since(at))
			}
			return nil
		})
	}
	err := group.Wait()
	r := round{took: time.Since(begin)}
	for _, t := range times {
		r.requests += len(t)
		r.times = append(r.times, t...)
	}
	slices.Sort(r.times)
	if err == nil && r.requests == 0 {
		err = errors.New("load: no answer")
	}
	return r, err
}

var contentLength = []byte("Content-Length: ")

// readAnswer reads one answer of status 200 with a known length.
func readAnswer(in *bufio.Reader) error {
	length := -1
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		switch {
		case first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")):
			return fmt.Errorf("answer %q", line)
		case bytes.HasPrefix(line, contentLength):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[len(contentLength):]))); err != nil {
				return err
			}
		case len(line) == 2:
			if length <= 0 {
				return errors.New("answer without a length")
			}
			_, err := in.Discard(length)
			return err
		}
	}
}
