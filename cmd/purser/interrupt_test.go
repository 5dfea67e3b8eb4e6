package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/purserhq/purser/internal/localpostgres/pgtest"
)

// startHangingDev starts an all-in-one process whose initdb never gets anywhere, and returns once that has begun. The
// initdb ends with its directory.
func startHangingDev(t *testing.T) (dir string, ended <-chan error, signal func(os.Signal)) {
	t.Helper()
	dir = pgtest.Dir(t)
	bin := t.TempDir()
	for name, script := range map[string]string{
		"initdb":   `while [ -e "$PWD" ]; do sleep 0.1; done`,
		"postgres": `echo "postgres (PostgreSQL) 15.0"`,
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := purser(t.Context(), "dev", "--data-dir", dir, "--port-offset", fmt.Sprint(freeOffset(t)))
	cmd.Env = append(cmd.Env, "PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }() // ends with the process, which the test's context kills at the latest
	eventually(t, startTimeout, func() error {
		if begun, err := filepath.Glob(filepath.Join(dir, "postgres", "init-*", "password")); err != nil || begun == nil {
			return fmt.Errorf("initdb has not begun: %v", err)
		}
		return nil
	})
	return dir, done, func(s os.Signal) { _ = cmd.Process.Signal(s) } // fails once it has ended
}

func TestInterruptWhilePostgresStarts(t *testing.T) {
	t.Parallel()
	dir, ended, signal := startHangingDev(t)
	signal(os.Interrupt)
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it did not stop cleanly: %v", err)
		}
	case <-time.After(startTimeout):
		t.Fatal("it does not stop")
	}
	if left, err := filepath.Glob(filepath.Join(dir, "postgres", "init-*")); err != nil || left != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// The first signal waits for initdb, for seconds; a second one does not.
func TestASecondInterruptEndsTheProcessAtOnce(t *testing.T) {
	t.Parallel()
	_, ended, signal := startHangingDev(t)
	again := time.NewTicker(50 * time.Millisecond) // the first has to be noticed before another counts as the second
	defer again.Stop()
	tooLate := time.After(startTimeout)
	for {
		select {
		case <-again.C:
			signal(os.Interrupt)
			continue
		case err := <-ended:
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT {
				t.Errorf("it ended by %v, want the signal", err)
			}
			return
		case <-tooLate:
			t.Fatal("it does not stop")
		}
	}
}
