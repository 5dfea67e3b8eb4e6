package aggregate

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/purserhq/purser/internal/eventlog"
)

// entity is one stream's folded state, and the requests that made it.
type entity[S any] struct {
	stream string
	// turn holds a token while nobody works on the entity; a channel, so that waiting for it can be given up.
	turn chan struct{}

	// Below: for the holder of the turn.
	folded[S]
}

// folded is what a stream's events up to a revision add up to.
type folded[S any] struct {
	state    S
	revision eventlog.Revision
	position eventlog.Position
	last     uuid.UUID // the event at revision, by which a log that was set back is noticed
	requests map[string]*request
}

// request is a command that the stream remembers.
type request struct {
	hash      string
	revisions []eventlog.Revision // of its events, ascending
}

func (h *Handler[S]) newEntity(id string) *entity[S] {
	e := &entity[S]{stream: eventlog.StreamName(h.category, id), turn: make(chan struct{}, 1)}
	e.forget()
	return e
}

// forget makes the entity what it is before its stream is read.
func (e *entity[S]) forget() {
	e.folded = folded[S]{revision: eventlog.NoStream, requests: map[string]*request{}}
}

// entity returns the one in memory. Two may exist for a moment when one is evicted while it is worked on; the exact
// revision of every append keeps that correct.
func (h *Handler[S]) entity(id string) *entity[S] {
	e := h.newEntity(id)
	if cached, ok, _ := h.cache.PeekOrAdd(id, e); ok {
		h.cache.Get(id) // marks it as recently used
		return cached
	}
	return e
}

func (e *entity[S]) lock(ctx context.Context) error {
	select {
	case e.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the turn to change %s: %w", e.stream, ctx.Err())
	}
}

func (e *entity[S]) unlock() { <-e.turn }

// remember notes that a request recorded the event at a revision.
func (e *entity[S]) remember(id, hash string, at eventlog.Revision) {
	if id == "" {
		return // not written by a command: an import, say
	}
	r := e.requests[id]
	if r == nil {
		r = &request{hash: hash}
		e.requests[id] = r
	}
	r.revisions = append(r.revisions, at)
}
