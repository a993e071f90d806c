//go:build !noengine

package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"

	chproto "github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"
)

// Engine is an open engine.
type Engine struct {
	lib  *library
	pool chan *conn
	all  []*conn
	log  *slog.Logger
	stop sync.Once
}

// Open loads the library and opens the data.
func Open(cfg Config) (*Engine, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Connections == 0 {
		cfg.Connections = 4
	}
	lib, err := load(cfg.Library)
	if err != nil {
		return nil, err
	}
	e := &Engine{lib: lib, pool: make(chan *conn, cfg.Connections), log: cfg.Logger}
	for range cfg.Connections {
		c, err := lib.open(cfg.DataDir)
		if err != nil {
			return nil, errors.Join(err, e.Close())
		}
		e.all = append(e.all, c)
		e.pool <- c
	}
	return e, nil
}

// Close waits for statements that run and closes the data.
func (e *Engine) Close() error {
	e.stop.Do(func() {
		for range e.all {
			(<-e.pool).close()
		}
	})
	return nil
}

// maxStatement bounds the text of a statement.
const maxStatement = 16 << 20

// Handler answers the HTTP interface of ClickHouse as far as its Go client uses it: the statement in the body or, before the
// data of an INSERT, in the URL; settings and parameters in the URL.
func (e *Engine) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := e.answer(w, r); err != nil {
			e.log.Debug("statement refused", "error", err.Error())
			fail(w, err)
		}
	})
}

// greeting is what the client asks first. It decides by the revision in the answer how to read all later ones: 0 is how the
// library writes them, so that they pass through as they are.
const greeting = "SELECT displayName(), version(), revision(), timezone()"

func (e *Engine) answer(w http.ResponseWriter, r *http.Request) error {
	values := r.URL.Query()
	statement := values.Get("query")
	inURL := statement != ""
	if !inURL {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxStatement))
		if err != nil {
			return fmt.Errorf("statement: %w", err)
		}
		statement = string(body)
	}
	if r.URL.Path == "/ping" || strings.TrimSpace(statement) == "" {
		_, err := io.WriteString(w, "Ok.\n")
		return err
	}
	var c *conn
	select {
	case c = <-e.pool:
	case <-r.Context().Done():
		return r.Context().Err()
	}
	defer func() { e.pool <- c }()
	if err := c.prepare(values); err != nil {
		return err
	}
	if strings.TrimSpace(statement) == greeting {
		return c.greet(w)
	}
	if insert, format, ok := insertWithData(statement); ok && inURL {
		buf := make([]byte, 1<<20)
		err := c.write(insert, format, func() ([]byte, error) {
			n, err := io.ReadFull(r.Body, buf)
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = nil
			}
			return buf[:n], err
		})
		return err
	}
	format := values.Get("default_format")
	if format == "" {
		format = "TabSeparated"
	}
	return c.read(statement, format, func(chunk []byte) error {
		_, err := w.Write(chunk)
		if err == nil {
			err = r.Context().Err()
		}
		return err
	})
}

var insertFormat = regexp.MustCompile(`(?is)^\s*(INSERT\s+INTO\s.*?)\s+FORMAT\s+(\w+)\s*;?\s*$`)

// insertWithData splits an INSERT whose data follows from its format, which the library takes apart from it.
func insertWithData(statement string) (insert, format string, ok bool) {
	m := insertFormat.FindStringSubmatch(statement)
	if m == nil {
		return "", "", false
	}
	return m[1], m[2], true
}

// transport are the URL's values that are about the conversation and not settings of the statement.
var transport = []string{
	"query", "database", "default_format", "client_protocol_version", "query_id", "session_id", "session_timeout", "session_check",
	"user", "password", "compress", "decompress", "quota_key", "wait_end_of_query", "buffer_size", "role",
}

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// prepare gives a connection the database, settings and parameters of a request, and takes back those of the one before.
func (c *conn) prepare(values url.Values) error {
	if database := values.Get("database"); database != c.database {
		name := database
		if name == "" {
			name = "default"
		}
		if err := c.exec("USE `" + strings.NewReplacer("\\", "\\\\", "`", "\\`").Replace(name) + "`"); err != nil {
			return err
		}
		c.database = database
	}
	want := map[string]string{}
	for name := range values {
		if !slices.Contains(transport, name) {
			want[name] = values.Get(name)
		}
	}
	for name := range c.settings {
		if _, keep := want[name]; keep {
			continue
		}
		if !strings.HasPrefix(name, "param_") { // a parameter that no statement names does no harm
			if err := c.exec("SET " + name + " = DEFAULT"); err != nil {
				return err
			}
		}
		delete(c.settings, name)
	}
	for name, value := range want {
		if have, same := c.settings[name]; same && have == value {
			continue
		}
		if !identifier.MatchString(name) {
			return fmt.Errorf("Code: 115. DB::Exception: setting %q is not a name. (UNKNOWN_SETTING)", name) //nolint:revive,staticcheck // as the engine writes errors
		}
		if err := c.exec("SET " + name + " = '" + strings.NewReplacer("\\", "\\\\", "'", "\\'").Replace(value) + "'"); err != nil {
			return err
		}
		c.settings[name] = value
	}
	return nil
}

// greet answers the greeting in the form that the client expects of it.
func (c *conn) greet(w io.Writer) error {
	var out bytes.Buffer
	if err := c.read("SELECT displayName(), version(), toUInt32(0), timezone()", "Native", func(chunk []byte) error {
		out.Write(chunk)
		return nil
	}); err != nil {
		return err
	}
	var block proto.Block
	if err := block.Decode(chproto.NewReader(&out), 0); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	var buf chproto.Buffer
	if err := block.Encode(&buf, clientRevision); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	_, err := w.Write(buf.Buf)
	return err
}

// clientRevision is the revision in which clickhouse-go reads the answer to its greeting.
const clientRevision = 54460

var exceptionCode = regexp.MustCompile(`^Code: (\d+)\.`)

// fail answers an error as the server does. Where rows were sent already, cutting the answer off is all that is left.
func fail(w http.ResponseWriter, err error) {
	if m := exceptionCode.FindStringSubmatch(err.Error()); m != nil {
		w.Header().Set("X-ClickHouse-Exception-Code", m[1])
	}
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	w.WriteHeader(http.StatusInternalServerError)
	_, _ = io.WriteString(w, err.Error())
}
