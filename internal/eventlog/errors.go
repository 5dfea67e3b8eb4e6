package eventlog

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
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
	// Actual is where the stream was, which may have moved on since; nil where the store did not tell.
	Actual *Revision
}

func (e *ConflictError) Error() string {
	if e.Actual == nil {
		return fmt.Sprintf("stream %s is not at revision %d", e.Stream, e.Expected)
	}
	return fmt.Sprintf("stream %s is at revision %d, not %d", e.Stream, *e.Actual, e.Expected)
}

// actualRevision finds in the text of the official client's error where the stream is. The client has it nowhere else,
// and a text that it words in another way tells nothing.
func actualRevision(text string) *Revision {
	_, got, ok := strings.Cut(text, "but got '")
	got, _, closed := strings.Cut(got, "'")
	if !ok || !closed {
		return nil
	}
	actual := NoStream
	if got != "no_stream" {
		n, err := strconv.ParseInt(got, 10, 64)
		if err != nil || n < 0 {
			return nil
		}
		actual = Revision(n)
	}
	return &actual
}
