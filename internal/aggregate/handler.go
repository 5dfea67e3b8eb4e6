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
// States are kept in memory only as a baseline. An append at the exact revision proves that it was current; so does one of
// nothing, after which an answer is given that appends nothing, such as a refusal. The tail begins with the last event that the state holds: where the log has another there, or
// none, it was set back under us, and the stream is folded again from its start.
//
// A hot entity stays fast because its commands are settled in batches (batch.go): those that arrive while an append is on
// its way are decided one after the other, each on what the ones before it leave, and appended together. Every caller gets
// the answer to its own command, after all that it was decided on is stored. Streams that never end have snapshots, and
// remember requests for a while only (Long).
package aggregate

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/secret"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const (
	// cachedStates bounds the number of folded states kept in memory, per category; cachedLongStates, where streams never end: such
	// a state with all the requests that it remembers may take half a megabyte.
	cachedStates     = 10_000
	cachedLongStates = 4_000
)

// Log is what a handler needs of the event log.
type Log interface {
	Append(ctx context.Context, stream string, expected eventlog.Revision, events []eventlog.NewEvent) (eventlog.Appended, error)
	AppendRecorded(ctx context.Context, stream string, expected eventlog.Revision, events []eventlog.Recorded) (eventlog.Appended, error)
	Read(ctx context.Context, stream string, from eventlog.Revision, max int) ([]eventlog.Recorded, error)
	Latest(ctx context.Context, stream string) (latest eventlog.Recorded, exists bool, err error)
	Decode(r eventlog.Recorded) (eventlog.Event, error)
}

// Evolver is a state that folds events. at is when the event occurred.
type Evolver[S any] interface {
	*S
	Evolve(m proto.Message, at time.Time)
	// Clone returns a copy that shares nothing with the state which Evolve changes.
	Clone() *S
}

// Command is a request that changes one entity.
type Command interface {
	proto.Message
	GetRequestId() string
	GetEtag() string
}

// Decide is a pure decision: the events that follow from a command in a state, none where its effect is there
// already, or why it is refused. It must not change the state. It may be asked several times, also after the caller was
// answered that its deadline has passed.
type Decide[S any] func(state *S) ([]proto.Message, error)

// Handler carries out the commands on the entities of one category. It is safe for concurrent use.
type Handler[S any] struct {
	log      Log
	category string
	evolve   func(s *S, m proto.Message, at time.Time)
	clone    func(s *S) *S
	hasher   *hasher
	clock    func() time.Time
	cache    *lru.Cache[string, *entity[S]]
	long     *Long // nil for streams that are short
	schema   string
}

// New returns a handler for the streams of a category. The clock gives events their time.
func New[S any, P Evolver[S]](log Log, category string, s *secret.Secret, clock func() time.Time) *Handler[S] {
	return newHandler[S, P](log, category, s, clock, cachedStates)
}

func newHandler[S any, P Evolver[S]](log Log, category string, s *secret.Secret, clock func() time.Time, cached int) *Handler[S] {
	cache, err := lru.New[string, *entity[S]](cached)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &Handler[S]{
		log:      log,
		category: category,
		evolve:   func(s *S, m proto.Message, at time.Time) { P(s).Evolve(m, at) },
		clone:    func(s *S) *S { return P(s).Clone() },
		hasher:   &hasher{secret: s},
		clock:    clock,
		cache:    cache,
	}
}

// Handle carries out a command on an entity: it looks for a repeat, compares the etag, decides, and appends.
// Nobody may change the command afterwards.
//
// Errors are faults (REQUEST_ID_REUSED, ETAG_MISMATCH, CONTENTION at the deadline, and those of decide) or errors of
// package eventlog and the context's; after one of these the command may have taken effect, and the same command may be
// sent again.
func (h *Handler[S]) Handle(ctx context.Context, id string, cmd Command, decide Decide[S]) (Done, error) {
	return h.settled(ctx, id, &job[S]{requestID: cmd.GetRequestId(), take: h.carryOut(cmd, decide)})
}

// Create is Handle for a command that usually finds that there is no such entity yet: it saves the look whether there is.
func (h *Handler[S]) Create(ctx context.Context, id string, cmd Command, decide Decide[S]) (Done, error) {
	return h.settled(ctx, id, &job[S]{requestID: cmd.GetRequestId(), take: h.carryOut(cmd, decide), creates: true})
}

func (h *Handler[S]) carryOut(cmd Command, decide Decide[S]) func(view[S]) (step, error) {
	hash := h.hasher.hash(cmd)
	return func(v view[S]) (step, error) {
		if r := v.requests.byID[cmd.GetRequestId()]; r != nil {
			if !h.hasher.matches(cmd, r.Hash) {
				return step{}, reused(cmd.GetRequestId())
			}
			return step{recorded: r}, nil
		}
		if want := cmd.GetEtag(); want != "" && want != Etag(v.revision) {
			return step{}, mismatch(v.revision)
		}
		messages, err := decide(v.state)
		return step{messages: messages, hash: hash}, err
	}
}

// Continue appends what followed from a command that is recorded already, under its request id: the outcome of a call
// after the intent to make it. decide must return no event where the outcome is recorded already.
func (h *Handler[S]) Continue(ctx context.Context, id, requestID string, decide Decide[S]) (Done, error) {
	return h.settled(ctx, id, &job[S]{requestID: requestID, take: func(v view[S]) (step, error) {
		r := v.requests.byID[requestID]
		if r == nil {
			return step{}, fmt.Errorf("continue request %s on %s: not recorded", requestID, eventlog.StreamName(h.category, id))
		}
		messages, err := decide(v.state)
		return step{messages: messages, hash: r.Hash, recorded: r}, err
	}})
}

// Load folds an entity's stream and returns the state, which is the caller's, and its revision.
func (h *Handler[S]) Load(ctx context.Context, id string) (*S, eventlog.Revision, error) {
	e := h.newEntity(id)
	if err := h.catchUp(ctx, e); err != nil {
		return nil, eventlog.NoStream, err
	}
	return e.state, e.revision, nil
}

// settled has a command settled and waits for its answer, or until the context ends.
func (h *Handler[S]) settled(ctx context.Context, id string, j *job[S]) (Done, error) {
	if err := ctx.Err(); err != nil {
		return Done{}, fmt.Errorf("change %s: %w", eventlog.StreamName(h.category, id), err)
	}
	j.ctx, j.answer = ctx, make(chan answer, 1)
	e := h.entity(id)
	if e.add(j) {
		// The first one is usually the only one, and is settled here, which ends in time; what else is to do, by somebody who need not.
		h.settle(e, e.next(1))
		if h.isDue(e) || !e.rest() {
			go h.work(e)
		}
	}
	select {
	case a := <-j.answer:
		return a.done, a.err
	case <-ctx.Done():
		return Done{}, failure(e, j, ctx.Err(), nil)
	}
}

// view is what a command is decided on.
type view[S any] struct {
	state    *S
	revision eventlog.Revision
	requests *requests
}

// step is what a command turned out to be.
type step struct {
	messages []proto.Message
	hash     string
	recorded *request // answer with all events of this one
}

// catchUp folds the events that were appended since the state was last current, or all where the log was set back.
func (h *Handler[S]) catchUp(ctx context.Context, e *entity[S]) error {
	if e.revision == eventlog.NoStream {
		if err := h.restore(ctx, e); err != nil {
			return err
		}
	}
	for {
		page, err := h.log.Read(ctx, e.stream, max(e.revision, 0), foldPage)
		if err != nil {
			return err
		}
		full := len(page) == foldPage
		if e.revision != eventlog.NoStream {
			if len(page) == 0 || page[0].Revision != e.revision || page[0].ID != e.last {
				h.forget(e)
				e.snapshot = noSnapshot
				return h.catchUp(ctx, e)
			}
			e.position = page[0].Position // not kept in a snapshot: an import changes it
			page = page[1:]
		}
		for _, r := range page {
			if err := h.fold(e, r); err != nil {
				return err
			}
		}
		if !full {
			e.proven = time.Now()
			return nil
		}
	}
}

// foldPage is how many events are read at a time.
const foldPage = 1000

// fold folds an event. Where that panics, maybe in the midst of what the event was split into, the entity is forgotten.
func (h *Handler[S]) fold(e *entity[S], r eventlog.Recorded) (err error) {
	defer func() {
		if p := recover(); p != nil {
			h.forget(e)
			err = fmt.Errorf("fold %s@%d: panic: %v\n%s", e.stream, r.Revision, p, debug.Stack())
		}
	}()
	ev, err := h.log.Decode(r)
	if err != nil {
		return fmt.Errorf("fold %s: %w", e.stream, err)
	}
	for _, m := range ev.Messages {
		h.evolve(e.state, m, ev.Meta.OccurredAt)
	}
	e.ahead = nil
	e.revision, e.position, e.last = r.Revision, r.Position, r.ID
	e.requests.remember(ev.Meta.RequestID, ev.Meta.RequestHash, r.Revision, ev.Messages, ev.Meta.OccurredAt)
	return nil
}

// errNotRecorded: the log does not hold what the state remembers of it.
var errNotRecorded = errors.New("the log has been set back")

// recorded reads back the events that a request recorded, or fails with errNotRecorded.
func (h *Handler[S]) recorded(ctx context.Context, stream string, req *request) (Done, error) {
	first, last := req.Revisions[0], req.Revisions[len(req.Revisions)-1] // others' events may lie between
	events, err := h.log.Read(ctx, stream, first, int(last-first)+1)
	if err != nil {
		return Done{}, err
	}
	done := Done{Repeat: true}
	found := 0
	for _, r := range events {
		ev, err := h.log.Decode(r)
		if err != nil {
			return Done{}, fmt.Errorf("read back request %s of %s: %w", req.ID, stream, err)
		}
		if ev.Meta.RequestID == req.ID {
			done.Messages = append(done.Messages, ev.Messages...)
			done.Revision, done.Position = r.Revision, r.Position
			found++
		}
	}
	if found < len(req.Revisions) {
		return Done{}, fmt.Errorf("read back request %s of %s: %w", req.ID, stream, errNotRecorded)
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
