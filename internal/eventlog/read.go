package eventlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/cenkalti/backoff/v5"
	"google.golang.org/grpc/codes"
)

const (
	// pageSize bounds the events of one read call.
	pageSize = 1000
	// defaultPatience is the time of one attempt to read: enough for a page, and an answer that is lost is not waited for.
	defaultPatience = 10 * time.Second
)

// Read returns a stream's events from a revision on, in order: at most max, or all where max is not positive. A stream
// that does not exist has none. It tries again until ctx ends, and fails with [ErrUnavailable] then.
func (l *Log) Read(ctx context.Context, stream string, from Revision, max int) ([]Recorded, error) {
	var events []Recorded
	for {
		want := pageSize
		if max > 0 {
			want = min(want, max-len(events))
		}
		page, err := retryRead(ctx, l, func(ctx context.Context) ([]Recorded, error) { return l.readPage(ctx, stream, from, want) })
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", stream, err)
		}
		events = append(events, page...)
		if len(page) < want || len(events) == max {
			return events, nil
		}
		from = page[len(page)-1].Revision + 1
	}
}

// Latest returns the last event of a stream, if it has any. It tries again as [Log.Read] does.
func (l *Log) Latest(ctx context.Context, stream string) (latest Recorded, exists bool, err error) {
	events, err := retryRead(ctx, l, func(ctx context.Context) ([]Recorded, error) {
		return call(ctx, l.store, func(ctx context.Context, c *esdb.Client) ([]Recorded, error) {
			s, err := c.ReadStream(ctx, stream, esdb.ReadStreamOptions{Direction: esdb.Backwards, From: esdb.End{}}, 1)
			if err != nil {
				return nil, err
			}
			defer s.Close()
			return collect(s)
		})
	})
	if err != nil {
		return Recorded{}, false, fmt.Errorf("read the end of %s: %w", stream, err)
	}
	if len(events) == 0 {
		return Recorded{}, false, nil
	}
	return events[0], true, nil
}

func (l *Log) readPage(ctx context.Context, stream string, from Revision, count int) ([]Recorded, error) {
	return call(ctx, l.store, func(ctx context.Context, c *esdb.Client) ([]Recorded, error) {
		s, err := c.ReadStream(ctx, stream, esdb.ReadStreamOptions{Direction: esdb.Forwards, From: esdb.Revision(uint64(max(from, 0)))}, uint64(count))
		if err != nil {
			return nil, err
		}
		defer s.Close()
		return collect(s)
	})
}

// collect reads a stream of events to its end.
func collect(s *esdb.ReadStream) ([]Recorded, error) {
	var events []Recorded
	for {
		e, err := s.Recv()
		switch {
		case errors.Is(err, io.EOF), hasCode(err, esdb.ErrorCodeResourceNotFound):
			return events, nil
		case err != nil:
			return nil, err
		}
		if o := e.OriginalEvent(); o != nil {
			events = append(events, recorded(o))
		}
	}
}

// retryRead tries a read again until ctx ends, unless the answer is definite.
func retryRead[T any](ctx context.Context, l *Log, read func(context.Context) (T, error)) (T, error) {
	var last error
	v, err := backoff.Retry(ctx, func() (T, error) {
		attempt, cancel := context.WithTimeout(ctx, l.patience)
		defer cancel()
		v, err := read(attempt)
		last = err
		switch {
		case err == nil:
			return v, nil
		case hasCode(err, esdb.ErrorCodeStreamDeleted):
			return v, backoff.Permanent(ErrDeleted)
		case hasCode(err, esdb.ErrorCodeAccessDenied), hasCode(err, esdb.ErrorCodeUnauthenticated), grpcCode(err) == codes.InvalidArgument:
			return v, backoff.Permanent(err)
		}
		return v, err
	}, pauses(), backoff.WithMaxElapsedTime(0))
	if errors.As(last, new(*UnreachableError)) {
		return v, last // which says more than that the context has ended
	}
	if err != nil && !errors.Is(err, ErrUnavailable) && ctx.Err() != nil {
		return v, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return v, err
}
