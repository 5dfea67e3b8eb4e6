package storage

import (
	"errors"
	"fmt"
	"iter"
	"math"

	"github.com/cockroachdb/pebble/v2"
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
		first, last := from, s.Head()
		if dir == Backwards {
			first, last = 1, min(from, last)
		}
		if first > last {
			return
		}
		var rec Record
		more := true
		err := s.scan(eventKey(first), eventKey(last+1), dir, func(key, value []byte) (bool, error) {
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

// ReadStream gives the events of a stream from a revision, inclusive. The rest is as for ReadAll. It gives nothing where
// the stream has no such events, and where there is no such stream.
func (s *Store) ReadStream(stream string, from Revision, dir Direction) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		var rec Record
		more := true
		err := s.scanIndex(stream, from, dir, func(_ Revision, p Position) (bool, error) {
			err := s.get(eventKey(p), func(value []byte) error {
				if err := rec.parse(p, value); err != nil {
					return err
				}
				more = yield(&rec, nil)
				return nil
			})
			return more, err
		})
		if err != nil && more {
			yield(nil, fmt.Errorf("read stream %s: %w", stream, err))
		}
	}
}

// LastRevision is the revision of a stream's last event, or NoRevision.
func (s *Store) LastRevision(stream string) (Revision, error) {
	last := NoRevision
	err := s.scanIndex(stream, math.MaxInt64, Backwards, func(r Revision, _ Position) (bool, error) {
		last = r
		return false, nil
	})
	if err != nil {
		return NoRevision, fmt.Errorf("last revision of stream %s: %w", stream, err)
	}
	return last, nil
}

// scanIndex calls visit for the synced events of a stream until it wants no more.
func (s *Store) scanIndex(stream string, from Revision, dir Direction, visit func(Revision, Position) (bool, error)) error {
	limit := s.Head()
	lower, upper := indexKey(stream, max(from, 0)), indexEnd(stream)
	if dir == Backwards {
		if from < 0 {
			return nil
		}
		lower, upper = indexKey(stream, 0), indexKey(stream, from)
		upper = append(upper, 0) // just after it
	}
	return s.scan(lower, upper, dir, func(key, value []byte) (bool, error) {
		p, err := parsePosition(value)
		switch {
		case err != nil:
			return false, err
		case p > limit: // backwards, those that may be read come after those that may not yet
			return dir == Backwards, nil
		}
		return visit(indexRevision(key), p)
	})
}

// scan calls visit for the keys from lower up to, but without, upper, until it wants no more.
func (s *Store) scan(lower, upper []byte, dir Direction, visit func(key, value []byte) (bool, error)) error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	first, next := it.First, it.Next
	if dir == Backwards {
		first, next = it.Last, it.Prev
	}
	for ok := first(); ok; ok = next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return errors.Join(err, it.Close())
		}
		more, err := visit(it.Key(), value)
		if err != nil {
			return errors.Join(err, it.Close())
		}
		if !more {
			break
		}
	}
	return errors.Join(it.Error(), it.Close())
}

// get calls use with the value of a key, or answers pebble.ErrNotFound.
func (s *Store) get(key []byte, use func(value []byte) error) error {
	value, closer, err := s.db.Get(key)
	if err != nil {
		return err
	}
	return errors.Join(use(value), closer.Close())
}
