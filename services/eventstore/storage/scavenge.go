package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// What a stream no longer shows is deleted for good, but for its last event, which keeps its revisions and the positions of
// the log from being used again. A stream that may have such events is on a list (the keys 'w'), under the time from which
// on it has; a change puts it there in its own batch. The scavenger takes the streams that are due, a few at a time, finds
// what they no longer show, and has the writer delete it with its next batch: all that is written is written by one
// goroutine, so a stream that has changed meanwhile just stays on the list.
const (
	sweepStreams = 64
	sweepEvents  = 256 // what the writer deletes at once takes it less than syncing

	sweepPause = 10 * time.Millisecond // from one sweep to the next
	idlePause  = time.Minute           // at most, until the list is looked at again: the clock may be set
	errorPause = time.Hour             // until a stream that could not be read is tried again
)

type scavenger struct {
	store  *Store
	log    *slog.Logger
	woken  chan struct{} // holds one
	passed []byte        // the last key of the list that this round has taken; nil before a round
}

func newScavenger(s *Store, log *slog.Logger) *scavenger {
	return &scavenger{store: s, log: log, woken: make(chan struct{}, 1)}
}

// wake says that there is something new on the list. It never blocks.
func (c *scavenger) wake() {
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

// run sweeps until the store is stopped.
func (c *scavenger) run() {
	for {
		wait, err := c.sweep()
		switch {
		case errors.Is(err, ErrClosed):
			return
		case err != nil:
			c.logError(err, "event store: can't scavenge")
			wait = idlePause
		}
		if wait > 0 && !c.idle(wait) {
			return
		}
		select {
		case <-time.After(sweepPause):
		case <-c.store.stop:
			return
		}
	}
}

// logError logs an error, unless it is damage, which is told by file (damage.go) and not at every try.
func (c *scavenger) logError(err error, message string, args ...any) {
	if !errors.As(err, new(*fileError)) {
		c.log.Error(message, append(args, "error", err)...)
	}
}

// idle waits until something is due. It reports false when the store is stopped.
func (c *scavenger) idle(wait time.Duration) bool {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.woken:
	case <-c.store.stop:
		return false
	}
	return true
}

// sweep deletes what the next streams on the list no longer show. It returns how long there is nothing to do; 0 if a round
// of the list is not at its end.
func (c *scavenger) sweep() (time.Duration, error) {
	found, wait, err := c.look()
	if err != nil {
		return 0, err
	}
	if len(found.streams) == 0 {
		if c.passed != nil {
			c.passed, wait = nil, 0
		}
		return wait, nil
	}
	_, err = c.store.do(context.Background(), found)
	return 0, err
}

// look finds the next streams that are due and what they no longer show, or how long no stream will be due.
func (c *scavenger) look() (found *sweep, wait time.Duration, err error) {
	v := c.store.snapshot()
	defer func() { _ = v.Close() }() // closing a snapshot can't fail
	now := c.store.now()
	from := workStart
	if c.passed != nil {
		from = append(c.passed, 0)
	}
	found, wait = &sweep{}, idlePause
	events := 0
	err = v.scan(from, workEnd, Forwards, func(key, _ []byte) (bool, error) {
		due, stream := parseWorkKey(key)
		if due > now {
			wait = min(wait, time.Duration(due-now)*tick)
			return false, nil
		}
		one, err := v.expired(stream, now, sweepEvents-events)
		if err != nil {
			c.logError(err, "event store: can't scavenge a stream", "stream", stream)
			one = swept{stream: stream, failed: true, next: now + int64(errorPause/tick)}
		}
		one.due = due
		found.streams = append(found.streams, one)
		events += len(one.events)
		c.passed = append(c.passed[:0:0], key...)
		return events < sweepEvents && len(found.streams) < sweepStreams, nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("look for what has expired: %w", err)
	}
	return found, wait, nil
}

// swept is what is to be deleted of one stream.
type swept struct {
	stream      string
	due         int64  // what it is listed under
	last        head   // of the stream, as it was seen
	describedAt head   // of its metadata, as it was seen
	events      []head // to delete, from the first on
	all         bool   // the stream goes altogether
	more        bool   // there was more than could be taken
	next        int64  // when there will be something again; 0 if that takes another change
	failed      bool   // it could not be read
}

// expired finds the first so many events that a stream no longer shows.
func (v view) expired(stream string, now int64, limit int) (s swept, err error) {
	s.stream = stream
	if s.last, err = v.last(stream); err != nil {
		return s, err
	}
	m, err := v.metadata(stream)
	if err != nil {
		return s, err
	}
	s.describedAt = m.at
	keep := min(m.first(s.last.revision), s.last.revision)
	var deleted *DeletedError
	switch err := checkTombstone(stream, s.last, v.last); {
	case errors.As(err, &deleted):
		keep = deletedRevision
		s.all = !s.last.tombstone()
	case err != nil:
		return s, err
	}
	err = v.index(stream, 0, s.last.revision, Forwards, func(r Revision, p Position) (bool, error) {
		if r >= keep {
			if m.maxAge == 0 || r == s.last.revision {
				return false, nil
			}
			created, err := v.created(p)
			if err != nil {
				return false, err
			}
			if created >= m.since(now) {
				s.next = created + m.maxAge + 1
				return false, nil
			}
		}
		if len(s.events) == limit {
			s.more = true
			return false, nil
		}
		s.events = append(s.events, head{revision: r, position: p})
		return true, nil
	})
	return s, err
}

func (v view) created(p Position) (created int64, err error) {
	err = v.event(p, func(rec *Record) error {
		created = rec.Created
		return nil
	})
	return created, err
}

// sweep is what the scavenger has found.
type sweep struct{ streams []swept }

var _ task = (*sweep)(nil)

func (s *sweep) run(w *writer) (Written, error) {
	for i := range s.streams {
		if err := w.sweep(&s.streams[i]); err != nil {
			return Written{}, err
		}
	}
	return Written{}, nil
}

// sweep deletes the events of one stream. If it is described otherwise by now, they may be shown again; then nothing is
// done, and the stream stays on the list.
func (w *writer) sweep(s *swept) error {
	if s.failed {
		w.relist(s)
		return nil
	}
	at, err := w.head(metaPrefix + s.stream)
	if err != nil || at != s.describedAt {
		return err
	}
	last, err := w.head(s.stream)
	if err != nil {
		return err
	}
	for _, e := range s.events {
		w.batch.delete(indexKey(s.stream, e.revision))
		w.batch.delete(eventKey(e.position))
	}
	w.batch.swept += len(s.events)
	if s.more || last != s.last {
		return nil
	}
	if s.all {
		w.batch.delete(headKey(s.stream))
		w.heads.Add(s.stream, noHead)
	}
	w.relist(s)
	return nil
}

// relist takes a stream off the list, or moves it to when there will be something to delete.
func (w *writer) relist(s *swept) {
	w.batch.delete(workKey(s.due, s.stream))
	if s.next > 0 {
		w.batch.set(workKey(s.next, s.stream), nil)
	}
}

// queueSweep has the scavenger look at a stream.
func (w *writer) queueSweep(stream string) {
	w.batch.set(workKey(0, stream), nil)
	w.batch.queued = true
}

const tick = 100 * time.Nanosecond

// ticks is the present, in the unit of Record.Created.
func ticks() int64 { return time.Now().UnixNano() / int64(tick) }
