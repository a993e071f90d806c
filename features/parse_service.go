package features

import (
	"fmt"
	"slices"
	"strings"

	"millrace/windows"
)

func (b *builder) service(e yamlEntry) {
	n := e.value
	s := &Service{Name: e.key.text, Description: n.textOf("description")}
	b.d.Services = append(b.d.Services, s)
	list := n.get("features")
	if list == nil {
		return
	}
	c := serviceCheck{builder: b, full: map[string]string{}, short: map[string]string{}, keys: map[string]windows.Type{}, warned: map[string]bool{}}
	for _, item := range list.items {
		if item.bad {
			continue
		}
		ref := ParseRef(item.text)
		s.Features = append(s.Features, ref)
		v := b.views[ref.View]
		if v == nil {
			if !b.blind {
				b.unknown(item.place, "view", ref.View, b.namesIn("views"))
			}
			continue
		}
		c.view(item.place, v)
		names := []string{ref.Feature}
		if ref.Feature == "" {
			names = nil
			for _, f := range v.Features {
				names = append(names, f.Name)
			}
		} else if !slices.ContainsFunc(v.Features, func(f Feature) bool { return f.Name == ref.Feature }) {
			if !b.incomplete(v.Name) {
				var known []string
				for _, f := range v.Features {
					known = append(known, f.Name)
				}
				b.unknown(item.place, "feature of view `"+v.Name+"` called", ref.Feature, known)
			}
			continue
		}
		for _, name := range names {
			c.feature(item.place, v.Name, name)
		}
	}
	for _, item := range list.items {
		if !item.bad {
			c.keysAgain(item.place)
			break
		}
	}
}

// ParseRef reads view or view:feature.
func ParseRef(text string) Ref {
	view, feature, _ := strings.Cut(text, ":")
	return Ref{view, feature}
}

// String returns view or view:feature.
func (r Ref) String() string {
	if r.Feature == "" {
		return r.View
	}
	return r.View + ":" + r.Feature
}

// incomplete reports whether features of a view could not be read.
func (b *builder) incomplete(view string) bool {
	for _, e := range b.sections["views"] {
		if e.key.text == view {
			features := e.value.get("features")
			return features == nil || slices.ContainsFunc(features.entries, func(f yamlEntry) bool { return f.value.bad || f.key.bad })
		}
	}
	return true
}

// serviceCheck looks for names that an answer of one service could not tell apart.
type serviceCheck struct {
	*builder
	full   map[string]string // view__feature -> view:feature
	short  map[string]string // feature -> view
	keys   map[string]windows.Type
	warned map[string]bool
}

func (c *serviceCheck) view(at place, v *View) {
	entity := c.entities[v.Entity]
	if entity == nil || entity.bad {
		return
	}
	for _, k := range entity.Keys {
		if t, ok := c.keys[k.Name]; ok && t != k.Type && !c.warned[k.Name] {
			c.warned[k.Name] = true
			c.errorf(at, "rename one of the keys", "key `%s` is %s here and %s in another view of the service: no request can give both", k.Name, k.Type, t)
		}
		c.keys[k.Name] = k.Type
	}
}

func (c *serviceCheck) feature(at place, view, name string) {
	ref, full := Ref{view, name}.String(), view+"__"+name
	if other, ok := c.full[full]; ok {
		if other == ref {
			c.errorf(at, "keep one of them", "feature `%s` is in the service twice", ref)
		} else {
			c.errorf(at, "rename one of them", "features `%s` and `%s` are both `%s` in full", other, ref, full)
		}
		return
	}
	c.full[full] = ref
	if other, ok := c.short[name]; ok {
		c.warnf(at, fmt.Sprintf("ask for full names, which are `%s__%s` and `%s`", other, name, full), "feature `%s` comes from two views, `%s` and `%s`", name, other, view)
		return
	}
	c.short[name] = view
}

// keysAgain warns of features that have the name of a key of another view.
func (c *serviceCheck) keysAgain(at place) {
	for _, key := range sortedKeys(c.keys) {
		if view, ok := c.short[key]; ok && !c.hasKey(view, key) {
			c.warnf(at, fmt.Sprintf("ask for full names, which is `%s__%s`", view, key), "feature `%s:%s` has the name of a key of the service", view, key)
		}
	}
}

// hasKey reports whether a view's own entity has a key, which is reported at the view.
func (c *serviceCheck) hasKey(view, key string) bool {
	e := c.entities[c.views[view].Entity]
	return e != nil && slices.ContainsFunc(e.Keys, func(k Key) bool { return k.Name == key })
}
