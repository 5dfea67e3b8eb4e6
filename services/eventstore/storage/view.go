package storage

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// ErrNoStream says that a stream has no events, or has been deleted and not written to since.
var ErrNoStream = errors.New("there is no such stream")

// DeletedError says that a stream has been deleted: for good, if there is a tombstone, which is then the last event of the
// stream, or of the one that it describes.
type DeletedError struct {
	Stream    string
	Tombstone Position // 0 if there is none
}

func (e *DeletedError) Error() string { return fmt.Sprintf("stream %s is deleted", e.Stream) }

// view is the store at one moment, up to a position.
type view struct {
	pebble.Reader
	head      Position
	described *atomic.Bool // false as long as no stream has metadata, which then need not be looked for
}

// snapshot is a view of what is synced. It must be closed.
func (s *Store) snapshot() view {
	// In this order: all that was deleted before the snapshot was then hidden by events that were synced, and so are within
	// its head.
	snap := s.db.NewSnapshot()
	return view{Reader: snap, head: s.Head(), described: &s.described}
}

// window is what a stream shows.
type window struct {
	last  head
	first Revision
	since int64 // an event that is older is not shown
}

// window answers ErrNoStream or a *DeletedError if the stream shows nothing at all.
func (v view) window(stream string, now int64) (window, error) {
	last, err := v.last(stream)
	if err != nil {
		return window{}, err
	}
	if err := checkTombstone(stream, last, v.last); err != nil {
		return window{}, err
	}
	if last == noHead {
		return window{}, ErrNoStream
	}
	m, err := v.metadata(stream)
	if err != nil {
		return window{}, err
	}
	if m.deleted() {
		return window{}, ErrNoStream
	}
	return window{last: last, first: m.first(last.revision), since: m.since(now)}, nil
}

// checkTombstone answers a *DeletedError if the stream, which ends thus, or the one it describes, has a tombstone.
func checkTombstone(stream string, end head, last func(stream string) (head, error)) error {
	if described, ok := describedBy(stream); ok && !end.tombstone() {
		var err error
		if end, err = last(described); err != nil {
			return err
		}
	}
	if end.tombstone() {
		return &DeletedError{Stream: stream, Tombstone: end.position}
	}
	return nil
}

// last is the last event of a stream, or noHead.
func (v view) last(stream string) (head, error) {
	last := noHead
	err := v.get(headKey(stream), func(value []byte) (err error) {
		last, err = parseHead(value)
		return err
	})
	if err == nil && last.position > v.head { // it is being written: the one before counts
		last = noHead
		err = v.index(stream, 0, math.MaxInt64, Backwards, func(r Revision, p Position) (bool, error) {
			last = head{revision: r, position: p}
			return false, nil
		})
	}
	if err != nil && !errors.Is(err, pebble.ErrNotFound) {
		return noHead, fmt.Errorf("last event of stream %s: %w", stream, err)
	}
	return last, nil
}

// metadata is what describes a stream.
func (v view) metadata(stream string) (metadata, error) {
	if !v.described.Load() {
		return parseMetadata(stream, noHead, false, nil), nil
	}
	at, err := v.last(metaPrefix + stream)
	if err != nil {
		return metadata{}, err
	}
	return v.metadataAt(stream, at)
}

// metadataAt is what describes a stream, by the end of the stream that has it.
func (v view) metadataAt(stream string, at head) (metadata, error) {
	if at == noHead {
		return parseMetadata(stream, at, false, nil), nil
	}
	var m metadata
	err := v.event(at.position, func(rec *Record) error {
		m = parseMetadata(stream, at, rec.JSON, rec.Data)
		return nil
	})
	if err != nil {
		return metadata{}, fmt.Errorf("metadata of stream %s: %w", stream, err)
	}
	return m, nil
}

// event calls use with the event at a position.
func (v view) event(p Position, use func(*Record) error) error {
	return v.get(eventKey(p), func(value []byte) error {
		var rec Record
		if err := rec.parse(p, value); err != nil {
			return err
		}
		return use(&rec)
	})
}

// index calls visit for the events of a stream from one revision to another, inclusive, until it wants no more.
func (v view) index(stream string, from, to Revision, dir Direction, visit func(Revision, Position) (bool, error)) error {
	if from > to {
		return nil
	}
	upper := append(indexKey(stream, to), 0) // just after it
	return v.scan(indexKey(stream, from), upper, dir, func(key, value []byte) (bool, error) {
		p, err := parsePosition(value)
		switch {
		case err != nil:
			return false, err
		case p > v.head: // backwards, those that may be read come after those that may not yet
			return dir == Backwards, nil
		}
		return visit(indexRevision(key), p)
	})
}

// scan calls visit for the keys from lower up to, but without, upper, until it wants no more.
func (v view) scan(lower, upper []byte, dir Direction, visit func(key, value []byte) (bool, error)) error {
	it, err := v.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
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
			_ = it.Close() // it has the same error
			return readError(err)
		}
		more, err := visit(it.Key(), value)
		if err != nil {
			return errors.Join(err, it.Close())
		}
		if !more {
			break
		}
	}
	return readError(it.Close()) // an error of the iteration is among those of Close
}

// get calls use with the value of a key, or answers pebble.ErrNotFound.
func (v view) get(key []byte, use func(value []byte) error) error {
	value, closer, err := v.Get(key)
	if err != nil {
		return readError(err)
	}
	return errors.Join(use(value), closer.Close())
}
