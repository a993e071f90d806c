package main

import (
	"context"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// keepRunning runs a process until ctx ends, again and again where it ends by itself. The kernel kills it when this process
// dies, however it dies, so that no part outlives the tree and holds its port or its folder.
func keepRunning(ctx context.Context, a *app, name string, command func() *exec.Cmd) {
	// The kernel's signal follows the thread that started the process, not the process: keep that thread alive.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for backoff := 100 * time.Millisecond; ; backoff = min(2*backoff, 5*time.Second) {
		started := time.Now()
		cmd := command()
		// A group of its own: Ctrl-C reaches this process alone, which stops the parts in order.
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
		err := cmd.Run()
		if ctx.Err() != nil {
			return
		}
		text := "it ended"
		if err != nil {
			text = err.Error()
		}
		a.log.Warn("part ended and is started again", "part", name, "error", text)
		if time.Since(started) > time.Minute {
			backoff = 100 * time.Millisecond
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(backoff):
		}
	}
}
