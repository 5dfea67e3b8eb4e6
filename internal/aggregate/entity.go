package aggregate

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/purserhq/purser/internal/eventlog"
)

// entity is one stream: its folded state, and the commands that wait to be decided on it.
type entity[S any] struct {
	stream string

	mu      sync.Mutex
	waiting []*job[S]
	working bool // somebody settles commands, and takes those that wait when it is done

	// Below: for whoever is working.
	folded[S]
	// ahead is a second copy of the state, for deciding commands on events that are not stored yet. It is made when it is
	// first needed, kept level with the state, and thrown away with whatever could not be stored.
	ahead *S
}

// folded is what a stream's events up to a revision add up to.
type folded[S any] struct {
	state    *S
	revision eventlog.Revision
	position eventlog.Position
	last     uuid.UUID // the event at revision, by which a log that was set back is noticed
	requests requests
	proven   time.Time         // when the log was last found to end at revision; zero for never
	snapshot eventlog.Revision // of the last snapshot
	size     int               // of that snapshot, in bytes
}

func (h *Handler[S]) newEntity(id string) *entity[S] {
	e := &entity[S]{stream: eventlog.StreamName(h.category, id)}
	h.forget(e)
	return e
}

// forget makes the entity what it is before its stream is read.
func (h *Handler[S]) forget(e *entity[S]) {
	e.folded = folded[S]{state: new(S), revision: eventlog.NoStream, requests: newRequests(h.long), snapshot: eventlog.NoStream}
	e.ahead = nil
}

// entity returns the one in memory. Two may exist for a moment when one is evicted while it is worked on; the exact
// revision of every append keeps that correct.
func (h *Handler[S]) entity(id string) *entity[S] {
	if cached, ok := h.cache.Get(id); ok {
		return cached
	}
	e := h.newEntity(id)
	if cached, ok, _ := h.cache.PeekOrAdd(id, e); ok {
		return cached
	}
	return e
}

// job is a command that waits for its answer.
type job[S any] struct {
	ctx       context.Context
	requestID string
	creates   bool // the stream is expected not to exist
	take      func(view[S]) (step, error)
	conflicts atomic.Int32 // attempts in which others were faster

	answer   chan answer // holds one
	answered bool        // for whoever is working
}

type answer struct {
	done Done
	err  error
}

// reply answers a command, unless it has been answered.
func (j *job[S]) reply(done Done, err error) {
	if !j.answered {
		j.answered = true
		j.answer <- answer{done, err}
	}
}

// add has a command wait, and reports whether somebody has to begin to work.
func (e *entity[S]) add(j *job[S]) (begin bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waiting = append(e.waiting, j)
	begin, e.working = !e.working, true
	return begin
}

// rest ends the work, unless commands wait.
func (e *entity[S]) rest() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.working = len(e.waiting) > 0
	return !e.working
}

// next takes commands that wait, at most so many. Where there are none the work has ended.
func (e *entity[S]) next(limit int) []*job[S] {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := min(limit, len(e.waiting))
	batch := e.waiting[:n:n]
	e.waiting = e.waiting[n:]
	if n == 0 {
		e.waiting, e.working = nil, false
	}
	return batch
}
