//go:build !noengine

package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Engine is an open engine.
type Engine struct {
	lib     *library
	dataDir string
	log     *slog.Logger
	turns   chan struct{} // one for each statement that may run

	mu     sync.Mutex
	idle   []*conn
	opened int

	// control keeps the data open while no statement runs, and stops statements.
	control   *conn
	controlMu sync.Mutex
	closing   sync.Once
}

// Open loads the library and opens the data.
func Open(cfg Config) (*Engine, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Connections == 0 {
		cfg.Connections = defaultConnections
	}
	lib, err := load(cfg.Library)
	if err != nil {
		return nil, err
	}
	e := &Engine{lib: lib, dataDir: cfg.DataDir, log: cfg.Logger, turns: make(chan struct{}, cfg.Connections)}
	if e.control, err = lib.open(cfg.DataDir); err != nil {
		return nil, err
	}
	return e, nil
}

// Close waits for statements that run and closes the data. The library aborts the process at its exit where that was left out.
func (e *Engine) Close() error {
	e.closing.Do(func() {
		for range cap(e.turns) {
			e.turns <- struct{}{} // never given back: no statement runs after this
		}
		for _, c := range e.idle {
			c.close()
		}
		e.control.close()
	})
	return nil
}

// acquire returns a connection, if there is one of them in the wanted database.
func (e *Engine) acquire(ctx context.Context, database string) (*conn, error) {
	select {
	case e.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := len(e.idle); n > 0 {
		i := max(slices.IndexFunc(e.idle, func(c *conn) bool { return c.database == database }), 0)
		c := e.idle[i]
		e.idle = slices.Delete(e.idle, i, i+1)
		return c, nil
	}
	c, err := e.lib.open(e.dataDir)
	if err == nil {
		e.opened++
		c.mark = "millrace-" + strconv.Itoa(e.opened)
		if err = c.exec("SET log_comment = '" + c.mark + "'"); err != nil {
			c.close()
		}
	}
	if err != nil {
		<-e.turns
		return nil, err
	}
	return c, nil
}

// release takes a connection back, or closes one that does not say what state it is in.
func (e *Engine) release(c *conn) {
	if c.spoiled {
		c.close()
	} else {
		e.mu.Lock()
		e.idle = append(e.idle, c)
		e.mu.Unlock()
	}
	<-e.turns
}

// killEvery is how often a statement is stopped again: it may not have been on the list of those that run yet.
const killEvery = 50 * time.Millisecond

// interruptible runs a statement of c and stops it when ctx ends.
func (e *Engine) interruptible(ctx context.Context, c *conn, run func() error) error {
	finished, stopped := make(chan struct{}), make(chan struct{})
	release := context.AfterFunc(ctx, func() {
		defer close(stopped)
		for {
			e.controlMu.Lock()
			err := e.control.exec("KILL QUERY WHERE Settings['log_comment'] = '" + c.mark + "' ASYNC")
			e.controlMu.Unlock()
			if err != nil {
				e.log.Warn("statement not stopped", "error", err.Error())
			}
			select {
			case <-finished:
				return
			case <-time.After(killEvery):
			}
		}
	})
	err := run()
	close(finished)
	if !release() {
		<-stopped // else it could hit the connection's next statement
		if ctx.Err() != nil && err != nil {
			err = errors.Join(ctx.Err(), err)
		}
	}
	return err
}

// prepare gives a connection the database and the settings of a request, and takes back those of the one before.
func (c *conn) prepare(database string, settings map[string]string) error {
	if database != c.database {
		if err := c.exec("USE " + quote('`', database)); err != nil {
			return err
		}
		c.database = database
	}
	if maps.Equal(settings, c.settings) {
		return nil
	}
	var changes []string
	for name := range c.settings {
		if _, kept := settings[name]; !kept {
			changes = append(changes, name+" = DEFAULT")
		}
	}
	for name, value := range settings {
		if have, set := c.settings[name]; set && have == value {
			continue
		}
		if !identifier.MatchString(name) {
			return exception(115, "UNKNOWN_SETTING", "Setting %q is not a name", name)
		}
		changes = append(changes, name+" = "+quote('\'', value))
	}
	slices.Sort(changes)
	if err := c.exec("SET " + strings.Join(changes, ", ")); err != nil {
		c.spoiled = true // some may have been set
		return err
	}
	c.settings = settings
	return nil
}

func quote(with byte, s string) string {
	q := string(with)
	return q + strings.NewReplacer(`\`, `\\`, q, `\`+q).Replace(s) + q
}

// exception is an error in the engine's own form.
func exception(code int, name, format string, args ...any) error {
	return fmt.Errorf("Code: %d. DB::Exception: %s. (%s)", code, fmt.Sprintf(format, args...), name) //nolint:staticcheck // clients parse it
}
