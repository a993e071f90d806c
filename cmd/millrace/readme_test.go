package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestReadme runs the commands that the README shows under Run, on ports of their own, and sees the values that it promises.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Run\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var commands []string
	for line := range strings.SplitSeq(section, "\n") {
		if command, shown := strings.CutPrefix(line, "    "); shown && command != "make build" {
			commands = append(commands, command)
		}
	}
	if len(commands) != 4 || !strings.HasPrefix(commands[0], "bin/millrace dev --definitions ") {
		t.Fatalf("the section shows %q", commands)
	}
	d := &devUnderTest{t: t, data: t.TempDir(), binary: buildBinary(t)}
	d.start()
	run := func(command string) string {
		command = strings.ReplaceAll(strings.ReplaceAll(command, "bin/millrace", d.binary), "localhost:6566", d.at.HTTP)
		cmd := exec.CommandContext(t.Context(), "bash", "-c", command)
		cmd.Dir, cmd.Env = root, d.environment()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		return string(out)
	}
	for i, want := range []string{1: "10,000 records to web.access.v1", 2: "66.249.73.135  6     6", 3: `{"values":[0],"statuses":["PRESENT"],"event_timestamps":["2015-05-20T21:05:59Z"]}`} {
		if i == 0 {
			continue
		}
		deadline := time.Now().Add(30 * time.Second)
		for got := run(commands[i]); !strings.Contains(got, want); got = run(commands[i]) {
			if i == 1 || time.Now().After(deadline) { // what is asked for arrives a moment after it was published
				t.Fatalf("%s\nprints\n%s\nwant\n%s", commands[i], got, want)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}
