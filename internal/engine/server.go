//go:build !noengine

package engine

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"compress/zlib"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/ClickHouse/ch-go/compress"
	chproto "github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"
)

// maxStatement bounds the text of a statement, which is held in memory; the data of an INSERT has no bound.
const maxStatement = 16 << 20

// greeting is what the client asks first. By the revision in the answer it reads all later ones: 0 is how the library writes
// them, so that they pass through as they are. The answer itself it reads at clientRevision.
const (
	greeting       = "SELECT displayName(), version(), revision(), timezone()"
	answerGreeting = "SELECT displayName(), version(), toUInt32(0) AS `revision()`, timezone()"
	clientRevision = 54460
)

// Handler answers ClickHouse's HTTP interface as far as its Go client and curl use it: statements in the URL, the body or
// both, INSERT with data in any format, parameters, settings, databases, compression. Every request is a session of its own;
// session_id, roles, passwords and external tables are not there.
func (e *Engine) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &answer{w: w, tag: strings.ToLower(rand.Text()[:16])}
		if err := e.serve(out, r); err != nil {
			e.log.Debug("statement failed", "error", err.Error())
			out.fail(err)
		}
	})
}

func (e *Engine) serve(out *answer, r *http.Request) error {
	q, err := parseRequest(r)
	if err != nil {
		return err
	}
	if r.URL.Path == "/ping" || q.statement.empty() {
		_, err := io.WriteString(out.w, "Ok.\n")
		return err
	}
	c, err := e.acquire(r.Context(), q.database)
	if err != nil {
		return err
	}
	defer e.release(c)
	if q.statement.changesSession() {
		c.spoiled = true
	}
	if err := c.prepare(q.database, q.settings); err != nil {
		return err
	}
	if insert, format, data, ok := q.statement.insertOfData(); ok {
		// Where the body breaks off, the insert is abandoned; where it is complete, the insert ends, whoever still waits for it.
		return c.write(string(insert), format, q.params, io.MultiReader(strings.NewReader(data), q.body))
	}
	if q.tooLong {
		return exception(62, "SYNTAX_ERROR", "A statement may have %d bytes", maxStatement)
	}
	format := q.statement.format()
	if format == "" {
		format = q.format
	}
	if err := out.begin(format, q); err != nil {
		return err
	}
	if q.statement == greeting {
		return c.greet(out, q)
	}
	read := c.readWhole
	if streamed(format) {
		read = c.read
	}
	err = e.interruptible(r.Context(), c, func() error { return read(string(q.statement), q.format, q.params, out.Write) })
	if err != nil {
		return err
	}
	return out.end()
}

// request is what a client asks for.
type request struct {
	statement  statement
	tooLong    bool      // the statement goes on in body
	body       io.Reader // what follows statement
	database   string
	format     string
	params     [][2]string
	settings   map[string]string
	revision   bool // the client reads blocks at a revision of its own
	compressed string
	whole      bool
}

func parseRequest(r *http.Request) (*request, error) {
	values := r.URL.Query()
	q := &request{
		database: cmp.Or(values.Get("database"), r.Header.Get("X-ClickHouse-Database"), "default"),
		format:   cmp.Or(values.Get("default_format"), r.Header.Get("X-ClickHouse-Format"), "TabSeparated"),
		settings: map[string]string{},
		revision: values.Has("client_protocol_version"),
		whole:    values.Get("wait_end_of_query") == "1",
	}
	if values.Get("session_id") != "" {
		return nil, exception(48, "NOT_IMPLEMENTED", "The embedded engine has no sessions")
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/form-data") {
		return nil, exception(48, "NOT_IMPLEMENTED", "The embedded engine takes no external tables")
	}
	for name := range values {
		if param, ok := strings.CutPrefix(name, "param_"); ok {
			q.params = append(q.params, [2]string{param, values.Get(name)})
		} else if !transport[name] {
			q.settings[name] = values.Get(name)
		}
	}
	if values.Get("compress") == "1" {
		q.compressed = cmp.Or(strings.ToUpper(values.Get("network_compression_method")), "LZ4")
	}
	body, err := decoded(r, values)
	if err != nil {
		return nil, err
	}
	q.body = body
	text := values.Get("query")
	if _, _, _, ok := statement(text).insertOfData(); ok {
		q.statement = statement(text)
		return q, nil
	}
	// The statement is what the URL and the body say together; of an INSERT with data, its beginning is here.
	head, err := io.ReadAll(io.LimitReader(body, maxStatement+1))
	if err != nil {
		return nil, fmt.Errorf("read the statement: %w", err)
	}
	q.tooLong = len(head) > maxStatement
	if text != "" && len(head) > 0 {
		text += "\n"
	}
	q.statement = statement(text + string(head))
	return q, nil
}

// transport are the URL's values that are no settings of the statement. log_comment is how a statement is found to be stopped.
var transport = map[string]bool{ //nolint:gochecknoglobals // a constant
	"query": true, "database": true, "default_format": true, "client_protocol_version": true, "query_id": true, "user": true, "password": true,
	"compress": true, "decompress": true, "enable_http_compression": true, "network_compression_method": true, "network_zstd_compression_level": true,
	"quota_key": true, "wait_end_of_query": true, "buffer_size": true, "session_timeout": true, "session_check": true, "role": true,
	"http_method": true, "log_comment": true,
}

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func decoded(r *http.Request, values url.Values) (io.Reader, error) {
	var body io.Reader = r.Body
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
	case "gzip", "deflate":
		open := func(from io.Reader) (io.ReadCloser, error) { return gzip.NewReader(from) }
		if encoding == "deflate" {
			open = zlib.NewReader
		}
		unpacked, err := open(r.Body)
		if err != nil {
			return nil, fmt.Errorf("body: %w", err)
		}
		body = unpacked
	default:
		return nil, exception(48, "NOT_IMPLEMENTED", "The embedded engine does not read Content-Encoding %s", encoding)
	}
	if values.Get("decompress") == "1" {
		body = compress.NewReader(body)
	}
	return body, nil
}

// answer is what a client gets. Once rows have left, an error can only follow them in the frame that clients look for.
type answer struct {
	w        http.ResponseWriter
	tag      string
	begun    bool
	held     *bytes.Buffer // rows wait for the end of the statement
	compress *compress.Writer
}

func (a *answer) begin(format string, q *request) error {
	header := a.w.Header()
	header.Set("X-ClickHouse-Format", format)
	header.Set("X-ClickHouse-Exception-Tag", a.tag)
	header.Set("Content-Type", "text/plain; charset=UTF-8")
	if strings.EqualFold(format, "Native") {
		header.Set("Content-Type", "application/octet-stream")
	}
	if q.whole {
		a.held = &bytes.Buffer{}
	}
	switch q.compressed {
	case "":
	case "LZ4":
		a.compress = compress.NewWriter(compress.LevelZero, compress.LZ4)
	case "ZSTD":
		a.compress = compress.NewWriter(compress.LevelZero, compress.ZSTD)
	default:
		return exception(48, "NOT_IMPLEMENTED", "The embedded engine does not compress by %s", q.compressed)
	}
	return nil
}

// maxFrame bounds a compressed frame.
const maxFrame = 1 << 20

// Write sends rows; the bytes belong to the caller again after it.
func (a *answer) Write(chunk []byte) error {
	for a.compress != nil && len(chunk) > 0 {
		n := min(len(chunk), maxFrame)
		if err := a.compress.Compress(chunk[:n]); err != nil {
			return fmt.Errorf("compress: %w", err)
		}
		if err := a.send(a.compress.Data); err != nil {
			return err
		}
		chunk = chunk[n:]
	}
	return a.send(chunk)
}

func (a *answer) send(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if a.held != nil {
		a.held.Write(b)
		return nil
	}
	a.begun = true
	_, err := a.w.Write(b)
	return err
}

func (a *answer) end() error {
	if a.held == nil {
		return nil
	}
	a.begun = true
	_, err := a.w.Write(a.held.Bytes())
	return err
}

// fail answers an error as the server does. Behind rows it is framed, and the connection is cut, so that also a client that
// knows no frame does not take the rows for all.
func (a *answer) fail(err error) {
	text := err.Error()
	if a.begun {
		text = "\r\n__exception__\r\n" + a.tag + "\r\n" + text + "\n"
		_, _ = fmt.Fprintf(a.w, "%s%d %s\r\n__exception__\r\n", text, len(err.Error())+1, a.tag)
		_ = http.NewResponseController(a.w).Flush()
		panic(http.ErrAbortHandler)
	}
	if m := exceptionCode.FindStringSubmatch(text); m != nil {
		a.w.Header().Set("X-ClickHouse-Exception-Code", m[1])
	}
	a.w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	a.w.WriteHeader(http.StatusInternalServerError)
	_, _ = io.WriteString(a.w, text)
}

var exceptionCode = regexp.MustCompile(`^Code: (\d+)\.`)

// greet answers the greeting in the form that the client expects of it.
func (c *conn) greet(out *answer, q *request) error {
	var rows bytes.Buffer
	if err := c.read(answerGreeting, q.format, nil, func(chunk []byte) error {
		rows.Write(chunk)
		return nil
	}); err != nil {
		return err
	}
	if !q.revision {
		return errors.Join(out.Write(rows.Bytes()), out.end())
	}
	var block proto.Block
	if err := block.Decode(chproto.NewReader(&rows), 0); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	var buf chproto.Buffer
	if err := block.Encode(&buf, clientRevision); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	return errors.Join(out.Write(buf.Buf), out.end())
}
