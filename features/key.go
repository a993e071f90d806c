package features

import (
	"encoding/binary"
	"fmt"

	"millrace/windows"
)

// AppendKey appends the bytes of an entity's identity: for each key in declared order a type tag, the length and the value.
// ok is false if a value is null: the record does not touch the entity. The values must be of the keys' types.
func (e *Entity) AppendKey(dst []byte, values []windows.Value) (key []byte, ok bool) {
	for i, k := range e.Keys {
		if dst, ok = appendKeyPart(dst, k.Type, values[i]); !ok {
			return dst, false
		}
	}
	return dst, true
}

// AppendKey appends the bytes of the identity of the entity that a row is about, as Entity.AppendKey does.
func (v *CompiledView) AppendKey(dst []byte, row []windows.Value) (key []byte, ok bool) {
	for i, f := range v.KeyFields {
		if dst, ok = appendKeyPart(dst, v.Entity.Keys[i].Type, row[f]); !ok {
			return dst, false
		}
	}
	return dst, true
}

func appendKeyPart(dst []byte, t windows.Type, v windows.Value) ([]byte, bool) {
	if v.Kind == windows.Null {
		return dst, false
	}
	switch t {
	case windows.String:
		dst = binary.AppendUvarint(append(dst, 's'), uint64(len(v.Str)))
		return append(dst, v.Str...), true
	case windows.Int64:
		var buf [binary.MaxVarintLen64]byte
		n := binary.PutVarint(buf[:], v.Int())
		return append(append(dst, 'i', byte(n)), buf[:n]...), true
	case windows.Bool:
		return append(dst, 'b', 1, byte(v.Bits)), true
	default:
		panic("BUG: key of type " + t.String())
	}
}

// ParseKey reads back what AppendKey wrote.
func (e *Entity) ParseKey(key []byte) ([]windows.Value, error) {
	var values []windows.Value
	rest := key
	for _, k := range e.Keys {
		if len(rest) < 2 {
			return nil, fmt.Errorf("key %x of entity %s: too short", key, e.Name)
		}
		tag := rest[0]
		n, used := binary.Uvarint(rest[1:])
		if used <= 0 || n > uint64(len(rest)-1-used) {
			return nil, fmt.Errorf("key %x of entity %s: length", key, e.Name)
		}
		part := rest[1+used:][:n]
		rest = rest[1+used+int(n):]
		switch {
		case tag == 's' && k.Type == windows.String:
			values = append(values, windows.TextValue(string(part)))
		case tag == 'i' && k.Type == windows.Int64:
			v, used := binary.Varint(part)
			if used != len(part) {
				return nil, fmt.Errorf("key %x of entity %s: integer", key, e.Name)
			}
			values = append(values, windows.IntValue(v))
		case tag == 'b' && k.Type == windows.Bool && n == 1:
			values = append(values, windows.BoolValue(part[0] != 0))
		default:
			return nil, fmt.Errorf("key %x of entity %s: a %q where %s is declared", key, e.Name, tag, k.Type)
		}
	}
	if len(rest) != 0 {
		return nil, fmt.Errorf("key %x of entity %s: trailing bytes", key, e.Name)
	}
	return values, nil
}
