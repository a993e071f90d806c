package serving

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sync/errgroup"

	"millrace/features"
	"millrace/features/keyspace"
	"millrace/windows"
)

// Config is what a Server is made of.
type Config struct {
	// Listen is the address of the API; default 127.0.0.1:6566. It asks for no credentials: beyond loopback something in
	// front of it must.
	Listen string
	// AdminListen is the address of /metrics and /debug/pprof; empty for none.
	AdminListen string
	// Redis is the online store, Bound the applied definitions.
	Redis redis.UniversalClient
	Bound *features.Bound
	// Logger, Meter and Tracer may be nil: then nothing is said. Metrics answers /metrics; nil for none.
	Logger  *slog.Logger
	Meter   metric.MeterProvider
	Tracer  trace.TracerProvider
	Metrics http.Handler
	// Now is the clock that reads without as_of are made at; default the system's.
	Now func() windows.Time
	// Timeout bounds a request; default 2 s.
	Timeout time.Duration
	// MaxInFlight bounds the requests that are worked on; more are refused at once. Default 1,024.
	MaxInFlight int
	// Drain is how long the server stays up, answering that it is not ready, before it stops; default 0.
	Drain time.Duration
}

// Server answers for features over HTTP.
type Server struct {
	cfg      Config
	echo     *echo.Echo
	store    *store
	keyTypes map[string]windows.Type
	buffers  sync.Pool
	inFlight chan struct{}
	stopping atomic.Bool
	tracer   trace.Tracer
	duration metric.Float64Histogram
	shed     metric.Int64Counter
	statuses metric.Int64Counter
	counted  map[countKey]metric.MeasurementOption
}

// countKey is a view and a status.
type countKey struct {
	version uint32
	status  windows.Status
}

// New checks the configuration and builds the server.
func New(cfg Config) (*Server, error) {
	if cfg.Redis == nil || cfg.Bound == nil {
		return nil, errors.New("serving: Redis and Bound are needed")
	}
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:6566"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Meter == nil {
		cfg.Meter = metricnoop.NewMeterProvider()
	}
	if cfg.Tracer == nil {
		cfg.Tracer = tracenoop.NewTracerProvider()
	}
	if cfg.Now == nil {
		cfg.Now = func() windows.Time { return windows.Time(time.Now().UnixMilli()) }
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * time.Second
	}
	if cfg.MaxInFlight == 0 {
		cfg.MaxInFlight = 1024
	}
	space := keyspace.Space{Project: cfg.Bound.Project}
	s := &Server{
		cfg: cfg, keyTypes: map[string]windows.Type{}, inFlight: make(chan struct{}, cfg.MaxInFlight),
		tracer: cfg.Tracer.Tracer("millrace/serving"), counted: map[countKey]metric.MeasurementOption{},
		store: &store{rdb: cfg.Redis, bound: cfg.Bound, space: space, ready: &readiness{rdb: cfg.Redis, bound: cfg.Bound, space: space}},
	}
	s.buffers.New = func() any { return new([]byte) }
	if single, ok := cfg.Redis.(*redis.Client); ok {
		auto, err := single.AsyncAutoPipeline()
		if err != nil {
			return nil, fmt.Errorf("serving: %w", err)
		}
		s.store.auto = auto
	}
	for _, e := range cfg.Bound.Entities {
		for _, k := range e.Keys {
			if t, ok := s.keyTypes[k.Name]; ok && t != k.Type {
				return nil, fmt.Errorf("serving: key %s is %s in one entity and %s in another", k.Name, t, k.Type)
			}
			s.keyTypes[k.Name] = k.Type
		}
	}
	if err := s.instruments(); err != nil {
		return nil, err
	}
	s.routes()
	return s, nil
}

func (s *Server) instruments() error {
	meter := s.cfg.Meter.Meter("millrace/serving")
	var errs [3]error
	s.duration, errs[0] = meter.Float64Histogram("http.server.request.duration", metric.WithUnit("s"), metric.WithDescription("time from a request's header to its answer"))
	s.shed, errs[1] = meter.Int64Counter("millrace_serve_shed", metric.WithDescription("requests refused because too many were under way"))
	s.statuses, errs[2] = meter.Int64Counter("millrace_serve_feature_status", metric.WithDescription("feature values served, by view and status"))
	for _, v := range s.cfg.Bound.Views {
		for st := windows.StatusInvalid; st <= windows.StatusOutsideMaxAge; st++ {
			s.counted[countKey{v.Version.ID, st}] = metric.WithAttributeSet(attribute.NewSet(
				attribute.String("view", v.Definition.Name), attribute.String("status", st.String())))
		}
	}
	if err := errors.Join(errs[:]...); err != nil {
		return fmt.Errorf("instruments: %w", err)
	}
	return nil
}

func (s *Server) routes() {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.IPExtractor = echo.ExtractIPDirect() // a header must not say who is calling
	e.HTTPErrorHandler = s.fail
	e.Use(s.observe)
	e.GET("/healthz", func(c echo.Context) error { return c.JSONBlob(http.StatusOK, []byte(`{"status":"ok"}`)) })
	e.GET("/readyz", s.readyz)
	e.GET("/health", s.health)
	e.GET("/openapi.json", s.openAPI)
	e.GET("/v1/views", s.listViews)
	e.GET("/v1/views/:name", s.showView)
	e.GET("/v1/services", s.listServices)
	e.POST("/get-online-features", s.feastFeatures, s.limit)
	e.POST("/v1/online-features", s.rowFeatures, s.limit)
	for _, path := range []string{"/push", "/write-to-online-store", "/materialize", "/materialize-incremental", "/search", "/retrieve-online-documents"} {
		e.POST(path, s.unsupported)
	}
	s.echo = e
}

// Handler answers the API, for tests and for servers that bring their own listener.
func (s *Server) Handler() http.Handler { return s.echo }

// Run serves until ctx ends, then drains: it says that it is not ready, lets requests finish, and returns nil.
func (s *Server) Run(ctx context.Context) error {
	group, groupCtx := errgroup.WithContext(ctx)
	serve := func(addr string, h http.Handler) error {
		listener, err := (&net.ListenConfig{}).Listen(groupCtx, "tcp", addr)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		s.cfg.Logger.Info("listening", "addr", listener.Addr().String())
		server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 5 * time.Minute, MaxHeaderBytes: 64 << 10}
		group.Go(func() error {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve: %w", err)
			}
			return nil
		})
		group.Go(func() error {
			<-groupCtx.Done()
			s.stopping.Store(true)
			drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Drain+10*time.Second)
			defer cancel()
			select {
			case <-drain.Done():
			case <-time.After(s.cfg.Drain):
			}
			return server.Shutdown(drain)
		})
		return nil
	}
	if err := serve(s.cfg.Listen, s.echo); err != nil {
		return err
	}
	if s.cfg.AdminListen != "" {
		if err := serve(s.cfg.AdminListen, s.admin()); err != nil {
			return err
		}
	}
	return group.Wait()
}

func (s *Server) admin() http.Handler {
	mux := http.NewServeMux()
	if s.cfg.Metrics != nil {
		mux.Handle("GET /metrics", s.cfg.Metrics)
	}
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// observe gives each request a span, a duration, and headers that every answer has.
func (s *Server) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		start := time.Now()
		r := c.Request()
		ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := s.tracer.Start(ctx, r.Method+" "+c.Path(), trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
		defer cancel()
		c.SetRequest(r.WithContext(ctx))
		header := c.Response().Header()
		header.Set("Cache-Control", "no-store")
		if id := r.Header.Get("X-Request-Id"); id != "" && len(id) <= 128 {
			header.Set("X-Request-Id", id)
		}
		defer func() {
			if p := recover(); p != nil {
				s.cfg.Logger.Error("panic in a handler", "route", c.Path(), "panic", fmt.Sprint(p))
				err = errors.New("panic")
			}
			if err != nil {
				c.Error(err)
				err = nil
			}
			s.duration.Record(ctx, time.Since(start).Seconds(), metric.WithAttributes(
				attribute.String("http.request.method", r.Method), attribute.String("http.route", c.Path()),
				attribute.Int("http.response.status_code", c.Response().Status)))
		}()
		return next(c)
	}
}

// limit refuses requests at once when too many are under way: a queue would only make all of them late.
func (s *Server) limit(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		select {
		case s.inFlight <- struct{}{}:
			defer func() { <-s.inFlight }()
			return next(c)
		default:
			s.shed.Add(c.Request().Context(), 1)
			return unavailableError{errors.New("too many requests are under way")}
		}
	}
}

// readyz says whether the server can answer, and if not, why.
func (s *Server) readyz(c echo.Context) error {
	type check struct {
		Name   string `json:"name"`
		Status string `json:"status"`
		Detail string `json:"detail,omitempty"`
	}
	status, checks := http.StatusOK, []check{}
	fail := func(name, detail string) {
		status = http.StatusServiceUnavailable
		checks = append(checks, check{name, "fail", detail})
	}
	if s.stopping.Load() {
		fail("server", "stopping")
	}
	ctx := c.Request().Context()
	incarnation, err := s.cfg.Redis.Get(ctx, s.store.space.Incarnation()).Result()
	if err == nil || errors.Is(err, redis.Nil) {
		err = s.store.ready.seen(ctx, incarnation)
	}
	if err != nil && !errors.Is(err, redis.Nil) {
		fail("redis", err.Error())
	} else {
		for _, v := range s.cfg.Bound.Views {
			if waits, ok := s.store.ready.missing()[v.Definition.Name]; ok {
				// One view that is being built must not take the others out of service.
				checks = append(checks, check{"view " + v.Definition.Name, "building", waits})
			}
		}
		if len(checks) > 0 && len(checks) == len(s.cfg.Bound.Views) {
			status = http.StatusServiceUnavailable
		}
	}
	return c.JSON(status, map[string]any{"checks": checks})
}
