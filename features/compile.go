package features

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"millrace/windows"
)

// Compiled is a project ready to run.
type Compiled struct {
	*Definitions
	Views []*CompiledView
}

// CompiledView is a feature view ready to run.
type CompiledView struct {
	*windows.View
	Definition *View
	Source     *Source
	Entity     *Entity
	// KeyFields are the source's fields that hold the entity's keys, as indices into a row.
	KeyFields []int
	// Filter is the view's where, nil if it has none; FeatureFilters are those of its features, by WhereKey.
	Filter         *Where
	FeatureFilters map[string]*Where
	// Hash identifies what determines the view's values and the layout of its states: two definitions with one hash have the
	// same values on every log, under the same names, in the same bytes.
	Hash string
}

// Compile makes definitions runnable. Definitions that Parse accepted compile.
func Compile(d *Definitions) (*Compiled, error) {
	c := &Compiled{Definitions: d}
	for _, v := range d.Views {
		cv, err := compileView(d, v)
		if err != nil {
			return nil, fmt.Errorf("view %s: %w", v.Name, err)
		}
		c.Views = append(c.Views, cv)
	}
	return c, nil
}

func compileView(d *Definitions, v *View) (*CompiledView, error) {
	source, entity := d.Source(v.Source), d.Entity(v.Entity)
	if source == nil || entity == nil {
		return nil, fmt.Errorf("unknown source %q or entity %q", v.Source, v.Entity)
	}
	cv := &CompiledView{Definition: v, Source: source, Entity: entity, FeatureFilters: map[string]*Where{}}
	for _, k := range entity.Keys {
		i := source.FieldIndex(source.KeyField(k.Name))
		if i < 0 {
			return nil, fmt.Errorf("source %s has no field %q for key %s", source.Name, source.KeyField(k.Name), k.Name)
		}
		cv.KeyFields = append(cv.KeyFields, i)
	}
	var err error
	var where windows.Predicate
	if v.Where != "" {
		if cv.Filter, err = ParseWhere(v.Where, source.Fields); err != nil {
			return nil, fmt.Errorf("where: %w", err)
		}
		where = cv.Filter.Predicate()
	}
	list := make([]windows.Feature, 0, len(v.Features))
	for _, f := range v.Features {
		wf := windows.Feature{Name: f.Name, Kind: f.Kind, Window: f.Window, Op: f.Op, Field: -1}
		if f.Field != "" {
			if wf.Field = source.FieldIndex(f.Field); wf.Field < 0 {
				return nil, fmt.Errorf("feature %s: source %s has no field %q", f.Name, source.Name, f.Field)
			}
			wf.Type = source.Fields[wf.Field].Type
		}
		if f.Where != "" {
			filter, err := ParseWhere(f.Where, source.Fields)
			if err != nil {
				return nil, fmt.Errorf("feature %s: where: %w", f.Name, err)
			}
			wf.Where, wf.WhereKey = filter.Predicate(), filter.String()
			cv.FeatureFilters[wf.WhereKey] = filter
		}
		list = append(list, wf)
	}
	if cv.View, err = windows.NewView(list, where, v.TTL, source.maxText(v)); err != nil {
		return nil, err
	}
	cv.Hash = hashView(cv)
	return cv, nil
}

// hashView digests everything that determines the values of a view and the layout of their states, and nothing else: no
// description, no ttl (asked at the read), no epoch size, no service. The names of source and entity are in it because history
// and state are found by them. The order of topics, of fields and of keys in a source
// means nothing and is not in it; the order of features is, because states are laid out in it.
func hashView(v *CompiledView) string {
	var b strings.Builder
	s := v.Source
	fmt.Fprintf(&b, "source %q %q time %q %s [%d,%d] future %d\n", s.Name, slices.Sorted(slices.Values(s.Topics)), s.EventTime.Field, s.EventTime.Unit, s.EventTime.Min, s.EventTime.Max, s.MaxFuture)
	fields := slices.Clone(s.Fields)
	slices.SortFunc(fields, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	for _, f := range fields { // all of them: a bad value in any declared field rejects the record
		fmt.Fprintf(&b, "field %q %s required=%t max=%d\n", f.Name, f.Type, f.Required || f.Name == s.EventTime.Field, f.MaxBytes)
	}
	fmt.Fprintf(&b, "entity %q %q\n", v.Entity.Name, keyTypes(v.Entity)) // by which the registry numbers it
	for _, i := range v.KeyFields {
		fmt.Fprintf(&b, "key from %q\n", s.Fields[i].Name)
	}
	if v.Filter != nil {
		fmt.Fprintf(&b, "where %s\n", v.Filter)
	}
	for _, f := range v.Features {
		field := ""
		if f.Field >= 0 {
			field = s.Fields[f.Field].Name
		}
		fmt.Fprintf(&b, "feature %q kind=%d op=%s field=%q where=%q window=%+v\n", f.Name, f.Kind, f.Op, field, f.WhereKey, f.Window)
	}
	sum := sha256.Sum256([]byte(b.String()))
	return hex.EncodeToString(sum[:16])
}

// Source returns the source of that name, or nil.
func (d *Definitions) Source(name string) *Source {
	return find(d.Sources, func(s *Source) bool { return s.Name == name })
}

// Entity returns the entity of that name, or nil.
func (d *Definitions) Entity(name string) *Entity {
	return find(d.Entities, func(e *Entity) bool { return e.Name == name })
}

// Service returns the service of that name, or nil.
func (d *Definitions) Service(name string) *Service {
	return find(d.Services, func(s *Service) bool { return s.Name == name })
}

// View returns the compiled view of that name, or nil.
func (c *Compiled) View(name string) *CompiledView {
	return find(c.Views, func(v *CompiledView) bool { return v.Definition.Name == name })
}

// ViewsOf returns the views over a source, in declared order.
func (c *Compiled) ViewsOf(source *Source) []*CompiledView {
	return slices.DeleteFunc(slices.Clone(c.Views), func(v *CompiledView) bool { return v.Source != source })
}

func find[T any](list []*T, match func(*T) bool) *T {
	if i := slices.IndexFunc(list, match); i >= 0 {
		return list[i]
	}
	return nil
}

// FieldIndex returns the index of a field in a row, or -1.
func (s *Source) FieldIndex(name string) int {
	return slices.IndexFunc(s.Fields, func(f Field) bool { return f.Name == name })
}

// KeyField returns the field that holds an entity key.
func (s *Source) KeyField(key string) string {
	if field, ok := s.Keys[key]; ok {
		return field
	}
	return key
}

// maxText returns the greatest length of a text that a view's states may hold.
func (s *Source) maxText(v *View) int {
	most := 0
	for _, f := range v.Features {
		if i := s.FieldIndex(f.Field); i >= 0 && s.Fields[i].Type == windows.String {
			most = max(most, s.Fields[i].MaxBytes)
		}
	}
	return most
}

// FeatureIndex returns the index of a feature in the view's results, or -1.
func (v *CompiledView) FeatureIndex(name string) int {
	return slices.IndexFunc(v.Features, func(f windows.Feature) bool { return f.Name == name })
}
