package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKillNineLosesNothing kills the speed layer, the ClickHouse engine and the whole of `millrace dev` at random moments of a
// replay, in real processes, and asks at the end whether any served value of any visitor differs from the archive's.
func TestKillNineLosesNothing(t *testing.T) {
	t.Logf("seed %d", *lawSeed)
	rng := rand.New(rand.NewPCG(*lawSeed, 12))
	d := &devUnderTest{t: t, data: t.TempDir(), binary: buildBinary(t)}
	d.start()
	victims := []string{"speed", "engine", "dev", "speed"}
	rng.Shuffle(len(victims), func(i, j int) { victims[i], victims[j] = victims[j], victims[i] })
	const slice = 2000
	for i, victim := range victims {
		done := make(chan error, 1)
		from := 1 + i*slice
		go func() { done <- d.produce(from, from+slice-1) }()
		time.Sleep(time.Duration(100+rng.IntN(1500)) * time.Millisecond)
		d.kill(victim)
		if err := <-done; err != nil {
			if victim != "dev" {
				t.Fatal(err)
			}
			// The broker died too. What was acknowledged is in the log; sending all of it again only makes the log longer.
			t.Logf("again: %v", err)
			if err := d.produce(from, from+slice-1); err != nil {
				t.Fatal(err)
			}
		}
		if i == 1 {
			d.mustRun("batch")
		}
	}
	out := d.mustRun("audit", "--wait", "2m")
	t.Logf("victims %v\n%s", victims, out)
	last := strings.Split(strings.TrimSpace(out), "\n")
	if line := last[len(last)-1]; !strings.HasPrefix(line, "compared ") || !strings.HasSuffix(line, ", different 0") || strings.HasPrefix(line, "compared 0,") {
		t.Fatalf("the audit's verdict is %q", line)
	}
}

// buildBinary builds the program as users get it.
func buildBinary(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "millrace")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}

// devUnderTest is a `millrace dev` that dies and comes back.
type devUnderTest struct {
	t            *testing.T
	binary, data string
	cmd          *exec.Cmd
	log          bytes.Buffer
	at           endpoints
}

const weblog = "../../examples/weblog"

func (d *devUnderTest) start() {
	d.t.Helper()
	_ = os.Remove(filepath.Join(d.data, "endpoints.json"))
	port := func(address string) string { // free at first, the same ones later
		if _, port, err := net.SplitHostPort(address); err == nil {
			return port
		}
		return "0"
	}
	d.cmd = exec.Command(d.binary, "dev", "--definitions", weblog+"/features.yaml", "--data-dir", d.data, "--partitions", "3",
		"--port-kafka", port(d.at.Kafka), "--port-redis", port(d.at.Redis), "--port-clickhouse", port(strings.TrimPrefix(d.at.Clickhouse, "http://")),
		"--port-http", port(d.at.HTTP), "--port-admin", port(d.at.Admin), "--port-speed", port(d.at.Speed))
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	cmd := d.cmd
	d.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if d.t.Failed() {
			d.t.Logf("%s", d.log.Bytes())
		}
	})
	deadline := time.Now().Add(time.Minute)
	for {
		document, err := os.ReadFile(filepath.Join(d.data, "endpoints.json"))
		if err == nil && json.Unmarshal(document, &d.at) == nil {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("millrace dev does not come up: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// kill ends a part, or the tree, without warning; the tree is started again on the same data.
func (d *devUnderTest) kill(victim string) {
	d.t.Helper()
	if victim == "dev" {
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait()
		d.start()
		return
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		if pid := childOf(d.cmd.Process.Pid, victim); pid != 0 {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				d.t.Fatal(err)
			}
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("millrace dev has no part %s", victim)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// childOf finds the child of a process that runs a subcommand; 0 if there is none.
func childOf(parent int, subcommand string) int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// pid (name) state ppid …
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) < 2 || fields[1] != strconv.Itoa(parent) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		args, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if list := strings.Split(string(args), "\x00"); err == nil && len(list) > 1 && list[1] == subcommand {
			return pid
		}
	}
	return 0
}

func (d *devUnderTest) produce(from, to int) error {
	cmd := d.command("produce", "access", weblog+"/access.log", "--format", "combined", "--from-line", strconv.Itoa(from), "--limit", strconv.Itoa(to-from+1), "--speed", "20000x")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("produce: %w\n%s", err, out)
	}
	return nil
}

func (d *devUnderTest) mustRun(args ...string) string {
	d.t.Helper()
	out, err := d.command(args...).CombinedOutput()
	if err != nil {
		d.t.Fatalf("millrace %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func (d *devUnderTest) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(d.t.Context(), d.binary, args...)
	cmd.WaitDelay = time.Second
	cmd.Env = d.environment()
	return cmd
}

// environment tells commands where the parts are.
func (d *devUnderTest) environment() []string {
	return append(os.Environ(), "MILLRACE_DEFINITIONS="+weblog+"/features.yaml", "MILLRACE_KAFKA="+d.at.Kafka, "MILLRACE_REDIS="+d.at.Redis,
		"MILLRACE_CLICKHOUSE="+d.at.Clickhouse, "MILLRACE_URL=http://"+d.at.HTTP)
}
