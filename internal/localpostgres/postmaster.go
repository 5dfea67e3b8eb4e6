//go:build unix

package localpostgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	fastTimeout      = 10 * time.Second
	immediateTimeout = 5 * time.Second
	readyInterval    = 10 * time.Millisecond
	adoptedInterval  = 100 * time.Millisecond
	connectTimeout   = 5 * time.Second
	logLimit         = 8 << 20 // bytes, looked at before each start
)

// postmaster is a running server: a child of this process, or one adopted.
type postmaster struct {
	process *os.Process
	done    chan struct{} // closed when it has ended
	unwatch func()        // gives up waiting for its end
}

// launch starts the server on s.port and waits until it is ready. A first failure need not be the last: processes of
// a server that was killed can hold its memory a moment longer.
func (s *Server) launch(ctx context.Context) error {
	if err := s.writeSettings(); err != nil {
		return err
	}
	const attempts = 4
	var err error
	for attempt := range attempts {
		if err = s.launchOnce(ctx); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond << attempt):
		}
	}
	return err
}

func (s *Server) launchOnce(ctx context.Context) error {
	if err := s.removeStalePidFile(); err != nil {
		return err
	}
	log, from, err := s.openLog()
	if err != nil {
		return err
	}
	defer log.Close()
	// Not the caller's ctx: the server outlives the start.
	cmd := s.identity.command(context.Background(), s.dir, s.programs.postgres,
		"-D", s.data, "-p", strconv.Itoa(s.port), "-h", loopback, "-k", "")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	p := &postmaster{process: cmd.Process, done: make(chan struct{}), unwatch: func() {}}
	go func() { // ends with the server, which stop ends
		defer close(p.done)
		_ = cmd.Wait() // the log says why it ended
	}()
	if err := s.waitReady(ctx, p); err != nil {
		select {
		case <-p.done:
			said, _ := io.ReadAll(io.NewSectionReader(log, from, logLimit)) // only for the message
			return fmt.Errorf("%w: %s", err, fatalLine(string(said)))
		default:
			return errors.Join(err, p.stop(ctx))
		}
	}
	s.postmaster = p
	return nil
}

// removeStalePidFile removes the file of a server that is surely gone: its pid, when another program has been given it
// since, would make Postgres refuse to start. The file of a server that lives keeps two from writing to one cluster.
func (s *Server) removeStalePidFile() error {
	file, err := s.readPidFile()
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	lives, err := serves(file.pid, s.data)
	if err != nil {
		return fmt.Errorf("does the server of %s still live: %w", s.pidFile(), err)
	}
	if lives {
		return nil
	}
	return os.Remove(s.pidFile())
}

// adopt takes over the server that still runs on the cluster, if one does.
func (s *Server) adopt(ctx context.Context) (bool, error) {
	file, err := s.readPidFile()
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	// In this order the handle is of the process that is looked at, not of one that got its pid later.
	process, err := os.FindProcess(file.pid)
	if err != nil {
		return false, err
	}
	if lives, err := serves(file.pid, s.data); err != nil || !lives {
		return false, err
	}
	watch, unwatch := context.WithCancel(context.Background()) // not the caller's ctx: it bounds the start alone
	p := &postmaster{process: process, done: make(chan struct{}), unwatch: unwatch}
	go s.watch(watch, p)
	err = s.waitReady(ctx, p)
	if errors.Is(err, errDied) { // it was on its way out
		return false, nil
	}
	if err != nil {
		return false, errors.Join(err, p.stop(ctx))
	}
	s.postmaster = p
	return true, nil
}

// watch sees when an adopted server has ended: nothing tells a process about one that is not its child.
func (s *Server) watch(ctx context.Context, p *postmaster) {
	tick := time.NewTicker(adoptedInterval)
	defer tick.Stop()
	for {
		if lives, err := serves(p.process.Pid, s.data); err == nil && !lives {
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	close(p.done)
}

var errDied = errors.New("the server ended before it was ready")

// waitReady waits until the server says that it is ready, and then proves it by a query.
func (s *Server) waitReady(ctx context.Context, p *postmaster) error {
	tick := time.NewTicker(readyInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the server: %w", ctx.Err())
		case <-p.done:
			return errDied
		case <-tick.C:
		}
		file, err := s.readPidFile()
		if err != nil || !file.ready || file.pid != p.process.Pid {
			continue // while it starts, the file is absent or in the making
		}
		if s.port != file.port { // of a server to adopt
			s.port = file.port
		}
		err = s.ensureDatabase(ctx)
		if code := sqlState(err); code == "57P03" || code == "53300" { // starting or stopping; too many clients
			continue
		}
		return err
	}
}

// ensureDatabase connects as our clients do, and makes the database if it isn't there.
func (s *Server) ensureDatabase(ctx context.Context) error {
	err := s.exec(ctx, database, "SELECT 1")
	if sqlState(err) != "3D000" { // no such database
		return err
	}
	return s.exec(ctx, "postgres", "CREATE DATABASE "+pgx.Identifier{database}.Sanitize())
}

func (s *Server) exec(ctx context.Context, database, statement string) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.urlOf(database))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement)
	return errors.Join(err, conn.Close(ctx))
}

func sqlState(err error) string {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return refused.Code
	}
	return ""
}

// stop ends the server: orderly for as long as ctx and fastTimeout allow, then at once, then by force.
func (p *postmaster) stop(ctx context.Context) error {
	orderly, cancel := context.WithTimeout(ctx, fastTimeout)
	defer cancel()
	if p.endedBy(orderly, syscall.SIGINT) {
		return nil
	}
	for _, signal := range []os.Signal{syscall.SIGQUIT, syscall.SIGKILL} {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), immediateTimeout)
		defer cancel()
		if p.endedBy(bounded, signal) {
			return nil
		}
	}
	p.unwatch()
	return fmt.Errorf("process %d does not end", p.process.Pid)
}

func (p *postmaster) endedBy(ctx context.Context, signal os.Signal) bool {
	_ = p.process.Signal(signal) // fails for a process that has ended, which done tells too
	select {
	case <-p.done:
		return true
	case <-ctx.Done():
		return false
	}
}

// pidFile is the file in which a server describes itself to others.
func (s *Server) pidFile() string { return filepath.Join(s.data, "postmaster.pid") }

type pidFile struct {
	pid, port int
	ready     bool
}

// readPidFile fails with os.ErrNotExist where there is no file, or none worth the name: one is never valid without
// its pid, and a server that is starting has yet to write the rest.
func (s *Server) readPidFile() (pidFile, error) {
	text, err := os.ReadFile(s.pidFile())
	if err != nil {
		return pidFile{}, err
	}
	// pid, directory, time of start, port, socket directory, address, shared memory, status
	const pid, port, status = 0, 3, 7
	lines := strings.Split(string(text), "\n")
	var file pidFile
	if file.pid, err = strconv.Atoi(strings.TrimSpace(lines[pid])); err != nil {
		return pidFile{}, fmt.Errorf("%s has no pid: %w", s.pidFile(), os.ErrNotExist)
	}
	if len(lines) > port {
		file.port, _ = strconv.Atoi(lines[port]) // 0 until it is written
	}
	file.ready = len(lines) > status && strings.TrimSpace(lines[status]) == "ready"
	return file, nil
}

// openLog opens the server's log for appending, and tells where its end is. A log that has grown large becomes the
// previous one.
func (s *Server) openLog() (*os.File, int64, error) {
	name := filepath.Join(s.dir, "postgres.log")
	if info, err := os.Stat(name); err == nil && info.Size() > logLimit {
		if err := os.Rename(name, name+".1"); err != nil {
			return nil, 0, err
		}
	}
	log, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, 0, err
	}
	end, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, 0, errors.Join(err, log.Close())
	}
	return log, end, nil
}

// fatalLine is the first line of a log in which the server says why it gave up.
func fatalLine(log string) string {
	for line := range strings.Lines(log) {
		if _, reason, ok := strings.Cut(line, "FATAL:"); ok {
			return strings.TrimSpace(reason)
		}
	}
	return lastLine(log)
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}
