// Package aggregate carries out commands: load, decide, append.
//
// A command takes effect once, however often it is sent and however many replicas it reaches:
//
//   - Every event records the request id of its command and a keyed hash of what the command asked for. A command whose
//     request id stands in the stream already is a repeat: it is answered from the events recorded then, and refused
//     where it asks for something else.
//   - Every decision is appended at exactly the revision that it was decided on. If somebody else was faster, the tail is
//     read and the command is looked up and decided again, until the caller's deadline.
//   - An append whose outcome is unknown is retried as it was by package eventlog; where that conflicts, the reading of
//     the tail finds the command's own events, and it is a repeat.
//
// States are kept in memory only as a baseline: the stream's tail is read after every command's arrival, so nothing,
// a refusal included, is answered from a stale memory. The tail begins with the last event that the state holds: where
// the log has another there, or none, it was set back under us, and the stream is folded again from its start.
package aggregate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/origin"
	"github.com/purserhq/purser/internal/secret"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const (
	// cachedStates bounds the number of folded states kept in memory, per category.
	cachedStates = 10_000
	// maxConflictPause bounds the random wait before a command is decided again.
	maxConflictPause = 20 * time.Millisecond
)

// Log is what a handler needs of the event log.
type Log interface {
	Append(ctx context.Context, stream string, expected eventlog.Revision, events []eventlog.NewEvent) (eventlog.Appended, error)
	Read(ctx context.Context, stream string, from eventlog.Revision, max int) ([]eventlog.Recorded, error)
	Decode(r eventlog.Recorded) (eventlog.Event, error)
}

// Evolver is a state that folds events. at is when the event occurred.
type Evolver[S any] interface {
	*S
	Evolve(m proto.Message, at time.Time)
}

// Command is a request that changes one entity.
type Command interface {
	proto.Message
	GetRequestId() string
	GetEtag() string
}

// Decide is a pure decision: the events that follow from a command in a state, none where its effect is there
// already, or why it is refused. It must not change the state.
type Decide[S any] func(state *S) ([]proto.Message, error)

// Handler carries out the commands on the entities of one category. It is safe for concurrent use.
type Handler[S any] struct {
	log      Log
	category string
	evolve   func(s *S, m proto.Message, at time.Time)
	hasher   hasher
	clock    func() time.Time
	cache    *lru.Cache[string, *entity[S]]
}

// New returns a handler for the streams of a category. The clock gives events their time.
func New[S any, P Evolver[S]](log Log, category string, s *secret.Secret, clock func() time.Time) *Handler[S] {
	cache, err := lru.New[string, *entity[S]](cachedStates)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &Handler[S]{
		log:      log,
		category: category,
		evolve:   func(s *S, m proto.Message, at time.Time) { P(s).Evolve(m, at) },
		hasher:   hasher{secret: s},
		clock:    clock,
		cache:    cache,
	}
}

// Handle carries out a command on an entity: it looks for a repeat, compares the etag, decides, and appends.
//
// Errors are faults (REQUEST_ID_REUSED, ETAG_MISMATCH, CONTENTION at the deadline, and those of decide) or errors of
// package eventlog; after one of these the command may have taken effect, and the same command may be sent again.
func (h *Handler[S]) Handle(ctx context.Context, id string, cmd Command, decide Decide[S]) (Done, error) {
	return h.change(ctx, id, cmd.GetRequestId(), func(e *entity[S]) (step, error) {
		if r := e.requests[cmd.GetRequestId()]; r != nil {
			if !h.hasher.matches(cmd, r.hash) {
				return step{}, reused(cmd.GetRequestId())
			}
			return step{repeat: true}, nil
		}
		if want := cmd.GetEtag(); want != "" && want != Etag(e.revision) {
			return step{}, mismatch(e.revision)
		}
		messages, err := decide(&e.state)
		return step{messages: messages, hash: h.hasher.hash(cmd)}, err
	})
}

// Continue appends what followed from a command that is recorded already, under its request id: the outcome of a call
// after the intent to make it. decide must return no event where the outcome is recorded already.
func (h *Handler[S]) Continue(ctx context.Context, id, requestID string, decide Decide[S]) (Done, error) {
	return h.change(ctx, id, requestID, func(e *entity[S]) (step, error) {
		r := e.requests[requestID]
		if r == nil {
			return step{}, fmt.Errorf("continue request %s on %s: not recorded", requestID, e.stream)
		}
		messages, err := decide(&e.state)
		return step{messages: messages, hash: r.hash, index: len(r.revisions), repeat: len(messages) == 0}, err
	})
}

// Load folds an entity's stream and returns the state, which is the caller's, and its revision.
func (h *Handler[S]) Load(ctx context.Context, id string) (*S, eventlog.Revision, error) {
	e := h.newEntity(id)
	if err := h.catchUp(ctx, e); err != nil {
		return nil, eventlog.NoStream, err
	}
	return &e.state, e.revision, nil
}

// step is what a command turned out to be on the current state.
type step struct {
	messages []proto.Message
	hash     string
	index    int  // of the first message among the events of the request
	repeat   bool // answer with the events that the request recorded
}

// change brings an entity's state up to date, takes a step on it and appends what follows, again and again while
// others are faster. The entity is locked meanwhile: within a process its commands queue instead of colliding.
func (h *Handler[S]) change(ctx context.Context, id, requestID string, take func(*entity[S]) (step, error)) (Done, error) {
	e := h.entity(id)
	if err := e.lock(ctx); err != nil {
		return Done{}, err
	}
	defer e.unlock()
	for {
		if err := h.catchUp(ctx, e); err != nil {
			return Done{}, err
		}
		s, err := take(e)
		if err != nil {
			return Done{}, err
		}
		done, err := h.finish(ctx, e, requestID, s)
		conflict := (*eventlog.ConflictError)(nil)
		switch {
		case errors.Is(err, errNotRecorded):
			e.forget()
		case !errors.As(err, &conflict):
			return done, err
		}
		select {
		case <-ctx.Done():
			return Done{}, contention(e.stream, ctx.Err())
		case <-time.After(rand.N(maxConflictPause)):
		}
	}
}

// finish answers a repeat, or appends what follows from a command.
func (h *Handler[S]) finish(ctx context.Context, e *entity[S], requestID string, s step) (Done, error) {
	switch {
	case s.repeat:
		return h.recorded(ctx, e, requestID)
	case len(s.messages) == 0:
		return Done{Revision: e.revision, Position: e.position}, nil
	}
	return h.append(ctx, e, requestID, s)
}

// append stores the messages of a step at the entity's revision, and folds them once they are stored.
func (h *Handler[S]) append(ctx context.Context, e *entity[S], requestID string, s step) (Done, error) {
	o := origin.From(ctx)
	at := h.clock().UTC()
	events := make([]eventlog.NewEvent, len(s.messages))
	for i, m := range s.messages {
		events[i] = eventlog.NewEvent{
			ID:      eventID(e.stream, requestID, s.index+i, m),
			Message: m,
			Meta: eventlog.Metadata{
				CorrelationID: o.CorrelationID, CausationID: o.CausationID, Actor: o.Actor, Traceparent: o.Traceparent,
				RequestID: requestID, RequestHash: s.hash, OccurredAt: at,
			},
		}
	}
	appended, err := h.log.Append(ctx, e.stream, e.revision, events)
	if err != nil {
		return Done{}, err
	}
	for i, m := range s.messages {
		h.evolve(&e.state, m, at)
		e.remember(requestID, s.hash, e.revision+1+eventlog.Revision(i))
	}
	e.revision, e.position, e.last = appended.Revision, appended.Position, events[len(events)-1].ID
	if s.index > 0 {
		return h.recorded(ctx, e, requestID)
	}
	return Done{Messages: s.messages, Revision: appended.Revision, Position: appended.Position}, nil
}

// catchUp folds the events that were appended since the state was last current, or all where the log was set back.
func (h *Handler[S]) catchUp(ctx context.Context, e *entity[S]) error {
	tail, err := h.log.Read(ctx, e.stream, max(e.revision, 0), 0)
	if err != nil {
		return err
	}
	if e.revision != eventlog.NoStream {
		if len(tail) == 0 || tail[0].Revision != e.revision || tail[0].ID != e.last {
			e.forget()
			return h.catchUp(ctx, e)
		}
		tail = tail[1:]
	}
	for _, r := range tail {
		ev, err := h.log.Decode(r)
		if err != nil {
			return fmt.Errorf("fold %s: %w", e.stream, err)
		}
		for _, m := range ev.Messages {
			h.evolve(&e.state, m, ev.Meta.OccurredAt)
		}
		e.revision, e.position, e.last = r.Revision, r.Position, r.ID
		e.remember(ev.Meta.RequestID, ev.Meta.RequestHash, r.Revision)
	}
	return nil
}

// errNotRecorded: the log does not hold what the state remembers of it.
var errNotRecorded = errors.New("the log has been set back")

// recorded reads back the events that a request recorded, or fails with errNotRecorded.
func (h *Handler[S]) recorded(ctx context.Context, e *entity[S], requestID string) (Done, error) {
	revisions := e.requests[requestID].revisions
	first, last := revisions[0], revisions[len(revisions)-1] // others' events may lie between
	events, err := h.log.Read(ctx, e.stream, first, int(last-first)+1)
	if err != nil {
		return Done{}, err
	}
	done := Done{Repeat: true}
	found := 0
	for _, r := range events {
		ev, err := h.log.Decode(r)
		if err != nil {
			return Done{}, fmt.Errorf("read back request %s of %s: %w", requestID, e.stream, err)
		}
		if ev.Meta.RequestID == requestID {
			done.Messages = append(done.Messages, ev.Messages...)
			done.Revision, done.Position = r.Revision, r.Position
			found++
		}
	}
	if found < len(revisions) {
		return Done{}, fmt.Errorf("read back request %s of %s: %w", requestID, e.stream, errNotRecorded)
	}
	return done, nil
}

func reused(requestID string) error {
	f := fault.InvalidField("request_id", "%s was used before for another request", requestID)
	f.Reason = typev1.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED
	return f
}

func mismatch(at eventlog.Revision) error {
	f := &fault.Fault{Kind: fault.Aborted, Reason: typev1.ErrorReason_ERROR_REASON_ETAG_MISMATCH, Message: "it has no etag yet, because nothing has happened to it"}
	if at != eventlog.NoStream {
		f.Message = fmt.Sprintf("the etag is %s now, with the quotes", Etag(at))
	}
	return f
}

func contention(stream string, cause error) error {
	return &fault.Fault{
		Kind: fault.Aborted, Reason: typev1.ErrorReason_ERROR_REASON_CONTENTION,
		Message: "others kept changing it until the deadline; try again",
		Err:     fmt.Errorf("change %s: %w", stream, cause),
	}
}
