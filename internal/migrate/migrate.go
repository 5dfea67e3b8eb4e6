// Package migrate brings a Postgres schema up to date.
package migrate

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// Up makes the schema where it does not exist and applies the migrations (files *.sql of goose) that it lacks. Any number
// of processes may do so at once: an advisory lock lets one go first, and leaves the others nothing to do.
func Up(ctx context.Context, pool *pgxpool.Pool, schema string, files fs.FS) (err error) {
	db := stdlib.OpenDBFromPool(pool)
	defer func() { err = errors.Join(err, db.Close()) }()

	quoted := pgx.Identifier{schema}.Sanitize()
	id := lockID(schema)
	// CREATE SCHEMA IF NOT EXISTS can fail when two try at once, so it waits for its turn as well.
	if _, err := pool.Exec(ctx, fmt.Sprintf(`DO $$ BEGIN
		IF to_regnamespace('%s') IS NULL THEN
			PERFORM pg_advisory_xact_lock(%d);
			CREATE SCHEMA IF NOT EXISTS %s;
		END IF;
	END $$`, quoted, id+1, quoted)); err != nil {
		return fmt.Errorf("make schema %s: %w", schema, err)
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(id), lock.WithLockTimeout(1, 60))
	if err != nil {
		return fmt.Errorf("migrate %s: %w", schema, err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithTableName(schema+".goose_db_version"), goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("migrate %s: %w", schema, err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate %s: %w", schema, err)
	}
	return nil
}

// lockID is one for each schema, so that the migrations of others do not wait.
func lockID(schema string) int64 {
	h := fnv.New64a()
	h.Write([]byte("purser migrations of " + schema))
	return int64(h.Sum64() >> 2)
}
