package serving

import (
	_ "embed"
	"errors"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/trace"

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
	return s.send(c, func(dst []byte) []byte { return appendRows(dst, p, a, eventTimes) })
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
		return requestError{404, "FeatureViewNotFoundException", "VIEW_NOT_FOUND", "no view " + c.Param("name") + " in project " + s.cfg.Bound.Project}
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

// problem is an error of /v1 (RFC 9457).
type problem struct {
	Type     string         `json:"type"`
	Title    string         `json:"title"`
	Status   int            `json:"status"`
	Detail   string         `json:"detail"`
	Instance string         `json:"instance"`
	Code     string         `json:"code"`
	TraceID  string         `json:"trace_id,omitempty"`
	Errors   []problemPlace `json:"errors,omitempty"`
}

type problemPlace struct {
	Pointer string `json:"pointer"`
	Code    string `json:"code"`
	Detail  string `json:"detail"`
}

// fail is the one table from errors to answers. What it does not know is ours, and is told by a fixed text.
func (s *Server) fail(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	status, code := http.StatusInternalServerError, "INTERNAL"
	var (
		request     requestError
		shape       shapeError
		unavailable unavailableError
		framework   *echo.HTTPError
	)
	switch {
	case errors.As(err, &request):
		status, code = request.status, request.code
	case errors.As(err, &shape):
		status, code = http.StatusUnprocessableEntity, "BODY_SHAPE"
	case errors.As(err, &unavailable):
		status, code = http.StatusServiceUnavailable, "UNAVAILABLE"
		c.Response().Header().Set("Retry-After", "1")
	case errors.As(err, &framework):
		status, code = framework.Code, strings.ToUpper(strings.ReplaceAll(http.StatusText(framework.Code), " ", "_"))
	}
	if status >= http.StatusInternalServerError && status != http.StatusNotImplemented {
		s.cfg.Logger.Warn("request failed", "route", c.Path(), "status", status, "error", err.Error())
	}
	var sendErr error
	if strings.HasPrefix(c.Request().URL.Path, "/v1/") {
		p := problem{
			Type: "/docs/errors/" + strings.ToLower(strings.ReplaceAll(code, "_", "-")), Title: http.StatusText(status), Status: status,
			Detail: err.Error(), Instance: c.Request().URL.Path, Code: code,
		}
		if span := trace.SpanContextFromContext(c.Request().Context()); span.HasTraceID() {
			p.TraceID = span.TraceID().String()
		}
		switch {
		case shape.kind != "":
			p.Errors = []problemPlace{{"#/" + strings.Join(shape.loc, "/"), shape.kind, shape.msg}}
		case status >= http.StatusInternalServerError && code != "NOT_SUPPORTED":
			p.Detail = publicMessage(status)
		case framework != nil:
			p.Detail = http.StatusText(status)
		}
		c.Response().Header().Set(echo.HeaderContentType, "application/problem+json")
		sendErr = c.JSON(status, p)
	} else {
		sendErr = failFeast(c, status, err)
	}
	if sendErr != nil {
		s.cfg.Logger.Debug("answer an error", "error", sendErr.Error())
	}
}

// publicMessage is what a caller is told of a failure that is not theirs.
func publicMessage(status int) string {
	if status == http.StatusServiceUnavailable {
		return "the store cannot be read, or too many requests are under way: try again"
	}
	return "an error of the server; its log has more"
}
