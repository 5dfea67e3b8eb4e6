package eventlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/cenkalti/backoff/v5"
	"google.golang.org/grpc/codes"
)

const (
	// MaxEvent and MaxAppend bound what is stored, in bytes of data, metadata and type.
	MaxEvent  = 64 << 10
	MaxAppend = 512 << 10

	// attemptTimeout bounds one attempt, so that one that hangs does not use up the caller's time.
	attemptTimeout = 3 * time.Second
	firstPause     = 20 * time.Millisecond
	maxPause       = time.Second
)

// Appended says where the last event of an append is.
type Appended struct {
	Revision Revision
	Position Position
}

// Append stores events at the end of a stream that is at the expected revision, all or none. An attempt whose outcome is
// unknown is repeated as it was until ctx ends, which the store recognises by the events' ids. Of no events, it proves that
// the stream is at the revision, which a read of a node that has just lost its leadership does not; the position is 0 then.
//
// Errors: *[ConflictError] where the stream is at another revision, which may be because a lost attempt was stored, so the
// caller reads the tail; [ErrTooLarge]; [ErrDeleted]; [ErrUnavailable], after which the outcome is unknown.
func (l *Log) Append(ctx context.Context, stream string, expected Revision, events []NewEvent) (Appended, error) {
	data := make([]esdb.EventData, len(events))
	total := 0
	for i, e := range events {
		var err error
		if data[i], err = l.encode(e); err != nil {
			return Appended{}, err
		}
		size := len(data[i].Data) + len(data[i].Metadata) + 2*len(data[i].EventType)
		if total += size; size > MaxEvent || total > MaxAppend {
			return Appended{}, fmt.Errorf("%w: %s", ErrTooLarge, stream)
		}
	}
	start := time.Now()
	a, err := l.appendRaw(ctx, stream, expected, data)
	l.metrics.observeAppend(err, time.Since(start))
	return a, err
}

func (l *Log) encode(e NewEvent) (esdb.EventData, error) {
	enc, err := l.schema.Encode(e.Message)
	if err != nil {
		return esdb.EventData{}, err
	}
	e.Meta.SchemaVersion = enc.Version
	meta, err := json.Marshal(e.Meta)
	if err != nil {
		return esdb.EventData{}, fmt.Errorf("metadata of %s: %w", enc.Type, err)
	}
	d := esdb.EventData{EventID: e.ID, EventType: enc.Type, ContentType: esdb.ContentTypeBinary, Data: enc.Data, Metadata: meta}
	if enc.ContentType == "application/json" {
		d.ContentType = esdb.ContentTypeJson
	}
	return d, nil
}

func (l *Log) appendRaw(ctx context.Context, stream string, expected Revision, data []esdb.EventData) (Appended, error) {
	opts := esdb.AppendToStreamOptions{ExpectedRevision: esdb.NoStream{}}
	if expected != NoStream {
		opts.ExpectedRevision = esdb.Revision(uint64(expected))
	}
	definite := false
	a, err := backoff.Retry(ctx, func() (Appended, error) {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		defer cancel()
		w, err := call(attempt, l.store, func(ctx context.Context, c *esdb.Client) (*esdb.WriteResult, error) {
			return c.AppendToStream(ctx, stream, opts, data...)
		})
		if err == nil {
			return Appended{Revision: expected + Revision(len(data)), Position: Position(w.CommitPosition)}, nil
		}
		if err, definite = appendError(err, stream, expected); definite {
			err = backoff.Permanent(err)
		}
		return Appended{}, err
	}, pauses(), backoff.WithMaxElapsedTime(0))
	if err != nil && !definite {
		return a, fmt.Errorf("append to %s: %w: %w", stream, ErrUnavailable, err)
	}
	return a, err
}

// appendError tells the definite answers, which end the attempts, from those that leave the outcome open.
func appendError(err error, stream string, expected Revision) (_ error, definite bool) {
	var e *esdb.Error
	text := ""
	if errors.As(err, &e) && e.Err() != nil {
		text = e.Err().Error()
	}
	switch {
	case hasCode(err, esdb.ErrorCodeWrongExpectedVersion):
		return &ConflictError{Stream: stream, Expected: expected, Actual: actualRevision(text)}, true
	case hasCode(err, esdb.ErrorCodeStreamDeleted):
		return fmt.Errorf("%w: %s", ErrDeleted, stream), true
	case grpcCode(err) == codes.InvalidArgument && strings.Contains(strings.ToLower(text), "size"):
		return fmt.Errorf("%w: %s: %w", ErrTooLarge, stream, err), true
	case grpcCode(err) == codes.InvalidArgument, hasCode(err, esdb.ErrorCodeAccessDenied), hasCode(err, esdb.ErrorCodeUnauthenticated):
		return fmt.Errorf("append to %s: %w", stream, err), true
	}
	return err, false
}

// pauses are the waits between attempts: exponential, with jitter, up to a cap.
func pauses() backoff.RetryOption {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.RandomizationFactor = firstPause, maxPause, 0.5
	return backoff.WithBackOff(b)
}
