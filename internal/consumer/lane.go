package consumer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
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

	caughtUp atomic.Bool

	// Below: for run.
	checkpoint checkpoint
	parked     map[string]bool
}

// run keeps the model up to date until ctx ends. Whatever fails, everything in memory is thrown away after a pause and
// read again, from the checkpoint; only read models of another log are given up.
func (l *lane) run(ctx context.Context) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval, pause.RandomizationFactor = firstPause, maxPause, 0.5
	for {
		started := time.Now()
		err := l.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errForeign) {
			return err
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

// follow takes the model over and applies what the log says, until something fails.
func (l *lane) follow(ctx context.Context) error {
	var err error
	if l.checkpoint, l.parked, err = take(ctx, l.pool, l.log, l.model); err != nil {
		return err
	}
	l.metrics.parked.WithLabelValues(l.model.name).Set(float64(len(l.parked)))
	queue := make(chan eventlog.Delivery, queueLength)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return l.log.Subscribe(ctx, l.categories, l.checkpoint.position, func(ctx context.Context, d eventlog.Delivery) error {
			select {
			case queue <- d:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	g.Go(func() error {
		for {
			deliveries, err := next(ctx, queue)
			if err == nil {
				err = l.apply(ctx, deliveries)
			}
			if err != nil {
				return err
			}
		}
	})
	return g.Wait()
}

// next waits for something to do, and takes with it what else is there: batches grow by themselves under load.
func next(ctx context.Context, queue <-chan eventlog.Delivery) ([]eventlog.Delivery, error) {
	var deliveries []eventlog.Delivery
	select {
	case d := <-queue:
		deliveries = append(deliveries, d)
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

// apply applies a batch in one transaction, with the checkpoint.
func (l *lane) apply(ctx context.Context, deliveries []eventlog.Delivery) error {
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	b := &batch{log: l.log, end: l.checkpoint.position, last: l.checkpoint.last, writes: &pgx.Batch{}, poisoned: map[string]poison{}, observe: l.metrics.observe(l.model.name)}
	caughtUp, passed := false, 0
	for _, d := range deliveries {
		b.end = max(b.end, d.Position)
		caughtUp = caughtUp || d.CaughtUp
		if d.Event == nil {
			continue
		}
		passed++
		b.last = anchor{d.Event.Position, d.Event.ID}
		e, known, err := decode(l.log, *d.Event)
		if err != nil {
			return err
		}
		if known && l.model.reads(e.category) && !l.parked[e.key] {
			b.events = append(b.events, e)
		}
	}
	if b.end > l.checkpoint.position {
		if err := l.commit(ctx, b); err != nil {
			return fmt.Errorf("apply up to position %d: %w", b.end, err)
		}
		l.observe(b, passed)
	}
	if caughtUp {
		l.caughtUp.Store(true)
		l.metrics.lag.WithLabelValues(l.model.name).Set(0)
	}
	select {
	case l.changed <- struct{}{}:
	default:
	}
	return nil
}

// commit writes rows, what is derived from them, parked keys and the checkpoint, all or none. The transaction is not
// waited for on disk: Postgres keeps or loses it whole, and the log has the truth.
func (l *lane) commit(ctx context.Context, b *batch) error {
	start := time.Now()
	moved := false
	err := pgx.BeginFunc(ctx, l.pool, func(tx pgx.Tx) error {
		b.tx = tx
		if _, err := tx.Exec(ctx, "SET LOCAL synchronous_commit = off"); err != nil {
			return err
		}
		if len(b.events) > 0 {
			if err := l.model.shape.apply(ctx, b); err != nil {
				return err
			}
		}
		for key, p := range b.poisoned {
			b.writes.Queue(`INSERT INTO consumer.parked (build, key, position, cause) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
				l.model.build, key, int64(p.position), p.cause)
		}
		l.checkpoint.advance(b.writes, b.end, b.last, &moved)
		if err := tx.SendBatch(ctx, b.writes).Close(); err != nil {
			return err
		}
		if !moved {
			return errFenced
		}
		return nil
	})
	if err != nil {
		return err
	}
	l.checkpoint.position, l.checkpoint.last = b.end, b.last
	for key, p := range b.poisoned {
		l.parked[key] = true
		l.logger.Error("an event can't be applied, its key is parked", "model", l.model.name, "key", key, "position", p.position, "cause", p.cause)
	}
	l.metrics.batches.WithLabelValues(l.model.name).Observe(time.Since(start).Seconds())
	return nil
}

func (l *lane) observe(b *batch, passed int) {
	name := l.model.name
	l.metrics.events.WithLabelValues(name).Add(float64(passed))
	l.metrics.position.WithLabelValues(name).Set(float64(b.end))
	l.metrics.parked.WithLabelValues(name).Set(float64(len(l.parked)))
	if n := len(b.events); n > 0 {
		l.metrics.lag.WithLabelValues(name).Set(time.Since(b.events[n-1].Meta.OccurredAt).Seconds())
	}
}

// decode reads an event. One of a type that this build does not know is not for its folds; one of a newer version makes
// it wait for a newer build; any other that can't be read is poison, and so is carried on as such.
func decode(log Log, r eventlog.Recorded) (d decoded, known bool, err error) {
	category, key, ok := eventlog.SplitStream(r.Stream)
	if !ok {
		return decoded{}, false, nil
	}
	e, err := log.Decode(r)
	switch {
	case errors.Is(err, eventlog.ErrUnknownType):
		return decoded{}, false, nil
	case errors.Is(err, eventlog.ErrNewerVersion):
		return decoded{}, false, err
	case err != nil:
		return decoded{Event: eventlog.Event{Recorded: r}, category: category, key: key, err: err}, true, nil
	}
	return decoded{Event: e, category: category, key: key}, true, nil
}
