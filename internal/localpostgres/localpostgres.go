//go:build unix

// Package localpostgres runs a private Postgres cluster under a data directory, from the Postgres programs that are
// installed on the machine.
//
// It promises that a directory has one owner at a time; that the cluster keeps its port and its password, so that a
// connection string stays good from run to run; and that a kill at any moment, of the owner or of the server, leaves a
// directory that the next Start can use: a server that outlived its owner is adopted, a cluster that was half made is
// made anew.
//
// The directory holds:
//
//	lock          held while it has an owner; the kernel lets go of it when the owner dies
//	password      of the one role, "purser"
//	port          on 127.0.0.1; there is no Unix socket, since their paths may not be long
//	data/         the cluster; it appears by a rename, when it is whole
//	postgres.log  what the server says; postgres.log.1 the one before
//
// Postgres refuses to run as root. For root it runs in a user namespace in which root has an ordinary id, so that its
// files stay root's, and where that is not allowed, as an unprivileged user.
package localpostgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	role     = "purser"
	database = "purser"
	loopback = "127.0.0.1"

	// startTimeout leaves room for the recovery of a large cluster after a crash.
	startTimeout = 2 * time.Minute
	// settled is how long a server must have lived for its death not to count as one of a series.
	settled = time.Minute
)

// ErrInUse says that another process, or another Server of this one, owns the directory.
var ErrInUse = errors.New("in use by another purser")

var (
	errStopped   = errors.New("the server was stopped")
	errNoCluster = errors.New("the cluster is gone from the disk")
)

// Server is a running cluster and the ownership of its directory. Its methods may be called concurrently.
type Server struct {
	log      *slog.Logger
	dir      string
	data     string
	programs programs
	identity identity
	password string
	lock     *os.File

	mu         sync.Mutex // held through starts and stops
	postmaster *postmaster
	port       int
	stopped    bool
}

// Start makes the cluster under dir if there is none, and starts it, or adopts the server that still runs there. It
// returns when the database accepts connections; the server then lives until Stop, or until this process is gone and
// another stops it: ctx bounds the start alone. A start that fails, or that ctx breaks off, leaves no half-made cluster, and
// no server running that it launched or began to adopt; it takes a few seconds at most to see to that.
//
// It fails with ErrNotInstalled where the machine has no Postgres, and with ErrInUse where dir has an owner.
func Start(ctx context.Context, dir string, log *slog.Logger) (*Server, error) {
	return start(ctx, dir, log, thisMachine())
}

func start(ctx context.Context, dir string, log *slog.Logger, on machine) (*Server, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("locate the Postgres directory: %w", err)
	}
	// Others may pass through, as the user has to who serves for root; what lies in it keeps its own modes.
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("make the Postgres directory: %w", err)
	}
	lock, err := acquire(dir)
	if err != nil {
		return nil, fmt.Errorf("take the Postgres directory %s: %w", dir, err)
	}
	s := &Server{log: log, dir: dir, data: filepath.Join(dir, "data"), lock: lock}
	if err := s.open(ctx, on); err != nil {
		return nil, errors.Join(err, release(lock))
	}
	return s, nil
}

// open brings a Server whose directory is locked to where it serves.
func (s *Server) open(ctx context.Context, on machine) (err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	began := time.Now()
	if s.programs, err = on.programsFor(ctx, s.data); err != nil {
		return err
	}
	if s.identity, err = s.chooseIdentity(ctx, on.identities); err != nil {
		return err
	}
	if s.password, err = s.keptPassword(); err != nil {
		return err
	}
	if err := s.initialise(ctx); err != nil {
		return fmt.Errorf("make the Postgres cluster: %w", err)
	}

	adopted, err := s.adoptOrLaunch(ctx)
	if err != nil {
		return err
	}
	if err := writeFile(s.portFile(), strconv.Itoa(s.port)); err != nil {
		return errors.Join(err, s.postmaster.stop(ctx))
	}
	s.log.Info("Postgres is ready", "address", s.address(), "pid", s.postmaster.process.Pid,
		"version", s.programs.major, "adopted", adopted, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// adoptOrLaunch tries twice: another program may be quicker to take the port, and a server whose owner was killed when
// it had only just launched it shows itself late.
func (s *Server) adoptOrLaunch(ctx context.Context) (adopted bool, err error) {
	for range 2 {
		if adopted, err = s.adopt(ctx); err != nil {
			return false, fmt.Errorf("adopt the Postgres that runs on %s: %w", s.data, err)
		}
		if adopted {
			return true, nil
		}
		if s.port, err = s.choosePort(); err != nil {
			return false, err
		}
		if err = s.launch(ctx); err == nil {
			return false, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return false, fmt.Errorf("start Postgres: %w", err)
}

// URL is the connection string of the database. It stays the same while the Server lives, through restarts.
func (s *Server) URL() string { return s.urlOf(database) }

// Program is where another program of the server's installation is, such as pgbench. It fails where that was not installed.
func (s *Server) Program(name string) (string, error) {
	file := filepath.Join(filepath.Dir(s.programs.postgres), name)
	if !executable(file) {
		return "", fmt.Errorf("%s is not installed: there is none beside %s", name, s.programs.postgres)
	}
	return file, nil
}

func (s *Server) urlOf(database string) string { return urlOf(s.address(), s.password, database) }

func (s *Server) address() string { return net.JoinHostPort(loopback, strconv.Itoa(s.port)) }

// Supervise restarts the server on its port whenever it dies, until ctx ends or Stop is called; then it returns nil.
// Restarts that follow one another are spaced, up to ten seconds. It fails only when the cluster itself is gone from
// the disk: the data is lost then, and an empty cluster in its place would hide it.
func (s *Server) Supervise(ctx context.Context) error {
	spacing := backoff.NewExponentialBackOff()
	spacing.InitialInterval = 100 * time.Millisecond
	spacing.Multiplier = 2
	spacing.MaxInterval = 10 * time.Second
	for {
		since := time.Now()
		select {
		case <-ctx.Done():
			return nil
		case <-s.done():
		}
		if time.Since(since) > settled {
			spacing.Reset()
		}
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(spacing.NextBackOff()):
			}
			err := s.restart(ctx)
			if errors.Is(err, errStopped) || ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, errNoCluster) {
				return fmt.Errorf("restart Postgres: %w", err)
			}
			if err == nil {
				break
			}
			s.log.Error("Postgres could not be restarted", "error", err)
		}
	}
}

// done is closed when the server that runs now has died.
func (s *Server) done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.postmaster.done
}

// restart starts a server in the place of one that died.
func (s *Server) restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return errStopped
	}
	if _, err := os.Stat(filepath.Join(s.data, "PG_VERSION")); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %s", errNoCluster, s.data)
	}
	s.log.Warn("Postgres died and is being restarted", "pid", s.postmaster.process.Pid)
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.launch(ctx); err != nil {
		return err
	}
	s.log.Info("Postgres is ready again", "address", s.address(), "pid", s.postmaster.process.Pid)
	return nil
}

// Stop shuts the server down and gives the directory up. It breaks off what clients are doing, waits for an orderly
// end while ctx lasts but at most ten seconds, and then ends the server at once, which loses nothing that was
// committed. End Supervise first, or a restart that is under way has to finish before. A second Stop does nothing.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	s.stopped = true
	err := s.postmaster.stop(ctx)
	if err != nil {
		err = fmt.Errorf("stop Postgres: %w", err)
	}
	return errors.Join(err, release(s.lock))
}
