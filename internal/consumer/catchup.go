package consumer

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/purserhq/purser/internal/eventlog"
)

// meetTimeout bounds how long the lane that follows the feed is held by one that joins it.
const meetTimeout = 2 * time.Second

// meeting is how a lane hands its partitions over to the one that follows the feed.
type meeting struct {
	at   chan eventlog.Position // the last event of the one that follows, which waits from then on
	done chan *lane             // the lane that has come to the same event, nil where it has not
}

// catchUp reads the log by a subscription of the lane's own, until it is where the feed is. It returns the queue to go on
// with; where another lane follows the feed already it hands its partitions over to that one, and has none left.
func (l *lane) catchUp(ctx context.Context) (*queue, error) {
	c := l.r.c
	head, err := c.log.Head(ctx) // after the feed has begun: what comes level below lacks nothing that the feed began after
	if err != nil {
		return nil, err
	}
	own := make(chan *item, queueLength)
	var q *queue
	g, ctx := errgroup.WithContext(ctx)
	subscription, stop := context.WithCancel(ctx)
	g.Go(func() error {
		// From the last event on that is known to be there still: what lies between it and the position is the log's of today.
		err := c.log.Subscribe(subscription, c.categories, l.last.position, func(ctx context.Context, d eventlog.Delivery) error {
			i := newItem(d)
			if i.partition >= 0 && l.r.model.reads(i.category) {
				_, _, _ = i.decode(c.log) // here, beside the transaction before
			}
			select {
			case own <- i:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if subscription.Err() != nil && ctx.Err() == nil {
			return nil
		}
		return err
	})
	g.Go(func() error {
		defer stop()
		var err error
		q, err = l.meetFeed(ctx, own, head)
		return err
	})
	if err := g.Wait(); err != nil {
		if q != nil {
			l.r.unlead(l, q)
		}
		return nil, err
	}
	return q, nil
}

// meetFeed applies what the lane's own subscription delivers until the lane is level with the feed. head is where the log
// ended before the subscription began.
func (l *lane) meetFeed(ctx context.Context, own <-chan *item, head eventlog.Position) (q *queue, err error) {
	defer func() {
		if err != nil && q != nil {
			l.r.unlead(l, q)
			q = nil
		}
	}()
	tick := time.NewTicker(ordersPause)
	defer tick.Stop()
	var after eventlog.Position // the event after which the queue goes on
	for {
		if err := l.step(ctx, own, tick.C, head, 0); err != nil {
			return q, err
		}
		if !l.caughtUp.Load() {
			continue
		}
		if q == nil {
			var ok bool
			if q, after, ok = l.r.lead(l); !ok && l.r.hasFollower() {
				if err := l.join(ctx, own, head); err != nil {
					return nil, err
				}
			}
		}
		if q != nil && l.last.position >= after {
			return q, nil
		}
	}
}

// join hands the partitions over to the lane that follows the feed, once both have come to the same event. It returns
// without having done so where that one is further behind, or not there any more.
func (l *lane) join(ctx context.Context, own <-chan *item, head eventlog.Position) error {
	ctx, cancel := context.WithTimeout(ctx, meetTimeout)
	defer cancel()
	m := &meeting{at: make(chan eventlog.Position, 1), done: make(chan *lane, 1)}
	select {
	case l.r.meetings <- m:
	case <-time.After(2 * ordersPause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	var level *lane
	defer func() { m.done <- level }()
	at := <-m.at
	for l.last.position < at {
		if err := l.step(ctx, own, nil, head, at); err != nil {
			return err
		}
	}
	if l.last.position > at {
		return nil
	}
	level = l
	return errDone
}

// meet waits for a lane that wants to join, and goes on with its partitions as well.
func (l *lane) meet(ctx context.Context, m *meeting) error {
	m.at <- l.last.position
	select {
	case joined := <-m.done:
		if joined == nil {
			return nil
		}
		l.r.merge(l, joined)
		l.showParked()
		_, err := l.apply(ctx, nil, 0) // nothing but the checkpoints, so that all stand at one position
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
