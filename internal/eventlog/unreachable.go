package eventlog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// UnreachableError is an [ErrUnavailable] of which is known who did not answer, and why.
type UnreachableError struct {
	Addr  string // host:port
	Cause string
	ended error // why it is waited for no longer
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("the event store at %s does not answer: %s", e.Addr, e.Cause)
}

// Unwrap makes it an ErrUnavailable, and the end of the caller's context.
func (e *UnreachableError) Unwrap() []error { return []error{ErrUnavailable, e.ended} }

// failure is an attempt to find the store that failed.
type failure struct{ addr, cause string }

// heard remembers why the official client doesn't find the store: it says so nowhere but in its log, as it tries for ever.
func (s *supervisor) heard(args []any) {
	if len(args) != 2 {
		return
	}
	addr, isText := args[0].(string)
	err, isError := args[1].(error)
	if isText && isError {
		s.failed.Store(&failure{addr: addr, cause: reason(err)})
	}
}

// unavailable is the answer to a call whose context has ended.
func (s *supervisor) unavailable(ctx context.Context) error {
	ended := context.Cause(ctx)
	if f := s.failed.Load(); f != nil {
		return &UnreachableError{Addr: f.addr, Cause: f.cause, ended: ended}
	}
	if errors.Is(ended, context.DeadlineExceeded) {
		return &UnreachableError{Addr: addresses(s.config), Cause: timedOut, ended: ended}
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, ended)
}

// addresses are those that a connection string names.
func addresses(config *esdb.Configuration) string {
	if len(config.GossipSeeds) == 0 {
		return config.Address
	}
	seeds := make([]string, len(config.GossipSeeds))
	for i, seed := range config.GossipSeeds {
		seeds[i] = seed.String()
	}
	return strings.Join(seeds, ",")
}

const timedOut = "the time is up"

// reason is why gRPC could not connect, without the layers through which the error came.
func reason(err error) string {
	s := status.Convert(err)
	if s.Code() == codes.DeadlineExceeded {
		return timedOut
	}
	text := s.Message()
	if strings.HasPrefix(text, "name resolver error") {
		return "no address is found for its name"
	}
	if _, quoted, ok := strings.Cut(text, "desc = "); ok {
		if unquoted, err := strconv.Unquote(quoted); err == nil {
			text = unquoted
		}
	}
	text = strings.TrimPrefix(text, "transport: ")
	if dial, ok := strings.CutPrefix(text, "Error while dialing: dial "); ok {
		_, text, _ = strings.Cut(dial, ": ") // after the network and the address
	}
	return strings.TrimPrefix(text, "connect: ")
}
