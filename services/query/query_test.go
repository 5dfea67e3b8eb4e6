package query

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/purserhq/purser/internal/localpostgres/pgtest"
	"github.com/purserhq/purser/internal/postgres"
	"github.com/purserhq/purser/internal/readmodel"
)

func TestReadyWhenEveryTableIsThere(t *testing.T) {
	pool, err := postgres.Open(pgtest.Database(t), "query", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for _, table := range readmodel.Tables() {
		if err := ready(t.Context(), pool); err == nil || !strings.Contains(err.Error(), table) {
			t.Errorf("without %s: got %v", table, err)
		}
		create(t, pool, table)
	}
	if err := ready(t.Context(), pool); err != nil {
		t.Error(err)
	}
}

func create(t *testing.T, pool *pgxpool.Pool, table string) {
	t.Helper()
	if schema, _, ok := strings.Cut(table, "."); ok {
		if _, err := pool.Exec(t.Context(), "CREATE SCHEMA IF NOT EXISTS "+schema); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := pool.Exec(t.Context(), "CREATE TABLE "+table+" ()"); err != nil {
		t.Fatal(err)
	}
}
