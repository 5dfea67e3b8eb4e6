package consumer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/purserhq/purser/internal/eventlog"
)

const (
	// queueLength bounds the events that wait for a lane, maxBatch those of one transaction.
	queueLength = 2000
	maxBatch    = 1000
	firstPause  = 50 * time.Millisecond
	maxPause    = 5 * time.Second
	// batchTimeout bounds one transaction, so that a Postgres that hangs is noticed.
	batchTimeout = 30 * time.Second
)

// lane is the partitions of a model that move together: all of them. It reads the log by a subscription of its own, so
// that one that is slow or failing holds back no other.
type lane struct {
	model      Model
	pool       *pgxpool.Pool
	log        Log
	categories []string // that the subscription covers
	logger     *slog.Logger
	metrics    *Metrics
	changed    chan<- struct{}

	// caughtUp: the model has had all that the log held when it was taken over, and follows it.
	caughtUp atomic.Bool
	// behind is since when it may lack something, in Unix nanoseconds; 0 while it lacks nothing that is known of.
	behind atomic.Int64
	// oldest is since when the first of the parked keys is, in Unix nanoseconds; 0 where none is parked.
	oldest atomic.Int64
	// paused: an operator wants it to rest.
	paused atomic.Bool

	// Below: for run.
	checkpoint checkpoint
	parked     map[string]time.Time // by key, since when
}

// run keeps the model up to date until ctx ends, and says how it is.
func (l *lane) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { l.report(ctx); return nil })
	g.Go(func() error { return l.work(ctx) })
	return g.Wait()
}

// work keeps the model up to date until ctx ends. Whatever fails, everything in memory is thrown away after a pause and
// read again, from the checkpoint; only read models of another log are given up.
func (l *lane) work(ctx context.Context) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval, pause.RandomizationFactor = firstPause, maxPause, 0.5
	for {
		started := time.Now()
		err := l.rest(ctx)
		if err == nil {
			err = l.follow(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errForeign):
			return err
		case errors.Is(err, errPaused):
			continue
		}
		if time.Since(started) > maxPause {
			pause.Reset()
		}
		l.metrics.failures.WithLabelValues(l.model.name).Inc()
		l.logger.Warn("a read model pauses", "model", l.model.name, "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause.NextBackOff()):
		}
	}
}

// isBehind notes that the model may lack what was appended at a time or later, if it lacked nothing before.
func (l *lane) isBehind(since time.Time) { l.behind.CompareAndSwap(0, since.UnixNano()) }

// lag is for how long the model has lacked something.
func (l *lane) lag(now time.Time) time.Duration {
	if since := l.behind.Load(); since != 0 {
		return max(now.Sub(time.Unix(0, since)), 0)
	}
	return 0
}

// lost notes that nothing is known of the log's present state.
func (l *lane) lost() {
	l.caughtUp.Store(false)
	l.isBehind(time.Now())
}

// showParked shows how many keys are parked, and since when the first one is.
func (l *lane) showParked() {
	var oldest int64
	for _, since := range l.parked {
		if at := since.UnixNano(); oldest == 0 || at < oldest {
			oldest = at
		}
	}
	l.oldest.Store(oldest)
	l.metrics.parked.WithLabelValues(l.model.name).Set(float64(len(l.parked)))
}

// oldestParked is for how long a key has been parked: the one that was parked first.
func (l *lane) oldestParked(now time.Time) time.Duration {
	if since := l.oldest.Load(); since != 0 {
		return max(now.Sub(time.Unix(0, since)), 0)
	}
	return 0
}

// errInterrupted ends a lane whose subscription ended: before it goes on, it looks whether the log is still the same.
var errInterrupted = errors.New("the subscription to the event store was interrupted")

// follow takes the model over and applies what the log says, until something fails.
func (l *lane) follow(ctx context.Context) error {
	l.lost()
	defer l.lost()
	var err error
	if l.checkpoint, l.parked, err = take(ctx, l.pool, l.log, l.model); err != nil {
		return err
	}
	l.showParked()
	queue := make(chan eventlog.Delivery, queueLength)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return l.log.Subscribe(ctx, l.categories, l.checkpoint.position, func(ctx context.Context, d eventlog.Delivery) error {
			if d.Interrupted != nil {
				return fmt.Errorf("%w: %w", errInterrupted, d.Interrupted)
			}
			select {
			case queue <- d:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	g.Go(func() error { return l.consume(ctx, queue) })
	return g.Wait()
}

// consume applies what is delivered, and carries out in between what an operator has ordered.
func (l *lane) consume(ctx context.Context, queue <-chan eventlog.Delivery) error {
	look := time.NewTicker(orderPoll)
	defer look.Stop()
	for {
		deliveries, err := next(ctx, queue, look.C)
		if err != nil {
			return err
		}
		if len(deliveries) == 0 {
			err = l.obey(ctx)
		} else {
			err = l.apply(ctx, deliveries)
		}
		if err != nil {
			return err
		}
		if caughtUp(deliveries) {
			l.caughtUp.Store(true)
		}
		if l.caughtUp.Load() && len(queue) == 0 {
			l.behind.Store(0)
		}
	}
}

// next waits for something to do, and takes with it what else is there: batches grow by themselves under load. It returns
// nothing when it is time to look for orders.
func next(ctx context.Context, queue <-chan eventlog.Delivery, look <-chan time.Time) ([]eventlog.Delivery, error) {
	var deliveries []eventlog.Delivery
	select {
	case d := <-queue:
		deliveries = append(deliveries, d)
	case <-look:
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for len(deliveries) < maxBatch {
		select {
		case d := <-queue:
			deliveries = append(deliveries, d)
		default:
			return deliveries, nil
		}
	}
	return deliveries, nil
}

func caughtUp(deliveries []eventlog.Delivery) bool {
	return slices.ContainsFunc(deliveries, func(d eventlog.Delivery) bool { return d.CaughtUp })
}

// apply applies a batch, with the checkpoint.
func (l *lane) apply(ctx context.Context, deliveries []eventlog.Delivery) error {
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	b := &batch{log: l.log, end: l.checkpoint.position, last: l.checkpoint.last, observe: l.metrics.observe(l.model.name)}
	passed := 0
	for _, d := range deliveries {
		b.end = max(b.end, d.Position)
		if d.Event == nil {
			continue
		}
		if passed++; passed == 1 && l.caughtUp.Load() {
			l.behind.Store(d.Event.Created.UnixNano()) // everything before it is there
		}
		b.last = anchor{d.Event.Position, d.Event.ID}
		if err := l.add(b, *d.Event); err != nil {
			return err
		}
	}
	if b.end > l.checkpoint.position {
		if err := l.commit(ctx, b); err != nil {
			return fmt.Errorf("apply up to position %d: %w", b.end, err)
		}
		l.metrics.committed(l.model.name, b, passed)
	}
	l.tell()
	return nil
}

// tell lets the one who waits for changes know of some.
func (l *lane) tell() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// add decodes an event that the model reads, and adds it to a batch.
func (l *lane) add(b *batch, r eventlog.Recorded) error {
	category, key, ok := eventlog.SplitStream(r.Stream)
	if !ok || !l.model.reads(category) {
		return nil
	}
	if _, parked := l.parked[key]; parked {
		return nil
	}
	e, known, err := decode(l.log, r)
	switch {
	case err != nil:
		return err
	case known:
		b.events = append(b.events, e)
	default:
		b.unknown = append(b.unknown, r.Type)
	}
	return nil
}

// decode reads an event. One of a type that this build does not know is not for its folds; one of a newer version makes
// it wait for a newer build; any other that can't be read is poison, and so is carried on as such.
func decode(log Decoder, r eventlog.Recorded) (d decoded, known bool, err error) {
	category, key, ok := eventlog.SplitStream(r.Stream)
	if !ok {
		return decoded{}, false, nil
	}
	var e eventlog.Event
	var failed error
	if err := guarded(func() { e, failed = log.Decode(r) }); err != nil {
		failed = err
	}
	switch err := failed; {
	case errors.Is(err, eventlog.ErrUnknownType):
		return decoded{}, false, nil
	case errors.Is(err, eventlog.ErrNewerVersion):
		return decoded{}, false, err
	case err != nil:
		return decoded{Event: eventlog.Event{Recorded: r}, category: category, key: key, err: err}, true, nil
	}
	return decoded{Event: e, category: category, key: key}, true, nil
}
