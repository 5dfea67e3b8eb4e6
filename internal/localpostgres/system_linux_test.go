package localpostgres

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/purserhq/purser/internal/localpostgres/internal/reap"
)

// inAContainer is a directory that other users can enter. The processes that the test starts from then on are, like root
// in a container, not allowed to see where the processes of other users work.
func inAContainer(t *testing.T) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("for root only")
	}
	dir = reap.Dir(t) // while what it starts may still look
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	const dropFromBoundingSet, sysPtrace = 24, 19
	runtime.LockOSThread() // for good: the thread ends with the test
	if _, _, err := syscall.RawSyscall(syscall.SYS_PRCTL, dropFromBoundingSet, sysPtrace, 0); err != 0 {
		t.Skip("can't drop CAP_SYS_PTRACE: ", err)
	}
	return dir
}

func TestStartAdoptsAServerThatItMayNotLookAt(t *testing.T) {
	dir := inAContainer(t)
	owner, address := startOwner(t, dir, asAnother+"=1")
	pid := serverPid(t, dir)
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait()

	next, again := startOwner(t, dir, asAnother+"=1")
	if got := serverPid(t, dir); got != pid || again != address {
		t.Errorf("the server is %d at %s, want the old one, %d at %s", got, again, pid, address)
	}
	if err := next.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = next.Wait()
	mustStart(t, dir) // to stop it
}

func TestStartIgnoresAnotherUsersProgramThatItMayNotLookAt(t *testing.T) {
	dir := inAContainer(t)
	owner, _ := startOwner(t, dir, asAnother+"=1")
	s := &Server{data: filepath.Join(dir, "data")}
	text, err := os.ReadFile(s.pidFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait()
	kill(t, serverPid(t, dir))
	stranger := exec.Command("sleep", "600")
	stranger.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = stranger.Process.Kill(), stranger.Wait() }()
	_, rest, _ := strings.Cut(string(text), "\n")
	if err := os.WriteFile(s.pidFile(), fmt.Appendf(nil, "%d\n%s", stranger.Process.Pid, rest), 0o600); err != nil {
		t.Fatal(err)
	}
	startOwner(t, dir, asAnother+"=1")
}

// A Postgres of another user whose cluster can't be seen may be the one that serves this cluster.
func TestStartKeepsThePidFileOfAServerThatCannotBeTold(t *testing.T) {
	dir := inAContainer(t)
	s := mustStart(t, dir)
	mustStop(t, s)
	stranger := exec.Command("sleep", "600")
	stranger.Args[0] = "postgres"
	stranger.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = stranger.Process.Kill(), stranger.Wait() }()
	if err := os.WriteFile(s.pidFile(), fmt.Appendln(nil, stranger.Process.Pid), 0o600); err != nil {
		t.Fatal(err)
	}
	said, err := ownerCommand(dir).CombinedOutput()
	if want := fmt.Sprintf("process %d", stranger.Process.Pid); err == nil || !strings.Contains(string(said), want) {
		t.Errorf("Start says %q, want %s in it", said, want)
	}
	if got := serverPidOrZero(dir); got != stranger.Process.Pid {
		t.Errorf("postmaster.pid names %d, want %d", got, stranger.Process.Pid)
	}
}
