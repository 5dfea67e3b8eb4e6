//go:build unix

package localpostgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/purserhq/purser/internal/localpostgres/internal/reap"
)

func TestStartKeepsDataPortAndPassword(t *testing.T) {
	t.Parallel()
	dir := reap.Dir(t)
	first := mustStart(t, dir)
	query[int](t, first.URL(), "CREATE TABLE kept AS SELECT 42 AS n; SELECT 0")
	mustStop(t, first)
	if _, err := net.Dial("tcp", first.address()); err == nil {
		t.Error("the server still listens after Stop")
	}

	began := time.Now()
	second := mustStart(t, dir)
	t.Logf("warm start took %v", time.Since(began))
	if second.URL() != first.URL() {
		t.Errorf("URL changed from %s to %s", first.URL(), second.URL())
	}
	if got := query[int](t, second.URL(), "SELECT n FROM kept"); got != 42 {
		t.Errorf("kept %d, want 42", got)
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	s := mustStart(t, reap.Dir(t))
	for name, want := range map[string]string{
		"max_connections":         "200",
		"shared_buffers":          "64MB",
		"TimeZone":                "UTC",
		"server_encoding":         "UTF8",
		"fsync":                   "on",
		"synchronous_commit":      "on",
		"listen_addresses":        "127.0.0.1",
		"unix_socket_directories": "",
		"wal_level":               "minimal",
	} {
		if got := query[string](t, s.URL(), "SHOW "+name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if group, err := syscall.Getpgid(serverPid(t, s.dir)); err != nil || group == syscall.Getpgrp() {
		t.Errorf("the server is in process group %d (%v), which Ctrl-C reaches", group, err)
	}
	for file, want := range map[string]os.FileMode{"password": 0o600, "postgres.log": 0o600, "data": 0o700} {
		if info, err := os.Stat(filepath.Join(s.dir, file)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v (%v), want %v", file, info.Mode().Perm(), err, want)
		}
	}
	other, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	other.User = url.UserPassword("purser", "guess")
	if _, err := pgx.Connect(t.Context(), other.String()); sqlState(err) != "28P01" {
		t.Errorf("a wrong password gives %v, want 28P01", err)
	}
}

func TestStartMovesWhenItsPortIsTaken(t *testing.T) {
	t.Parallel()
	dir := reap.Dir(t)
	first := mustStart(t, dir)
	mustStop(t, first)
	squatter, err := net.Listen("tcp", first.address())
	if err != nil {
		t.Fatal(err)
	}
	defer squatter.Close()
	second := mustStart(t, dir)
	if second.address() == first.address() {
		t.Errorf("both listen on %s", first.address())
	}
	query[int](t, second.URL(), "SELECT 1")
}

func TestStartAdoptsTheServerOfAKilledOwner(t *testing.T) {
	t.Parallel()
	dir := reap.Dir(t)
	owner, address := startOwner(t, dir)
	pid := serverPid(t, dir)
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait()

	s := mustStart(t, dir)
	if got := serverPid(t, dir); got != pid {
		t.Errorf("the server is %d, want the old one, %d", got, pid)
	}
	if s.URL() != address {
		t.Errorf("URL is %s, want %s", s.URL(), address)
	}
	query[int](t, s.URL(), "SELECT 1")

	// An adopted server is restarted, and stopped, like any other.
	supervise(t, s)
	kill(t, pid)
	waitForServer(t, s, pid)
	mustStop(t, s)
	if runs(t, serverPidOrZero(dir), s.data) {
		t.Error("the server still runs after Stop")
	}
}

// The server that the last owner launched may not have written its postmaster.pid when the next one looks.
func TestStartAdoptsAServerThatShowsItselfLate(t *testing.T) {
	t.Parallel()
	dir := reap.Dir(t)
	first := mustStart(t, dir)
	mustStop(t, first)
	orphan := first.identity.command(context.Background(), dir, first.programs.postgres,
		"-D", first.data, "-p", strconv.Itoa(first.port), "-h", loopback, "-k", "")
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // ends with the server
		defer close(ended)
		_ = orphan.Wait()
	}()
	second := mustStart(t, dir) // races with the orphan on purpose: it has to serve, whoever is first
	query[int](t, second.URL(), "SELECT 1")
	mustStop(t, second)
	_ = orphan.Process.Kill()
	<-ended
}

func TestStartStopsAnAdoptedServer(t *testing.T) {
	t.Parallel()
	dir := reap.Dir(t)
	owner, _ := startOwner(t, dir)
	pid := serverPid(t, dir)
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait()
	s := mustStart(t, dir)
	mustStop(t, s)
	if runs(t, pid, s.data) {
		t.Errorf("server %d still runs after Stop", pid)
	}
}

func TestStartRefusesASecondOwner(t *testing.T) {
	t.Parallel()
	dir := reap.Dir(t)
	owner, _ := startOwner(t, dir)
	_, err := Start(t.Context(), dir, slog.New(slog.DiscardHandler))
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), strconv.Itoa(owner.Process.Pid)) {
		t.Errorf("Start = %v, want ErrInUse with the owner's pid, %d", err, owner.Process.Pid)
	}
}

func TestSuperviseRestartsOnTheSamePort(t *testing.T) {
	t.Parallel()
	s := mustStart(t, reap.Dir(t))
	query[int](t, s.URL(), "CREATE TABLE kept AS SELECT 42 AS n; SELECT 0")
	address := s.URL()
	supervise(t, s)
	for range 2 {
		pid := serverPid(t, s.dir)
		began := time.Now()
		kill(t, pid)
		waitForServer(t, s, pid)
		t.Logf("back after %v", time.Since(began))
	}
	if s.URL() != address {
		t.Errorf("URL changed from %s to %s", address, s.URL())
	}
	if got := query[int](t, address, "SELECT n FROM kept"); got != 42 {
		t.Errorf("kept %d, want 42", got)
	}
}

func TestSuperviseMakesNoNewClusterForOneThatIsGone(t *testing.T) {
	t.Parallel()
	s := mustStart(t, reap.Dir(t))
	ended := supervise(t, s)
	if err := os.Rename(s.data, s.data+".moved"); err != nil {
		t.Fatal(err)
	}
	if err := s.postmaster.process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, errNoCluster) {
		t.Errorf("Supervise = %v, want %v", err, errNoCluster)
	}
}

func TestStopEndsASupervisedServerForGood(t *testing.T) {
	t.Parallel()
	s := mustStart(t, reap.Dir(t))
	ended := supervise(t, s)
	mustStop(t, s)
	if err := <-ended; err != nil {
		t.Errorf("Supervise = %v, want nil", err)
	}
	mustStop(t, s)
	if serverPidOrZero(s.dir) != 0 {
		t.Error("the server still runs")
	}
}

func TestStopDoesNotWaitWhenItsContextHasEnded(t *testing.T) {
	t.Parallel()
	s := mustStart(t, reap.Dir(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Stop(ctx); err != nil {
		t.Error(err)
	}
	if runs(t, s.postmaster.process.Pid, s.data) {
		t.Error("the server still runs")
	}
}

func TestStartAfterTheServerWasKilled(t *testing.T) {
	t.Parallel()
	dir := reap.Dir(t)
	s := mustStart(t, dir)
	kill(t, serverPid(t, dir))
	mustStop(t, s)
	query[int](t, mustStart(t, dir).URL(), "SELECT 1")
}

// The pid that a killed server left in its file can be another program's by the next start; in a container, where
// pids are few, it often is.
func TestStartIgnoresAPidThatIsAnotherProgramsNow(t *testing.T) {
	t.Parallel()
	dir := reap.Dir(t)
	s := mustStart(t, dir)
	text, err := os.ReadFile(s.pidFile())
	if err != nil {
		t.Fatal(err)
	}
	kill(t, serverPid(t, dir))
	mustStop(t, s)
	stranger := exec.Command("sleep", "600")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = stranger.Process.Kill(), stranger.Wait() }()
	_, rest, _ := strings.Cut(string(text), "\n")
	if err := os.WriteFile(s.pidFile(), fmt.Appendf(nil, "%d\n%s", stranger.Process.Pid, rest), 0o600); err != nil {
		t.Fatal(err)
	}
	query[int](t, mustStart(t, dir).URL(), "SELECT 1")
}

func TestStartAfterAnInterruptedInitdb(t *testing.T) {
	t.Parallel()
	dir, bin := reap.Dir(t), t.TempDir()
	real, err := thisMachine().programsFor(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	const halfway = "#!/bin/sh\nmkdir -p data/base && echo 15 >data/PG_VERSION && kill -s KILL $PPID\n"
	if err := errors.Join(
		os.WriteFile(filepath.Join(bin, "initdb"), []byte(halfway), 0o755),
		os.Symlink(real.postgres, filepath.Join(bin, "postgres")),
	); err != nil {
		t.Fatal(err)
	}
	owner := ownerCommand(dir)
	owner.Env = append(owner.Env, "PATH="+bin+":"+os.Getenv("PATH"))
	if output, err := owner.CombinedOutput(); owner.ProcessState == nil || owner.ProcessState.ExitCode() != -1 {
		t.Fatalf("the owner was not killed: %v: %s", err, output)
	}
	halfMade := filepath.Join(dir, "init-*")
	if left, err := filepath.Glob(halfMade); err != nil || left == nil {
		t.Fatalf("nothing half made in %s: %v", dir, err)
	}

	query[int](t, mustStart(t, dir).URL(), "SELECT 1")
	if left, _ := filepath.Glob(halfMade); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func TestStartGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	dir := reap.Dir(t)
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if s, err := Start(ctx, dir, slog.New(slog.DiscardHandler)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Start = %v, %v; want %v", s, err, context.DeadlineExceeded)
	}
	query[int](t, mustStart(t, dir).URL(), "SELECT 1")
}

func TestStartAsAnotherUserWhereNamespacesAreNotAllowed(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("for root only")
	}
	dir := reap.Dir(t)
	inside := filepath.Join(dir, "a", "b")
	on := thisMachine()
	on.identities = otherUsers(on.identities)
	s, err := start(t.Context(), inside, slog.New(slog.DiscardHandler), on)
	if err == nil || !strings.Contains(err.Error(), "ordinary user") {
		t.Fatalf("Start where only root may enter = %v, %v", s, err)
	}
	t.Log(err)
	if err := os.Chmod(dir, 0o711); err != nil { // of reap.Dir
		t.Fatal(err)
	}
	for range 2 {
		s, err = start(t.Context(), inside, slog.New(slog.DiscardHandler), on)
		if err != nil {
			t.Fatal(err)
		}
		if s.identity.uid == 0 {
			t.Errorf("it runs as %s", s.identity.name)
		}
		query[int](t, s.URL(), "SELECT 1")
		mustStop(t, s)
	}
	// Where a namespace is allowed too, the cluster still belongs to whom it belongs.
	query[int](t, mustStart(t, inside).URL(), "SELECT 1")
}
