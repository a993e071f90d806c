package serving

import (
	_ "embed"
	"fmt"
	"net/http"

	"github.com/labstack/echo/v4"

	"millrace/features"
)

// rowFeatures answers POST /v1/online-features.
func (s *Server) rowFeatures(c echo.Context) error {
	body, err := s.body(c)
	if err != nil {
		return err
	}
	q, eventTimes, err := parseRows(body)
	if err != nil {
		return err
	}
	p, a, err := s.answer(c, q)
	if err != nil {
		return err
	}
	defer s.store.release(a)
	return s.send(c, func(dst []byte) []byte { return appendRows(dst, p, &a.answer, eventTimes) })
}

// viewDocument describes a view for people and tools.
type viewDocument struct {
	Name        string            `json:"name"`
	Description string            `json:"description,omitempty"`
	Version     int               `json:"version"`
	Hash        string            `json:"hash"`
	Entity      string            `json:"entity"`
	Keys        []keyDocument     `json:"keys"`
	Source      string            `json:"source"`
	Complete    bool              `json:"complete"`
	WaitsFor    string            `json:"waits_for,omitempty"`
	Features    []featureDocument `json:"features"`
}

type keyDocument struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

type featureDocument struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Type        string `json:"type"`
}

func (s *Server) describe(v *features.BoundView) viewDocument {
	d := viewDocument{
		Name: v.Definition.Name, Description: v.Definition.Description, Version: s.ordinal(v), Hash: v.Hash,
		Entity: v.Entity.Name, Source: v.Source.Name, Complete: s.store.ready.complete(v.Version.ID),
	}
	if !d.Complete {
		d.WaitsFor = s.store.ready.missing()[v.Definition.Name]
	}
	for _, k := range v.Entity.Keys {
		d.Keys = append(d.Keys, keyDocument{k.Name, k.Type.String()})
	}
	for i := range v.Features {
		d.Features = append(d.Features, featureDocument{v.Features[i].Name, v.Definition.Features[i].Description, v.Features[i].ResultType().String()})
	}
	return d
}

func (s *Server) listViews(c echo.Context) error {
	items := []viewDocument{}
	for _, v := range s.cfg.Bound.Views {
		items = append(items, s.describe(v))
	}
	return c.JSON(http.StatusOK, map[string]any{"items": items})
}

func (s *Server) showView(c echo.Context) error {
	v := s.cfg.Bound.View(c.Param("name"))
	if v == nil {
		return requestError{
			404, "FeatureViewNotFoundException", "VIEW_NOT_FOUND",
			fmt.Sprintf("no view %q in project %s%s", c.Param("name"), s.cfg.Bound.Project, nearest(c.Param("name"), s.viewNames())),
		}
	}
	return c.JSON(http.StatusOK, s.describe(v))
}

func (s *Server) listServices(c echo.Context) error {
	type service struct {
		Name        string   `json:"name"`
		Description string   `json:"description,omitempty"`
		Features    []string `json:"features"`
	}
	items := []service{}
	for _, d := range s.cfg.Bound.Services {
		item := service{d.Name, d.Description, []string{}}
		refs, err := s.references(&query{service: d.Name})
		if err != nil {
			return err
		}
		item.Features = append(item.Features, refs...)
		items = append(items, item)
	}
	return c.JSON(http.StatusOK, map[string]any{"items": items})
}

//go:embed openapi.json
var openAPIDocument []byte

func (s *Server) openAPI(c echo.Context) error {
	return c.JSONBlob(http.StatusOK, openAPIDocument)
}
