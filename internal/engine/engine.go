// Package engine is ClickHouse in this process: it loads the engine as a shared library and serves it over HTTP, so that the
// ordinary ClickHouse client talks to it as it would to a server. It is meant for one machine; past that a real server takes
// its place and nothing else changes.
//
// It has no access control, and listens where it is told: keep it on loopback. An abort inside the library ends the whole
// process, so it belongs into a process of its own.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Config says what an engine is made of.
type Config struct {
	// Library is the path of libchdb.so, as Locate returns it.
	Library string
	// DataDir keeps the tables; empty keeps them in memory. One process may have one folder open, and one engine.
	DataDir string
	// Connections is how many statements run at once, an answer that is being read included; others wait. Default 32.
	Connections int
	// Logger may be nil.
	Logger *slog.Logger
}

// defaultConnections is more than any of our processes has open: one statement's reader may need another statement, and a
// pool that is too small would then stand still. An idle connection costs next to nothing.
const defaultConnections = 32

// ErrUnavailable is returned by a build without the engine.
var ErrUnavailable = errors.New("this build has no embedded ClickHouse engine: use the ordinary build, or a ClickHouse server with --clickhouse")

// Serve opens the engine and answers on l until ctx ends; then statements that run get a moment to finish.
func Serve(ctx context.Context, cfg Config, l net.Listener) error {
	e, err := Open(cfg)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: e.Handler(), ReadHeaderTimeout: 10 * time.Second}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	select {
	case err = <-done:
		err = fmt.Errorf("serve ClickHouse: %w", err)
	case <-ctx.Done():
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if err = server.Shutdown(stop); err != nil {
			err = errors.Join(err, server.Close())
		}
	}
	// The library aborts the process at its exit if a connection is still open.
	return errors.Join(err, e.Close())
}
