package serving

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-faster/jx"

	"millrace/windows"
)

// parseColumns reads the body of POST /get-online-features: entities by column.
func parseColumns(body []byte) (*query, error) {
	q := &query{}
	entities := false
	err := parseBody(body, func(d *jx.Decoder, key string) error {
		switch key {
		case "entities", "request_context":
			if key == "entities" {
				entities = true
			} else if d.Next() == jx.Null {
				return d.Null()
			}
			if d.Next() != jx.Object {
				return shapeError{[]any{"body", key}, "dict_type", "want an object of columns"}
			}
			return d.Obj(func(d *jx.Decoder, name string) error {
				if d.Next() != jx.Array {
					return shapeError{[]any{"body", key, name}, "list_type", "want an array, one value a row"}
				}
				if len(q.entities) >= maxColumns {
					return badRequest("more than %d entity columns", maxColumns)
				}
				column := entityColumn{name: name}
				err := d.Arr(func(d *jx.Decoder) error {
					if len(column.cells) >= maxRows {
						return badRequest("more than %d rows: split the request", maxRows)
					}
					c, err := parseCell(d)
					column.cells = append(column.cells, c)
					return err
				})
				q.entities = append(q.entities, column)
				return err
			})
		case "feature_service":
			return parseText(d, key, &q.service)
		case "full_feature_names":
			return parseFlag(d, key, &q.fullNames)
		case "include_feature_view_version_metadata":
			return parseFlag(d, key, &q.versionMeta)
		}
		return q.parseCommon(d, key)
	})
	if err == nil && !entities {
		err = shapeError{[]any{"body", "entities"}, "missing", "Field required"}
	}
	return q, err
}

// parseRows reads the body of POST /v1/online-features: entities by row.
func parseRows(body []byte) (q *query, eventTimes bool, err error) {
	q = &query{byRow: true}
	rows := -1
	err = parseBody(body, func(d *jx.Decoder, key string) error {
		switch key {
		case "entities":
			if d.Next() != jx.Array {
				return shapeError{[]any{"entities"}, "TYPE", "want an array of objects, one a row"}
			}
			rows = 0
			return d.Arr(func(d *jx.Decoder) error {
				if rows >= maxRows {
					return badRequest("more than %d rows: split the request", maxRows)
				}
				if d.Next() != jx.Object {
					return shapeError{[]any{"entities", rows}, "TYPE", "want an object with the entity's keys"}
				}
				err := d.Obj(func(d *jx.Decoder, name string) error {
					c, err := parseCell(d)
					if err != nil {
						return err
					}
					return q.setCell(name, rows, c)
				})
				rows++
				return err
			})
		case "service":
			return parseText(d, key, &q.service)
		case "event_times":
			return parseFlag(d, key, &eventTimes)
		}
		return q.parseCommon(d, key)
	})
	if err != nil {
		return nil, false, err
	}
	if rows < 0 {
		return nil, false, shapeError{[]any{"entities"}, "MISSING", "give entities: an array of objects with the keys of the views"}
	}
	q.rows = rows
	for i := range q.entities { // a key that the last rows lack
		for len(q.entities[i].cells) < rows {
			q.entities[i].cells = append(q.entities[i].cells, cell{kind: cellAbsent})
		}
	}
	return q, eventTimes, nil
}

// setCell puts a value into a column of rows that may have lacked it so far.
func (q *query) setCell(name string, row int, c cell) error {
	at := -1
	for i := range q.entities {
		if q.entities[i].name == name {
			at = i
		}
	}
	if at < 0 {
		if len(q.entities) >= maxColumns {
			return badRequest("more than %d entity columns", maxColumns)
		}
		q.entities = append(q.entities, entityColumn{name: name})
		at = len(q.entities) - 1
	}
	column := &q.entities[at]
	for len(column.cells) < row {
		column.cells = append(column.cells, cell{kind: cellAbsent})
	}
	if len(column.cells) > row {
		return badRequest("row %d has key %s twice", row, name)
	}
	column.cells = append(column.cells, c)
	return nil
}

// parseCommon reads the members that both forms have, and skips what nobody knows.
func (q *query) parseCommon(d *jx.Decoder, key string) error {
	switch key {
	case "features":
		if d.Next() == jx.Null {
			return d.Null()
		}
		if d.Next() != jx.Array {
			return shapeError{[]any{"body", key}, "list_type", "want an array of view:feature"}
		}
		return d.Arr(func(d *jx.Decoder) error {
			var ref string
			if d.Next() != jx.String {
				return shapeError{[]any{"body", key, len(q.features)}, "string_type", "want view:feature"}
			}
			ref, err := d.Str()
			q.features = append(q.features, ref)
			if len(q.features) > maxColumns {
				return badRequest("more than %d features: split the request", maxColumns)
			}
			return err
		})
	case "as_of":
		t, err := parseMoment(d)
		q.asOf = t
		return err
	}
	return d.Skip()
}

// parseMoment reads milliseconds since 1970, or RFC 3339; null is now.
func parseMoment(d *jx.Decoder) (*windows.Time, error) {
	bad := shapeError{[]any{"body", "as_of"}, "as_of", "want milliseconds since 1970, or a time like 2026-11-25T08:00:00Z"}
	switch d.Next() {
	case jx.Null:
		return nil, d.Null()
	case jx.Number:
		n, err := d.Num()
		if err != nil {
			return nil, err
		}
		v, err := strconv.ParseInt(string(n), 10, 64)
		if err != nil {
			return nil, bad
		}
		t := windows.Time(v)
		return &t, nil
	case jx.String:
		text, err := d.Str()
		if err != nil {
			return nil, err
		}
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return nil, bad
		}
		// A read just after an event needs the moment rounded up, not down.
		t := windows.Time(at.UnixMilli())
		if at.Nanosecond()%int(time.Millisecond) != 0 {
			t = t.Add(1)
		}
		return &t, nil
	default:
		return nil, bad
	}
}

func parseCell(d *jx.Decoder) (cell, error) {
	switch d.Next() {
	case jx.Null:
		return cell{}, d.Null()
	case jx.Number:
		n, err := d.Num()
		return cell{cellNumber, string(n)}, err
	case jx.String:
		text, err := d.Str()
		if err == nil && !utf8.ValidString(text) {
			err = badRequest("an entity key is not UTF-8")
		}
		return cell{cellText, text}, err
	case jx.Bool:
		b, err := d.Bool()
		return cell{cellBool, strconv.FormatBool(b)}, err
	default:
		return cell{kind: cellOther}, d.Skip()
	}
}

func parseText(d *jx.Decoder, key string, to *string) (err error) {
	switch d.Next() {
	case jx.Null:
		return d.Null()
	case jx.String:
		*to, err = d.Str()
		return err
	default:
		return shapeError{[]any{"body", key}, "string_type", "want a string"}
	}
}

func parseFlag(d *jx.Decoder, key string, to *bool) (err error) {
	switch d.Next() {
	case jx.Null:
		return d.Null()
	case jx.Bool:
		*to, err = d.Bool()
		return err
	default:
		return shapeError{[]any{"body", key}, "bool_type", "want true or false"}
	}
}

// parseBody reads one JSON object and nothing behind it.
func parseBody(body []byte, member func(d *jx.Decoder, key string) error) error {
	d := jx.GetDecoder()
	defer jx.PutDecoder(d)
	d.ResetBytes(body)
	if d.Next() != jx.Object {
		if !jx.Valid(body) {
			return shapeError{[]any{"body"}, "json_invalid", "JSON decode error"}
		}
		return shapeError{[]any{"body"}, "model_attributes_type", "want a JSON object"}
	}
	err := d.Obj(member)
	if err == nil && (d.Next() != jx.Invalid || !errors.Is(d.Skip(), io.EOF)) {
		err = errors.New("bytes behind the object")
	}
	if err == nil {
		return nil
	}
	if shape, ok := errors.AsType[shapeError](err); ok {
		return shape
	}
	if request, ok := errors.AsType[requestError](err); ok {
		return request
	}
	text := err.Error()
	return shapeError{[]any{"body"}, "json_invalid", fmt.Sprintf("JSON decode error: %s", strings.ToValidUTF8(text[:min(len(text), 200)], "?"))}
}
