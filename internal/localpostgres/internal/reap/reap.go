//go:build unix

// Package reap gives tests directories that never outlive them, nor do the Postgres servers that work in them: not
// when the test panics, times out or is killed.
//
// Beside each directory runs a shell that reads from a pipe whose other end this process alone holds. However the
// process ends, the kernel closes the pipe; the shell then kills the servers, removes the directory and ends. It has a
// session of its own, so that what kills the tests' process group spares it.
package reap

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// A server removes its postmaster.pid when it ends well, and one that has lost its directory ends by itself. A pid
// whose server is dead, or that another program has been given since, is told by where it works, on systems that show
// that. A negative one is of a server that initdb uses: it soon ends by itself, and would leave shared memory behind if
// it were killed or lost its directory.
const script = `
while read -r _; do :; done
tries=0
while [ -e "$1" ] && [ "$tries" -lt 120 ]; do
	signal=INT
	[ "$tries" -lt 40 ] || signal=QUIT
	[ "$tries" -lt 80 ] || signal=KILL
	alive=
	for file in $(find "$1" -name postmaster.pid 2>/dev/null); do
		read -r pid <"$file" || continue
		case $pid in
		-*) send=0 pid=${pid#-} ;;
		*) send=$signal ;;
		esac
		case $(readlink "/proc/$pid/cwd" || [ -d /proc/self ] || echo "$1") in
		"$1" | "$1"/*) kill -s "$send" "$pid" && alive=yes ;;
		esac
	done 2>/dev/null
	[ "$alive" ] || rm -rf "$1" 2>/dev/null
	[ ! -e "$1" ] || sleep 0.05
	tries=$((tries + 1))
done
rm -rf "$1"
`

// New makes a directory. It is removed by release, which waits until that is done, or by the end of this process.
func New() (dir string, release func() error, err error) {
	temp, err := filepath.EvalSymlinks(os.TempDir())
	if err == nil {
		dir, err = os.MkdirTemp(temp, "purser-test-")
	}
	if err != nil {
		return "", nil, fmt.Errorf("make a test directory: %w", err)
	}
	reaper := exec.Command("/bin/sh", "-c", script, "sh", dir)
	reaper.Dir = "/"
	reaper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	alive, err := reaper.StdinPipe()
	if err == nil {
		err = reaper.Start()
	}
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("guard a test directory: %w", err), os.RemoveAll(dir))
	}
	return dir, func() error {
		if err := errors.Join(alive.Close(), reaper.Wait()); err != nil {
			return fmt.Errorf("remove the test directory %s: %w", dir, err)
		}
		return nil
	}, nil
}

// Dir makes a directory for one test.
func Dir(t testing.TB) string {
	t.Helper()
	dir, release, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := release(); err != nil {
			t.Error(err)
		}
	})
	return dir
}
