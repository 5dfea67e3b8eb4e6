//go:build unix

package localpostgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// identity is whom Postgres runs as.
type identity struct {
	name     string
	uid, gid int // who owns the cluster's files, as this process sees it
	attr     syscall.SysProcAttr
}

// identities lists whom this process can run Postgres as, the best first.
func identities() []identity {
	if os.Geteuid() != 0 {
		return []identity{{name: "this user", uid: os.Geteuid(), gid: os.Getegid()}}
	}
	list := namespaceIdentities()
	for _, name := range []string{"postgres", "_postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.Atoi(u.Uid)
		gid, gidErr := strconv.Atoi(u.Gid)
		if uidErr == nil && gidErr == nil && uid > 0 {
			list = append(list, userIdentity("user "+name, uid, gid))
		}
	}
	return list
}

func userIdentity(name string, uid, gid int) identity {
	return identity{name: name, uid: uid, gid: gid, attr: syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)},
	}}
}

// own gives a file of this process to the identity.
func (id identity) own(file string) error {
	if id.uid == os.Geteuid() {
		return nil
	}
	return os.Lchown(file, id.uid, id.gid)
}

// command prepares a Postgres program. It gets a process group of its own, so that Ctrl-C reaches its owner first, and
// none of the settings and languages that the environment holds for other Postgres programs.
func (id identity) command(ctx context.Context, dir, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "PG") || strings.HasPrefix(variable, "LC_") || strings.HasPrefix(variable, "TZ=")
	}), "LC_ALL=C")
	attr := id.attr
	attr.Setpgid = true
	cmd.SysProcAttr = &attr
	// Only initdb is ever waited for long. Any signal would make it leave shared memory behind, and it ends within a
	// second or two, so it may do that; WaitDelay bounds it.
	cmd.Cancel = func() error { return nil }
	cmd.WaitDelay = immediateTimeout
	return cmd
}

// chooseIdentity takes the first identity that can run the programs in the directory, the owner of the cluster before
// all others, and makes the cluster's files its own.
func (s *Server) chooseIdentity(ctx context.Context, candidates []identity) (identity, error) {
	owner := -1
	info, err := os.Stat(s.data)
	switch {
	case err == nil:
		stat := info.Sys().(*syscall.Stat_t)
		owner = int(stat.Uid)
		candidates = ownerFirst(candidates, owner, int(stat.Gid))
	case !errors.Is(err, os.ErrNotExist):
		return identity{}, fmt.Errorf("look at the Postgres cluster: %w", err)
	}

	var refusals []string
	for _, id := range candidates {
		if err := s.admit(id); err != nil {
			refusals = append(refusals, fmt.Sprintf("%s: %v", id.name, err))
			continue
		}
		// Does the system allow it, can it enter the directory, can it run the program?
		if err := id.command(ctx, s.dir, s.programs.postgres, "-V").Run(); err != nil {
			refusals = append(refusals, fmt.Sprintf("%s: %v", id.name, err))
			continue
		}
		if owner < 0 || owner == id.uid {
			return id, nil
		}
		return id, s.handOver(id)
	}
	why := strings.Join(refusals, "; ")
	if ctx.Err() != nil || os.Geteuid() != 0 {
		return identity{}, errors.Join(fmt.Errorf("run %s in %s: %s", s.programs.postgres, s.dir, why), ctx.Err())
	}
	return identity{}, fmt.Errorf("the Postgres server refuses to run as root, and nobody else can run it in %s: run purser as an ordinary user, or choose a data directory that others can enter (%s)",
		s.dir, why)
}

// ownerFirst is the candidates with the cluster's owner before the others; root can be anybody.
func ownerFirst(candidates []identity, uid, gid int) []identity {
	var first, others []identity
	for _, id := range candidates {
		if id.uid == uid {
			first = append(first, id)
		} else {
			others = append(others, id)
		}
	}
	if first == nil && uid > 0 && os.Geteuid() == 0 {
		first = append(first, userIdentity("the cluster's owner", uid, gid))
	}
	return append(first, others...)
}

// admit lets an identity pass through the directory; what lies in it keeps its own modes.
func (s *Server) admit(id identity) error {
	if id.uid == os.Geteuid() {
		return nil
	}
	info, err := os.Stat(s.dir)
	if err != nil {
		return err
	}
	return os.Chmod(s.dir, info.Mode().Perm()|0o011)
}

func (s *Server) handOver(id identity) error {
	err := filepath.WalkDir(s.data, func(file string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(file, id.uid, id.gid)
	})
	if err != nil {
		return fmt.Errorf("hand the Postgres cluster over to %s: %w", id.name, err)
	}
	return nil
}
