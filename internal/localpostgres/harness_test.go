//go:build unix

package localpostgres

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// ownerOf, set in the environment, turns the test binary into an owner of that directory.
	ownerOf = "LOCALPOSTGRES_TEST_OWNER_OF"
	// asAnother, set too, makes that owner run its server as another user.
	asAnother = "LOCALPOSTGRES_TEST_AS_ANOTHER"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(ownerOf); dir != "" {
		own(dir)
	}
	os.Exit(m.Run())
}

// own starts a server, says its URL and waits to be killed, or for the end of its input.
func own(dir string) {
	on := thisMachine()
	if os.Getenv(asAnother) != "" {
		on.identities = otherUsers(on.identities)
	}
	s, err := start(context.Background(), dir, slog.New(slog.DiscardHandler), on)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(s.URL())
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
	os.Exit(2) // like a kill: without Stop
}

func otherUsers(all []identity) []identity {
	return slices.DeleteFunc(all, func(id identity) bool { return id.uid == os.Geteuid() })
}

func mustStart(t *testing.T, dir string) *Server {
	t.Helper()
	s, err := Start(t.Context(), dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mustStop(t, s) })
	return s
}

func mustStop(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}

// supervise runs Supervise until the test ends, and gives its result.
func supervise(t *testing.T, s *Server) <-chan error {
	ctx, cancel := context.WithCancel(context.Background())
	ended, result := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(ended)
		result <- s.Supervise(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return result
}

func ownerCommand(dir string) *exec.Cmd {
	owner := exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), ownerOf+"="+dir)
	return owner
}

// startOwner starts a process that owns dir, and gives the URL of its server.
func startOwner(t *testing.T, dir string, env ...string) (*exec.Cmd, string) {
	t.Helper()
	owner := ownerCommand(dir)
	owner.Env = append(owner.Env, env...)
	stdin, err := owner.StdinPipe() // its end ends the owner, should this process die
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _, _ = stdin.Close(), owner.Process.Kill(), owner.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "postgres://") {
		t.Fatalf("the owner says %q, %v", line, err)
	}
	return owner, strings.TrimSpace(line)
}

func query[T any](t *testing.T, address, sql string) T {
	t.Helper()
	result, err := tryQuery[T](t.Context(), address, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return result
}

func tryQuery[T any](ctx context.Context, address, sql string) (result T, err error) {
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return result, err
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // several statements at once
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return result, err
	}
	defer conn.Close(ctx)
	last := sql[strings.LastIndexByte(sql, ';')+1:]
	if before := strings.TrimSuffix(sql, last); before != "" {
		if _, err := conn.Exec(ctx, before); err != nil {
			return result, err
		}
	}
	err = conn.QueryRow(ctx, last).Scan(&result)
	return result, err
}

func serverPidOrZero(dir string) int {
	file, err := (&Server{data: filepath.Join(dir, "data")}).readPidFile()
	if err != nil {
		return 0
	}
	return file.pid
}

func serverPid(t *testing.T, dir string) int {
	t.Helper()
	pid := serverPidOrZero(dir)
	if pid == 0 {
		t.Fatal("no server runs")
	}
	return pid
}

func runs(t *testing.T, pid int, data string) bool {
	t.Helper()
	is, err := serves(pid, data)
	if err != nil {
		t.Fatal(err)
	}
	return is
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// waitForServer waits until another server than the one with the pid given answers.
func waitForServer(t *testing.T, s *Server, not int) {
	t.Helper()
	eventually(t, "a new server answers", func() bool {
		pid := serverPidOrZero(s.dir)
		if pid == 0 || pid == not {
			return false
		}
		_, err := tryQuery[int](t.Context(), s.URL(), "SELECT 1")
		return err == nil
	})
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("not within 30 s: %s", what)
}
