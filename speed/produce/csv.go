package produce

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"millrace/features"
	"millrace/windows"
)

// csvRecords reads CSV (RFC 4180) with a header. Each record becomes an object: columns that the source declares are of their
// declared types, others are texts, and an empty cell is null. A cell that is not of its type goes through as a text, so
// that the source's rules reject the record where everybody sees it.
func csvRecords(input *bufio.Reader, source *features.Source) (nextFunc, error) {
	if mark, err := input.Peek(3); err == nil && string(mark) == "\xef\xbb\xbf" {
		_, _ = input.Discard(3) // a byte order mark, as spreadsheets write
	}
	r := csv.NewReader(input)
	r.ReuseRecord, r.FieldsPerRecord = true, -1
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("it has no header")
	}
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	types := make([]windows.Type, len(header))
	names := make([][]byte, len(header))
	seen := map[string]bool{}
	for i, name := range header {
		if name == "" || seen[name] {
			return nil, fmt.Errorf("header: column %d is called %q, which is empty or the name of another", i+1, name)
		}
		seen[name] = true
		names[i] = append(appendString(nil, []byte(name)), ':')
		types[i] = windows.String
		if f := source.FieldIndex(name); f >= 0 {
			types[i] = source.Fields[f].Type
		}
	}
	var dst []byte
	return func() (int64, []byte, string, error) {
		cells, err := r.Read()
		if parse, ok := errors.AsType[*csv.ParseError](err); ok {
			return int64(parse.StartLine), nil, parse.Err.Error(), nil
		}
		if err != nil {
			return 0, nil, "", err
		}
		line, _ := r.FieldPos(0)
		if len(cells) != len(header) {
			return int64(line), nil, fmt.Sprintf("%d cells where the header has %d", len(cells), len(header)), nil
		}
		dst = append(dst[:0], '{')
		for i, cell := range cells {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendCell(append(dst, names[i]...), cell, types[i])
		}
		dst = append(dst, '}')
		if len(dst) > features.MaxRecord {
			return int64(line), nil, tooLong, nil
		}
		return int64(line), dst, "", nil
	}, nil
}

func appendCell(dst []byte, cell string, t windows.Type) []byte {
	switch {
	case cell == "":
		return append(dst, "null"...)
	case (t == windows.Int64 || t == windows.Float64) && (cell[0] == '-' || cell[0] >= '0' && cell[0] <= '9') && json.Valid([]byte(cell)):
		return append(dst, cell...)
	case t == windows.Bool && (strings.EqualFold(cell, "true") || strings.EqualFold(cell, "false")):
		return append(dst, strings.ToLower(cell)...)
	default:
		return appendString(dst, []byte(cell))
	}
}
