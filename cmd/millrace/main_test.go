package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// call runs the program inside the test.
func call(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, env, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func TestVersion(t *testing.T) {
	code, stdout, stderr := call(t, nil, "version")
	if code != exitDone || !strings.HasPrefix(stdout, "millrace ") || stderr != "" {
		t.Errorf("version: status %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	code, stdout, _ = call(t, nil, "version", "--json")
	var b buildInfo
	if err := json.Unmarshal([]byte(stdout), &b); err != nil || code != exitDone {
		t.Fatalf("version --json: status %d, %v, stdout %q", code, err, stdout)
	}
	if b.Version == "" || !strings.HasPrefix(b.GoVersion, "go") || !strings.Contains(b.Platform, "/") {
		t.Errorf("version --json: got %+v", b)
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{}, {"--help"}} {
		code, stdout, stderr := call(t, nil, args...)
		if code != exitDone || stderr != "" {
			t.Errorf("%q: status %d, stderr %q", args, code, stderr)
		}
		for _, want := range []string{"Operate:", "version", "--log-level", "[MILLRACE_LOG_LEVEL]"} {
			if !strings.Contains(stdout, want) {
				t.Errorf("%q: help without %q:\n%s", args, want, stdout)
			}
		}
	}
	if _, stdout, _ := call(t, nil, "version", "--help"); !strings.Contains(stdout, "  millrace version --json") {
		t.Errorf("version --help shows no example:\n%s", stdout)
	}
}

func TestUsageErrors(t *testing.T) {
	for _, args := range [][]string{{"nonsense"}, {"version", "--nonsense"}, {"--log-level", "loud", "version"}} {
		code, stdout, stderr := call(t, nil, args...)
		if code != exitUsage || stdout != "" || !strings.HasPrefix(stderr, "millrace: ") || !strings.Contains(stderr, "--help\" for usage") {
			t.Errorf("%q: status %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
	}
}

func TestExitStatus(t *testing.T) {
	for _, test := range []struct {
		err  error
		want int
	}{
		{nil, exitDone},
		{errors.New("x"), exitFailed},
		{usagef("x %d", 1), exitUsage},
		{fmt.Errorf("outer: %w", usagef("x")), exitUsage},
		{fmt.Errorf("outer: %w", tryAgain(errors.New("x"))), exitTryAgain},
	} {
		if got := report(&bytes.Buffer{}, "", test.err); got != test.want {
			t.Errorf("%v: got status %d, want %d", test.err, got, test.want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "addr")
	if err := os.WriteFile(file, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		env, args []string
		want      string
	}{
		{nil, nil, "default"},
		{[]string{"MILLRACE_REDIS__ADDR=env"}, nil, "env"},
		{[]string{"MILLRACE_REDIS__ADDR_FILE=" + file}, nil, "from-file"},
		{[]string{"MILLRACE_REDIS__ADDR=env", "MILLRACE_REDIS__ADDR_FILE=" + file}, nil, "env"},
		{[]string{"MILLRACE_REDIS__ADDR=env"}, []string{"--redis.addr=flag"}, "flag"},
	} {
		var c struct {
			Redis struct {
				Addr string `default:"default"`
			} `embed:"" prefix:"redis."`
		}
		parser := kong.Must(&c, kong.Resolvers(envResolver{lookupIn(test.env)}))
		if _, err := parser.Parse(test.args); err != nil || c.Redis.Addr != test.want {
			t.Errorf("env %q, args %q: got %q, %v, want %q", test.env, test.args, c.Redis.Addr, err, test.want)
		}
	}
	a := &app{getenv: func(name string) string { return map[string]string{"X_FILE": file}[name] }}
	if got, err := a.secret("X"); got != "from-file" || err != nil {
		t.Errorf("secret from a file: got %q, %v", got, err)
	}
	if got, err := a.secret("Y"); got != "" || err != nil {
		t.Errorf("secret that is not set: got %q, %v", got, err)
	}
	a.getenv = func(name string) string { return map[string]string{"X_FILE": file + ".gone"}[name] }
	if _, err := a.secret("X"); err == nil {
		t.Error("secret from a file that is not there: no error")
	}
}
