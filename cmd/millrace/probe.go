package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

type probeCmd struct {
	URL     string        `arg:"" help:"What to ask, such as http://127.0.0.1:6566/readyz."`
	Timeout time.Duration `help:"How long to wait for the answer." default:"2s"`
}

func (probeCmd) Help() string {
	return `Succeeds if the URL answers with a status below 300. It is there for health checks in containers that hold nothing but millrace.

Examples:

  millrace probe http://127.0.0.1:6566/readyz
  until millrace probe http://127.0.0.1:6568/healthz; do sleep 1; done`
}

func (c probeCmd) Run(a *app) error {
	ctx, cancel := context.WithTimeout(a.ctx, c.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL, nil)
	if err != nil {
		return usagef("probe: %w", err)
	}
	// Straight to the address given: no proxy from the environment, no redirect to somewhere else.
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		return tryAgain(fmt.Errorf("probe: %w", err))
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode >= 300 {
		// Readiness says in its body which check fails.
		detail, err := io.ReadAll(io.LimitReader(response.Body, 4096))
		if err != nil {
			detail = nil
		}
		return tryAgain(fmt.Errorf("probe %s: %s: %s", c.URL, response.Status, strings.TrimSpace(string(detail))))
	}
	return nil
}
