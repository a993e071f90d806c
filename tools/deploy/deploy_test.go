// Package deploy checks compose.yaml and the files under deploy/ as far as that goes without a container engine: each
// against its own program's parser, and all against each other and the source.
package deploy

import (
	"debug/elf"
	"encoding/json"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

const root = "../.."

func passwords() []string {
	return []string{"REDIS_PASSWORD=r", "CLICKHOUSE_PASSWORD=c", "GRAFANA_PASSWORD=g"}
}

func loadCompose(t *testing.T, env []string) (*types.Project, error) {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(root, "compose.yaml")}, cli.WithEnv(env), cli.WithProfiles([]string{"*"}))
	if err != nil {
		t.Fatal(err)
	}
	return options.LoadProject(t.Context())
}

func compose(t *testing.T) *types.Project {
	t.Helper()
	project, err := loadCompose(t, passwords())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func TestCompose(t *testing.T) {
	project := compose(t)
	for _, want := range []string{"kafka", "redis", "clickhouse", "apply", "speed", "serve", "batch", "otel-collector", "prometheus", "grafana"} {
		if _, ok := project.Services[want]; !ok {
			t.Errorf("no service %s", want)
		}
	}
	for name, s := range project.Services {
		if _, tag, ok := strings.Cut(s.Image, ":"); !ok || tag == "latest" {
			t.Errorf("%s: image %q is not pinned to a tag", name, s.Image)
		}
		oneShot := s.Restart == "no"
		switch {
		case s.HealthCheck == nil:
			t.Errorf("%s: no health check", name)
		case s.HealthCheck.Disable != oneShot:
			t.Errorf("%s: restart %q, health check disabled %v: what runs on needs one, what ends by itself cannot have one", name, s.Restart, s.HealthCheck.Disable)
		case !oneShot && len(s.HealthCheck.Test) < 2:
			t.Errorf("%s: health check without a test", name)
		}
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s is published on %q, want 127.0.0.1", name, p.Published, p.HostIP)
			}
		}
		for _, v := range s.Volumes {
			if v.Type != "bind" {
				continue
			}
			if _, err := os.Stat(v.Source); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if s.Build != nil {
			if _, err := os.Stat(filepath.Join(s.Build.Context, s.Build.Dockerfile)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if s.User != "65532:65532" || !s.ReadOnly || !slices.Contains(s.CapDrop, "ALL") {
				t.Errorf("%s: runs as %q, read-only %v, drops %v", name, s.User, s.ReadOnly, s.CapDrop)
			}
		}
		for other := range s.DependsOn {
			if _, ok := project.Services[other]; !ok {
				t.Errorf("%s depends on %s, which is not there", name, other)
			}
		}
	}
}

// TestComposeAsksForPasswords: without a password nothing starts, and the message names what to set.
func TestComposeAsksForPasswords(t *testing.T) {
	for _, missing := range passwords() {
		name, _, _ := strings.Cut(missing, "=")
		without := slices.DeleteFunc(passwords(), func(s string) bool { return s == missing })
		for _, env := range [][]string{without, append(without, name+"=")} {
			if _, err := loadCompose(t, env); err == nil || !strings.Contains(err.Error(), "set "+name+" in .env") {
				t.Errorf("with %v: got error %v", env, err)
			}
		}
	}
}

func TestEnvExample(t *testing.T) {
	content := read(t, "deploy/env.example")
	for _, password := range passwords() {
		name, _, _ := strings.Cut(password, "=")
		if !strings.Contains(content, "\n"+name+"=\n") {
			t.Errorf("deploy/env.example does not ask for %s, or gives it a default", name)
		}
	}
}

func TestPrometheus(t *testing.T) {
	project := compose(t)
	var config struct {
		RuleFiles     []string `yaml:"rule_files"`
		ScrapeConfigs []struct {
			JobName       string `yaml:"job_name"`
			StaticConfigs []struct {
				Targets []string `yaml:"targets"`
			} `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	readYAML(t, "deploy/prometheus.yml", &config)
	for _, path := range config.RuleFiles {
		if !mounted(project.Services["prometheus"], path) {
			t.Errorf("prometheus.yml names %s, which compose.yaml does not mount", path)
		}
	}
	for _, job := range config.ScrapeConfigs {
		for _, static := range job.StaticConfigs {
			for _, target := range static.Targets {
				host, _, _ := strings.Cut(target, ":")
				if _, ok := project.Services[host]; !ok {
					t.Errorf("job %s scrapes %s, compose.yaml has no such service", job.JobName, target)
				}
			}
		}
	}
}

func TestAlerts(t *testing.T) {
	groups, errs := rulefmt.ParseFile(filepath.Join(root, "deploy/alerts.yml"), false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Error(err)
	}
	if groups == nil {
		t.FailNow()
	}
	recorded := map[string]bool{}
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			if r.Record != "" {
				recorded[r.Record] = true
			}
		}
	}
	runbook := read(t, "docs/runbook.md")
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			name := r.Record + r.Alert
			checkMetrics(t, "alerts.yml: "+name, r.Expr, recorded)
			if r.Alert == "" {
				continue
			}
			if r.For == 0 || r.Labels["severity"] == "" || r.Annotations["summary"] == "" {
				t.Errorf("%s lacks for, severity or summary", r.Alert)
			}
			anchor, ok := strings.CutPrefix(r.Annotations["runbook_url"], "docs/runbook.md#")
			if !ok || !regexp.MustCompile(`(?mi)^## `+regexp.QuoteMeta(anchor)+`$`).MatchString(runbook) {
				t.Errorf("%s: runbook_url %q leads nowhere", r.Alert, r.Annotations["runbook_url"])
			}
		}
	}
}

func TestGrafana(t *testing.T) {
	project := compose(t)
	var sources struct {
		Datasources []struct{ UID, URL string }
	}
	readYAML(t, "deploy/grafana/provisioning/datasources/prometheus.yaml", &sources)
	uids := map[string]bool{}
	for _, s := range sources.Datasources {
		uids[s.UID] = true
		host, _, _ := strings.Cut(strings.TrimPrefix(s.URL, "http://"), ":")
		if _, ok := project.Services[host]; !ok {
			t.Errorf("data source %s: compose.yaml has no service %s", s.UID, host)
		}
	}
	var providers struct {
		Providers []struct{ Options struct{ Path string } }
	}
	readYAML(t, "deploy/grafana/provisioning/dashboards/millrace.yaml", &providers)
	for _, p := range providers.Providers {
		if !mounted(project.Services["grafana"], p.Options.Path) {
			t.Errorf("dashboards are looked for in %s, which compose.yaml does not mount", p.Options.Path)
		}
	}

	files, err := filepath.Glob(filepath.Join(root, "deploy/grafana/dashboards/*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("dashboards: %v, %v", files, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var dashboard struct {
			UID    string
			Panels []struct {
				ID      int
				Title   string
				Targets []struct {
					Expr       string
					Datasource struct{ UID string }
				}
			}
		}
		if err := json.Unmarshal(content, &dashboard); err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		seen := map[int]bool{}
		for _, p := range dashboard.Panels {
			if seen[p.ID] {
				t.Errorf("%s: two panels have id %d", file, p.ID)
			}
			seen[p.ID] = true
			for _, target := range p.Targets {
				if !uids[target.Datasource.UID] {
					t.Errorf("panel %q: no data source %q", p.Title, target.Datasource.UID)
				}
				checkMetrics(t, "panel "+p.Title, strings.ReplaceAll(target.Expr, "$__rate_interval", "1m"), nil)
			}
		}
	}
}

func TestCollector(t *testing.T) {
	var config struct {
		Receivers, Processors, Exporters, Extensions map[string]any
		Service                                      struct {
			Extensions []string
			Pipelines  map[string]struct{ Receivers, Processors, Exporters []string }
		}
	}
	readYAML(t, "deploy/otel-collector.yaml", &config)
	known := func(kind string, defined map[string]any, used []string) {
		for _, name := range used {
			if _, ok := defined[name]; !ok {
				t.Errorf("a pipeline uses the %s %s, which is not defined", kind, name)
			}
		}
	}
	if len(config.Service.Pipelines) == 0 {
		t.Error("no pipeline")
	}
	known("extension", config.Extensions, config.Service.Extensions)
	for _, p := range config.Service.Pipelines {
		known("receiver", config.Receivers, p.Receivers)
		known("processor", config.Processors, p.Processors)
		known("exporter", config.Exporters, p.Exporters)
	}
}

// TestStaticBinary builds as the image does: a binary that asks for a loader does not start in an empty image.
func TestStaticBinary(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "millrace")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-tags", "noengine", "-o", binary, "./cmd/millrace")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	file, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP {
			t.Error("the binary with the tag noengine is not static: it names a loader")
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(read(t, path)), into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func mounted(s types.ServiceConfig, path string) bool {
	return slices.ContainsFunc(s.Volumes, func(v types.ServiceVolumeConfig) bool { return v.Target == path })
}

// checkMetrics parses a query and looks for each metric of ours that it names in the Go source.
func checkMetrics(t *testing.T, where, expr string, recorded map[string]bool) {
	t.Helper()
	node, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	instruments, err := ourInstruments()
	if err != nil {
		t.Fatal(err)
	}
	parser.Inspect(node, func(n parser.Node, _ []parser.Node) error {
		selector, ok := n.(*parser.VectorSelector)
		if !ok || recorded[selector.Name] {
			return nil
		}
		name := selector.Name
		for _, suffix := range []string{"_bucket", "_count", "_sum", "_total"} {
			name = strings.TrimSuffix(name, suffix)
		}
		ours := strings.HasPrefix(name, "millrace_") || strings.HasPrefix(name, "http_server_") || strings.HasPrefix(name, "db_client_")
		if ours && !instruments[name] && !instruments[strings.TrimSuffix(name, "_seconds")] {
			t.Errorf("%s: no Go file makes the metric %s", where, selector.Name)
		}
		return nil
	})
}

// ourInstruments are the names in string literals of the product's source that could be instruments, with Prometheus'
// underscores.
var ourInstruments = sync.OnceValues(func() (map[string]bool, error) {
	literal := regexp.MustCompile(`"((?:millrace|http\.server|db\.client)[._][a-z0-9_.]+)"`)
	found := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "tools" || strings.HasPrefix(d.Name(), ".git")) {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, "telemetry/views.go") {
			return nil // views.go sets histogram edges by name, it makes no instrument
		}
		content, err := os.ReadFile(path)
		for _, m := range literal.FindAllStringSubmatch(string(content), -1) {
			found[strings.ReplaceAll(m[1], ".", "_")] = true
		}
		return err
	})
	return found, err
})
