//go:build unix

package pgtest_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/purserhq/purser/internal/localpostgres/pgtest"
)

func TestDatabasesAreApart(t *testing.T) {
	for _, name := range []string{"one", "another"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := pgx.Connect(t.Context(), pgtest.Database(t))
			if err != nil {
				t.Fatal(err)
			}
			// Left open: the drop must not wait for it.
			if _, err := conn.Exec(t.Context(), "CREATE TABLE mine (n int)"); err != nil {
				t.Error(err)
			}
			var tables int
			if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").Scan(&tables); err != nil || tables != 1 {
				t.Errorf("%d tables (%v), want 1", tables, err)
			}
		})
	}
}

func TestADatabaseIsGoneAfterItsTest(t *testing.T) {
	var address string
	t.Run("inner", func(t *testing.T) { address = pgtest.Database(t) })
	if conn, err := pgx.Connect(t.Context(), address); err == nil {
		t.Errorf("still there: %v", conn.Close(t.Context()))
	}
}
