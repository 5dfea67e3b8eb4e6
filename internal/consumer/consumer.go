// Package consumer keeps what is derived from the event log: it follows the log and folds each event, once and in order,
// into tables in Postgres.
//
// A model is a [Fold] with the [Report]s and [List]s derived from it, or a [Journal]. Rows, derived entries and checkpoint
// are written in one transaction, so they are all there or none is. The checkpoint is moved by compare-and-swap under the
// token of its owner, so a process that was only thought dead can't write. A row remembers how far each stream is folded
// into it: what it has seen is skipped, and a gap refolds the key from the log. An event that can't be applied parks its
// key; the others go on. When Postgres or the event store is away, everything pauses and goes on by itself.
//
// Operators give their orders in Postgres, by way of any process, and the owner of a model carries them out: to try a
// parked key again, to rest. [Audit] compares what is stored with what the log adds up to.
package consumer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/purserhq/purser/internal/eventlog"
)

// Decoder reads stored events through the current schema.
type Decoder interface {
	Decode(r eventlog.Recorded) (eventlog.Event, error)
}

// History is what is needed of the event log to fold a key from its first event.
type History interface {
	Decoder
	Read(ctx context.Context, stream string, from eventlog.Revision, max int) ([]eventlog.Recorded, error)
}

// Log is what a consumer needs of the event log.
type Log interface {
	History
	Subscribe(ctx context.Context, categories []string, after eventlog.Position, deliver func(context.Context, eventlog.Delivery) error) error
	Head(ctx context.Context) (eventlog.Position, error)
	Has(ctx context.Context, at eventlog.Position, id uuid.UUID) (bool, error)
	Identity(ctx context.Context) (string, error)
}

const (
	// lockPoll is how often one that stands by looks whether the owner has gone, and the owner whether it still is it.
	lockPoll    = time.Second
	lockTimeout = 5 * time.Second
)

// Consumer runs models. Of the consumers of one name, in whatever process, one works and the others stand by.
type Consumer struct {
	name    string
	pool    *pgxpool.Pool
	log     Log
	lanes   []*lane
	changed chan struct{}
	logger  *slog.Logger
}

// New returns a consumer of models. The categories are all that are written to the log, so that a model moves on
// past events that it does not read, and readers need not wait for it.
func New(pool *pgxpool.Pool, log Log, name string, categories []string, models []Model, logger *slog.Logger, m *Metrics) *Consumer {
	c := &Consumer{name: name, pool: pool, log: log, changed: make(chan struct{}, 1), logger: logger.With("consumer", name)}
	for _, model := range models {
		l := &lane{
			model: model, pool: pool, log: log, categories: slices.Clone(categories), logger: c.logger, metrics: m, changed: c.changed,
		}
		l.lost()
		m.watch(model.name, l.lag, l.oldestParked)
		c.lanes = append(c.lanes, l)
	}
	return c
}

// Ready returns nil while every model follows the log, and has caught up with it as it was when this consumer last began
// to work. One that stands by, or pauses, is not ready.
func (c *Consumer) Ready(context.Context) error { return c.ready(false) }

// ReadyOrPaused is [Consumer.Ready] but for models that an operator has paused: that they lag is what was asked for. What
// acts on what is derived goes by Ready.
func (c *Consumer) ReadyOrPaused(context.Context) error { return c.ready(true) }

func (c *Consumer) ready(orPaused bool) error {
	for _, l := range c.lanes {
		if !l.caughtUp.Load() && !(orPaused && l.paused.Load()) {
			return fmt.Errorf("%s has not caught up", l.model.name)
		}
	}
	return nil
}

// Changed receives after one or more transactions of this consumer. It is for one reader.
func (c *Consumer) Changed() <-chan struct{} { return c.changed }

// Run works, or stands by, until ctx ends, and returns nil then. It fails only where the tables belong to another log.
func (c *Consumer) Run(ctx context.Context) error {
	for {
		err := c.own(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errForeign):
			return err
		case err != nil:
			c.logger.Warn("a consumer pauses", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(lockPoll):
		}
	}
}

// own waits until no other consumer of the name works, and then works. That is decided by a lock on a connection of its
// own, which Postgres releases when the process dies.
func (c *Consumer) own(ctx context.Context) error {
	if err := migrateUp(ctx, c.pool); err != nil {
		return err
	}
	conn, err := c.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	// Closed, not given back: the lock must not outlive this.
	lock := conn.Hijack()
	defer func() {
		closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lockTimeout)
		defer cancel()
		_ = lock.Close(closeCtx)
	}()
	for {
		var locked bool
		if err := lock.QueryRow(ctx, "SELECT pg_try_advisory_lock(hashtextextended($1, 0))", "purser consumer "+c.name).Scan(&locked); err != nil {
			return err
		}
		if locked {
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(lockPoll):
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range c.lanes {
		g.Go(func() error { return l.run(ctx) })
	}
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(lockPoll):
			}
			pingCtx, cancel := context.WithTimeout(ctx, lockTimeout)
			err := lock.Ping(pingCtx)
			cancel()
			if err != nil && ctx.Err() == nil {
				return fmt.Errorf("the connection that holds the lock: %w", err)
			}
		}
	})
	return g.Wait()
}
