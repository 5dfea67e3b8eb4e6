package storage

import (
	"errors"
	"fmt"
	"iter"
)

// Direction is the order of a read.
type Direction int

// The order in which events were written, or the opposite.
const (
	Forwards Direction = iota
	Backwards
)

// ReadAll gives the events of the log from a position, inclusive. It ends at the head of the moment at which it starts,
// and holds resources on disk until it ends, so the caller should not block for long within it.
func (s *Store) ReadAll(from Position, dir Direction) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		v := view{Reader: s.db, head: s.Head()}
		first, last := from, v.head
		if dir == Backwards {
			first, last = 1, min(from, last)
		}
		if first > last {
			return
		}
		var rec Record
		more := true
		err := v.scan(eventKey(first), eventKey(last+1), dir, func(key, value []byte) (bool, error) {
			if err := rec.parse(eventPosition(key), value); err != nil {
				return false, err
			}
			more = yield(&rec, nil)
			return more, nil
		})
		if err != nil && more {
			yield(nil, fmt.Errorf("read the log: %w", err))
		}
	}
}

// ReadStream gives the events that a stream shows from a revision, inclusive. The rest is as for ReadAll. The error is
// ErrNoStream if there is no such stream, and a *DeletedError if it has a tombstone.
func (s *Store) ReadStream(stream string, from Revision, dir Direction) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		v := s.snapshot()
		more := true
		err := v.readStream(stream, from, dir, s.now(), func(rec *Record) bool {
			more = yield(rec, nil)
			return more
		})
		if err = errors.Join(err, v.Close()); err != nil && more {
			yield(nil, fmt.Errorf("read stream %s: %w", stream, err))
		}
	}
}

func (v view) readStream(stream string, from Revision, dir Direction, now int64, visit func(*Record) bool) error {
	shown, err := v.window(stream, now)
	if err != nil {
		return err
	}
	first, last := max(from, shown.first), shown.last.revision
	if dir == Backwards {
		first, last = shown.first, min(from, last)
	}
	var rec Record
	return v.index(stream, first, last, dir, func(_ Revision, p Position) (more bool, err error) {
		err = v.get(eventKey(p), func(value []byte) error {
			if err := rec.parse(p, value); err != nil {
				return err
			}
			more = rec.Created < shown.since || visit(&rec)
			return nil
		})
		return more, err
	})
}

// LastRevision is the revision of a stream's last event, be it shown or not, or NoRevision. The error is a *DeletedError if
// the stream has a tombstone.
func (s *Store) LastRevision(stream string) (last Revision, err error) {
	v := s.snapshot()
	defer func() { err = errors.Join(err, v.Close()) }()
	end, err := v.last(stream)
	if err != nil {
		return NoRevision, err
	}
	return end.revision, checkTombstone(stream, end, v.last)
}
