package localpostgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// namespaceIdentities is root under an ordinary id: the namespace maps no id but that one.
func namespaceIdentities() []identity {
	const ordinary = 1000
	mapping := []syscall.SysProcIDMap{{ContainerID: ordinary, HostID: 0, Size: 1}}
	return []identity{{name: "a user namespace", uid: 0, gid: 0, attr: syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: mapping,
		GidMappings: mapping,
	}}}
}

// serves tells whether a process is alive and one of the server on a cluster: its processes all work in the cluster's
// directory. A dead one that nobody has waited for works nowhere. It fails where that can't be told.
func serves(pid int, data string) (bool, error) {
	there, err := os.Stat(data)
	if err != nil {
		return false, unlessGone(err)
	}
	here, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", pid))
	if errors.Is(err, os.ErrPermission) {
		return named(pid, there)
	}
	if err != nil {
		return false, unlessGone(err)
	}
	return os.SameFile(here, there), nil
}

// named is serves by the arguments of a process, which everybody may read. Where a process of another user works is
// shown to root with CAP_SYS_PTRACE only, and in containers root is usually without it.
func named(pid int, data os.FileInfo) (bool, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false, unlessGone(err)
	}
	arguments := strings.Split(string(text), "\x00") // of a dead process, none
	if program := filepath.Base(arguments[0]); program != "postgres" && program != "postmaster" {
		return false, nil
	}
	// launch names the directory so, as pg_ctl does.
	at := slices.Index(arguments, "-D") + 1
	if at == 0 || at == len(arguments) || !filepath.IsAbs(arguments[at]) {
		return false, fmt.Errorf("process %d is a Postgres, and on which cluster can't be seen", pid)
	}
	other, err := os.Stat(arguments[at])
	if err != nil {
		return false, unlessGone(err)
	}
	return os.SameFile(other, data), nil
}

// unlessGone is nil for the errors of files and processes that are no more.
func unlessGone(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}
