package consumer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/fault"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const (
	// Await looks again after pauses that grow from the first to the last.
	firstLook = 2 * time.Millisecond
	lastLook  = 25 * time.Millisecond
)

// Watermark is the position up to which everything is applied to a table, by its readers' name: to the partition of a
// key, or to all of them where key is "". It is 0 for a table that was not made yet.
func Watermark(ctx context.Context, q querier, name, key string) (eventlog.Position, error) {
	w, _, err := watermark(ctx, q, name, key)
	return w, err
}

func watermark(ctx context.Context, q querier, name, key string) (eventlog.Position, bool, error) {
	partition := -1
	if key != "" {
		partition = partitionOf(key)
	}
	rows, err := q.Query(ctx, `
		WITH live AS (SELECT build FROM consumer.relations WHERE name = $1 ORDER BY version DESC LIMIT 1)
		SELECT coalesce((SELECT min(position) FROM consumer.checkpoints JOIN live USING (build) WHERE $2::int IN (-1, partition)), 0),
		       EXISTS (SELECT FROM consumer.parked JOIN live USING (build) WHERE key = $3)`, name, partition, key)
	if err != nil {
		return 0, false, notMadeYet(err)
	}
	type answer struct {
		Position int64
		Parked   bool
	}
	a, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[answer])
	return eventlog.Position(a.Position), a.Parked, notMadeYet(err)
}

// notMadeYet: where no consumer has ever run there are no tables, and nothing is applied.
func notMadeYet(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && (pg.Code == "42P01" || pg.Code == "3F000") {
		return nil
	}
	return err
}

// Await waits until a table, by its readers' name, has applied everything up to a position: its partition of a key, or
// all of it where key is "". When ctx ends first it fails with PROJECTION_LAG, and for a key that is parked with ENTITY_PARKED.
func Await(ctx context.Context, pool *pgxpool.Pool, name, key string, position eventlog.Position) error {
	pause := firstLook
	for {
		reached, parked, err := watermark(ctx, pool, name, key)
		switch {
		case err == nil && parked:
			return fault.Down(typev1.ErrorReason_ERROR_REASON_ENTITY_PARKED, fmt.Sprintf("events of %q could not be applied; an operator is needed", key), nil)
		case err == nil && reached >= position:
			return nil
		case err != nil && ctx.Err() == nil:
			return err
		}
		select {
		case <-ctx.Done():
			return fault.Down(typev1.ErrorReason_ERROR_REASON_PROJECTION_LAG, "the read model has not reached the consistency token yet", ctx.Err())
		case <-time.After(pause):
			pause = min(2*pause, lastLook)
		}
	}
}
