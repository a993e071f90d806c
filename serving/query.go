package serving

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"millrace/features"
	"millrace/windows"
)

// Limits of one request. They bound memory and time; a larger need is several requests.
const (
	maxBody     = 4 << 20
	maxRows     = 10_000
	maxColumns  = 1_000   // features, and entity columns
	maxValues   = 500_000 // rows × features of the views that are read
	maxKeyBytes = 1 << 10 // of one text in an entity key
)

// query is a request for online features in either form, not yet checked against the definitions.
type query struct {
	entities    []entityColumn
	features    []string
	service     string
	fullNames   bool
	versionMeta bool
	asOf        *windows.Time

	byRow bool // entities came as rows, this many
	rows  int
}

// entityColumn is one key of all rows.
type entityColumn struct {
	name  string
	cells []cell
}

// cell is a value as it stands in the request: numbers as their text, never through a float.
type cell struct {
	kind cellKind
	text string
}

type cellKind uint8

const (
	cellNull cellKind = iota
	cellNumber
	cellText
	cellBool
	cellOther  // an array or an object
	cellAbsent // a row without this key
)

// plan is a checked request: which views are read, and which columns answer it in which order.
type plan struct {
	rows  int
	asOf  *windows.Time
	keys  []keyColumn
	views []planView
	names []string // of the feature columns; by row: view:feature
}

// keyColumn is an entity key that is echoed.
type keyColumn struct {
	name   string
	typ    windows.Type
	values []windows.Value
	absent int // the first row without the key, or -1
}

// planView is a view of the request with the features asked for, in order, and where its keys are in plan.keys.
type planView struct {
	view     *features.BoundView
	name     string // as features of it are called: with @v2 where the request pins the version
	features []int
	keys     []int
}

// resolve checks a query against the definitions.
func (s *Server) resolve(q *query) (*plan, error) {
	p := &plan{asOf: q.asOf}
	refs, err := s.references(q)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool, len(refs))
	for _, ref := range refs {
		if err := s.addReference(p, ref); err != nil {
			return nil, err
		}
	}
	for i := range p.views {
		v := &p.views[i]
		for _, f := range v.features {
			name := v.view.Features[f].Name
			switch {
			case q.byRow:
				name = v.name + ":" + name
			case q.fullNames:
				name = v.name + "__" + name
			}
			if seen[name] {
				return nil, requestError{
					422, "FeatureNameCollisionError", "NAME_COLLISION",
					fmt.Sprintf("two columns would be named %s: ask for each feature once, and set full_feature_names where views have features of one name", name),
				}
			}
			seen[name] = true
			p.names = append(p.names, name)
		}
	}
	if err := s.resolveKeys(p, q); err != nil {
		return nil, err
	}
	width := 0
	for _, v := range p.views {
		width += len(v.view.Features)
	}
	if p.rows*width > maxValues {
		return nil, badRequest("%d rows of views with %d features are more than %d values: split the request", p.rows, width, maxValues)
	}
	return p, nil
}

// references returns what is asked for: a service's features, or those that are named.
func (s *Server) references(q *query) ([]string, error) {
	if q.service != "" {
		service := s.cfg.Bound.Service(q.service)
		if service == nil {
			return nil, requestError{
				404, "FeatureServiceNotFoundException", "SERVICE_NOT_FOUND",
				fmt.Sprintf("Feature service %s does not exist in project %s", q.service, s.cfg.Bound.Project),
			}
		}
		var refs []string
		for _, r := range service.Features {
			if r.Feature != "" {
				refs = append(refs, r.View+":"+r.Feature)
				continue
			}
			for _, f := range s.cfg.Bound.View(r.View).Features {
				refs = append(refs, r.View+":"+f.Name)
			}
		}
		return refs, nil
	}
	if len(q.features) == 0 {
		return nil, badRequest("nothing is asked for: name features as view:feature, or a feature service")
	}
	if len(q.features) > maxColumns {
		return nil, badRequest("%d features are more than %d: split the request", len(q.features), maxColumns)
	}
	return q.features, nil
}

// addReference adds view:feature, or with the view's version view@v2:feature, to the plan.
func (s *Server) addReference(p *plan, ref string) error {
	name, feature, ok := strings.Cut(ref, ":")
	if !ok {
		return badRequest("feature reference %q: want view:feature", ref)
	}
	name, version := splitVersion(name)
	v := s.cfg.Bound.View(name)
	if v == nil {
		return requestError{
			404, "FeatureViewNotFoundException", "VIEW_NOT_FOUND",
			fmt.Sprintf("Feature view %s does not exist in project %s%s", name, s.cfg.Bound.Project, nearest(name, s.viewNames())),
		}
	}
	if version != 0 && version != s.ordinal(v) {
		return requestError{
			404, "FeatureViewVersionNotFound", "VIEW_VERSION_NOT_FOUND",
			fmt.Sprintf("version v%d of view %s is not served: the current one is v%d", version, name, s.ordinal(v)),
		}
	}
	f := v.FeatureIndex(feature)
	if f < 0 {
		return requestError{
			404, "FeastObjectNotFoundException", "FEATURE_NOT_FOUND",
			fmt.Sprintf("Feature %s does not exist in feature view %s%s", feature, name, nearest(feature, featureNames(v))),
		}
	}
	if version != 0 {
		name += "@v" + strconv.Itoa(version)
	}
	i := slices.IndexFunc(p.views, func(pv planView) bool { return pv.name == name })
	if i < 0 {
		i = len(p.views)
		p.views = append(p.views, planView{view: v, name: name})
	}
	p.views[i].features = append(p.views[i].features, f)
	return nil
}

func (s *Server) viewNames() []string {
	names := make([]string, len(s.cfg.Bound.Views))
	for i, v := range s.cfg.Bound.Views {
		names[i] = v.Definition.Name
	}
	return names
}

// nearest says which name was probably meant.
func nearest(name string, known []string) string {
	if near := features.Nearest(name, known); near != "" {
		return "; nearest: " + near
	}
	return ""
}

func featureNames(v *features.BoundView) []string {
	names := make([]string, len(v.Features))
	for i, f := range v.Features {
		names[i] = f.Name
	}
	return names
}

// splitVersion takes @v2 off a view's name; @latest and a bare @ mean the current version, anything else is part of the name.
func splitVersion(name string) (string, int) {
	base, tag, ok := strings.Cut(name, "@")
	if !ok {
		return name, 0
	}
	if tag == "" || tag == "latest" {
		return base, 0
	}
	if tag[0] == 'v' || tag[0] == 'V' {
		if n, err := strconv.Atoi(tag[1:]); err == nil && n > 0 {
			return base, n
		}
	}
	return name, 0
}

// ordinal numbers the versions that a view has had, from 1.
func (s *Server) ordinal(v *features.BoundView) int {
	n := 0
	for _, x := range s.cfg.Bound.Registry.Versions {
		if x.View == v.Version.View && x.ID <= v.Version.ID {
			n++
		}
	}
	return n
}

// resolveKeys finds the entity keys of the views in the request's columns and converts them to their types.
func (s *Server) resolveKeys(p *plan, q *query) error {
	p.rows = 1 // of views without keys
	if q.byRow {
		p.rows = q.rows
	} else if len(q.entities) > 0 {
		p.rows = len(q.entities[0].cells)
	}
	for i, c := range q.entities {
		if len(c.cells) != p.rows {
			return badRequest("entity columns differ in length: %s has %d values, %s has %d", q.entities[0].name, p.rows, c.name, len(c.cells))
		}
		if slices.ContainsFunc(q.entities[:i], func(other entityColumn) bool { return other.name == c.name }) {
			return badRequest("entity column %s is given twice", c.name)
		}
	}
	if p.rows > maxRows {
		return badRequest("%d rows are more than %d: split the request", p.rows, maxRows)
	}
	for _, c := range q.entities {
		typ, known := s.keyTypes[c.name]
		if !known {
			continue // Feast's clients send columns that no key has, and expect them to be dropped
		}
		column := keyColumn{name: c.name, typ: typ, values: make([]windows.Value, p.rows), absent: -1}
		for i, cell := range c.cells {
			if cell.kind == cellAbsent && column.absent < 0 {
				column.absent = i
			}
			v, err := cell.as(typ)
			if err != nil {
				return badRequest("entity key %s, row %d: %s", c.name, i, err)
			}
			column.values[i] = v
		}
		p.keys = append(p.keys, column)
	}
	if p.rows == 0 && q.byRow {
		return nil // nothing says which keys the rows would have had
	}
	for i := range p.views {
		v := &p.views[i]
		for _, k := range v.view.Entity.Keys {
			at := slices.IndexFunc(p.keys, func(c keyColumn) bool { return c.name == k.Name })
			if at < 0 {
				return badRequest("missing join key %s, which feature view %s needs: its keys are %s", k.Name, v.view.Definition.Name, keyNames(v.view))
			}
			if row := p.keys[at].absent; row >= 0 {
				return badRequest("missing join key %s in row %d, which feature view %s needs: its keys are %s", k.Name, row, v.view.Definition.Name, keyNames(v.view))
			}
			v.keys = append(v.keys, at)
		}
	}
	return nil
}

func keyNames(v *features.BoundView) string {
	names := make([]string, len(v.Entity.Keys))
	for i, k := range v.Entity.Keys {
		names[i] = k.Name
	}
	return strings.Join(names, ", ")
}

// as converts a value of a request to a key's type. A null key is null: its row is not found.
func (c cell) as(t windows.Type) (windows.Value, error) {
	switch {
	case c.kind == cellNull || c.kind == cellAbsent:
		return windows.Value{}, nil
	case t == windows.String && (c.kind == cellText || c.kind == cellNumber):
		if len(c.text) > maxKeyBytes {
			return windows.Value{}, fmt.Errorf("a text of %d bytes is longer than %d", len(c.text), maxKeyBytes)
		}
		return windows.TextValue(c.text), nil
	case t == windows.Int64 && (c.kind == cellText || c.kind == cellNumber):
		text := c.text
		if whole, fraction, ok := strings.Cut(text, "."); ok && c.kind == cellNumber && strings.Trim(fraction, "0") == "" {
			text = whole // 1001.0 is 1001
		}
		v, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return windows.Value{}, fmt.Errorf("%.40q is not an int64", c.text)
		}
		return windows.IntValue(v), nil
	case t == windows.Bool && c.kind == cellBool:
		return windows.BoolValue(c.text == "true"), nil
	}
	return windows.Value{}, fmt.Errorf("want %s", t)
}
