package consumer

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/migrate"
)

// partitions is fixed for the life of a build: a key's partition must never change.
const partitions = 16

// partitionOf spreads keys over the partitions.
func partitionOf(key string) int {
	h := fnv.New32a()
	h.Write([]byte(key))
	return int(h.Sum32() % partitions)
}

// takeTimeout bounds the taking over of a model, with the filling of new reports.
const takeTimeout = 10 * time.Minute

//go:embed migrations/*.sql
var migrations embed.FS

func migrateUp(ctx context.Context, pool *pgxpool.Pool) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	return migrate.Up(ctx, pool, "consumer", files)
}

// errFenced: somebody else owns the checkpoint, or it is not where it was thought to be.
var errFenced = errors.New("the checkpoint has moved or changed hands")

// errForeign: the read models do not belong to this log; no retry cures it.
var errForeign = errors.New("read models and event log do not belong together")

// checkpoint is how far a build has come, and the token that says that it is ours.
type checkpoint struct {
	build    string
	position eventlog.Position
	last     anchor
	store    string // that it belongs to
	owner    uuid.UUID
}

// anchor is the last event up to a checkpoint; the zero one where there was none.
type anchor struct {
	position eventlog.Position
	id       uuid.UUID
}

// take makes a model's build where there is none, makes it ours under a token never used before, and returns where to
// go on. It is committed synchronously: after a crash of Postgres nobody may hold an older token.
func take(ctx context.Context, pool *pgxpool.Pool, log Log, m Model) (c checkpoint, parked map[string]time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, takeTimeout)
	defer cancel()
	store, err := log.Identity(ctx)
	if err != nil {
		return c, nil, err
	}
	if c, err = read(ctx, pool, m.build); err != nil {
		return c, nil, fmt.Errorf("read the checkpoint of %s: %w", m.name, err)
	}
	if err := c.belongsTo(ctx, log, store, m.name); err != nil {
		return c, nil, err
	}
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		// Two that take at once must not both make the tables.
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", "purser build "+m.build); err != nil {
			return err
		}
		c.owner = uuid.New()
		if _, err := tx.Exec(ctx, `INSERT INTO consumer.checkpoints (build, partition, owner, store)
			SELECT $1, p, $2, $3 FROM generate_series(0, $4 - 1) AS p ON CONFLICT DO NOTHING`, m.build, c.owner, store, partitions); err != nil {
			return err
		}
		// They move together; should one have been set back, all go back with it.
		if _, err := tx.Exec(ctx, `UPDATE consumer.checkpoints SET owner = $2, position = $3, event_position = $4, event_id = $5 WHERE build = $1`,
			m.build, c.owner, c.position, c.last.position, c.last.id); err != nil {
			return err
		}
		if err := makeTables(ctx, tx, m); err != nil {
			return err
		}
		parked, err = parkedKeys(ctx, tx, m.build)
		return err
	})
	if err != nil {
		return c, nil, fmt.Errorf("take over %s: %w", m.name, err)
	}
	return c, parked, nil
}

// read returns the checkpoint of a build, the zero one where there is none yet.
func read(ctx context.Context, q querier, build string) (checkpoint, error) {
	c := checkpoint{build: build}
	rows, err := q.Query(ctx, `SELECT position, event_position, event_id, store FROM consumer.checkpoints
		WHERE build = $1 ORDER BY position LIMIT 1`, build)
	if err != nil {
		return c, err
	}
	_, err = pgx.ForEachRow(rows, []any{&c.position, &c.last.position, &c.last.id, &c.store}, func() error { return nil })
	return c, err
}

// belongsTo fails where the log is not the one that the checkpoint was made from: another store, one that was wiped, or an
// older state of it that was restored, whether or not it has grown since.
func (c checkpoint) belongsTo(ctx context.Context, log Log, store, model string) error {
	if c.store == "" {
		return nil
	}
	head, err := log.Head(ctx)
	if err != nil {
		return err
	}
	has := c.store == store && c.position <= head
	if has && c.last != (anchor{}) {
		if has, err = log.Has(ctx, c.last.position, c.last.id); err != nil {
			return err
		}
	}
	if !has {
		return fmt.Errorf("%w: %s was built from another event store, or from a later state of this one; "+
			"drop what is derived and start again (docs/operations.md; purser dev --rebuild)", errForeign, model)
	}
	return nil
}

// makeTables makes the tables that are missing, and fills those that are derived. What the build has of a report or list
// that the model no longer has, or has in another version, is forgotten: nobody will keep it up to date.
func makeTables(ctx context.Context, tx pgx.Tx, m Model) error {
	var kept []string
	for _, r := range m.shape.relations() {
		kept = append(kept, fmt.Sprintf("%s %d", r.name, r.version))
	}
	if _, err := tx.Exec(ctx, "DELETE FROM consumer.relations WHERE build = $1 AND name || ' ' || version <> ALL ($2)", m.build, kept); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+pgx.Identifier{m.build}.Sanitize()); err != nil {
		return err
	}
	for i, r := range m.shape.relations() {
		var known bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM consumer.relations WHERE name = $1 AND version = $2 AND build = $3)`,
			r.name, r.version, m.build).Scan(&known); err != nil {
			return err
		}
		if known {
			continue
		}
		// A table that was forgotten may still be there.
		for _, statement := range append([]string{"DROP TABLE IF EXISTS " + r.table.name}, r.table.create()...) {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		if i > 0 {
			if err := m.shape.backfill(ctx, tx, r.name); err != nil {
				return fmt.Errorf("fill %s: %w", r.name, err)
			}
		}
		if _, err := tx.Exec(ctx, `INSERT INTO consumer.relations (name, version, build) VALUES ($1, $2, $3)`, r.name, r.version, m.build); err != nil {
			return err
		}
	}
	return nil
}

// parkedKeys are the keys that are parked, and since when.
func parkedKeys(ctx context.Context, tx pgx.Tx, build string) (map[string]time.Time, error) {
	rows, err := tx.Query(ctx, `SELECT key, parked_at FROM consumer.parked WHERE build = $1`, build)
	if err != nil {
		return nil, err
	}
	parked := map[string]time.Time{}
	var key string
	var since time.Time
	_, err = pgx.ForEachRow(rows, []any{&key, &since}, func() error {
		parked[key] = since
		return nil
	})
	return parked, err
}

// advance moves the checkpoint of every partition, if it still is where it was and ours.
func (c *checkpoint) advance(b *pgx.Batch, to eventlog.Position, last anchor, moved *bool) {
	b.Queue(`UPDATE consumer.checkpoints SET position = $4, event_position = $5, event_id = $6 WHERE build = $1 AND owner = $2 AND position = $3`,
		c.build, c.owner, c.position, to, last.position, last.id).
		Query(func(rows pgx.Rows) error {
			rows.Close()
			*moved = rows.CommandTag().RowsAffected() == partitions
			return rows.Err()
		})
}
