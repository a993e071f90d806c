package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"

	"github.com/go-faster/jx"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace/internal/recordpool"
)

// serveBroker is a Kafka broker in a process of its own, all in memory.
func serveBroker(ctx context.Context, args []string, _ io.Writer) error {
	f := flags("broker")
	listen := f.String("listen", "127.0.0.1:9092", "address")
	_ = f.Parse(args)
	_, port, err := net.SplitHostPort(*listen)
	if err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(n))
	if err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	defer broker.Close()
	<-ctx.Done()
	return nil
}

// floorConsume reads a topic once and decodes the three members that the view declares, with every pool that the clients
// offer: no work that any consumer of JSON could leave out.
func floorConsume(ctx context.Context, args []string, out io.Writer) error {
	f := flags("floor-consume")
	brokers := f.String("kafka", "127.0.0.1:9092", "broker")
	topic := f.String("topic", "", "topic")
	_ = f.Parse(args)
	client, err := kgo.NewClient(kgo.SeedBrokers(*brokers), kgo.ConsumeTopics(*topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.WithPools(recordpool.New()),
		kgo.FetchMaxBytes(16<<20), kgo.FetchMaxPartitionBytes(4<<20))
	if err != nil {
		return fmt.Errorf("consumer: %w", err)
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, *topic)
	if err != nil {
		return fmt.Errorf("end of the log: %w", err)
	}
	left := int64(0)
	ends.Each(func(o kadm.ListedOffset) { left += o.Offset })
	var d jx.Decoder
	var amounts, times int64
	var users int
	total := left
	for left > 0 {
		fetches := client.PollRecords(ctx, 20_000)
		if err := fetches.Err0(); err != nil {
			return fmt.Errorf("poll: %w", err)
		}
		var failed error
		fetches.EachRecord(func(r *kgo.Record) {
			d.ResetBytes(r.Value)
			err := d.ObjBytes(func(d *jx.Decoder, key []byte) error {
				switch string(key) {
				case "user":
					user, err := d.StrBytes()
					users += len(user)
					return err
				case "ts":
					v, err := d.Int64()
					times += v
					return err
				case "amount":
					v, err := d.Int64()
					amounts += v
					return err
				}
				return d.Skip()
			})
			failed = errors.Join(failed, err)
			r.Recycle()
		})
		if failed != nil {
			return fmt.Errorf("decode: %w", failed)
		}
		left -= int64(fetches.NumRecords())
	}
	_, err = fmt.Fprintln(out, total, users, times, amounts)
	return err
}
