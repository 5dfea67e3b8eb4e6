package aggregate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/origin"
)

const (
	// maxBatch bounds the commands that are settled together.
	maxBatch = 256
	// maxConflictPause bounds the random wait before commands are decided again.
	maxConflictPause = 20 * time.Millisecond
	// maxPatience bounds the work for a command without a deadline.
	maxPatience = 30 * time.Second
	// maxAnswerTime is the most that is set aside of a deadline for the answer.
	maxAnswerTime = 50 * time.Millisecond
	// trusted is how long a state is decided on without another look at the log. A wrong one costs a conflict, so this is
	// for what no conflict shows: a log that was set back, and has grown to the same revision again.
	trusted = 5 * time.Second
)

// work settles an entity's commands until none waits.
func (h *Handler[S]) work(e *entity[S]) {
	h.keep(e)
	for batch := e.next(maxBatch); len(batch) > 0; batch = e.next(maxBatch) {
		if !h.settle(e, batch) {
			for _, j := range batch { // one of them spoils it for the others
				h.settle(e, []*job[S]{j})
			}
		}
		h.keep(e)
	}
}

// settle answers commands, or reports false where they can't be settled together.
func (h *Handler[S]) settle(e *entity[S], jobs []*job[S]) (settled bool) {
	defer func() {
		if p := recover(); p != nil {
			h.forget(e)
			settled = len(jobs) == 1
			if settled {
				jobs[0].reply(Done{}, fmt.Errorf("change %s: panic: %v\n%s", e.stream, p, debug.Stack()))
			}
		}
	}()
	ctx, cancel := patience(jobs)
	defer cancel()
	err := h.round(ctx, e, jobs)
	if errors.Is(err, eventlog.ErrTooLarge) && len(jobs) > 1 {
		return false
	}
	for _, j := range jobs { // the ones that have no answer yet; the work ends with the last deadline of all
		j.reply(Done{}, failure(e, j, cmp.Or(j.ctx.Err(), ctx.Err()), err))
	}
	return true
}

// patience is a context for work that may be given up when every caller has given up. It ends a little before, so that the
// last one is told why.
func patience[S any](jobs []*job[S]) (context.Context, context.CancelFunc) {
	last := time.Now()
	for _, j := range jobs {
		if j.ctx.Err() != nil {
			continue
		}
		deadline, ok := j.ctx.Deadline()
		if !ok {
			deadline = time.Now().Add(maxPatience)
		}
		if deadline.After(last) {
			last = deadline
		}
	}
	last = last.Add(-min(time.Until(last)/20, maxAnswerTime))
	return context.WithDeadline(context.WithoutCancel(jobs[0].ctx), last)
}

// round decides commands, appends what follows and answers them, again and again while others are faster. proven: the store
// has said that the state is current since all of them arrived.
func (h *Handler[S]) round(ctx context.Context, e *entity[S], jobs []*job[S]) error {
	if !h.isBaseline(e, jobs) {
		if err := h.catchUp(ctx, e); err != nil {
			return err
		}
	}
	for proven := false; len(jobs) > 0; {
		p := h.plan(e, jobs)
		if !proven || len(p.events) > 0 {
			switch again, err := h.prove(ctx, e, p); {
			case err != nil:
				return err
			case again:
				continue
			}
			proven = true
		}
		again, err := h.answer(ctx, e, p)
		if err != nil {
			return err
		}
		proven = proven && len(again) == 0 // else the state is another now
		jobs = append(again, p.later...)
	}
	return nil
}

// isBaseline tells whether commands can be decided on what is in memory: a state that was current a moment ago, or none
// where none is expected.
func (h *Handler[S]) isBaseline(e *entity[S], jobs []*job[S]) bool {
	if e.revision != eventlog.NoStream {
		return time.Since(e.proven) < trusted
	}
	for _, j := range jobs {
		if !j.creates {
			return false
		}
	}
	return true
}

// plan is what is to become of commands that are decided together.
type plan[S any] struct {
	jobs     []*job[S]
	steps    []planned
	events   []eventlog.NewEvent
	at       time.Time
	foreseen int       // how many of the events are folded into the state that is ahead
	later    []*job[S] // not decided yet
}

type planned struct {
	step
	err      error
	revision eventlog.Revision // of the stream after it
}

// plan decides commands, one after the other, each on what the ones before it leave. Those that were answered before the
// work had to be begun anew, and those whose callers have gone, are left out.
func (h *Handler[S]) plan(e *entity[S], jobs []*job[S]) *plan[S] {
	p := &plan[S]{at: h.clock().UTC()}
	v := view[S]{state: e.state, revision: e.revision, requests: &e.requests}
	taken := map[string]bool{}
	for i, j := range jobs {
		switch {
		case j.answered, j.ctx.Err() != nil:
			continue
		case taken[j.requestID]: // a repeat of one before it: to be answered when that is recorded
			p.later = append(p.later, j)
			continue
		}
		s, err := j.take(v)
		if err == nil && len(s.messages) > 0 {
			taken[j.requestID] = true
			p.add(j, s)
			v.revision += eventlog.Revision(len(s.messages))
			if i+1 < len(jobs) {
				h.foresee(e, p)
				v.state = e.ahead
			}
		}
		p.jobs = append(p.jobs, j)
		p.steps = append(p.steps, planned{step: s, err: err, revision: v.revision})
	}
	return p
}

// add has the messages of a step appended.
//
// Their ids are theirs alone: package eventlog repeats an append as it was, which the store recognises by them, and a
// command that is decided again, here or elsewhere, makes other events. So the store never confirms to one replica what
// another has written.
func (p *plan[S]) add(j *job[S], s step) {
	o := origin.From(j.ctx)
	for _, m := range s.messages {
		p.events = append(p.events, eventlog.NewEvent{
			ID:      uuid.New(),
			Message: m,
			Meta: eventlog.Metadata{
				CorrelationID: o.CorrelationID, CausationID: o.CausationID, Actor: o.Actor, Traceparent: o.Traceparent,
				RequestID: j.requestID, RequestHash: s.hash, OccurredAt: p.at,
			},
		})
	}
}

// foresee folds the events of a plan into the state that is ahead.
func (h *Handler[S]) foresee(e *entity[S], p *plan[S]) {
	if e.ahead == nil {
		e.ahead = h.clone(e.state)
	}
	for _, ev := range p.events[p.foreseen:] {
		h.evolve(e.ahead, ev.Message, p.at)
	}
	p.foreseen = len(p.events)
}

// prove makes the plan true: it appends its events at the revision that they were decided on. Where there are none it appends
// nothing, which proves as much: a read does not, as it may be answered by a node of the store that has lost its leadership
// and lags. It reports that there is to be another plan, on a state that is current, where others were faster.
func (h *Handler[S]) prove(ctx context.Context, e *entity[S], p *plan[S]) (again bool, err error) {
	appended, err := h.log.Append(ctx, e.stream, e.revision, p.events)
	if err == nil {
		h.stored(e, p, appended)
		return false, nil
	}
	e.ahead = nil
	if conflict := (*eventlog.ConflictError)(nil); errors.As(err, &conflict) {
		pause(ctx, p.contended())
		return true, h.catchUp(ctx, e)
	}
	return false, err
}

// contended notes that others were faster, and returns how often that was so.
func (p *plan[S]) contended() (times int) {
	for _, j := range slices.Concat(p.jobs, p.later) {
		times = max(times, int(j.conflicts.Add(1)))
	}
	return times
}

// pause waits at random, so that replicas that got into each other's way do not do so again at once.
func pause(ctx context.Context, conflicts int) {
	select {
	case <-ctx.Done():
	case <-time.After(rand.N(min(maxConflictPause, time.Millisecond<<min(conflicts, 10)))):
	}
}

// stored folds the events of a plan.
func (h *Handler[S]) stored(e *entity[S], p *plan[S], a eventlog.Appended) {
	for i, ev := range p.events {
		h.evolve(e.state, ev.Message, p.at)
		if e.ahead != nil && i >= p.foreseen {
			h.evolve(e.ahead, ev.Message, p.at)
		}
		e.requests.remember(ev.Meta.RequestID, ev.Meta.RequestHash, e.revision+1+eventlog.Revision(i), []proto.Message{ev.Message}, p.at)
	}
	if n := len(p.events); n > 0 {
		e.revision, e.position, e.last = a.Revision, a.Position, p.events[n-1].ID
		e.proven = time.Now() // what appended nothing tells no more than the revision, which a log that was set back may have again
	}
}

// answer answers the commands of a plan that has been proven. It returns those that have to be decided again, because the
// log does not hold what they are said to repeat.
func (h *Handler[S]) answer(ctx context.Context, e *entity[S], p *plan[S]) (again []*job[S], err error) {
	read := map[string]answer{}
	for i, j := range p.jobs {
		s := p.steps[i]
		switch {
		case s.err != nil:
			j.reply(Done{}, s.err)
		case s.recorded != nil:
			a, ok := read[j.requestID]
			if !ok {
				a.done, a.err = h.recorded(ctx, e.stream, s.recorded)
				read[j.requestID] = a
			}
			if errors.Is(a.err, errNotRecorded) {
				again = append(again, j)
				continue
			}
			j.reply(a.done, a.err)
		default:
			j.reply(Done{Messages: s.messages, Revision: s.revision, Position: e.position}, nil)
		}
	}
	if len(again) > 0 {
		h.forget(e)
		err = h.catchUp(ctx, e)
	}
	return again, err
}

// failure is what a caller is told whose command could not be settled; gone tells that its time is over.
func failure[S any](e *entity[S], j *job[S], gone, err error) error {
	switch {
	case gone != nil && j.conflicts.Load() > 0:
		return contention(e.stream, gone)
	case gone != nil && err == nil:
		return fmt.Errorf("change %s: %w", e.stream, gone)
	}
	return err
}
