package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// The official client gives up for good, and fails or hangs all its callers, once so many attempts to find the store
	// have failed: so that must never happen.
	discoverAttempts = 1_000_000_000
	discoverInterval = 250 // milliseconds
	// maxWaiting bounds the calls that wait for a store that is away; more are refused at once.
	maxWaiting = 10_000
)

// supervisor keeps a working client of the store.
//
// The official client blocks its callers, whatever their contexts say, while it looks for the store, and may stop working
// for good. So every call runs on a goroutine of its own that its caller can leave behind, and a client that has failed is
// retired: calls that come later get a new one, and the old one is closed when its last call has returned, because to
// close it earlier would make it panic.
type supervisor struct {
	config  *esdb.Configuration
	log     *slog.Logger
	metrics *metrics
	waiting atomic.Int64
	failed  atomic.Pointer[failure] // nil once a call has succeeded
	workers *workers

	mu      sync.Mutex
	current *lease
	closed  bool
}

// lease is a client and the number of calls that use it.
type lease struct {
	client  *esdb.Client
	calls   int
	retired bool
}

func newSupervisor(url string, log *slog.Logger, m *metrics) (*supervisor, error) {
	config, err := parse(url)
	if err != nil {
		return nil, err
	}
	s := &supervisor{config: config, log: log, metrics: m, workers: newWorkers()}
	config.Logger = func(level esdb.LogLevel, format string, args ...any) {
		log.Debug("event store client", "severity", level, "text", fmt.Sprintf(format, args...))
		if level == esdb.LogWarn {
			s.heard(args)
		}
	}
	client, err := esdb.NewClient(config)
	if err != nil {
		return nil, fmt.Errorf("the event store's connection string: %w", err)
	}
	s.current = &lease{client: client}
	return s, nil
}

// parse reads a connection string. What it says about discovery is replaced.
func parse(url string) (*esdb.Configuration, error) {
	config, err := esdb.ParseConnectionString(url)
	if err != nil || !strings.HasPrefix(url, "esdb") {
		// The parser's own text may repeat the password.
		return nil, errors.New("the event store's connection string can't be read: want esdb://host:port?tls=false, esdb+discover://…")
	}
	config.MaxDiscoverAttempts, config.DiscoveryInterval = discoverAttempts, discoverInterval
	return config, nil
}

func (s *supervisor) acquire() (*lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("%w: the log is closed", ErrUnavailable)
	}
	s.current.calls++
	return s.current, nil
}

func (s *supervisor) retain(l *lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.calls++
}

func (s *supervisor) release(l *lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.calls--
	s.closeUnused(l)
}

// retire replaces a client that has failed, unless somebody did already.
func (s *supervisor) retire(l *lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.current != l {
		return
	}
	client, err := esdb.NewClient(s.config)
	if err != nil { // it was accepted before
		s.log.Error("replace the event store's client", "err", err)
		return
	}
	s.metrics.clients.Inc()
	s.current = &lease{client: client}
	l.retired = true
	s.closeUnused(l)
}

func (s *supervisor) closeUnused(l *lease) {
	if l.retired && l.calls == 0 {
		_ = l.client.Close() // never fails
	}
}

// close ends the current client once its calls have returned.
func (s *supervisor) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.current.retired = true
	s.closeUnused(s.current)
	s.workers.close()
}

// call runs one operation on the current client. It returns when the operation or ctx ends; an operation left behind
// ends by itself, because it was given ctx too.
func call[T any](ctx context.Context, s *supervisor, op func(context.Context, *esdb.Client) (T, error)) (T, error) {
	l, err := s.acquire()
	if err != nil {
		var zero T
		return zero, err
	}
	defer s.release(l)
	return callOn(ctx, s, l, op)
}

// callOn runs one operation on a client that the caller has acquired.
func callOn[T any](ctx context.Context, s *supervisor, l *lease, op func(context.Context, *esdb.Client) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var zero T
	if s.waiting.Add(1) > maxWaiting {
		s.waiting.Add(-1)
		return zero, fmt.Errorf("%w: too many calls are waiting for it", ErrUnavailable)
	}
	s.retain(l)
	done := make(chan result, 1)
	s.workers.run(func() {
		defer s.waiting.Add(-1)
		defer s.release(l)
		value, err := op(ctx, l.client)
		done <- result{value, err}
	})
	select {
	case r := <-done:
		switch {
		case r.err == nil:
			s.failed.Store(nil)
		case broken(r.err):
			s.retire(l)
		}
		return r.value, r.err
	case <-ctx.Done():
		return zero, s.unavailable(ctx)
	}
}

// broken tells an error of the connection from one of the request. Reads and subscriptions do not make the client look for
// the store again, and a gRPC connection that was refused may wait for minutes before it tries again, so it is replaced.
func broken(err error) bool {
	return hasCode(err, esdb.ErrorCodeConnectionClosed) || hasCode(err, esdb.ErrorUnavailable) || hasCode(err, esdb.ErrorCodeNotLeader) ||
		grpcCode(err) == codes.Unavailable
}

func hasCode(err error, code esdb.ErrorCode) bool {
	var e *esdb.Error
	return errors.As(err, &e) && e.Code() == code
}

// grpcCode is the status code in an error's chain, or Unknown.
func grpcCode(err error) codes.Code {
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(err, &s) {
		return s.GRPCStatus().Code()
	}
	return codes.Unknown
}
