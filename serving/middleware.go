package serving

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// observe gives each request a span, a duration, a deadline, and the headers that every answer has. It answers errors and
// panics itself, so that what it measures is what the caller got.
func (s *Server) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		start := time.Now()
		r := c.Request()
		method, route := methodOf(r), routeOf(c)
		ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := s.tracer.Start(ctx, method+" "+route, trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
		defer cancel()
		c.SetRequest(r.WithContext(ctx))
		header := c.Response().Header()
		header.Set("Cache-Control", "no-store")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set(echo.HeaderXRequestID, requestID(r))
		if err := s.guarded(next, c); err != nil {
			c.Error(err)
		}
		status := c.Response().Status
		if span.IsRecording() {
			span.SetAttributes(attribute.String("http.request.method", method), attribute.String("http.route", route),
				attribute.String("url.scheme", c.Scheme()), attribute.Int("http.response.status_code", status))
			if status >= http.StatusInternalServerError {
				span.SetStatus(codes.Error, "")
			}
		}
		s.duration.Record(ctx, time.Since(start).Seconds(), s.measure(measuredKey{method, route, status}))
		return nil
	}
}

// guarded turns a panic into an error, so that one request cannot end the others.
func (s *Server) guarded(next echo.HandlerFunc, c echo.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Logger.Error("panic in a handler", "route", routeOf(c), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = errPanic
		}
	}()
	return next(c)
}

var errPanic = errors.New("panic in a handler")

// methodOf returns a method that has a meaning here: callers may send any word, and a label may not have any value.
func methodOf(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodPost, http.MethodHead, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return r.Method
	}
	return "_OTHER"
}

// routeOf returns the route's pattern; paths that no route has are one.
func routeOf(c echo.Context) string {
	if c.Path() == "" {
		return "unknown"
	}
	return c.Path()
}

// measuredKey is what durations are told apart by.
type measuredKey struct {
	method, route string
	status        int
}

// measure returns the attributes of a duration, made once.
func (s *Server) measure(k measuredKey) metric.RecordOption {
	if option, ok := s.measured.Load(k); ok {
		return option.(metric.RecordOption) //nolint:forcetypeassert // the map holds nothing else
	}
	attributes := []attribute.KeyValue{
		attribute.String("http.request.method", k.method), attribute.String("http.route", k.route),
		attribute.String("url.scheme", "http"), attribute.Int("http.response.status_code", k.status),
	}
	if k.status >= http.StatusInternalServerError {
		attributes = append(attributes, attribute.String("error.type", strconv.Itoa(k.status)))
	}
	option, _ := s.measured.LoadOrStore(k, metric.WithAttributeSet(attribute.NewSet(attributes...)))
	return option.(metric.RecordOption) //nolint:forcetypeassert // the map holds nothing else
}

const maxRequestID = 128

// requestID returns the caller's name for the request, or makes one.
func requestID(r *http.Request) string {
	id := r.Header.Get(echo.HeaderXRequestID)
	plain := strings.IndexFunc(id, func(c rune) bool { return c <= ' ' || c > '~' }) < 0
	if id == "" || len(id) > maxRequestID || !plain {
		return rand.Text()
	}
	return id
}

// limit refuses requests at once when too many are under way: a queue would only make all of them late.
func (s *Server) limit(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		select {
		case s.inFlight <- struct{}{}:
			defer func() { <-s.inFlight }()
			return next(c)
		default:
			s.shed.Add(c.Request().Context(), 1, metric.WithAttributes(attribute.String("reason", "in_flight")))
			return unavailableError{errOverload}
		}
	}
}

var errOverload = errors.New("too many requests are under way")

// loopback reports whether only programs of this machine reach an address.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// refuseOtherHosts refuses requests for a name that is not this machine's: a web page can have its own name point at
// loopback, and would then read the answers as its own.
func refuseOtherHosts(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		host := c.Request().Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		if host != "" && host != "localhost" && net.ParseIP(strings.Trim(host, "[]")) == nil {
			return requestError{
				http.StatusMisdirectedRequest, "FeastError", "MISDIRECTED_REQUEST",
				"this server listens on loopback only, under the name localhost or an address",
			}
		}
		return next(c)
	}
}
