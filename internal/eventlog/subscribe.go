package eventlog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/cenkalti/backoff/v5"
)

const (
	// searchWindow is how many events the store looks at between two checkpoints of a filtered subscription.
	searchWindow = 1000
	// subscribeTimeout bounds the beginning of a subscription.
	subscribeTimeout = 30 * time.Second
)

// Delivery is one thing that a subscription says.
type Delivery struct {
	// Event is an event of one of the categories; nil where the delivery is about the position alone.
	Event *Recorded
	// CaughtUp tells that what existed when the subscription began, or began anew, has been delivered. It may repeat.
	CaughtUp bool
	// Interrupted is why the subscription ended; it is about to begin again after Position, unless the subscriber fails.
	Interrupted error
	// Position: everything of the categories up to here has been delivered.
	Position Position
}

// deliverError is an error of the subscriber, which ends the subscription.
type deliverError struct{ error }

func (e deliverError) Unwrap() error { return e.error }

// Subscribe delivers the events of the categories after a position, in the order of the log, one at a time, and goes on
// with those that are appended later. A subscription that ends is taken up again where it ended, after it was said that it
// was interrupted. Subscribe returns only when ctx ends, with ctx's error, or when deliver fails, with deliver's.
func (l *Log) Subscribe(ctx context.Context, categories []string, after Position, deliver func(context.Context, Delivery) error) error {
	return l.subscribe(ctx, ofCategories(categories), after, deliver)
}

func (l *Log) subscribe(ctx context.Context, filter Filter, after Position, deliver func(context.Context, Delivery) error) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval, pause.RandomizationFactor = firstPause, maxPause, 0.5
	for {
		before := after
		err := l.subscribeOnce(ctx, filter, &after, deliver)
		var d deliverError
		switch {
		case errors.As(err, &d):
			return d.error
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if after > before {
			pause.Reset()
		}
		l.metrics.resubscribed.Inc()
		if err := deliver(ctx, Delivery{Interrupted: err, Position: after}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause.NextBackOff()):
		}
	}
}

// subscribeOnce delivers until the subscription is dropped, and moves after on with each delivery.
func (l *Log) subscribeOnce(ctx context.Context, filter Filter, after *Position, deliver func(context.Context, Delivery) error) error {
	// The subscription ends with a context of its own: Recv has none, and one that has stalled is given up.
	subCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	impatience := time.AfterFunc(subscribeTimeout, cancel)
	defer impatience.Stop()

	lease, err := l.store.acquire()
	if err != nil {
		return err
	}
	defer l.store.release(lease)
	sub, err := callOn(subCtx, l.store, lease, func(ctx context.Context, c *esdb.Client) (*esdb.Subscription, error) {
		return c.SubscribeToAll(ctx, allOptions(filter, *after))
	})
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	defer sub.Close()
	impatience.Stop()
	var p pulse
	p.waits(*after)
	var watching sync.WaitGroup
	watching.Go(func() { l.watch(subCtx, filter, &p, cancel) })
	defer watching.Wait()
	defer cancel()
	for {
		e := sub.Recv()
		if e.SubscriptionDropped != nil {
			err := e.SubscriptionDropped.Error
			if err != nil && broken(err) {
				l.store.retire(lease)
			}
			return fmt.Errorf("dropped: %w", errors.Join(err, subCtx.Err()))
		}
		p.works()
		if d, ok := delivery(e, *after); ok {
			*after = d.Position
			if err := deliver(ctx, d); err != nil {
				return deliverError{err}
			}
		}
		p.waits(*after)
	}
}

func allOptions(f Filter, after Position) esdb.SubscribeToAllOptions {
	filter := &esdb.SubscriptionFilter{Type: esdb.StreamFilterType, Prefixes: f.Prefixes, Regex: f.Regexp}
	o := esdb.SubscribeToAllOptions{From: esdb.Start{}, Filter: filter, MaxSearchWindow: searchWindow, CheckpointInterval: 1}
	if after > 0 {
		o.From = esdb.Position{Commit: uint64(after), Prepare: uint64(after)}
	}
	return o
}

// delivery reads what the client says, if it is of use to a subscriber.
func delivery(e *esdb.SubscriptionEvent, after Position) (Delivery, bool) {
	switch {
	case e.EventAppeared != nil:
		o := e.EventAppeared.OriginalEvent()
		if o == nil {
			return Delivery{}, false
		}
		r := recorded(o)
		return Delivery{Event: &r, Position: r.Position}, r.Position > after
	case e.CaughtUp != nil:
		return Delivery{CaughtUp: true, Position: after}, true
	case e.CheckPointReached != nil:
		p := Position(e.CheckPointReached.Commit)
		// Some servers send the largest number there is where nothing matched: to go on from there would lose events.
		return Delivery{Position: p}, p > after && p != math.MaxUint64
	}
	return Delivery{}, false
}
