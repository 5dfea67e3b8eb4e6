package storage

import (
	"context"
	"fmt"

	"github.com/google/uuid"
)

const (
	typeMetadata  = "$metadata"
	typeTombstone = "$streamDeleted"
)

// Delete deletes a stream until something is appended to it, and answers where that is written. The condition and the
// errors are those of Append; what was in the stream's metadata is lost.
func (s *Store) Delete(ctx context.Context, stream string, expected Expected) (Position, error) {
	return s.delete(ctx, stream, expected, Proposed{Type: typeMetadata, JSON: true}, (*writer).delete)
}

// Tombstone deletes a stream for good: nothing can be appended to it any more. It need not exist.
func (s *Store) Tombstone(ctx context.Context, stream string, expected Expected) (Position, error) {
	return s.delete(ctx, stream, expected, Proposed{Type: typeTombstone}, (*writer).tombstone)
}

// delete has the deletion decided as an append of one new event would be.
func (s *Store) delete(ctx context.Context, stream string, expected Expected, e Proposed, apply applyFunc) (Position, error) {
	e.ID = ID(uuid.New())
	w, err := s.do(ctx, &change{stream: stream, expected: expected, events: []Proposed{e}, apply: apply})
	return w.Position, err
}

func (w *writer) delete(c *change, cur head) (Written, error) {
	m, err := w.metadata(c.stream)
	if err != nil {
		return Written{}, err
	}
	switch {
	case m.at == noHead && cur == noHead:
		return Written{}, &ConflictError{Current: NoRevision}
	case m.at.tombstone():
		return Written{}, &DeletedError{Stream: metaPrefix + c.stream, Tombstone: m.at.position}
	}
	c.events[0].Data = fmt.Appendf(nil, `{"%s":%d}`, keyTruncateBefore, deletedRevision)
	return w.write(metaPrefix+c.stream, m.at, c.events).written(), nil
}

func (w *writer) tombstone(c *change, cur head) (Written, error) {
	w.queueSweep(c.stream)
	w.queueSweep(metaPrefix + c.stream)
	return w.write(c.stream, head{revision: deletedRevision - 1}, c.events).written(), nil
}

// undelete has a stream that was deleted show its events from a revision on. The rest of its metadata stays; if there is
// no sense in that, it does not say that the stream is deleted.
func (w *writer) undelete(stream string, m metadata, from Revision) {
	if m.fields == nil {
		return
	}
	e := Proposed{ID: ID(uuid.New()), Type: typeMetadata, JSON: true, Data: m.truncated(from)}
	w.write(metaPrefix+stream, m.at, []Proposed{e})
}
