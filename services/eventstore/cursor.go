package eventstore

import (
	"errors"
	"iter"
	"math"

	"github.com/purserhq/purser/services/eventstore/storage"
)

// A page ends at one of these, so that a read holds neither much memory nor, for long, a view of the files on disk: while
// a page is sent, the consumer decides how long that takes.
const (
	pageEvents     = 512
	pageConsidered = 4096
	pageBytes      = 256 << 10
)

// cursor walks a stream or $all.
type cursor struct {
	store *storage.Store
	query
	next     uint64 // offset of the next event, inclusive
	finished bool   // nothing can follow: a backwards walk is past the first event
	size     int    // of the last page
}

// page is a stretch of the walk.
type page struct {
	frames     []frame // of the events that match, encoded
	considered int     // events walked over, matching or not
	end        bool    // the walk has come to the end of what there is for now
}

// readCursor stands before the first event of a read. From is inclusive, but for $all backwards.
func readCursor(store *storage.Store, q query) *cursor {
	c := &cursor{store: store, query: q, next: q.from}
	if q.direction == storage.Backwards && q.stream == "" && q.from != atEnd {
		c.next--
		c.finished = q.from == 0
	}
	return c
}

// subscriptionCursor stands before the first event of a subscription. From is exclusive.
func subscriptionCursor(store *storage.Store, q query) (*cursor, error) {
	c := &cursor{store: store, query: q}
	end := uint64(store.Head()) + 1
	if q.stream != "" {
		last, err := store.LastRevision(q.stream)
		if err != nil {
			return nil, err
		}
		end = uint64(last + 1)
	}
	switch {
	case q.start:
	case q.from != atEnd:
		c.next = q.from + 1
	default:
		c.next = end
	}
	return c, nil
}

// page takes the walk on by at most so many events that match and so many in all.
func (c *cursor) page(matching uint64, considered int) (page, error) {
	matching = min(matching, pageEvents)
	considered = min(considered, pageConsidered)
	p := page{end: true}
	buf := make([]byte, 0, c.size)
	var ends []int
	for rec, err := range c.records() {
		if err != nil {
			return page{}, err
		}
		if uint64(len(ends)) == matching || p.considered == considered || len(buf) >= pageBytes {
			p.end = false
			break
		}
		c.advance(rec)
		p.considered++
		if c.filter.matches(rec) {
			if buf, err = c.encode(buf, rec); err != nil {
				return page{}, err
			}
			ends = append(ends, len(buf))
		}
	}
	c.size = len(buf)
	start := 0
	p.frames = make([]frame, len(ends))
	for i, end := range ends {
		p.frames[i] = buf[start:end:end]
		start = end
	}
	return p, nil
}

// encode adds an event to what is sent, with its target if it is a link.
func (c *cursor) encode(buf []byte, rec *storage.Record) ([]byte, error) {
	if !c.resolve || string(rec.Type) != typeLink {
		return appendEvent(buf, rec, nil, c.stringIDs), nil
	}
	stream, revision, ok := parseLink(rec.Data)
	if !ok {
		return appendEvent(buf, rec, nil, c.stringIDs), nil
	}
	for target, err := range c.store.ReadStream(stream, revision, storage.Forwards) {
		var deleted *storage.DeletedError
		switch {
		case errors.Is(err, storage.ErrNoStream), errors.As(err, &deleted):
		case err != nil:
			return nil, err
		case target.Revision == revision:
			return appendEvent(buf, target, rec, c.stringIDs), nil
		}
		break
	}
	return appendEvent(buf, nil, rec, c.stringIDs), nil
}

func (c *cursor) records() iter.Seq2[*storage.Record, error] {
	switch {
	case c.finished:
		return func(func(*storage.Record, error) bool) {}
	case c.stream == "":
		return c.store.ReadAll(storage.Position(c.next), c.direction)
	default:
		return c.store.ReadStream(c.stream, storage.Revision(min(c.next, math.MaxInt64)), c.direction)
	}
}

func (c *cursor) advance(rec *storage.Record) {
	offset := uint64(rec.Position)
	if c.stream != "" {
		offset = uint64(rec.Revision)
	}
	switch {
	case c.direction == storage.Forwards:
		c.next = offset + 1
	case offset == 0:
		c.finished = true
	default:
		c.next = offset - 1
	}
}
