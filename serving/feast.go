package serving

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/labstack/echo/v4"

	"millrace/windows"
)

// feastFeatures answers POST /get-online-features as Feast's own server does, where that is right.
func (s *Server) feastFeatures(c echo.Context) error {
	body, err := s.body(c)
	if err != nil {
		return err
	}
	q, err := parseColumns(body)
	if err != nil {
		return err
	}
	p, a, err := s.answer(c, q)
	if err != nil {
		return err
	}
	var versions []int
	if q.versionMeta {
		for _, v := range p.views {
			versions = append(versions, s.ordinal(v.view))
		}
	}
	defer s.store.release(a)
	return s.send(c, func(dst []byte) []byte { return appendFeast(dst, p, &a.answer, versions) })
}

// answer checks a query and reads it. The caller releases the reading.
func (s *Server) answer(c echo.Context, q *query) (*plan, *reading, error) {
	p, err := s.resolve(q)
	if err != nil {
		return nil, nil, err
	}
	ctx := c.Request().Context()
	a, err := s.store.read(ctx, p, s.cfg.Now())
	if err != nil {
		return nil, nil, err
	}
	for i, v := range p.views {
		var n [windows.StatusOutsideMaxAge + 1]int64
		for at := 0; at < len(a.views[i].results); at += len(v.view.Features) {
			for _, f := range v.features {
				n[a.views[i].results[at+f].Status]++
			}
		}
		for status, count := range n {
			if count > 0 {
				s.statuses.Add(ctx, count, s.counted[countKey{v.view.Version.ID, windows.Status(status)}])
			}
		}
	}
	return p, a, nil
}

// body reads a request's body within the limit.
func (s *Server) body(c echo.Context) ([]byte, error) {
	r := c.Request()
	if r.ContentLength > maxBody {
		return nil, requestError{413, "FeastError", "BODY_TOO_LARGE", fmt.Sprintf("a body of %d bytes is larger than %d: split the request", r.ContentLength, maxBody)}
	}
	var body []byte
	var err error
	if r.ContentLength >= 0 {
		body = make([]byte, r.ContentLength)
		_, err = io.ReadFull(r.Body, body)
	} else {
		body, err = io.ReadAll(http.MaxBytesReader(c.Response(), r.Body, maxBody))
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, requestError{413, "FeastError", "BODY_TOO_LARGE", fmt.Sprintf("the body is larger than %d bytes: split the request", maxBody)}
	}
	if err != nil {
		return nil, badRequest("read the body: %s", err)
	}
	return body, nil
}

// send writes an answer from a pooled buffer.
func (s *Server) send(c echo.Context, write func([]byte) []byte) error {
	buf := s.buffers.Get().(*[]byte) //nolint:forcetypeassert // the pool holds nothing else
	*buf = write((*buf)[:0])
	c.Response().Header().Set(echo.HeaderContentLength, strconv.Itoa(len(*buf)))
	err := c.Blob(http.StatusOK, echo.MIMEApplicationJSON, *buf)
	if cap(*buf) < 1<<20 {
		s.buffers.Put(buf)
	}
	return err
}

// health answers as Feast's server does: an empty 200 while it can serve.
func (s *Server) health(c echo.Context) error {
	if s.stopping.Load() {
		return c.NoContent(http.StatusServiceUnavailable)
	}
	if err := s.cfg.Redis.Ping(c.Request().Context()).Err(); err != nil {
		return c.NoContent(http.StatusServiceUnavailable)
	}
	return c.NoContent(http.StatusOK)
}

// elsewhere says what to do instead of Feast's calls that are not served here.
func elsewhere() map[string]requestError {
	const (
		write       = "this server takes no writes: publish events to the topic of the view's source, with `millrace produce` or any Kafka client"
		materialize = "this server starts no batch runs: run `millrace batch`; it never changes a served value"
		search      = "vector search is not supported"
	)
	return map[string]requestError{
		"/push":                      {422, "FeastError", "NOT_SUPPORTED", write},
		"/write-to-online-store":     {422, "FeastError", "NOT_SUPPORTED", write},
		"/materialize":               {422, "FeastError", "NOT_SUPPORTED", materialize},
		"/materialize-incremental":   {422, "FeastError", "NOT_SUPPORTED", materialize},
		"/search":                    {501, "FeastError", "NOT_SUPPORTED", search},
		"/retrieve-online-documents": {501, "FeastError", "NOT_SUPPORTED", search},
	}
}

// unsupported answers a call of elsewhere. Neither status is tried again by Feast's clients.
func unsupported(c echo.Context) error { return elsewhere()[c.Path()] }

// failFeast writes an error as Feast's clients read it: an object inside a JSON string, except for what its framework itself
// refuses.
func failFeast(c echo.Context, status int, err error) error {
	if shape, ok := errors.AsType[shapeError](err); ok {
		return c.JSON(status, map[string]any{"detail": []map[string]any{{"type": shape.kind, "loc": shape.loc, "msg": shape.msg}}})
	}
	if _, ok := errors.AsType[*echo.HTTPError](err); ok {
		return c.JSON(status, map[string]string{"detail": http.StatusText(status)})
	}
	class, message := "FeastError", err.Error()
	if request, ok := errors.AsType[requestError](err); ok {
		class = request.class
	} else if status >= http.StatusInternalServerError {
		message = publicMessage(status)
	}
	inner, marshalErr := json.Marshal(struct {
		Module  string `json:"module"`
		Class   string `json:"class"`
		Message string `json:"message"`
	}{"feast.errors", class, message})
	if marshalErr != nil {
		return marshalErr
	}
	return c.JSON(status, string(inner))
}
