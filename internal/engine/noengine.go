//go:build noengine

package engine

import "net/http"

// Engine is an open engine: never, in this build.
type Engine struct{}

// Open fails: this build has no engine.
func Open(Config) (*Engine, error) { return nil, ErrUnavailable }

// Handler is never reached.
func (*Engine) Handler() http.Handler { return http.NotFoundHandler() }

// Close does nothing.
func (*Engine) Close() error { return nil }
