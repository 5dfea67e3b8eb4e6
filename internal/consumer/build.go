package consumer

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/migrate"
)

//go:embed migrations/*.sql
var migrations embed.FS

func migrateUp(ctx context.Context, pool *pgxpool.Pool) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	return migrate.Up(ctx, pool, "consumer", files)
}

var (
	// errFenced: somebody else owns a partition, or its checkpoint is not where it was thought to be.
	errFenced = errors.New("a checkpoint has moved or changed hands")
	// errForeign: the read models do not belong to this log; no retry cures it.
	errForeign = errors.New("read models and event log do not belong together")
)

// build is one set of tables of a model, in a Postgres schema of its own. The first one of a version is made when the version
// is first run; further ones beside it, when an operator wants the model rebuilt.
type build struct {
	name, model     string
	version, number int
	store           string // the identity of the event store that it is made from
	target          eventlog.Position
	// filled: it has come to its target, and has its indexes.
	filled bool
	// live: readers are sent to it. lived: they are or once were.
	live, lived bool
}

// buildName names a build of a model: its Postgres schema.
func buildName(model string, version, number int) string {
	return fmt.Sprintf("%s_v%d_b%d", model, version, number)
}

// firstBuild names the build that is made when a version of a model is first run.
func firstBuild(model string, version int) string { return buildName(model, version, 1) }

// builds reads what builds there are of the models' versions, those that are being removed left out.
func builds(ctx context.Context, q querier, models []Model) (map[string][]build, error) {
	names, versions := make([]string, len(models)), make([]int, len(models))
	for i, m := range models {
		names[i], versions[i] = m.name, m.version
	}
	rows, err := q.Query(ctx, `
		SELECT b.build, b.model, b.version, b.number, b.store, b.target, b.filled_at IS NOT NULL, l.build IS NOT NULL, b.lived_at IS NOT NULL
		FROM consumer.builds AS b JOIN unnest($1::text[], $2::integer[]) AS m (model, version) USING (model, version)
		LEFT JOIN consumer.live AS l USING (model, version, build)
		WHERE NOT b.dropping ORDER BY b.model, b.number`, names, versions)
	if err != nil {
		return nil, err
	}
	all := map[string][]build{}
	var b build
	_, err = pgx.ForEachRow(rows, []any{&b.name, &b.model, &b.version, &b.number, &b.store, &b.target, &b.filled, &b.live, &b.lived}, func() error {
		all[b.model] = append(all[b.model], b)
		return nil
	})
	return all, err
}

// makeBuild makes the next build of a model where wanted, asked for under a lock, says so: its tables, without the indexes,
// and a checkpoint at the beginning of the log for each partition.
func makeBuild(ctx context.Context, pool *pgxpool.Pool, log Log, m Model, wanted func(tx pgx.Tx, numbers []int) (bool, error)) error {
	store, err := log.Identity(ctx)
	if err != nil {
		return err
	}
	head, err := log.Head(ctx)
	if err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if err := lockBuilds(ctx, tx, m.name); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT number FROM consumer.builds WHERE model = $1 AND version = $2
			UNION SELECT dropped FROM consumer.live WHERE model = $1 AND version = $2`, m.name, m.version)
		if err != nil {
			return err
		}
		numbers, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil {
			return err
		}
		if ok, err := wanted(tx, numbers); err != nil || !ok {
			return err
		}
		number := nextNumber(numbers)
		name := buildName(m.name, m.version, number)
		if _, err := tx.Exec(ctx, `INSERT INTO consumer.builds (build, model, version, number, store, target) VALUES ($1, $2, $3, $4, $5, $6)`,
			name, m.name, m.version, number, store, head); err != nil {
			return err
		}
		for _, table := range []string{"checkpoints", "leases"} {
			if _, err := tx.Exec(ctx, `INSERT INTO consumer.`+table+` (build, partition) SELECT $1, unnest($2::smallint[])`, name, everyPartition()); err != nil {
				return err
			}
		}
		return makeTables(ctx, tx, name, m.open(name))
	})
	if err != nil {
		return fmt.Errorf("make a build of %s: %w", m.name, err)
	}
	return nil
}

func nextNumber(numbers []int) int { return slices.Max(append(numbers, 0)) + 1 }

func makeTables(ctx context.Context, tx pgx.Tx, build string, s shape) error {
	schema := pgx.Identifier{build}.Sanitize()
	for _, statement := range []string{"DROP SCHEMA IF EXISTS " + schema + " CASCADE", "CREATE SCHEMA " + schema} { // there may be one that nobody knows of
		if _, err := tx.Exec(ctx, statement); err != nil {
			return err
		}
	}
	for _, r := range s.relations() {
		if _, err := tx.Exec(ctx, r.table.create()); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO consumer.relations (build, partition, name, version) SELECT $1, unnest($2::smallint[]), $3, $4`,
			build, everyPartition(), r.name, r.version); err != nil {
			return err
		}
	}
	return nil
}

// belongsTo fails where the log is not the one that a place in the build was made from: another store, one that was wiped, or
// an older state of it that was restored, whether or not it has grown since.
func (b build) belongsTo(ctx context.Context, log Log, store string, position eventlog.Position, last anchor) error {
	head, err := log.Head(ctx)
	if err != nil {
		return err
	}
	has := b.store == store && position <= head
	if has && last != (anchor{}) {
		if has, err = log.Has(ctx, last.position, last.id); err != nil {
			return err
		}
	}
	if !has {
		return fmt.Errorf("%w: %s was built from another event store, or from a later state of this one; "+
			"drop what is derived and start again (docs/operations.md; purser dev --rebuild)", errForeign, b.model)
	}
	return nil
}

// finish makes the indexes of a build that has come to its target, and sends readers there where they have no other build of
// the version. It tells whether the build is filled now. If the process dies meanwhile, whoever comes next goes on.
func (c *Consumer) finish(ctx context.Context, m Model, b build) (filled bool, err error) {
	var reached bool
	if err := c.pool.QueryRow(ctx, `SELECT min(position) >= $2 FROM consumer.checkpoints WHERE build = $1`, b.name, b.target).Scan(&reached); err != nil || !reached {
		return false, err
	}
	conn, err := c.pool.Acquire(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Release()
	// One process does it. The lock ends with its connection.
	lock := "purser indexes of " + b.name
	var mine bool
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock(hashtextextended($1, 0))", lock).Scan(&mine); err != nil || !mine {
		return false, err
	}
	defer func() {
		if _, err := conn.Exec(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock(hashtextextended($1, 0))", lock); err != nil {
			_ = conn.Conn().Close(context.WithoutCancel(ctx))
		}
	}()
	for _, r := range m.open(b.name).relations() {
		for _, statement := range r.table.createIndexes() {
			if _, err := conn.Exec(ctx, statement); err != nil {
				return false, err
			}
		}
		if _, err := conn.Exec(ctx, "ANALYZE "+r.table.name); err != nil {
			return false, err
		}
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := lockBuilds(ctx, tx, m.name); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `UPDATE consumer.builds SET filled_at = clock_timestamp() WHERE build = $1 AND NOT dropping`, b.name)
		if filled = err == nil && tag.RowsAffected() == 1; !filled { // it may be being removed since
			return err
		}
		var first bool
		if err := tx.QueryRow(ctx, `WITH l AS (INSERT INTO consumer.live (model, version, build) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING 1)
			SELECT EXISTS (SELECT FROM l)`, b.model, b.version, b.name).Scan(&first); err != nil || !first {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE consumer.builds SET lived_at = clock_timestamp() WHERE build = $1`, b.name)
		return err
	})
	return filled && err == nil, err
}

// fillDerived fills the reports and lists that are not kept up to date for the lane's partitions yet, from the rows that are
// there, partition by partition. What the build has of a report or list that the model no longer has, or has in another
// version, is forgotten: nobody keeps it up to date.
func (l *lane) fillDerived(ctx context.Context) error {
	all := l.r.shape.relations()
	kept := make([]string, len(all))
	for i, r := range all {
		kept[i] = fmt.Sprintf("%s %d", r.name, r.version)
	}
	for _, r := range all[1:] {
		if err := l.makeDerived(ctx, r); err != nil {
			return fmt.Errorf("make %s: %w", r.name, err)
		}
	}
	for _, p := range l.parts {
		if err := pgx.BeginTxFunc(ctx, l.r.c.pool, brief, func(tx pgx.Tx) error { return l.fillPart(ctx, tx, p, all, kept) }); err != nil {
			return fmt.Errorf("fill what is derived for partition %d: %w", p.number, err)
		}
	}
	return nil
}

// makeDerived makes a derived table that nobody keeps up to date. One that was forgotten may still be there.
func (l *lane) makeDerived(ctx context.Context, r relation) error {
	known := func(q querier) (bool, error) {
		rows, err := q.Query(ctx, `SELECT EXISTS (SELECT FROM consumer.relations WHERE build = $1 AND name = $2 AND version = $3)
			AND to_regclass($4) IS NOT NULL`, l.r.name, r.name, r.version, r.table.name)
		if err != nil {
			return false, err
		}
		return pgx.CollectExactlyOneRow(rows, pgx.RowTo[bool])
	}
	if known, err := known(l.r.c.pool); err != nil || known {
		return err
	}
	return pgx.BeginFunc(ctx, l.r.c.pool, func(tx pgx.Tx) error {
		if err := lockBuilds(ctx, tx, l.r.model.name); err != nil {
			return err
		}
		if known, err := known(tx); err != nil || known {
			return err
		}
		for _, statement := range slices.Concat([]string{"DROP TABLE IF EXISTS " + r.table.name, r.table.create()}, r.table.createIndexes()) {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		// So that the next one finds it: partition -1 is nobody's.
		_, err := tx.Exec(ctx, `INSERT INTO consumer.relations (build, partition, name, version) VALUES ($1, -1, $2, $3)`, l.r.name, r.name, r.version)
		return err
	})
}

func (l *lane) fillPart(ctx context.Context, tx pgx.Tx, p part, all []relation, kept []string) error {
	// Nobody may make the table anew, or write the partition, meanwhile.
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock_shared(hashtextextended($1, 0))", buildsLock(l.r.model.name)); err != nil {
		return err
	}
	var owner uuid.UUID
	if err := tx.QueryRow(ctx, `SELECT owner FROM consumer.checkpoints WHERE build = $1 AND partition = $2 FOR UPDATE`, l.r.name, p.number).Scan(&owner); err != nil {
		return err
	}
	if owner != p.owner {
		return errFenced
	}
	if _, err := tx.Exec(ctx, "DELETE FROM consumer.relations WHERE build = $1 AND partition IN ($2, -1) AND name || ' ' || version <> ALL ($3)",
		l.r.name, p.number, kept); err != nil {
		return err
	}
	for _, r := range all[1:] {
		rows, err := tx.Query(ctx, `INSERT INTO consumer.relations (build, partition, name, version) VALUES ($1, $2, $3, $4)
			ON CONFLICT DO NOTHING RETURNING 1`, l.r.name, p.number, r.name, r.version)
		if err != nil {
			return err
		}
		added, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil {
			return err
		}
		if len(added) == 0 {
			continue
		}
		for _, setting := range []string{breakOff(batchTimeout), readWhole} { // what is filled is made in memory
			if _, err := tx.Exec(ctx, setting); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, fmt.Sprintf("DELETE FROM %s WHERE %s = $1", r.table.name, partitionColumn), p.number); err != nil {
			return err
		}
		if err := l.r.shape.backfill(ctx, tx, r.name, p.number); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}
