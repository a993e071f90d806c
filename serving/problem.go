package serving

import (
	"errors"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/trace"
)

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
			p.Errors = []problemPlace{{shape.pointer(), strings.ToUpper(shape.kind), shape.msg}}
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
