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
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sync/errgroup"

	"millrace/features"
	"millrace/windows"
)

// Config is what a Server is made of.
type Config struct {
	// Listen is the address of the API; default 127.0.0.1:6566. It asks for no credentials: beyond loopback something in
	// front of it must. On loopback it refuses requests that name another host, so that no web page can reach it under a
	// name of its own.
	Listen string
	// AdminListen is the address of /metrics and /debug/pprof; empty for none.
	AdminListen string
	// Redis is the online store, Bound the applied definitions. A single server is read with half of Timeout as the
	// timeout of its commands; a cluster's client keeps its own.
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
	measured sync.Map // measuredKey -> metric.RecordOption
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
	tracer := cfg.Tracer.Tracer("millrace/serving")
	s := &Server{
		cfg: cfg, keyTypes: map[string]windows.Type{}, inFlight: make(chan struct{}, cfg.MaxInFlight),
		tracer: tracer, counted: map[countKey]metric.MeasurementOption{},
		store: newStore(cfg.Redis, cfg.Bound, tracer),
	}
	s.buffers.New = func() any { return new([]byte) }
	if single, ok := cfg.Redis.(*redis.Client); ok {
		timed := single.WithTimeout(cfg.Timeout / 2)
		auto, err := timed.AsyncAutoPipeline()
		if err != nil {
			return nil, fmt.Errorf("serving: %w", err)
		}
		s.store.rdb, s.store.ready.rdb, s.store.auto = timed, timed, auto
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
	if loopback(s.cfg.Listen) {
		e.Use(refuseOtherHosts)
	}
	e.GET("/healthz", func(c echo.Context) error { return c.JSONBlob(http.StatusOK, []byte(`{"status":"ok"}`)) })
	e.GET("/readyz", s.readyz)
	e.GET("/health", s.health)
	e.GET("/openapi.json", s.openAPI)
	e.GET("/v1/views", s.listViews)
	e.GET("/v1/views/:name", s.showView)
	e.GET("/v1/services", s.listServices)
	e.POST("/get-online-features", s.feastFeatures, s.limit)
	e.POST("/v1/online-features", s.rowFeatures, s.limit)
	for path := range elsewhere() {
		e.POST(path, unsupported)
	}
	s.echo = e
}

// Handler answers the API, for tests and for servers that bring their own listener.
func (s *Server) Handler() http.Handler { return s.echo }

// Limits of connections: a caller that sends slowly must not hold a place for long.
const (
	headerTimeout  = 5 * time.Second
	requestTimeout = 10 * time.Second // header and body
	answerTimeout  = 60 * time.Second
	idleTimeout    = 5 * time.Minute // Feast's clients keep theirs that long
	maxHeader      = 16 << 10
	stopTimeout    = 10 * time.Second
)

// Run serves until ctx ends, then drains: it says that it is not ready, lets requests finish, and returns nil.
func (s *Server) Run(ctx context.Context) error {
	if !loopback(s.cfg.Listen) {
		s.cfg.Logger.Warn("the API listens beyond loopback and asks for no credentials", "addr", s.cfg.Listen)
	}
	servers := []*http.Server{{
		Addr: s.cfg.Listen, Handler: s.echo, ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout, WriteTimeout: answerTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
	}}
	if s.cfg.AdminListen != "" { // a profile takes as long as it is asked to
		servers = append(servers, &http.Server{Addr: s.cfg.AdminListen, Handler: s.admin(), ReadHeaderTimeout: headerTimeout, MaxHeaderBytes: maxHeader})
	}
	listeners := make([]net.Listener, len(servers))
	for i, server := range servers {
		var err error
		if listeners[i], err = (&net.ListenConfig{}).Listen(ctx, "tcp", server.Addr); err != nil {
			for _, l := range listeners[:i] {
				_ = l.Close()
			}
			return fmt.Errorf("serving: %w", err)
		}
	}
	group, groupCtx := errgroup.WithContext(ctx)
	for i, server := range servers {
		s.cfg.Logger.Info("listening", "addr", listeners[i].Addr().String())
		group.Go(func() error {
			if err := server.Serve(listeners[i]); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serving: %w", err)
			}
			return nil
		})
		group.Go(func() error {
			<-groupCtx.Done()
			s.stopping.Store(true)
			drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Drain+stopTimeout)
			defer cancel()
			if ctx.Err() != nil { // told to stop, and not failed
				<-time.After(s.cfg.Drain)
			}
			if err := server.Shutdown(drain); err != nil {
				return errors.Join(fmt.Errorf("serving: stop: %w", err), server.Close())
			}
			return nil
		})
	}
	err := group.Wait()
	if s.store.auto != nil {
		err = errors.Join(err, s.store.auto.Close())
	}
	return err
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
	known, err := s.store.ready.refresh(c.Request().Context())
	if err != nil {
		s.cfg.Logger.Warn("not ready", "error", err.Error())
		fail("redis", "cannot be read")
	} else {
		checks = append(checks, check{Name: "redis", Status: "ok"})
		for _, v := range s.cfg.Bound.Views {
			if waits, ok := known.missing[v.Definition.Name]; ok {
				// One view that is being built must not take the others out of service.
				checks = append(checks, check{"view " + v.Definition.Name, "building", waits})
			}
		}
		if len(known.missing) > 0 && len(known.missing) == len(s.cfg.Bound.Views) {
			status = http.StatusServiceUnavailable
		}
	}
	return c.JSON(status, map[string]any{"checks": checks})
}
