package storage

import (
	"context"
	"fmt"
	"math"
)

// Expected is the condition of an append on its stream: a revision that must be the last, or one of the constants.
type Expected int64

// Conditions other than an exact revision.
const (
	NoStream     Expected = -1 // the stream has no events
	Any          Expected = -2
	StreamExists Expected = -4 // the stream, or its metadata stream, has events
)

// Exactly expects that the stream's last event has this revision.
func Exactly(revision uint64) Expected { return Expected(min(revision, math.MaxInt64)) }

// Written says where the last event of an append is.
type Written struct {
	Revision Revision // NoRevision if the append was empty and the stream has no events
	Position Position // 0 if the append was empty
}

// ConflictError says that a stream was not as an append expected it to be.
type ConflictError struct {
	Current Revision
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("the stream's last revision is %d, not the expected one", e.Current)
}

// Append adds events to a stream, all or none, and returns once they are safe on disk.
//
// It may be repeated. At an exact revision or NoStream, events that are already there from the next revision on are
// recognised by their ids and confirmed, not written again, whatever has been appended since. With Any and StreamExists,
// only ids that were written recently, by this process, are recognised.
//
// The error is a *ConflictError if the condition does not hold and the events are not there, and a *DeletedError if the
// stream has a tombstone, or is deleted and should exist. If the context ends first, they may be written nevertheless.
func (s *Store) Append(ctx context.Context, stream string, expected Expected, events []Proposed) (Written, error) {
	return s.do(ctx, &change{stream: stream, expected: expected, events: events, apply: (*writer).append})
}

// do has the writer carry out a task.
func (s *Store) do(ctx context.Context, t task) (Written, error) {
	r := &request{task: t, answer: make(chan answer, 1)}
	select {
	case s.queue <- r:
	case <-ctx.Done():
		return Written{}, ctx.Err()
	case <-s.stop:
		return Written{}, ErrClosed
	}
	select {
	case a := <-r.answer:
		return a.written, a.err
	case <-ctx.Done():
		return Written{}, ctx.Err()
	case <-s.stopped:
		return r.answerAfterStop()
	}
}

// answerAfterStop tells a request that was answered by the writer's last batch from one that it never took.
func (r *request) answerAfterStop() (Written, error) {
	select {
	case a := <-r.answer:
		return a.written, a.err
	default:
		return Written{}, ErrClosed
	}
}

// append adds the events of a change to the batch, and undeletes the stream if it is deleted.
func (w *writer) append(c *change, cur head) (Written, error) {
	subject, describes := describedBy(c.stream)
	if !describes {
		subject = c.stream
	}
	// All reads come before the first write: a change is in the batch whole, or not at all.
	m, err := w.metadata(subject)
	if err != nil {
		return Written{}, err
	}
	end := cur
	if describes && m.deleted() {
		if end, err = w.head(subject); err != nil {
			return Written{}, err
		}
	}
	last := w.write(c.stream, cur, c.events)
	switch {
	case m.deleted() && describes:
		w.undelete(subject, w.batch.metadata[subject], end.revision+1)
	case m.deleted():
		w.undelete(subject, m, end.revision+1)
	case !describes && m.hides(last.revision):
		w.queueSweep(c.stream)
	}
	return last.written(), nil
}
