package serving

import (
	"bytes"
	"encoding/json"
	"mime"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// description is the API's description with its schemas, compiled when they are first needed.
type description struct {
	Paths map[string]map[string]struct {
		OperationID string              `json:"operationId"`
		Tags        []string            `json:"tags"`
		Summary     string              `json:"summary"`
		Security    []any               `json:"security"`
		Responses   map[string]response `json:"responses"`
		RequestBody *response           `json:"requestBody"`
	} `json:"paths"`
	Components struct {
		Responses map[string]response `json:"responses"`
	} `json:"components"`

	mu       sync.Mutex
	compiler *jsonschema.Compiler
	schemas  map[string]*jsonschema.Schema
}

type response struct {
	Ref     string `json:"$ref"`
	Content map[string]struct {
		Schema json.RawMessage `json:"schema"`
	} `json:"content"`
}

var loadDescription = sync.OnceValues(func() (*description, error) {
	d := &description{compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}}
	if err := json.Unmarshal(openAPIDocument, d); err != nil {
		return nil, err
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(openAPIDocument))
	if err != nil {
		return nil, err
	}
	d.compiler.DefaultDraft(jsonschema.Draft2020)
	return d, d.compiler.AddResource("openapi.json", document)
})

// schema compiles the schema at a JSON pointer of the description.
func (d *description) schema(t *testing.T, pointer ...string) *jsonschema.Schema {
	t.Helper()
	var b strings.Builder
	b.WriteString("openapi.json#")
	for _, part := range pointer {
		b.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D", "+", "%2B").Replace(part))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.schemas[b.String()]; s != nil {
		return s
	}
	s, err := d.compiler.Compile(b.String())
	if err != nil {
		t.Fatal(err)
	}
	d.schemas[b.String()] = s
	return s
}

var parameter = regexp.MustCompile(`:(\w+)`)

// route finds the route of a request, in the description's form.
func route(s *Server, r *http.Request) string {
	for _, known := range s.echo.Routes() {
		pattern := regexp.MustCompile("^" + parameter.ReplaceAllString(known.Path, `[^/]+`) + "$")
		if known.Method == r.Method && pattern.MatchString(r.URL.Path) {
			return parameter.ReplaceAllString(known.Path, "{$1}")
		}
	}
	return ""
}

// contract checks an answer against the description.
func contract(t *testing.T, s *Server, r *http.Request, w *httptest.ResponseRecorder) {
	t.Helper()
	d, err := loadDescription()
	if err != nil {
		t.Fatal(err)
	}
	for header, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
		if got := w.Header().Get(header); got != want {
			t.Errorf("%s %s: header %s is %q", r.Method, r.URL.Path, header, got)
		}
	}
	if w.Header().Get("X-Request-Id") == "" {
		t.Errorf("%s %s: no X-Request-Id", r.Method, r.URL.Path)
	}
	status := strconv.Itoa(w.Code)
	pointer := []string{"components", "schemas", "FeastError"}
	media := "application/json"
	if path := route(s, r); path == "" || w.Code == http.StatusMisdirectedRequest {
		if strings.HasPrefix(r.URL.Path, "/v1/") {
			pointer[2], media = "Problem", "application/problem+json"
		}
	} else {
		operation, ok := d.Paths[path][strings.ToLower(r.Method)]
		if !ok {
			t.Errorf("%s %s is not described", r.Method, path)
			return
		}
		pointer = []string{"paths", path, strings.ToLower(r.Method), "responses", status}
		answer, ok := operation.Responses[status]
		if !ok {
			t.Errorf("%s %s: answer %s is not described: %s", r.Method, path, status, w.Body)
			return
		}
		if name, ok := strings.CutPrefix(answer.Ref, "#/components/responses/"); ok {
			pointer, answer = []string{"components", "responses", name}, d.Components.Responses[name]
		}
		if len(answer.Content) == 0 {
			if w.Body.Len() > 0 {
				t.Errorf("%s %s: a body that is not described: %s", r.Method, path, w.Body)
			}
			return
		}
		for only := range answer.Content {
			media = only
		}
		pointer = append(pointer, "content", media, "schema")
	}
	if got, _, err := mime.ParseMediaType(w.Header().Get("Content-Type")); err != nil || got != media {
		t.Errorf("%s %s: content type %q, want %s", r.Method, r.URL.Path, w.Header().Get("Content-Type"), media)
	}
	body, err := jsonschema.UnmarshalJSON(bytes.NewReader(w.Body.Bytes()))
	if err != nil {
		t.Errorf("%s %s: %v in %s", r.Method, r.URL.Path, err, w.Body)
		return
	}
	if err := d.schema(t, pointer...).Validate(body); err != nil {
		t.Errorf("%s %s: %v in %s", r.Method, r.URL.Path, err, w.Body)
	}
}

// TestDescription: every route is described and nothing else is, and what every operation must have is there.
func TestDescription(t *testing.T) {
	s := aShop(t).server()
	d, err := loadDescription()
	if err != nil {
		t.Fatal(err)
	}
	var routes, described []string
	for _, r := range s.echo.Routes() {
		routes = append(routes, strings.ToLower(r.Method)+" "+parameter.ReplaceAllString(r.Path, "{$1}"))
	}
	ids := map[string]bool{}
	for path, operations := range d.Paths {
		for method, o := range operations {
			described = append(described, method+" "+path)
			if o.OperationID == "" || ids[o.OperationID] || len(o.Tags) == 0 || o.Summary == "" || o.Security == nil || len(o.Responses) == 0 {
				t.Errorf("%s %s: operationId, tags, summary, security or responses", method, path)
			}
			ids[o.OperationID] = true
		}
	}
	slices.Sort(routes)
	slices.Sort(described)
	if !slices.Equal(routes, described) {
		t.Errorf("routes     %v\ndescribed %v", routes, described)
	}
	w := ask(t, s, http.MethodGet, "/openapi.json", "")
	if !bytes.Equal(w.Body.Bytes(), openAPIDocument) {
		t.Error("/openapi.json is not the description")
	}
	// The examples of requests fit their schemas.
	for _, name := range []string{"RowRequest", "ColumnRequest"} {
		schema := d.schema(t, "components", "schemas", name)
		if len(schema.Examples) == 0 {
			t.Errorf("%s has no example", name)
		}
		for _, example := range schema.Examples {
			if err := schema.Validate(example); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestCatalog(t *testing.T) {
	s := aShop(t).server()
	ask(t, s, http.MethodGet, "/readyz", "")
	var views struct{ Items []viewDocument }
	strict(t, ask(t, s, http.MethodGet, "/v1/views", "").Body.Bytes(), &views)
	if len(views.Items) != 3 {
		t.Fatalf("%+v", views)
	}
	var v viewDocument
	strict(t, ask(t, s, http.MethodGet, "/v1/views/spending", "").Body.Bytes(), &v)
	if v.Name != "spending" || v.Description != "What a customer spends." || v.Entity != "customer" || v.Source != "orders" || v.Version != 1 || !v.Complete ||
		len(v.Keys) != 1 || v.Keys[0] != (keyDocument{"user_id", "int64"}) || len(v.Features) != 7 || v.Features[0] != (featureDocument{"total", "In euros.", "float64"}) {
		t.Errorf("%+v", v)
	}
	w := ask(t, s, http.MethodGet, "/v1/views/spendin", "")
	if w.Code != 404 || !strings.Contains(w.Body.String(), "nearest: spending") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	var services struct {
		Items []struct {
			Name, Description string
			Features          []string
		}
	}
	strict(t, ask(t, s, http.MethodGet, "/v1/services", "").Body.Bytes(), &services)
	if len(services.Items) != 1 || services.Items[0].Name != "ranking" || strings.Join(services.Items[0].Features, " ") != "browsing:page browsing:clicks spending:total" {
		t.Errorf("%+v", services)
	}
}
