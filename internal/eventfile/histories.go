package eventfile

import (
	"errors"
	"fmt"
	"io"

	"github.com/purserhq/purser/internal/eventlog"
)

// UnfitError says why a stream can't be imported: its events could not be given the revisions that they have.
type UnfitError struct {
	Stream   string
	Revision eventlog.Revision
	Why      string
}

func (e *UnfitError) Error() string {
	return fmt.Sprintf("stream %s can't be imported: at revision %d, %s", e.Stream, e.Revision, e.Why)
}

// Histories follows events of many streams and finds those streams that can't be imported. It remembers every stream.
type Histories struct {
	next  map[string]eventlog.Revision // unfit, once it is
	first *UnfitError
	count int
}

const unfit eventlog.Revision = -1

// NewHistories returns histories without events.
func NewHistories() *Histories { return &Histories{next: make(map[string]eventlog.Revision)} }

// Add takes the next event; the error is an *[UnfitError] for the first event that makes its stream unfit, else nil.
func (h *Histories) Add(e eventlog.Recorded) error {
	next := h.next[e.Stream]
	if next == unfit {
		return nil
	}
	why := ""
	switch {
	case eventlog.IsSystem(e.Stream):
		why = "it is the event store's own"
	case e.IsTombstone():
		why = "it was deleted for good"
	case e.Revision > 0 && next == 0:
		why = "where it begins, because what was before is truncated; a stream can only be imported from revision 0 on"
	case e.Revision != next:
		why = fmt.Sprintf("where revision %d should follow", next)
	default:
		h.next[e.Stream] = next + 1
		return nil
	}
	h.next[e.Stream] = unfit
	err := &UnfitError{Stream: e.Stream, Revision: e.Revision, Why: why}
	if h.count++; h.first == nil {
		h.first = err
	}
	return err
}

// Unfit returns the number of streams that can't be imported, and what is wrong with the first of them.
func (h *Histories) Unfit() (int, *UnfitError) { return h.count, h.first }

// Fits tells whether a stream can be imported, as far as was seen.
func (h *Histories) Fits(stream string) bool { return h.next[stream] != unfit }

// Check reads a file to its end. The error is of the file's form; whether its streams can be imported, the histories tell.
func Check(r *Reader) (*Histories, error) {
	h := NewHistories()
	for {
		e, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return h, nil
		case err != nil:
			return nil, err
		}
		_ = h.Add(e)
	}
}
