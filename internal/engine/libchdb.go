//go:build !noengine

package engine

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// library is the part of libchdb's C interface that is used. Texts are passed with their lengths, so any byte may be in them.
type library struct {
	connect    func(argc int32, argv **byte) *unsafe.Pointer
	closeConn  func(conn *unsafe.Pointer)
	query      statementFunc
	stream     statementFunc
	fetch      func(conn, result unsafe.Pointer) unsafe.Pointer
	cancel     func(conn, result unsafe.Pointer)
	insert     statementFunc
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

// statementFunc takes a statement, a format and n parameters.
type statementFunc = func(conn unsafe.Pointer, q *byte, qn uintptr, format *byte, fn uintptr,
	names **byte, nameLens *uintptr, values **byte, valueLens *uintptr, n uintptr) unsafe.Pointer

func load(path string) (*library, error) {
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	l := &library{}
	for name, to := range map[string]any{
		"chdb_connect": &l.connect, "chdb_close_conn": &l.closeConn, "chdb_query_with_params_n": &l.query,
		"chdb_stream_query_with_params_n": &l.stream, "chdb_stream_fetch_result": &l.fetch, "chdb_stream_cancel_query": &l.cancel,
		"chdb_stream_insert_with_params_n": &l.insert, "chdb_stream_insert_error": &l.insertErr, "chdb_stream_append": &l.appendData,
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
	mark     string // by which its statements are found
	database string
	settings map[string]string // that differ from the defaults
	spoiled  bool              // its session is not what these fields say
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
	pin.Pin(&argv[0])
	ptr := l.connect(int32(len(argv)), &argv[0]) //nolint:gosec // one or two
	if ptr == nil || *ptr == nil {
		return nil, fmt.Errorf("open ClickHouse data in %q: refused; is another process using the folder?", dataDir)
	}
	return &conn{lib: l, ptr: ptr, database: "default"}, nil
}

func (c *conn) close() { c.lib.closeConn(c.ptr) }

func bytesOf(s string) (*byte, uintptr) {
	if s == "" {
		return unsafe.StringData("\x00"), 0
	}
	return unsafe.StringData(s), uintptr(len(s))
}

// params are named parameters in the form that the library takes: names, their lengths, values, their lengths.
type params struct {
	names, values   []*byte
	nameLen, valLen []uintptr
	pin             runtime.Pinner
}

func pinned(named [][2]string) *params {
	p := &params{}
	for _, nv := range named {
		name, n := bytesOf(nv[0])
		value, v := bytesOf(nv[1])
		p.pin.Pin(name)
		p.pin.Pin(value)
		p.names, p.nameLen = append(p.names, name), append(p.nameLen, n)
		p.values, p.valLen = append(p.values, value), append(p.valLen, v)
	}
	if len(named) > 0 {
		p.pin.Pin(&p.names[0])
		p.pin.Pin(&p.values[0])
	}
	return p
}

// call runs one of the three functions that take a statement, a format and parameters.
func (c *conn) call(f statementFunc, statement, format string, named [][2]string) unsafe.Pointer {
	p := pinned(named)
	defer p.pin.Unpin()
	q, qn := bytesOf(statement)
	fm, fn := bytesOf(format)
	return f(*c.ptr, q, qn, fm, fn, unsafe.SliceData(p.names), unsafe.SliceData(p.nameLen), unsafe.SliceData(p.values), unsafe.SliceData(p.valLen), uintptr(len(named)))
}

// hand gives a result's bytes to write and frees it. It returns how many there were.
func (l *library) hand(result unsafe.Pointer, write func([]byte) error) (int, error) {
	if result == nil {
		return 0, errNoResult
	}
	defer l.free(result)
	if text := l.err(result); text != "" {
		return 0, errors.New(text)
	}
	n := l.length(result)
	if n == 0 {
		return 0, nil
	}
	return int(n), write(unsafe.Slice((*byte)(l.buffer(result)), n)) //nolint:gosec // a length
}

var errNoResult = errors.New("the engine gave no result")

// exec runs a statement without rows.
func (c *conn) exec(statement string) error {
	_, err := c.lib.hand(c.call(c.lib.query, statement, "Native", nil), func([]byte) error { return nil })
	return err
}

// readWhole runs a statement and hands its output on in one piece.
func (c *conn) readWhole(statement, format string, named [][2]string, write func([]byte) error) error {
	_, err := c.lib.hand(c.call(c.lib.query, statement, format, named), write)
	return err
}

// notStreamed is how the library refuses to stream what is not a SELECT, before it runs it.
const notStreamed = "Streaming query is not supported"

// read runs a statement and hands its output on chunk by chunk; write may stop it by an error, and may not keep the bytes.
func (c *conn) read(statement, format string, named [][2]string, write func([]byte) error) error {
	stream := c.call(c.lib.stream, statement, format, named)
	if stream == nil {
		return errNoResult
	}
	defer c.lib.free(stream)
	if text := c.lib.err(stream); strings.Contains(text, notStreamed) {
		return c.readWhole(statement, format, named, write)
	} else if text != "" {
		return errors.New(text)
	}
	for {
		var refused error
		n, err := c.lib.hand(c.lib.fetch(*c.ptr, stream), func(chunk []byte) error {
			refused = write(chunk)
			return nil
		})
		if refused != nil {
			c.lib.cancel(*c.ptr, stream)
			return refused
		}
		if err != nil || n == 0 {
			return err
		}
	}
}

// chunkSize is how much of an INSERT's data is handed over at once.
const chunkSize = 1 << 20

// write runs an INSERT of data. Data that breaks off abandons the insert: nothing may be acknowledged that was not sent.
func (c *conn) write(statement, format string, named [][2]string, data io.Reader) error {
	stream := c.call(c.lib.insert, statement, format, named)
	defer c.lib.destroy(stream)
	if text := c.lib.insertErr(stream); text != "" {
		return errors.New(text)
	}
	total := 0
	for buf := make([]byte, chunkSize); ; {
		n, err := data.Read(buf)
		total += n
		if n > 0 && c.lib.appendData(stream, &buf[0], uintptr(n)) != 0 {
			text := c.lib.insertErr(stream)
			c.lib.abandon(stream)
			return errors.New(text)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			c.lib.abandon(stream)
			return fmt.Errorf("read the data of an insert: %w", err)
		}
	}
	if total == 0 {
		c.lib.abandon(stream)
		return exception(108, "NO_DATA_TO_INSERT", "No data to insert")
	}
	_, err := c.lib.hand(c.lib.finish(stream), func([]byte) error { return nil })
	return err
}
