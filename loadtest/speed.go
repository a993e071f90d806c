package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// measureSpeed folds a stream of JSON events into sessions and compares the CPU time per event with that of consuming and
// decoding alone.
func measureSpeed(ctx context.Context, args []string, out io.Writer) error {
	f := flags("speed")
	millrace := f.String("millrace", "bin/millrace", "the program to measure")
	definitions := f.String("definitions", "loadtest/testdata/session.yaml", "the session view")
	events := f.Int("events", 2_000_000, "events; a figure to publish needs 20,000,000")
	users := f.Int("users", 100_000, "users")
	partitions := f.Int("partitions", 8, "partitions")
	seed := f.Uint64("seed", uint64(time.Now().UnixNano()), "seed of the events")
	_ = f.Parse(args)
	_, _ = fmt.Fprintf(out, "speed: %d events, %d users, %d partitions, seed %d\n", *events, *users, *partitions, *seed)

	s, err := build(ctx, *millrace, *definitions, *partitions)
	if err != nil {
		return err
	}
	defer s.close()
	const topic = "loadtest.events.v1"
	g := newGenerator(*seed, *users)
	if err := produce(ctx, g, s.kafka, topic, *events); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("own path: %w", err)
	}
	floor := func() (float64, error) {
		p, err := start("floor-consume", self, "floor-consume", "-kafka", s.kafka, "-topic", topic)
		if err != nil {
			return 0, err
		}
		cpu, err := p.wait(10 * time.Minute)
		return float64(*events) / cpu.Seconds(), err
	}
	// The floor before and after: its change is the machine's noise.
	before, err := floor()
	if err != nil {
		return err
	}
	begin := time.Now()
	speed, err := start("millrace speed", *millrace, append([]string{"speed", "--only", "fold", "--log-level", "warn", "--metrics-listen", ""}, s.flags()...)...)
	if err != nil {
		return err
	}
	if err := s.waitFolded(ctx, speed, topic); err != nil {
		_, stopErr := speed.stop()
		return errors.Join(err, stopErr)
	}
	wall := time.Since(begin)
	cpu, err := speed.stop()
	if err != nil {
		return err
	}
	after, err := floor()
	if err != nil {
		return err
	}
	if err := s.checkSessions(ctx, g); err != nil {
		return err
	}
	rate, base := float64(*events)/cpu.Seconds(), (before+after)/2
	_, _ = fmt.Fprintf(out, "speed layer      %8.0f k events per core-second, %.1f s of CPU in %.1f s, peak %.0f MB\n", rate/1000, cpu.Seconds(), wall.Seconds(), speed.maxRSS())
	_, _ = fmt.Fprintf(out, "consume + decode %8.0f k events per core-second before, %.0f k after\n", before/1000, after/1000)
	_, _ = fmt.Fprintf(out, "checked the current session of all %d users: all as the generator has them\n", *users)
	result(out, "floor_consume_decode", base, "events/core-s", 1, "itself")
	result(out, "speed_session", rate, "events/core-s", rate/base, "consume_decode")
	return nil
}

// waitFolded waits until every marker has reached the end of the log.
func (s *stage) waitFolded(ctx context.Context, speed *process, topic string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(s.kafka))
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err != nil {
		return fmt.Errorf("end of the log: %w", err)
	}
	deadline := time.Now().Add(15 * time.Minute)
	for {
		behind := ""
		for id, end := range ends[topic] {
			keys, err := s.rdb.Keys(ctx, fmt.Sprintf("loadtest*:{*}:m:*/%d", id)).Result()
			if err != nil {
				return fmt.Errorf("markers: %w", err)
			}
			if len(keys) == 0 && end.Offset > 0 {
				behind = fmt.Sprintf("partition %d has no marker", id)
				break
			}
			markers, err := s.rdb.MGet(ctx, keys...).Result()
			if err != nil && !errors.Is(err, redis.Nil) {
				return fmt.Errorf("markers: %w", err)
			}
			prefix := fmt.Sprintf("%d:", end.Offset)
			if i := slices.IndexFunc(markers, func(m any) bool { text, ok := m.(string); return !ok || !strings.HasPrefix(text, prefix) }); i >= 0 {
				behind = fmt.Sprintf("%s is at %v of %d", keys[i], markers[i], end.Offset)
				break
			}
		}
		if behind == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-speed.done:
			speed.done <- err
			return fmt.Errorf("millrace speed ended: %w\n%s", err, speed.log.Bytes())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the speed layer did not reach the end of the log: %s\n%s", behind, speed.log.Bytes())
		}
	}
}

// serve starts the HTTP API and waits until it is ready.
func (s *stage) serve(ctx context.Context) (*process, string, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, "", err
	}
	admin, err := freeAddr()
	if err != nil {
		return nil, "", err
	}
	p, err := start("millrace serve", s.millrace, append([]string{"serve", "--log-level", "warn", "--listen", addr, "--admin-listen", admin},
		"--definitions", s.definitions, "--redis", s.redis)...)
	if err != nil {
		return nil, "", err
	}
	err = patiently(ctx, time.Minute, func() error {
		resp, err := http.Get("http://" + addr + "/readyz") //nolint:noctx // bounded by patiently
		if err != nil {
			return fmt.Errorf("not ready: %w", err)
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("not ready: status %d", resp.StatusCode)
		}
		return nil
	})
	if err != nil {
		_, stopErr := p.stop()
		return nil, "", errors.Join(err, stopErr)
	}
	return p, addr, nil
}

// checkSessions asks for every user over HTTP and compares with the generator.
func (s *stage) checkSessions(ctx context.Context, g *generator) error {
	server, addr, err := s.serve(ctx)
	if err != nil {
		return err
	}
	defer func() { _, _ = server.stop() }()
	asOf := int64(g.now) + 1
	const batch = 1000
	for from := 0; from < g.users; from += batch {
		names := make([]string, 0, batch)
		for i := from; i < min(from+batch, g.users); i++ {
			names = append(names, userName(i))
		}
		body, err := json.Marshal(map[string]any{
			"entities": map[string]any{"user": names}, "as_of": asOf,
			"features": []string{"session:count", "session:sum", "session:max", "session:start", "session:end"},
		})
		if err != nil {
			return fmt.Errorf("request: %w", err)
		}
		var answer struct {
			Results []struct {
				Values []any `json:"values"`
			} `json:"results"`
		}
		if err := post(ctx, addr, body, &answer); err != nil {
			return err
		}
		if len(answer.Results) != 6 {
			return fmt.Errorf("answer has %d columns", len(answer.Results))
		}
		for row := range names {
			want := g.sessions[from+row]
			text := fmt.Sprintf("%d %d %v %v %v", want.count, want.sum, want.max, want.start, want.last+gap)
			if want.count == 0 || asOf-want.last >= gap {
				text = "0 0 <nil> <nil> <nil>"
			}
			var got []string
			for _, column := range answer.Results[1:] {
				got = append(got, fmt.Sprint(column.Values[row]))
			}
			if have := strings.Join(got, " "); have != text {
				return fmt.Errorf("%s: served %s, the generator has %s", names[row], have, text)
			}
		}
	}
	return nil
}

func post(ctx context.Context, addr string, body []byte, answer any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/get-online-features", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("answer: status %d: %s", resp.StatusCode, text)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(answer); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}
