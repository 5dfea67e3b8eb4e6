// Package memorylog is an event log in memory, for tests of what is built on the log.
//
// It promises what [eventlog.Log] does: appends at exactly the revision named, repeats that are recognised, subscriptions
// that miss nothing. A test holds both to one contract. It differs where tests want it to: it is gone with the process,
// has no bounds on sizes, and never tries again, so that what is asked of it while it is down fails at once. [Log.SetDown]
// and [Log.SetBack] make it go through what a real store may.
package memorylog

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/purserhq/purser/internal/eventlog"
)

// Log is an event log. It is safe for concurrent use.
type Log struct {
	schema   eventlog.Schema
	identity string

	mu      sync.Mutex
	events  []eventlog.Recorded
	down    bool
	outages int           // so far, so that a subscription sees even a short one
	changed chan struct{} // closed, and made anew, when any of these changes
}

// New returns an empty log of events of a schema.
func New(schema eventlog.Schema) *Log {
	return &Log{schema: schema, identity: uuid.NewString(), changed: make(chan struct{})}
}

// SetDown takes the log down, which interrupts subscriptions, or up again.
func (l *Log) SetDown(down bool) {
	l.change(func() {
		if down && !l.down {
			l.outages++
		}
		l.down = down
	})
}

// SetBack forgets all events after a position, as a store does that was restored from an older copy of itself. What is
// appended then takes their positions. Nobody may be subscribed meanwhile.
func (l *Log) SetBack(to eventlog.Position) {
	l.change(func() {
		l.events = slices.DeleteFunc(l.events, func(e eventlog.Recorded) bool { return e.Position > to })
	})
}

func (l *Log) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.changed)
	l.changed = make(chan struct{})
}

// Events returns the whole log, whether or not it is down.
func (l *Log) Events() []eventlog.Recorded {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

// Append does what [eventlog.Log.Append] does.
func (l *Log) Append(ctx context.Context, stream string, expected eventlog.Revision, events []eventlog.NewEvent) (eventlog.Appended, error) {
	recorded := make([]eventlog.Recorded, len(events))
	for i, e := range events {
		encoded, err := l.schema.Encode(e.Message)
		if err != nil {
			return eventlog.Appended{}, err
		}
		e.Meta.SchemaVersion = encoded.Version
		meta, err := json.Marshal(e.Meta)
		if err != nil {
			return eventlog.Appended{}, fmt.Errorf("metadata of %s: %w", encoded.Type, err)
		}
		recorded[i] = eventlog.Recorded{ID: e.ID, Type: encoded.Type, ContentType: encoded.ContentType, Data: encoded.Data, Metadata: meta}
	}
	return l.AppendRecorded(ctx, stream, expected, recorded)
}

// AppendRecorded does what [eventlog.Log.AppendRecorded] does.
func (l *Log) AppendRecorded(ctx context.Context, stream string, expected eventlog.Revision, events []eventlog.Recorded) (a eventlog.Appended, err error) {
	l.change(func() {
		if err = l.available(ctx); err == nil {
			a, err = l.append(stream, expected, events)
		}
	})
	return a, err
}

// step is the distance between positions, which in a real store are not numbers without gaps either.
const step = 10

func (l *Log) append(stream string, expected eventlog.Revision, events []eventlog.Recorded) (eventlog.Appended, error) {
	stored := l.stream(stream)
	if actual := eventlog.Revision(len(stored) - 1); expected != actual {
		if expected < actual && isRepeat(stored[expected+1:], events) {
			last := stored[int(expected)+len(events)]
			return eventlog.Appended{Revision: last.Revision, Position: last.Position}, nil
		}
		return eventlog.Appended{}, &eventlog.ConflictError{Stream: stream, Expected: expected, Actual: &actual}
	}
	a := eventlog.Appended{Revision: expected}
	for _, e := range events {
		expected++
		e.Stream, e.Revision, e.Position, e.Created = stream, expected, eventlog.Position(step*(len(l.events)+1)), time.Now()
		l.events = append(l.events, e)
		a = eventlog.Appended{Revision: e.Revision, Position: e.Position}
	}
	return a, nil
}

// isRepeat tells whether events are stored already, at the place that they were meant for.
func isRepeat(stored, events []eventlog.Recorded) bool {
	if len(events) == 0 || len(events) > len(stored) {
		return false
	}
	return slices.EqualFunc(stored[:len(events)], events, func(a, b eventlog.Recorded) bool { return a.ID == b.ID })
}

// Read does what [eventlog.Log.Read] does.
func (l *Log) Read(ctx context.Context, stream string, from eventlog.Revision, max int) ([]eventlog.Recorded, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.available(ctx); err != nil {
		return nil, err
	}
	events := l.stream(stream)
	events = events[min(int(from), len(events)):]
	if max > 0 {
		events = events[:min(max, len(events))]
	}
	return events, nil
}

// Latest does what [eventlog.Log.Latest] does.
func (l *Log) Latest(ctx context.Context, stream string) (latest eventlog.Recorded, exists bool, err error) {
	events, err := l.Read(ctx, stream, 0, 0)
	if err != nil || len(events) == 0 {
		return eventlog.Recorded{}, false, err
	}
	return events[len(events)-1], true, nil
}

// Decode does what [eventlog.Log.Decode] does.
func (l *Log) Decode(r eventlog.Recorded) (eventlog.Event, error) {
	return eventlog.Decode(l.schema, r)
}

// Head does what [eventlog.Log.Head] does.
func (l *Log) Head(ctx context.Context) (eventlog.Position, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head(), l.available(ctx)
}

// Has does what [eventlog.Log.Has] does.
func (l *Log) Has(ctx context.Context, at eventlog.Position, id uuid.UUID) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	has := slices.ContainsFunc(l.events, func(e eventlog.Recorded) bool { return e.Position == at && e.ID == id })
	return has, l.available(ctx)
}

// Identity does what [eventlog.Log.Identity] does.
func (l *Log) Identity(ctx context.Context) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.identity, l.available(ctx)
}

// available, and what follows, is for callers that hold the lock.
func (l *Log) available(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", eventlog.ErrUnavailable, ctx.Err())
	case l.down:
		return eventlog.ErrUnavailable
	}
	return nil
}

func (l *Log) stream(name string) []eventlog.Recorded {
	var events []eventlog.Recorded
	for _, e := range l.events {
		if e.Stream == name {
			events = append(events, e)
		}
	}
	return events
}

func (l *Log) head() eventlog.Position {
	if len(l.events) == 0 {
		return 0
	}
	return l.events[len(l.events)-1].Position
}
