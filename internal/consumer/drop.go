package consumer

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
)

// dropAll removes every build and what is known of it; docs/operations.md has the same.
const dropAll = `
DO $$
DECLARE
  build text;
BEGIN
  IF to_regclass('consumer.builds') IS NOT NULL THEN
    FOR build IN SELECT builds.build FROM consumer.builds LOOP
      EXECUTE format('DROP SCHEMA IF EXISTS %I CASCADE', build);
    END LOOP;
  END IF;
  DROP SCHEMA IF EXISTS consumer CASCADE;
END $$;
`

// DropAll removes everything that consumers have derived, all models of all names, so that it is made anew from the log. No
// consumer may run meanwhile.
func DropAll(ctx context.Context, pool *pgxpool.Pool) error {
	if _, err := pool.Exec(ctx, dropAll); err != nil {
		return fmt.Errorf("drop what is derived: %w", err)
	}
	return nil
}
