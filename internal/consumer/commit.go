package consumer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/purserhq/purser/internal/eventlog"
)

const (
	// batchTimeout bounds one transaction, so that a Postgres that hangs is noticed. While a build is filled, its indexes are
	// made, and its transactions wait for that.
	batchTimeout     = 30 * time.Second
	fillBatchTimeout = 10 * time.Minute
)

// apply applies a batch, with the checkpoints, and tells how much of it: up to an event that only a newer build can read. The
// partition of that one waits in a lane of its own.
func (l *lane) apply(ctx context.Context, items []*item, head eventlog.Position) (applied int, err error) {
	commit, cancel := context.WithTimeout(ctx, l.batchTimeout())
	defer cancel()
	b := &batch{log: l.r.c.log, limits: l.r.c.limits, end: l.position, last: l.last, observe: l.r.c.metrics.observe(l.r.label()), filling: !l.r.isFilled()}
	var newer error
	first := true
	for _, i := range items {
		if i.Event != nil && i.Position > b.last.position { // what the feed has delivered as well is there once
			if first && l.caughtUp.Load() {
				l.behind.Store(i.Event.Created.UnixNano()) // everything before it is there
			}
			first = false
			if newer = l.add(b, i); newer != nil {
				break
			}
			b.last = anchor{i.Event.Position, i.Event.ID}
		}
		if b.end = max(b.end, i.Position); i.CaughtUp {
			b.end = max(b.end, head) // all of that was delivered, if it was of our categories
		}
		applied++
	}
	if b.last != l.last || slices.ContainsFunc(l.parts, func(p part) bool { return p.position < b.end }) {
		if err := l.commit(commit, b); err != nil {
			return 0, fmt.Errorf("apply up to position %d: %w", b.end, err)
		}
		l.r.c.metrics.committed(l.r.label(), b)
		if !b.filling {
			l.r.c.notify.changed(l.r.model.rows(), b.keys()...)
		}
	}
	l.r.c.tell()
	if newer == nil {
		return applied, nil
	}
	if len(l.parts) == 1 {
		return 0, newer
	}
	l.leaveBehind(items[applied].partition)
	return applied, nil
}

// leaveBehind has a lane of its own go on with a partition.
func (l *lane) leaveBehind(partition int) {
	i := slices.IndexFunc(l.parts, func(p part) bool { return p.number == partition })
	l.r.split(l, parts{l.parts[i]})
	l.forgetParked()
}

func (l *lane) batchTimeout() time.Duration {
	if l.r.isFilled() {
		return batchTimeout
	}
	return fillBatchTimeout
}

// add adds an event to a batch, if the model reads it.
func (l *lane) add(b *batch, i *item) error {
	if i.partition < 0 && l.r.model.reads(i.category) {
		b.unkeyed++
	}
	if i.partition < 0 || !l.has(i.partition) {
		return nil
	}
	if _, parked := l.parked[i.key]; !parked && l.r.model.reads(i.category) {
		e, known, err := i.decode(l.r.c.log)
		if err != nil {
			return err
		}
		if !known {
			b.unknown = append(b.unknown, i.Event.Type)
		}
		b.events = append(b.events, e)
	}
	b.passed[i.partition]++
	return nil
}

// commit writes rows, what is derived from them, parked keys and the checkpoints, all or none. A batch with a value that
// Postgres refuses is halved until the event that has it is found, so that only the key with that value is parked.
func (l *lane) commit(ctx context.Context, b *batch) error {
	start := time.Now()
	err := l.transact(ctx, b, l.applyAll)
	if refused(err) {
		err = l.transact(ctx, b, func(ctx context.Context, b *batch) error { return l.applyHalved(ctx, b, b.events) })
	}
	if err != nil {
		return err
	}
	l.stands(b.end, b.last)
	for key, p := range b.poisoned {
		l.parked[key] = time.Now()
		l.logger().Error("an event can't be applied, its key is parked", "key", key, "position", p.position, "cause", p.cause)
	}
	if len(b.poisoned) > 0 {
		l.showParked()
	}
	l.r.c.metrics.batches.WithLabelValues(l.r.label()).Observe(time.Since(start).Seconds())
	return nil
}

// stands notes where all partitions stand now.
func (l *lane) stands(position eventlog.Position, last anchor) {
	l.position, l.last = position, last
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	for i := range l.parts {
		l.parts[i].position = position
	}
}

// notSynced are transactions of batches.
var notSynced = pgx.TxOptions{BeginQuery: brief.BeginQuery + "; SET LOCAL synchronous_commit = off"}

// transact applies a batch and moves the checkpoints in one transaction. That is not synced: it is lost whole, or not at
// all, and the log has what it was made from.
func (l *lane) transact(ctx context.Context, b *batch, apply func(context.Context, *batch) error) error {
	b.poisoned, b.writes = map[string]poison{}, &pgx.Batch{}
	moved := false
	return pgx.BeginTxFunc(ctx, l.r.c.pool, notSynced, func(tx pgx.Tx) error {
		b.tx = tx
		if err := apply(ctx, b); err != nil {
			return err
		}
		for key, p := range b.poisoned {
			b.writes.Queue(`INSERT INTO consumer.parked (build, key, position, cause) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
				l.r.name, key, p.position, storable(p.cause))
		}
		l.parts.advance(b.writes, l.r.name, b.end, b.last, &b.passed, &moved)
		if err := tx.SendBatch(ctx, b.writes).Close(); err != nil {
			return err
		}
		if !moved {
			return errFenced
		}
		return nil
	})
}

// storable is a text without what Postgres can't keep.
func storable(text string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(text, "\x00", ""), "")
}

func (l *lane) applyAll(ctx context.Context, b *batch) error {
	if len(b.events) == 0 {
		return nil
	}
	return l.r.shape.apply(ctx, b)
}

// applyHalved applies events under a savepoint, and where Postgres refuses a value of theirs one half after the other, down to
// the event that has it.
func (l *lane) applyHalved(ctx context.Context, b *batch, events []decoded) error {
	events = slices.DeleteFunc(slices.Clone(events), func(e decoded) bool { _, parked := b.poisoned[e.key]; return parked })
	if len(events) == 0 {
		return nil
	}
	last := events[len(events)-1]
	some := &batch{
		log: b.log, limits: b.limits, events: events, end: last.Position, writes: &pgx.Batch{}, observe: b.observe,
		poisoned: maps.Clone(b.poisoned), // if they are refused, what comes before a poisoned event is not there either
	}
	err := pgx.BeginFunc(ctx, b.tx, func(savepoint pgx.Tx) error {
		some.tx = savepoint
		if err := l.r.shape.apply(ctx, some); err != nil {
			return err
		}
		return savepoint.SendBatch(ctx, some.writes).Close()
	})
	switch {
	case err == nil:
		b.poisoned = some.poisoned
		return nil
	case !refused(err):
		return err
	case len(events) == 1:
		b.park(last.key, last.Position, err)
		return nil
	}
	half := len(events) / 2
	if err := l.applyHalved(ctx, b, events[:half]); err != nil {
		return err
	}
	return l.applyHalved(ctx, b, events[half:])
}

// refusals are the classes of Postgres's errors that are about values: that they are no such data, break a constraint, or are
// too large for an index.
var refusals = []string{"22", "23", "54"}

// refused tells whether Postgres refused a value: one out of range, or one that it can't represent. To try that again
// would fail for ever.
func refused(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && slices.Contains(refusals, pg.Code[:min(2, len(pg.Code))])
}
