package memorylog

import (
	"context"
	"slices"

	"github.com/purserhq/purser/internal/eventlog"
)

// subscription is how far a subscriber has come.
type subscription struct {
	categories []string
	after      eventlog.Position
	outages    int // that it knows of
	caughtUp   bool
}

// Subscribe does what [eventlog.Log.Subscribe] does.
func (l *Log) Subscribe(ctx context.Context, categories []string, after eventlog.Position, deliver func(context.Context, eventlog.Delivery) error) error {
	s := l.begin(categories, after)
	for {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d, changed := l.next(s)
		if d != nil {
			if err := deliver(ctx, *d); err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (l *Log) begin(categories []string, after eventlog.Position) *subscription {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &subscription{categories: categories, after: after, outages: l.outages}
	if l.down {
		s.outages-- // it has yet to hear of this one
	}
	return s
}

// next is what is to be delivered next, or what to wait for where that is nothing.
func (l *Log) next(s *subscription) (*eventlog.Delivery, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.outages != l.outages {
		s.outages, s.caughtUp = l.outages, false
		return &eventlog.Delivery{Interrupted: eventlog.ErrUnavailable, Position: s.after}, nil
	}
	if l.down {
		return nil, l.changed
	}
	for _, e := range l.events {
		if e.Position <= s.after {
			continue
		}
		s.after = e.Position
		if category, _, ok := eventlog.SplitStream(e.Stream); ok && slices.Contains(s.categories, category) {
			return &eventlog.Delivery{Event: &e, Position: e.Position}, nil
		}
	}
	if !s.caughtUp {
		s.caughtUp = true
		return &eventlog.Delivery{CaughtUp: true, Position: s.after}, nil
	}
	return nil, l.changed
}
