package consumer_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/purserhq/purser/internal/eventlog"
)

// memoryLog is an event log in memory, of numbers.
type memoryLog struct {
	mu       sync.Mutex
	identity string
	events   []eventlog.Recorded
	numbers  map[eventlog.Position]int64
	grown    chan struct{}
	newer    string // a stream that only a newer build can read
	asked    func() // when the identity is asked for
	away     bool
}

func (l *memoryLog) onIdentity(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = f
}

// interrupt ends subscriptions, for as long as the log is away.
func (l *memoryLog) interrupt(away bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.away = away
	close(l.grown)
	l.grown = make(chan struct{})
}

func newMemoryLog() *memoryLog {
	return &memoryLog{identity: "memory", numbers: map[eventlog.Position]int64{}, grown: make(chan struct{})}
}

func (l *memoryLog) append(stream string, n int64) eventlog.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	revision := eventlog.Revision(0)
	for _, e := range l.events {
		if e.Stream == stream {
			revision++
		}
	}
	p := eventlog.Position(10 * (len(l.events) + 1))
	l.events = append(l.events, eventlog.Recorded{ID: uuid.New(), Stream: stream, Revision: revision, Position: p, Type: "Number"})
	l.numbers[p] = n
	close(l.grown)
	l.grown = make(chan struct{})
	return p
}

func (l *memoryLog) head() eventlog.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.events) == 0 {
		return 0
	}
	return l.events[len(l.events)-1].Position
}

func (l *memoryLog) Head(context.Context) (eventlog.Position, error) { return l.head(), nil }

func (l *memoryLog) Has(_ context.Context, at eventlog.Position, id uuid.UUID) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.events, func(e eventlog.Recorded) bool { return e.Position == at && e.ID == id }), nil
}

func (l *memoryLog) Identity(context.Context) (string, error) {
	l.mu.Lock()
	asked := l.asked
	l.mu.Unlock()
	if asked != nil {
		asked()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.identity, nil
}

func (l *memoryLog) Read(_ context.Context, stream string, from eventlog.Revision, _ int) ([]eventlog.Recorded, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []eventlog.Recorded
	for _, e := range l.events {
		if e.Stream == stream && e.Revision >= from {
			out = append(out, e)
		}
	}
	return out, nil
}

func (l *memoryLog) Decode(r eventlog.Recorded) (eventlog.Event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Stream == l.newer {
		return eventlog.Event{}, eventlog.ErrNewerVersion
	}
	return eventlog.Event{
		Recorded: r, Meta: eventlog.Metadata{OccurredAt: time.Unix(int64(r.Position), 1).UTC()},
		Messages: []proto.Message{wrapperspb.Int64(l.numbers[r.Position])},
	}, nil
}

func (l *memoryLog) Subscribe(ctx context.Context, categories []string, after eventlog.Position, deliver func(context.Context, eventlog.Delivery) error) error {
	caughtUp := false
	for {
		l.mu.Lock()
		i := slices.IndexFunc(l.events, func(e eventlog.Recorded) bool { return e.Position > after })
		var next eventlog.Recorded
		if i >= 0 {
			next = l.events[i]
		}
		grown, away := l.grown, l.away
		l.mu.Unlock()
		if away {
			if err := deliver(ctx, eventlog.Delivery{Interrupted: errors.New("away"), Position: after}); err != nil {
				return err
			}
		}
		if i < 0 {
			if !caughtUp {
				caughtUp = true
				if err := deliver(ctx, eventlog.Delivery{CaughtUp: true, Position: after}); err != nil {
					return err
				}
			}
			select {
			case <-grown:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		after = next.Position
		if category, _, _ := eventlog.SplitStream(next.Stream); !slices.Contains(categories, category) {
			continue
		}
		if err := deliver(ctx, eventlog.Delivery{Event: &next, Position: next.Position}); err != nil {
			return err
		}
	}
}
