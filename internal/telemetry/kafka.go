package telemetry

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
)

// KafkaHooks measure a franz-go client for kgo.WithHooks. They count batches, not records, so they cost nothing per record.
// A nil provider is off.
func KafkaHooks(meters metric.MeterProvider) ([]kgo.Hook, error) {
	if meters == nil {
		meters = metricnoop.NewMeterProvider()
	}
	meter := meters.Meter(scope)
	var firstErr error
	counter := func(name, unit, text string) metric.Int64Counter {
		c, err := meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(text))
		if err != nil && firstErr == nil {
			firstErr = err
		}
		return c
	}
	h := &kafkaHook{
		sent:        counter("messaging.client.sent.messages", "{message}", "Messages that a broker acknowledged."),
		consumed:    counter("messaging.client.consumed.messages", "{message}", "Messages fetched from a broker."),
		sentBytes:   counter("millrace.kafka.produce.size", "By", "Bytes of acknowledged batches, compressed."),
		fetchBytes:  counter("millrace.kafka.fetch.size", "By", "Bytes of fetched batches, compressed."),
		connectErrs: counter("millrace.kafka.connect.errors", "{error}", "Connections to a broker that could not be made."),
		groupErrs:   counter("millrace.kafka.group.errors", "{error}", "Sessions of a consumer group that ended in an error."),
		throttled:   counter("millrace.kafka.throttles", "{throttle}", "Answers with which a broker slowed this client down."),
	}
	var err error
	h.requests, err = meter.Float64Histogram("millrace.kafka.request.duration", metric.WithUnit("s"),
		metric.WithDescription("Time from writing a request to having read its answer; a fetch includes the broker's wait for records."))
	if firstErr == nil {
		firstErr = err
	}
	if firstErr != nil {
		return nil, fmt.Errorf("kafka hooks: %w", firstErr)
	}
	return []kgo.Hook{h}, nil
}

type kafkaHook struct {
	sent, consumed, sentBytes, fetchBytes, connectErrs, groupErrs, throttled metric.Int64Counter
	requests                                                                 metric.Float64Histogram
	options                                                                  sync.Map // optionKey → metric.MeasurementOption
}

// optionKey names a set of attributes that is made once: a topic's, or a request's.
type optionKey struct {
	topic   string
	produce bool
	request int16
	failed  bool
}

func (h *kafkaHook) option(key optionKey, attributes func() []attribute.KeyValue) metric.MeasurementOption {
	if option, ok := h.options.Load(key); ok {
		return option.(metric.MeasurementOption)
	}
	option := metric.WithAttributeSet(attribute.NewSet(attributes()...))
	h.options.Store(key, option)
	return option
}

func (h *kafkaHook) topic(topic string, produce bool) metric.MeasurementOption {
	return h.option(optionKey{topic: topic, produce: produce}, func() []attribute.KeyValue {
		operation := "poll"
		if produce {
			operation = "send"
		}
		return []attribute.KeyValue{
			attribute.String("messaging.system", "kafka"),
			attribute.String("messaging.operation.name", operation),
			attribute.String("messaging.destination.name", topic),
		}
	})
}

// Hooks get no context from franz-go.
func background() context.Context { return context.Background() }

func (h *kafkaHook) OnProduceBatchWritten(_ kgo.BrokerMetadata, topic string, _ int32, m kgo.ProduceBatchMetrics) {
	option := h.topic(topic, true)
	h.sent.Add(background(), int64(m.NumRecords), option)
	h.sentBytes.Add(background(), int64(m.CompressedBytes), option)
}

func (h *kafkaHook) OnFetchBatchRead(_ kgo.BrokerMetadata, topic string, _ int32, m kgo.FetchBatchMetrics) {
	option := h.topic(topic, false)
	h.consumed.Add(background(), int64(m.NumRecords), option)
	h.fetchBytes.Add(background(), int64(m.CompressedBytes), option)
}

func (h *kafkaHook) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	failed := e2e.Err() != nil
	h.requests.Record(background(), e2e.DurationE2E().Seconds(), h.option(optionKey{request: key, failed: failed}, func() []attribute.KeyValue {
		attributes := []attribute.KeyValue{attribute.String("request", kmsg.NameForKey(key))}
		if failed {
			attributes = append(attributes, attribute.String("error.type", "connection"))
		}
		return attributes
	}))
}

func (h *kafkaHook) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err != nil {
		h.connectErrs.Add(background(), 1)
	}
}

func (h *kafkaHook) OnBrokerThrottle(kgo.BrokerMetadata, time.Duration, bool) {
	h.throttled.Add(background(), 1)
}

func (h *kafkaHook) OnGroupManageError(error) { h.groupErrs.Add(background(), 1) }
