//go:build !noengine

package engine

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// library is the part of libchdb's C interface that is used. Texts are passed with their lengths, so any byte may be in them.
type library struct {
	connect    func(argc int32, argv **byte) *unsafe.Pointer
	closeConn  func(conn *unsafe.Pointer)
	query      func(conn unsafe.Pointer, q *byte, qn uintptr, format *byte, fn uintptr) unsafe.Pointer
	stream     func(conn unsafe.Pointer, q *byte, qn uintptr, format *byte, fn uintptr) unsafe.Pointer
	fetch      func(conn, result unsafe.Pointer) unsafe.Pointer
	cancel     func(conn, result unsafe.Pointer)
	insert     func(conn unsafe.Pointer, q *byte, qn uintptr, format *byte, fn uintptr) unsafe.Pointer
	insertErr  func(stream unsafe.Pointer) string
	appendData func(stream unsafe.Pointer, data *byte, n uintptr) int32
	finish     func(stream unsafe.Pointer) unsafe.Pointer
	abandon    func(stream unsafe.Pointer)
	destroy    func(stream unsafe.Pointer)
	buffer     func(result unsafe.Pointer) unsafe.Pointer
	length     func(result unsafe.Pointer) uintptr
	err        func(result unsafe.Pointer) string
	free       func(result unsafe.Pointer)
	signals    func(on int32)
}

func load(path string) (*library, error) {
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	l := &library{}
	for name, to := range map[string]any{
		"chdb_connect": &l.connect, "chdb_close_conn": &l.closeConn, "chdb_query_n": &l.query,
		"chdb_stream_query_n": &l.stream, "chdb_stream_fetch_result": &l.fetch, "chdb_stream_cancel_query": &l.cancel,
		"chdb_stream_insert_n": &l.insert, "chdb_stream_insert_error": &l.insertErr, "chdb_stream_append": &l.appendData,
		"chdb_stream_done": &l.finish, "chdb_stream_cancel_insert": &l.abandon, "chdb_destroy_insert_stream": &l.destroy,
		"chdb_result_buffer": &l.buffer, "chdb_result_length": &l.length, "chdb_result_error": &l.err,
		"chdb_destroy_query_result": &l.free, "chdb_set_signal_handlers_enabled": &l.signals,
	} {
		symbol, err := purego.Dlsym(handle, name)
		if err != nil {
			return nil, fmt.Errorf("load %s: %w", path, err)
		}
		purego.RegisterFunc(to, symbol)
	}
	l.signals(0) // its handlers fight those of the Go runtime
	return l, nil
}

// conn runs one statement at a time.
type conn struct {
	lib      *library
	ptr      *unsafe.Pointer
	database string
	settings map[string]string // that differ from the defaults
}

func (l *library) open(dataDir string) (*conn, error) {
	args := [][]byte{[]byte("millrace\x00")}
	if dataDir != "" {
		args = append(args, []byte("--path="+dataDir+"\x00"))
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	argv := make([]*byte, len(args))
	for i := range args {
		pin.Pin(&args[i][0])
		argv[i] = &args[i][0]
	}
	ptr := l.connect(int32(len(argv)), &argv[0])
	if ptr == nil || *ptr == nil {
		return nil, fmt.Errorf("open ClickHouse data in %q: refused; is another process using the folder?", dataDir)
	}
	return &conn{lib: l, ptr: ptr, settings: map[string]string{}}, nil
}

func (c *conn) close() { c.lib.closeConn(c.ptr) }

func bytesOf(s string) (*byte, uintptr) {
	if s == "" {
		return unsafe.StringData("\x00"), 0
	}
	return unsafe.StringData(s), uintptr(len(s))
}

// take copies a result's bytes and frees it.
func (l *library) take(result unsafe.Pointer) ([]byte, error) {
	if result == nil {
		return nil, errors.New("no result")
	}
	defer l.free(result)
	if text := l.err(result); text != "" {
		return nil, errors.New(text)
	}
	n := l.length(result)
	if n == 0 {
		return nil, nil
	}
	return append([]byte(nil), unsafe.Slice((*byte)(l.buffer(result)), n)...), nil
}

// exec runs a statement without rows.
func (c *conn) exec(statement string) error {
	q, qn := bytesOf(statement)
	f, fn := bytesOf("Native")
	_, err := c.lib.take(c.lib.query(*c.ptr, q, qn, f, fn))
	return err
}

// notStreamed is how the library refuses to stream what is not a SELECT, before it runs it.
const notStreamed = "Streaming query is not supported"

// read runs a statement and hands its output on chunk by chunk; write may stop it by an error.
func (c *conn) read(statement, format string, write func([]byte) error) error {
	q, qn := bytesOf(statement)
	f, fn := bytesOf(format)
	stream := c.lib.stream(*c.ptr, q, qn, f, fn)
	if stream == nil {
		return errors.New("no result")
	}
	defer c.lib.free(stream)
	if text := c.lib.err(stream); strings.Contains(text, notStreamed) {
		whole, err := c.lib.take(c.lib.query(*c.ptr, q, qn, f, fn))
		if err != nil || len(whole) == 0 {
			return err
		}
		return write(whole)
	} else if text != "" {
		return errors.New(text)
	}
	for {
		chunk, err := c.lib.take(c.lib.fetch(*c.ptr, stream))
		if err != nil || len(chunk) == 0 {
			return err
		}
		if err := write(chunk); err != nil {
			c.lib.cancel(*c.ptr, stream)
			return err
		}
	}
}

// write runs an INSERT whose data next returns chunk by chunk, an empty one at the end. An error of next abandons the insert.
func (c *conn) write(statement, format string, next func() ([]byte, error)) error {
	q, qn := bytesOf(statement)
	f, fn := bytesOf(format)
	stream := c.lib.insert(*c.ptr, q, qn, f, fn)
	defer c.lib.destroy(stream)
	if text := c.lib.insertErr(stream); text != "" {
		return errors.New(text)
	}
	for {
		chunk, err := next()
		if err != nil {
			c.lib.abandon(stream)
			return err
		}
		if len(chunk) == 0 {
			break
		}
		if c.lib.appendData(stream, &chunk[0], uintptr(len(chunk))) != 0 {
			text := c.lib.insertErr(stream)
			c.lib.abandon(stream)
			return errors.New(text)
		}
	}
	_, err := c.lib.take(c.lib.finish(stream))
	return err
}
