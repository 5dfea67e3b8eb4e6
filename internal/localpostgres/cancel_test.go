//go:build unix

package localpostgres

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purserhq/purser/internal/localpostgres/internal/reap"
)

// hanging is this machine with a script in the place of one of the Postgres programs, which is to write to the file pids,
// in the directory it works in, what it has started, and to get nowhere.
func hanging(t *testing.T, program, script string) machine {
	t.Helper()
	on, bin := thisMachine(), t.TempDir()
	real, err := on.programsFor(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{"initdb": real.initdb, "postgres": real.postgres} {
		text := "#!/bin/sh\n"
		if name == program {
			text += "[ \"$1\" = -V ] || { " + script + "; }\n"
		}
		text += "exec " + file + " \"$@\"\n"
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	on.directories = []string{bin}
	return on
}

// breakOff starts on a machine where that hangs, breaks the start off, and expects that nothing of it still runs. The
// pids are in the file that pattern names.
func breakOff(t *testing.T, dir string, on machine, pattern string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	result := make(chan error, 1)
	go func() {
		_, err := start(ctx, dir, slog.New(slog.DiscardHandler), on)
		result <- err
	}()
	var pids []string
	eventually(t, "the start hangs", func() bool {
		for _, file := range must(filepath.Glob(filepath.Join(dir, pattern))) {
			text, _ := os.ReadFile(file)
			pids = strings.Fields(string(text))
		}
		return pids != nil
	})
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("Start = %v, want %v", err, context.Canceled)
	}
	for _, pid := range pids {
		eventually(t, "process "+pid+" has ended", func() bool { return !lives(pid) })
	}
	if left := must(filepath.Glob(filepath.Join(dir, "init-*"))); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

// lives tells whether a process is more than a dead one that nobody has waited for.
func lives(pid string) bool {
	state, err := exec.Command("ps", "-o", "state=", "-p", pid).Output()
	return err == nil && !strings.HasPrefix(strings.TrimSpace(string(state)), "Z")
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestStartBrokenOffWhileTheClusterIsMade(t *testing.T) {
	t.Parallel()
	dir := reap.Dir(t)
	breakOff(t, dir, hanging(t, "initdb", "sleep 600 & echo $$ $! >new && mv new pids && exec sleep 600"), "init-*/pids")
	query[int](t, mustStart(t, dir).URL(), "SELECT 1")
}

func TestStartBrokenOffWhileTheServerStarts(t *testing.T) {
	t.Parallel()
	dir := reap.Dir(t)
	mustStop(t, mustStart(t, dir))
	breakOff(t, dir, hanging(t, "postgres", "echo $$ >new && mv new pids && exec sleep 600"), "pids")
	query[int](t, mustStart(t, dir).URL(), "SELECT 1")
}

// The server of a killed owner may be recovering when the next one adopts it.
func TestStartBrokenOffWhileItAdopts(t *testing.T) {
	t.Parallel()
	dir := reap.Dir(t)
	owner, _ := startOwner(t, dir)
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait()
	s := &Server{log: slog.New(slog.DiscardHandler), dir: dir, data: filepath.Join(dir, "data")}
	pid := serverPid(t, dir)
	text, err := os.ReadFile(s.pidFile())
	if err != nil {
		t.Fatal(err)
	}
	starting := strings.Replace(string(text), "ready", "starting", 1)
	if err := os.WriteFile(s.pidFile(), []byte(starting), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), adoptedInterval)
	defer cancel()
	if _, err := s.adopt(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("adopt = %v, want %v", err, context.DeadlineExceeded)
	}
	if runs(t, pid, s.data) {
		t.Error("the server still runs")
	}
	query[int](t, mustStart(t, dir).URL(), "SELECT 1")
}
