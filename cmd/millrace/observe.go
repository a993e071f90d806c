package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"millrace/internal/telemetry"
)

// observeFlags say how a long-running role shows its insides.
type observeFlags struct {
	MetricsListen string `help:"Address that serves /metrics, /healthz and /debug/pprof; empty for none." default:"127.0.0.1:6568" placeholder:"ADDR"`
}

// observer is the telemetry of one process.
type observer struct {
	*telemetry.Telemetry
	app  *app
	addr string
}

// observe starts the telemetry of a role. OpenTelemetry's own environment variables say whether anything is exported.
func (f observeFlags) observe(a *app, role string) (*observer, error) {
	b := readBuildInfo()
	t, err := telemetry.Setup(a.ctx, telemetry.Config{
		Role: role, Version: b.Version, Commit: b.Commit, GoVersion: b.GoVersion, Getenv: a.getenv,
	})
	if err != nil {
		return nil, err
	}
	return &observer{Telemetry: t, app: a, addr: f.MetricsListen}, nil
}

// stop sends what is buffered.
func (o *observer) stop() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(o.app.ctx), 5*time.Second)
	defer cancel()
	if err := o.Shutdown(ctx); err != nil {
		o.app.log.Warn("telemetry", "error", err.Error())
	}
}

// serve answers scrapes until ctx ends.
func (o *observer) serve(ctx context.Context) error {
	if o.addr == "" {
		<-ctx.Done()
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", o.MetricsHandler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.addr)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}
