package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestScripts: `millrace test` passes what is right, and tells what is wrong with the events that made it.
func TestScripts(t *testing.T) {
	status, stdout, stderr := call(t, nil, "test", "--definitions", weblog, weblog)
	if status != exitDone || stdout != "1 case, 3 reads: fine\n" || stderr != "" {
		t.Errorf("the example's scripts: status %d\n%s%s", status, stdout, stderr)
	}
	dir := writeFiles(t, map[string]string{"a.test": "case one\n  window tumbling size=10\n  events a@1\n  expect a t=10: n=2\n", "b.test": "events\n"})
	status, stdout, stderr = call(t, nil, "test", "--engine", "oracle", "--seed", "7", dir)
	want := filepath.Join(dir, "a.test") + ":4: case one: n of v0 k=\"a\" at 10: want 2, got 1 (PRESENT) from oracle\n" +
		"    ev/0/0 at 1: {\"k\":\"a\",\"v\":1,\"at\":1}\n"
	if status != exitFailed || !strings.HasPrefix(stdout, want) || !strings.Contains(stdout, "b.test:1: ") || stderr != "millrace: 1 case, 1 read: 2 failed (--seed 7)\n" {
		t.Errorf("status %d\n%s%s, want\n%s", status, stdout, stderr, want)
	}
	if status, _, stderr = call(t, nil, "test", t.TempDir()); status != exitUsage || !strings.Contains(stderr, "no *.test files") {
		t.Errorf("an empty folder: status %d, %s", status, stderr)
	}
}
