package storage

// decide settles an append: it adds the events to the batch, confirms them as a repeat, or refuses them.
func (w *writer) decide(r *request) (Written, error) {
	cur, err := w.head(r.stream)
	if err != nil {
		return Written{}, err
	}
	switch r.expected {
	case StreamExists:
		if cur == noHead {
			// A stream of which there is only metadata exists.
			meta, err := w.head("$$" + r.stream)
			if err != nil {
				return Written{}, err
			}
			if meta == noHead {
				return Written{}, &ConflictError{Current: NoRevision}
			}
		}
		return w.decideRecent(r, cur)
	case Any:
		return w.decideRecent(r, cur)
	}
	expected := Revision(r.expected)
	switch {
	case expected > cur.revision:
		return Written{}, &ConflictError{Current: cur.revision}
	case expected < cur.revision:
		return w.confirm(r, cur)
	case len(r.events) == 0:
		return Written{Revision: cur.revision}, nil
	}
	return w.write(r, cur)
}

// decideRecent settles an append that names no revision: it is a repeat if all its ids were written to its stream
// recently. If only the first ones were, it is neither a repeat nor new.
func (w *writer) decideRecent(r *request, cur head) (Written, error) {
	if len(r.events) == 0 {
		return Written{Revision: cur.revision}, nil
	}
	var last Written
	for i := range r.events {
		p, ok := w.recent.Get(r.events[i].ID)
		if ok = ok && p.stream == r.stream; !ok {
			if i == 0 {
				return w.write(r, cur)
			}
			return Written{}, &ConflictError{Current: cur.revision}
		}
		last = p.Written
	}
	return last, nil
}

// confirm settles an append at a revision that is not the last: it is a repeat if its ids are those of the events that
// follow the revision, and a conflict otherwise.
func (w *writer) confirm(r *request, cur head) (Written, error) {
	conflict := &ConflictError{Current: cur.revision}
	if int64(len(r.events)) > int64(cur.revision)-int64(r.expected) || len(r.events) == 0 {
		return Written{}, conflict
	}
	if cur.position > w.store.Head() {
		w.commit() // what it is compared with can't be read yet
	}
	i, last := 0, Written{}
	for rec, err := range w.store.ReadStream(r.stream, Revision(r.expected)+1, Forwards) {
		switch {
		case err != nil:
			return Written{}, err
		case rec.ID != r.events[i].ID:
			return Written{}, conflict
		}
		last = Written{Revision: rec.Revision, Position: rec.Position}
		if i++; i == len(r.events) {
			return last, nil
		}
	}
	return Written{}, conflict
}
