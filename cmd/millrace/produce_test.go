package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"millrace/internal/storetest"
	"millrace/speed/produce"
)

func TestProduce(t *testing.T) {
	brokers, _ := storetest.Kafka(t, 2, "web.access.v1")
	weblog := filepath.Join(root, "examples", "weblog")
	env := []string{"MILLRACE_KAFKA=" + brokers[0], "MILLRACE_DEFINITIONS=" + filepath.Join(weblog, "features.yaml")}
	code, stdout, stderr := call(t, env, "produce", "access", filepath.Join(weblog, "access.log"), "--json", "--limit", "6000")
	var s produce.Summary
	if err := json.Unmarshal([]byte(stdout), &s); err != nil || code != exitDone {
		t.Fatalf("status %d, %v, stdout %q, stderr %q", code, err, stdout, stderr)
	}
	if s.Records != 6000 || s.NextLine != 6001 || s.Topic != "web.access.v1" || s.Odd != 0 || s.Stopped {
		t.Errorf("got %+v", s)
	}
	code, stdout, stderr = call(t, env, "produce", "access", filepath.Join(weblog, "access.log"), "--from-line", "6001")
	if code != exitDone || !strings.HasPrefix(stdout, "4,000 records to web.access.v1 in ") || stderr != "" {
		t.Errorf("status %d, stdout %q, stderr %q", code, stdout, stderr)
	}

	bad := filepath.Join(t.TempDir(), "bad.log")
	if err := os.WriteFile(bad, []byte("what?\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr = call(t, env, "produce", "access", bad)
	if code != exitDone || !strings.Contains(stdout, "; skipped 1 odd line") || stderr != "line 1 is no record: no client at its begin\n" {
		t.Errorf("status %d, stdout %q, stderr %q", code, stdout, stderr)
	}

	strange := filepath.Join(t.TempDir(), "strange.jsonl")
	if err := os.WriteFile(strange, []byte(`{"client":"a","at":1}`+"\n"+`{"client":"a","at":"1"}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr = call(t, env, "produce", "access", strange)
	if code != exitDone || !strings.Contains(stdout, "2 records to") || !strings.Contains(stdout, "; the source's rules reject 1 of them") ||
		stderr != "wrong_type: 1 records will be quarantined, the first is line 2: at: a string where int64 is declared\n" {
		t.Errorf("status %d, stdout %q, stderr %q", code, stdout, stderr)
	}

	empty, _ := storetest.Kafka(t, 1)
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"acces", bad}, exitUsage, `unknown source "acces": did you mean access?`},
		{[]string{"access", bad + ".gone"}, exitUsage, "no such file"},
		{[]string{"access", "-", "--repeat"}, exitUsage, "standard input cannot be read again"},
		{[]string{"access", bad, "--speed", "fast"}, exitUsage, "write max, or a factor"},
		{[]string{"access", bad, "--topic", "web.acess.v1"}, exitUsage, "did you mean web.access.v1?"},
		{[]string{"access", bad, "--kafka", empty[0]}, exitFailed, "no such topic: web.access.v1: create it, or run `millrace apply --partitions 4`"},
		{[]string{"access", bad, "--format", "csv", "--from-line", "0"}, exitUsage, "counts from 1"},
	} {
		code, stdout, stderr := call(t, env, append([]string{"produce"}, test.args...)...)
		if code != test.code || stdout != "" || !strings.Contains(stderr, test.want) {
			t.Errorf("%q: status %d, stdout %q, stderr %q", test.args, code, stdout, stderr)
		}
	}
}
