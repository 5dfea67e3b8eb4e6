package consumer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/fault"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// Unpark has the owner of a model try a parked key again: fold it from its first event up to the checkpoint, and then write the
// row and what is derived from it, and unpark it, in one transaction. It does so in every build of the model, also those that
// readers may be sent to later, and returns once that is decided, whoever the owner is. A key that is parked in none is
// PARKED_KEY_NOT_FOUND. Where the key still can't be applied it stays parked, and the fault is KEY_STILL_POISONED with the cause,
// also where that takes too long. Where ctx ends before an owner has tried, the order stands, and the fault is PROJECTION_STOPPED.
func (c *Consumer) Unpark(ctx context.Context, model, key string) error {
	m, err := c.model(model)
	if err != nil {
		return err
	}
	status, err := c.status(ctx, m, 0)
	if err != nil {
		return err
	}
	if status.State == Paused {
		return paused(model)
	}
	// Of several who want the same, one attempt tells all.
	rows, err := c.pool.Query(ctx, `UPDATE consumer.parked AS p SET wanted = coalesce(wanted, $4) FROM consumer.builds AS b
		WHERE b.build = p.build AND b.model = $1 AND b.version = $2 AND NOT b.dropping AND p.key = $3 RETURNING p.build, wanted, parked_at`,
		m.name, m.version, key, uuid.New())
	var orders []unparkOrder
	if err == nil {
		orders, err = pgx.CollectRows(rows, pgx.RowToStructByPos[unparkOrder])
	}
	if err := notMadeYet(err); err != nil {
		return fmt.Errorf("order to unpark %s of %s: %w", key, model, err)
	}
	if len(orders) == 0 {
		return notParked(m, key)
	}
	ctx, cancel := Sooner(ctx)
	defer cancel()
	for _, o := range orders {
		if err := c.awaitUnparked(ctx, m, key, o); err != nil {
			return err
		}
	}
	return nil
}

// notParked says that a key is not parked, and what its stream's key is where a stream was named instead, as causes do.
func notParked(m Model, key string) error {
	f := fault.Missing(typev1.ErrorReason_ERROR_REASON_PARKED_KEY_NOT_FOUND, "parked key", key)
	f.Message = fmt.Sprintf("%q is not parked in projection %q", key, m.name)
	if category, id, ok := eventlog.SplitStream(key); ok && slices.Contains(m.categories, category) {
		f.Message += fmt.Sprintf("; the key of stream %s is %q", key, id)
	}
	return f
}

// unparkOrder is an attempt that was ordered of a build, and since when the key was parked there then.
type unparkOrder struct {
	Build    string
	Attempt  uuid.UUID
	ParkedAt time.Time
}

// awaitUnparked waits until an attempt is over.
func (c *Consumer) awaitUnparked(ctx context.Context, m Model, key string, o unparkOrder) error {
	for {
		done, cause, err := c.outcome(ctx, key, o)
		switch {
		case done && cause != "":
			return fault.Refused(typev1.ErrorReason_ERROR_REASON_KEY_STILL_POISONED, "%q stays parked: %s", key, cause)
		case done:
			return nil
		case err != nil && ctx.Err() == nil:
			return fmt.Errorf("wait for %s of %s to be unparked: %w", key, m.name, err)
		}
		select {
		case <-ctx.Done():
			return fault.Down(typev1.ErrorReason_ERROR_REASON_PROJECTION_STOPPED,
				fmt.Sprintf("nobody who runs projection %q has come to an end with %q yet; the order stands", m.name, key), ctx.Err())
		case <-time.After(lastLook):
		}
	}
}

// outcome tells whether an attempt is over, and why it was in vain: where the key is as it was, and the order is gone. A key
// that is not parked any more, or was parked anew since, has been unparked.
func (c *Consumer) outcome(ctx context.Context, key string, o unparkOrder) (done bool, cause string, err error) {
	var open, same bool
	err = c.pool.QueryRow(ctx, `SELECT wanted IS NOT DISTINCT FROM $3, parked_at = $4, cause FROM consumer.parked WHERE build = $1 AND key = $2`,
		o.Build, key, o.Attempt, o.ParkedAt).Scan(&open, &same, &cause)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return true, "", nil
	case err != nil || open:
		return false, "", err
	case !same:
		return true, "", nil
	}
	return true, cause, nil
}

// maxAnswerTime is the most that is set aside of a deadline for the way back to the client.
const maxAnswerTime = 200 * time.Millisecond

// Sooner ends a little before ctx does, so that the answer that says why can still reach the client.
func Sooner(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline.Add(-min(time.Until(deadline)/10, maxAnswerTime)))
}

// wish is an order to try a parked key again.
type wish struct {
	Key     string
	Attempt uuid.UUID
}

// shortAttempt is for how long a lane waits for a parked key to be folded before it goes on with others: most are by then.
const shortAttempt = 100 * time.Millisecond

// errOverdue ends an attempt.
var errOverdue = errors.New("its events can't be read in time, so the order is withdrawn: give it again when the event store has less to do, or rebuild the model")

// attempt is a parked key that is folded anew beside its lane, which has other keys to see to.
type attempt struct {
	wish
	refolding
	stop context.CancelFunc
	over chan struct{}
	err  error // once it is over
}

// begin begins an attempt, which lasts as long as the lane's work at most.
func (l *lane) begin(ctx context.Context, w wish) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), l.r.c.limits.unpark, errOverdue)
	a := &attempt{
		wish: w, refolding: l.r.shape.anew(newHistory(l.r.c.log, l.r.model.categories, w.Key)),
		stop: cancel, over: make(chan struct{}),
	}
	l.attempt = a
	upTo := l.position
	go func() {
		defer close(a.over)
		if a.err = a.fold(ctx, upTo); a.err != nil && errors.Is(context.Cause(ctx), errOverdue) {
			a.err = fmt.Errorf("%w (after %s: %w)", errOverdue, l.r.c.limits.unpark, a.err)
		}
	}()
	select {
	case <-a.over:
	case <-time.After(shortAttempt):
	}
}

// abandon ends the attempt, if there is one, without having decided on the order.
func (l *lane) abandon() {
	if l.attempt != nil {
		l.attempt.stop()
		<-l.attempt.over
		l.attempt = nil
	}
}

// grant tries those parked keys again of which an operator wants it, one after the other.
func (l *lane) grant(ctx context.Context) error {
	wishes := l.r.wishesOf(l)
	if l.attempt != nil && !slices.Contains(wishes, l.attempt.wish) {
		l.abandon()
	}
	for _, w := range wishes {
		if l.attempt == nil {
			l.begin(ctx, w)
		}
		if l.attempt.wish != w {
			continue
		}
		select {
		case <-l.attempt.over:
		default:
			return nil
		}
		if err := l.unpark(ctx, l.attempt); err != nil {
			return err
		}
		l.abandon()
		l.r.granted(w)
	}
	return nil
}

// unpark decides on an order: between two batches, so that the key misses no event and has none twice.
func (l *lane) unpark(ctx context.Context, a *attempt) error {
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	err := a.err
	if err == nil {
		err = a.fold(ctx, l.position) // what has come meanwhile
	}
	if err == nil {
		err = l.restore(ctx, a)
	}
	if !hopeless(err) {
		if err != nil {
			return fmt.Errorf("unpark %s: %w", a.Key, err)
		}
		delete(l.parked, a.Key)
		l.showParked()
		l.r.c.tell()
		l.r.c.notify.changed(l.r.model.rows(), a.Key)
		l.logger().Info("a key is unparked", "key", a.Key)
		return nil
	}
	l.logger().Warn("a key can't be unparked", "key", a.Key, "cause", err)
	_, err = l.r.c.pool.Exec(ctx, `UPDATE consumer.parked SET wanted = NULL, cause = $4 WHERE build = $1 AND key = $2 AND wanted = $3
		AND EXISTS (SELECT FROM consumer.checkpoints WHERE build = $1 AND owner = ANY ($5))`,
		l.r.name, a.Key, a.Attempt, storable(err.Error()), l.parts.owners())
	return err
}

// restore writes a parked key as it is up to the checkpoint. Its transaction is synced, unlike those of batches: the operator is
// told that it is done.
func (l *lane) restore(ctx context.Context, a *attempt) error {
	moved := false
	return pgx.BeginTxFunc(ctx, l.r.c.pool, brief, func(tx pgx.Tx) error {
		b := &batch{tx: tx, log: l.r.c.log, end: l.position, writes: &pgx.Batch{}}
		if err := a.write(ctx, b); err != nil {
			return err
		}
		b.writes.Queue(`DELETE FROM consumer.parked WHERE build = $1 AND key = $2`, l.r.name, a.Key)
		var fence parts
		for _, p := range l.parts {
			if p.number == partitionOf(a.Key) {
				fence = parts{p}
			}
		}
		fence.advance(b.writes, l.r.name, fence[0].position, l.last, nil, &moved) // to where it is
		if err := tx.SendBatch(ctx, b.writes).Close(); err != nil {
			return err
		}
		if !moved {
			return errFenced
		}
		return nil
	})
}

// hopeless tells whether to go on trying a key would be in vain: it is for the operator to say when to try again.
func hopeless(err error) bool {
	return errors.Is(err, errPoison) || errors.Is(err, errOverdue) || errors.Is(err, eventlog.ErrNewerVersion) || refused(err)
}
