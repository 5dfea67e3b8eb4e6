package eventstore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/purserhq/purser/services/eventstore"
)

const (
	// asServer makes the test binary serve the directory that it names, so that a real process can be killed.
	asServer = "PURSER_TEST_SERVE"

	// soakVariable asks for the long form of the tests that have one.
	soakVariable = "PURSER_TEST_SOAK"

	servesAt = "serves at "
)

func soak() bool { return os.Getenv(soakVariable) != "" }

// serveUntilEOF is the whole of a server process: it ends, like its parent, when its standard input does.
func serveUntilEOF(dir string) int {
	s, err := eventstore.Open(eventstore.Config{Dir: dir, Addr: "127.0.0.1:0"}, slog.New(slog.NewTextHandler(os.Stderr, nil)), nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	fmt.Println(servesAt + s.Addr())
	if err := s.Serve(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// serverProcess is an embedded server in a process of its own.
type serverProcess struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stderr *strings.Builder // complete once the process was waited for
	addr   string
	ended  bool
}

func startProcess(t *testing.T, dir string) *serverProcess {
	t.Helper()
	p := &serverProcess{cmd: exec.Command(os.Args[0]), stderr: &strings.Builder{}}
	p.cmd.Env = append(os.Environ(), asServer+"="+dir)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.Stderr = p.stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdin = in
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, servesAt) {
		p.kill()
		t.Fatalf("the server does not start: %q, %v\n%s", line, err, p.stderr)
	}
	p.addr = strings.TrimSpace(strings.TrimPrefix(line, servesAt))
	return p
}

func (p *serverProcess) url() string { return "esdb://" + p.addr + "?tls=false" }

// kill ends the process without warning and waits for it. It may be called again.
func (p *serverProcess) kill() {
	if p.ended {
		return
	}
	p.ended = true
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// stop lets the process end in good order.
func (p *serverProcess) stop(t *testing.T) {
	t.Helper()
	p.ended = true
	err := errors.Join(p.stdin.Close(), p.cmd.Wait())
	if err != nil {
		t.Fatalf("the server did not stop in good order: %v\n%s", err, p.stderr)
	}
}
