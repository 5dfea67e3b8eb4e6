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

// Await waits until the rows have applied everything up to a position: those in the partition of a key, or all where key
// is "". When ctx ends first it fails with PROJECTION_LAG, and for a key that is parked with ENTITY_PARKED.
func (f *Fold[R]) Await(ctx context.Context, pool *pgxpool.Pool, key string, position eventlog.Position) error {
	return await(ctx, pool, source{buildName(f.Name, f.Version), f.Name, f.Version}, key, position)
}

// Await waits until the journal has applied everything up to a position, as [Fold.Await] does.
func (j *Journal[J]) Await(ctx context.Context, pool *pgxpool.Pool, key string, position eventlog.Position) error {
	return await(ctx, pool, source{buildName(j.Name, j.Version), j.Name, j.Version}, key, position)
}

// Await waits until the report has applied everything up to a position. A key that is parked is in it as it was before.
func (r *Report[R, C]) Await(ctx context.Context, pool *pgxpool.Pool, position eventlog.Position) error {
	return await(ctx, pool, source{buildName(r.Of.Name, r.Of.Version), r.Name, r.Version}, "", position)
}

// Await waits until the list has applied everything up to a position. A key that is parked is in it as it was before.
func (l *List[R, E]) Await(ctx context.Context, pool *pgxpool.Pool, position eventlog.Position) error {
	return await(ctx, pool, source{buildName(l.Of.Name, l.Of.Version), l.Name, l.Version}, "", position)
}

// source is the table that a reader was compiled with: what a build of another version has applied says nothing about it.
type source struct {
	build, name string
	version     int
}

// watermark is the position up to which everything is applied to a table, 0 where it was not made yet, and whether the key
// is parked.
func (s source) watermark(ctx context.Context, q querier, key string) (eventlog.Position, bool, error) {
	partition := -1
	if key != "" {
		partition = partitionOf(key)
	}
	rows, err := q.Query(ctx, `
		SELECT coalesce((SELECT min(position) FROM consumer.checkpoints WHERE build = $1 AND $4::int IN (-1, partition)
		                 AND EXISTS (SELECT FROM consumer.relations WHERE build = $1 AND name = $2 AND version = $3)), 0),
		       EXISTS (SELECT FROM consumer.parked WHERE build = $1 AND key = $5)`, s.build, s.name, s.version, partition, key)
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

func await(ctx context.Context, pool *pgxpool.Pool, s source, key string, position eventlog.Position) error {
	pause := firstLook
	for {
		reached, parked, err := s.watermark(ctx, pool, key)
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
