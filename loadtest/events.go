package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
)

// session is the answer that the generator knows: the current session of one user, or one that has ended.
type session struct {
	count, sum, max, start, last int64
}

const (
	gap   = 120_000           // of the session view, ms
	epoch = 1_700_000_000_000 // time of the first event
)

// generator makes JSON events of some 130 bytes of which a session view needs three members. Users come at random, so that
// with the times below about 31 % of the events open a session.
type generator struct {
	rng      *rand.Rand
	users    int
	now      float64
	step     float64
	sessions []session
	buf      []byte
}

func newGenerator(seed uint64, users int) *generator {
	const meanGap = gap / 1.171 // e^-1.171 = 0.31
	return &generator{
		rng: rand.New(rand.NewPCG(seed, seed)), users: users, now: epoch, step: meanGap / float64(users),
		sessions: make([]session, users),
	}
}

func userName(i int) string { return fmt.Sprintf("user-%07d", i) }

// next makes an event; key and value are valid until the next call.
func (g *generator) next() (user int, value []byte) {
	g.now += g.step * 2 * g.rng.Float64()
	user = g.rng.IntN(g.users)
	ts, amount := int64(g.now), int64(g.rng.IntN(100_000))
	s := &g.sessions[user]
	if s.count == 0 || ts-s.last >= gap {
		*s = session{start: ts, max: amount}
	}
	s.count++
	s.sum += amount
	s.max, s.last = max(s.max, amount), ts
	b := g.buf[:0]
	b = append(b, `{"user":"`...)
	b = append(b, userName(user)...)
	b = append(b, `","ts":`...)
	b = strconv.AppendInt(b, ts, 10)
	b = append(b, `,"amount":`...)
	b = strconv.AppendInt(b, amount, 10)
	b = append(b, `,"page":"/product/`...)
	b = strconv.AppendInt(b, int64(g.rng.IntN(1_000_000)), 10)
	b = append(b, `","device":"android","campaign":"autumn-26"}`...)
	g.buf = b
	return user, b
}

// produce fills a topic.
func produce(ctx context.Context, g *generator, broker, topic string, events int) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.DefaultProduceTopic(topic),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.ProducerBatchMaxBytes(1<<20-1000), kgo.MaxBufferedRecords(100_000))
	if err != nil {
		return fmt.Errorf("producer: %w", err)
	}
	defer client.Close()
	failed := make(chan error, 1)
	for range events {
		user, value := g.next()
		client.Produce(ctx, &kgo.Record{Key: []byte(userName(user)), Value: append([]byte(nil), value...)}, func(_ *kgo.Record, err error) {
			if err != nil {
				select {
				case failed <- err:
				default:
				}
			}
		})
	}
	if err := client.Flush(ctx); err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	select {
	case err := <-failed:
		return fmt.Errorf("produce: %w", err)
	default:
		return nil
	}
}
