//go:build unix

package localpostgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	randv2 "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// settings is the part of the configuration that is ours. It lies in a file of its own that each start writes anew;
// ALTER SYSTEM overrides it.
const settings = `# Written at each start. To change a setting for good, use ALTER SYSTEM.
max_connections = 200
shared_buffers = 64MB
# No replica and no base backup reads the log, so that it need only serve recovery.
wal_level = minimal
max_wal_senders = 0
timezone = 'UTC'
log_timezone = 'UTC'
# Queries are short; compiling them costs more than it saves.
jit = off
# What a client did wrong, the client logs; the server's own troubles rank above "log".
log_min_messages = log
log_checkpoints = off
log_line_prefix = '%m [%p] '
cluster_name = 'purser'
`

const settingsFile = "purser.conf"

// acquire takes the directory's lock. The file is closed on exec, so that no server we start keeps it.
func acquire(dir string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		owner, _ := io.ReadAll(io.LimitReader(lock, 20)) // only for the message
		return nil, errors.Join(fmt.Errorf("%w (process %s)", ErrInUse, strings.TrimSpace(string(owner))), lock.Close())
	}
	if err == nil {
		err = errors.Join(lock.Truncate(0), writeTo(lock, fmt.Sprintln(os.Getpid())))
	}
	if err != nil {
		return nil, errors.Join(err, release(lock))
	}
	return lock, nil
}

// release lets go of the lock at once. To close the file would not do: a child that is being made has it too until it
// runs its own program.
func release(lock *os.File) error {
	return errors.Join(syscall.Flock(int(lock.Fd()), syscall.LOCK_UN), lock.Close())
}

func writeTo(file *os.File, text string) error {
	_, err := file.WriteString(text)
	return err
}

// initialise makes the cluster unless there is one. It is made in a directory beside its own and renamed when it is
// whole and on disk; what an interrupted attempt left is removed.
func (s *Server) initialise(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(s.data, "PG_VERSION")); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	s.log.Info("making a Postgres cluster", "directory", s.data, "version", s.programs.major)
	left, err := filepath.Glob(filepath.Join(s.dir, "init-*"))
	if err != nil {
		return err
	}
	for _, attempt := range left {
		if err := os.RemoveAll(attempt); err != nil {
			return err
		}
	}
	work, err := os.MkdirTemp(s.dir, "init-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := s.identity.own(work); err != nil {
		return err
	}
	if err := s.initdb(ctx, work); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(work, "data"), s.data); err != nil {
		return err
	}
	return syncDirectory(s.dir)
}

func (s *Server) initdb(ctx context.Context, work string) error {
	data, password := filepath.Join(work, "data"), filepath.Join(work, "password")
	if err := errors.Join(writeFile(password, s.password), s.identity.own(password)); err != nil {
		return err
	}
	cmd := s.identity.command(ctx, work, s.programs.initdb,
		"--pgdata="+data,
		"--username="+role, "--pwfile="+password, "--auth=scram-sha-256",
		"--encoding=UTF8", "--locale=C") // C is the one locale that every machine has
	output, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		if err != nil && cmd.Process != nil {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it has started, if it did not end by itself
		}
		return fmt.Errorf("initdb: %w", ctx.Err())
	}
	if err != nil {
		return fmt.Errorf("initdb: %w: %s", err, lastLine(string(output)))
	}
	main, err := os.OpenFile(filepath.Join(data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(writeTo(main, "\ninclude '"+settingsFile+"'\n"), main.Sync(), main.Close())
}

func (s *Server) writeSettings() error {
	file := filepath.Join(s.data, settingsFile)
	return errors.Join(writeFile(file, settings), s.identity.own(file))
}

// keptPassword makes the password on first use, before the cluster that it opens.
func (s *Server) keptPassword() (string, error) {
	file := filepath.Join(s.dir, "password")
	kept, err := os.ReadFile(file)
	if err == nil {
		return strings.TrimSpace(string(kept)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read the Postgres password: %w", err)
	}
	password := rand.Text()
	if err := writeFile(file, password); err != nil {
		return "", fmt.Errorf("keep the Postgres password: %w", err)
	}
	return password, nil
}

func (s *Server) portFile() string { return filepath.Join(s.dir, "port") }

// choosePort takes the port of the last run, or a free one where another program has taken that since. A server that
// has just been killed may hold it for a moment.
func (s *Server) choosePort() (int, error) {
	kept, err := os.ReadFile(s.portFile())
	if errors.Is(err, os.ErrNotExist) {
		return freePort()
	}
	if err != nil {
		return 0, fmt.Errorf("read the Postgres port: %w", err)
	}
	port, err := strconv.Atoi(strings.TrimSpace(string(kept)))
	if err != nil {
		return freePort()
	}
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if isFree(port) {
			return port, nil
		}
	}
	return freePort()
}

// freePort draws from below the range that systems give to outgoing connections. In it, a client that dials a server
// that is down can be given the server's own port to dial from, connect to itself, and keep the server out.
func freePort() (int, error) {
	const lowest, count, tries = 20000, 10000, 100
	for range tries {
		if port := lowest + randv2.IntN(count); isFree(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port for Postgres among %d of %d to %d", tries, lowest, lowest+count-1)
}

func isFree(port int) bool {
	listener, err := net.Listen("tcp", net.JoinHostPort(loopback, strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return listener.Close() == nil
}

// writeFile replaces a file as a whole, on disk too, and only if it changes. One writer at a time: the lock's holder.
func writeFile(file, text string) error {
	if is, err := os.ReadFile(file); err == nil && string(is) == text {
		return nil
	}
	next := file + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(writeTo(f, text), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(next, file); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(file))
}

func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
