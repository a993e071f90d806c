package main

import (
	"millrace/internal/telemetry"
	"millrace/serving"
)

// serveCmd runs the HTTP API.
type serveCmd struct {
	storeFlags
	Listen      string `help:"Address of the API. It asks for no credentials: beyond loopback, put what does in front of it." default:"127.0.0.1:6566" placeholder:"ADDR"`
	AdminListen string `help:"Address of /metrics and /debug/pprof; empty for none." default:"127.0.0.1:6567" placeholder:"ADDR"`
}

func (serveCmd) Help() string {
	return `Answers for online features over HTTP: in Feast's form, so that its clients work unchanged, and in its own under /v1.

  millrace serve --definitions features/
  curl -s http://127.0.0.1:6566/v1/online-features -d '{"features":["visits:hits"],"entities":[{"client":"66.249.73.135"}]}'`
}

// Run serves until it is told to stop.
func (c *serveCmd) Run(a *app) error {
	rdb, err := c.redisClient(a, 1)
	if err != nil {
		return err
	}
	defer func() { _ = rdb.Close() }()
	bound, err := c.bound(a.ctx, rdb)
	if err != nil {
		return err
	}
	o, err := observeFlags{}.observe(a, "serve")
	if err != nil {
		return err
	}
	defer o.stop()
	hook, err := telemetry.RedisHook(o.Tracer, o.Meter)
	if err != nil {
		return err
	}
	rdb.AddHook(hook)
	server, err := serving.New(serving.Config{
		Listen: c.Listen, AdminListen: c.AdminListen, Redis: rdb, Bound: bound,
		Logger: a.log, Meter: o.Meter, Tracer: o.Tracer, Metrics: o.MetricsHandler(),
	})
	if err != nil {
		return err
	}
	return server.Run(a.ctx)
}
