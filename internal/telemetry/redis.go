package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// RedisHook measures a go-redis client by the semantic conventions: a span for each command or pipeline, and the histogram
// db.client.operation.duration. Neither holds a key or a value. A nil provider is off.
func RedisHook(tracers trace.TracerProvider, meters metric.MeterProvider) (redis.Hook, error) {
	if tracers == nil {
		tracers = tracenoop.NewTracerProvider()
	}
	if meters == nil {
		meters = metricnoop.NewMeterProvider()
	}
	duration, err := meters.Meter(scope).Float64Histogram("db.client.operation.duration",
		metric.WithUnit("s"), metric.WithDescription("Duration of database client operations."))
	if err != nil {
		return nil, fmt.Errorf("redis hook: %w", err)
	}
	_, off := tracers.(tracenoop.TracerProvider)
	return &redisHook{tracer: tracers.Tracer(scope), trace: !off, duration: duration}, nil
}

const scope = "millrace/internal/telemetry"

type redisHook struct {
	tracer   trace.Tracer
	trace    bool
	duration metric.Float64Histogram
	// options holds one metric.RecordOption for each operationKey, so that a read on the hot path allocates nothing for them.
	options sync.Map
}

type operationKey struct{ operation, errorType string }

func (h *redisHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *redisHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return h.observe(ctx, commandName(cmd), []redis.Cmder{cmd}, func(ctx context.Context) error { return next(ctx, cmd) })
	}
}

func (h *redisHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		return h.observe(ctx, pipelineName(cmds), cmds, func(ctx context.Context) error { return next(ctx, cmds) })
	}
}

func (h *redisHook) observe(ctx context.Context, operation string, cmds []redis.Cmder, call func(context.Context) error) error {
	var span trace.Span
	if h.trace {
		ctx, span = h.tracer.Start(ctx, operation, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(spanAttributes(operation, cmds)...))
	}
	start := time.Now()
	err := call(ctx)
	elapsed := time.Since(start)
	errorType := redisErrorType(err)
	if span != nil {
		if errorType != "" {
			span.SetStatus(codes.Error, errorType) // not the text: it may quote a key
			span.SetAttributes(attribute.String("error.type", errorType))
		}
		span.End()
	}
	h.duration.Record(ctx, elapsed.Seconds(), h.option(operation, errorType))
	return err
}

func (h *redisHook) option(operation, errorType string) metric.RecordOption {
	key := operationKey{operation, errorType}
	if option, ok := h.options.Load(key); ok {
		return option.(metric.RecordOption)
	}
	attributes := []attribute.KeyValue{attribute.String("db.system.name", "redis"), attribute.String("db.operation.name", operation)}
	if errorType != "" {
		attributes = append(attributes, attribute.String("error.type", errorType))
	}
	option := metric.WithAttributeSet(attribute.NewSet(attributes...))
	h.options.Store(key, option)
	return option
}

func spanAttributes(operation string, cmds []redis.Cmder) []attribute.KeyValue {
	attributes := []attribute.KeyValue{attribute.String("db.system.name", "redis"), attribute.String("db.operation.name", operation)}
	if len(cmds) > 1 {
		attributes = append(attributes, attribute.Int("db.operation.batch.size", len(cmds)))
	}
	if len(cmds) > 0 {
		if args := cmds[0].Args(); len(args) > 1 && strings.HasPrefix(cmds[0].Name(), "evalsha") {
			attributes = append(attributes, attribute.String("db.stored_procedure.name", fmt.Sprint(args[1])))
		}
	}
	return attributes
}

func commandName(cmd redis.Cmder) string { return strings.ToUpper(cmd.Name()) }

// pipelineName is "PIPELINE GET" for a pipeline of one kind of command, "PIPELINE" for a mixed one, "MULTI" for a
// transaction.
func pipelineName(cmds []redis.Cmder) string {
	if len(cmds) == 0 {
		return "PIPELINE"
	}
	first := cmds[0].Name()
	if first == "multi" {
		return "MULTI"
	}
	for _, cmd := range cmds[1:] {
		if cmd.Name() != first {
			return "PIPELINE"
		}
	}
	return "PIPELINE " + strings.ToUpper(first)
}

// redisErrorType is a word of few values: Redis' own prefix (NOSCRIPT, MOVED, …), timeout, canceled, or other. A missing
// key is an answer, not an error.
func redisErrorType(err error) string {
	if err == nil || errors.Is(err, redis.Nil) {
		return ""
	}
	if errors.Is(err, context.Canceled) {
		return "canceled"
	}
	if timeout, ok := errors.AsType[net.Error](err); (ok && timeout.Timeout()) || errors.Is(err, context.DeadlineExceeded) {
		return "timeout"
	}
	if reply, ok := errors.AsType[redis.Error](err); ok {
		word, _, _ := strings.Cut(reply.Error(), " ")
		if word != "" && len(word) < 20 && strings.ToUpper(word) == word {
			if _, err := strconv.Atoi(word); err != nil {
				return word
			}
		}
	}
	return "other"
}
