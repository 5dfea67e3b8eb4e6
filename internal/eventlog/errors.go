package eventlog

import (
	"errors"
	"fmt"
)

var (
	// ErrUnknownType: this build knows no such event type.
	ErrUnknownType = errors.New("unknown event type")
	// ErrNewerVersion: the event was written by a newer build than this one.
	ErrNewerVersion = errors.New("event of a newer schema version")
	// ErrTooLarge: the append is over the size that the store or we allow; nothing was stored.
	ErrTooLarge = errors.New("append too large")
	// ErrDeleted: the stream was deleted for good.
	ErrDeleted = errors.New("stream deleted")
	// ErrUnavailable: the store could not be reached in time. Where an append fails with it, the outcome is unknown.
	ErrUnavailable = errors.New("event store unavailable")
)

// ConflictError says that the stream was not at the expected revision; nothing was stored.
type ConflictError struct {
	Stream   string
	Expected Revision
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("stream %s is not at revision %d", e.Stream, e.Expected)
}
