package main

import (
	"context"
	"fmt"
	"net"
	"os"

	"millrace/internal/engine"
)

// engineCmd serves the embedded ClickHouse engine in a process of its own, because an abort of the library would take
// everything beside it along.
type engineCmd struct {
	DataDir   string `help:"Folder that keeps the tables; in memory if empty." placeholder:"DIR"`
	Listen    string `help:"Loopback address to listen on." default:"127.0.0.1:8123" placeholder:"ADDR"`
	CacheDir  string `help:"Folder that keeps the engine's library once it was fetched." placeholder:"DIR"`
	FetchOnly bool   `help:"Fetch the library if it is not there, and stop."`
}

func (engineCmd) Help() string {
	return `Serves ClickHouse over HTTP from a library in this process, for one machine: the same client and the same SQL work with a
ClickHouse server. The library is fetched once through npm and kept in the user's cache folder.

  millrace engine --fetch-only
  millrace engine --data-dir .millrace/clickhouse`
}

// Run serves until it is told to stop.
func (c *engineCmd) Run(a *app) error {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return usagef("--listen: %w", err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return usagef("--listen %s: the embedded engine asks for no password, so it listens on loopback alone; use a ClickHouse server beyond one machine", c.Listen)
	}
	library, err := engine.Locate(a.ctx, c.CacheDir, a.stderr)
	if err != nil {
		return err
	}
	if c.FetchOnly {
		_, err := fmt.Fprintln(a.stdout, library)
		return err
	}
	if c.DataDir != "" {
		if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
			return fmt.Errorf("data folder: %w", err)
		}
	}
	l, err := (&net.ListenConfig{}).Listen(context.WithoutCancel(a.ctx), "tcp", c.Listen)
	if err != nil {
		return tryAgain(err)
	}
	a.log.Info("engine listening", "addr", l.Addr().String(), "data_dir", c.DataDir)
	return engine.Serve(a.ctx, engine.Config{Library: library, DataDir: c.DataDir, Logger: a.log}, l)
}
