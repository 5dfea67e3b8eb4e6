package storage

import "errors"

// change is an append or a deletion: what is to be written to a stream if it is as expected.
type change struct {
	stream   string
	expected Expected
	events   []Proposed
	apply    applyFunc
}

// applyFunc adds a change, which has been allowed, to the batch, after the given end of its stream.
type applyFunc func(*writer, *change, head) (Written, error)

var _ task = (*change)(nil)

// run settles a change: it is written, confirmed as a repeat, or refused.
func (c *change) run(w *writer) (Written, error) {
	w.batch.changes++
	cur, err := w.head(c.stream)
	if err != nil {
		return Written{}, err
	}
	if err := checkTombstone(c.stream, cur, w.head); err != nil {
		return Written{}, err
	}
	switch c.expected {
	case StreamExists:
		if err := w.mustExist(c.stream, cur); err != nil {
			return Written{}, err
		}
		return w.decideRecent(c, cur)
	case Any:
		return w.decideRecent(c, cur)
	}
	expected := Revision(c.expected)
	switch {
	case expected > cur.revision:
		return Written{}, &ConflictError{Current: cur.revision}
	case expected < cur.revision:
		return w.confirm(c, cur)
	case len(c.events) == 0:
		return Written{Revision: cur.revision}, nil
	}
	return c.apply(w, c, cur)
}

// mustExist refuses a stream that is deleted or never was. One of which there is only metadata exists.
func (w *writer) mustExist(stream string, cur head) error {
	m, err := w.metadata(stream)
	switch {
	case err != nil:
		return err
	case m.deleted():
		return &DeletedError{Stream: stream}
	case cur == noHead && m.at == noHead:
		return &ConflictError{Current: NoRevision}
	}
	return nil
}

// decideRecent settles a change that names no revision: it is a repeat if all its ids were written to its stream
// recently. If only the first ones were, it is neither a repeat nor new.
func (w *writer) decideRecent(c *change, cur head) (Written, error) {
	if len(c.events) == 0 {
		return Written{Revision: cur.revision}, nil
	}
	var last Written
	for i := range c.events {
		p, ok := w.recent.Get(c.events[i].ID)
		if ok = ok && p.stream == c.stream; !ok {
			if i == 0 {
				return c.apply(w, c, cur)
			}
			return Written{}, &ConflictError{Current: cur.revision}
		}
		last = p.Written
	}
	return last, nil
}

// confirm settles a change at a revision that is not the last: it is a repeat if its ids are those of the events that
// follow the revision, and a conflict otherwise. What is no longer shown counts as long as it is there.
func (w *writer) confirm(c *change, cur head) (Written, error) {
	conflict := &ConflictError{Current: cur.revision}
	if len(c.events) == 0 {
		return Written{}, conflict
	}
	if cur.position > w.store.Head() {
		w.flush() // what it is compared with can't be read yet
	}
	next, last := Revision(c.expected)+1, Written{}
	matching := 0
	err := w.index(c.stream, next, cur.revision, Forwards, func(r Revision, p Position) (bool, error) {
		same := false
		err := w.event(p, func(rec *Record) error {
			same = r == next && rec.ID == c.events[matching].ID
			return nil
		})
		if err != nil || !same {
			return false, err
		}
		last = Written{Revision: r, Position: p}
		next++
		matching++
		return matching < len(c.events), nil
	})
	switch {
	case err != nil:
		return Written{}, err
	case matching == len(c.events):
		return last, nil
	case matching == 0 && c.expected == NoStream:
		return w.recreate(c, cur)
	}
	return Written{}, conflict
}

// recreate settles a change that expects no stream where there is one: it is allowed if that is deleted.
func (w *writer) recreate(c *change, cur head) (Written, error) {
	err := w.mustExist(c.stream, cur)
	var deleted *DeletedError
	switch {
	case errors.As(err, &deleted):
		return c.apply(w, c, cur)
	case err != nil:
		return Written{}, err
	}
	return Written{}, &ConflictError{Current: cur.revision}
}
