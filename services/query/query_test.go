package query

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/purserhq/purser/internal/localpostgres/pgtest"
	"github.com/purserhq/purser/internal/readmodel"
)

func TestOpen(t *testing.T) {
	if _, err := open(Config{PostgresURL: "postgres://["}); err == nil {
		t.Error("a bad URL is accepted")
	}
	pool, err := open(Config{PostgresURL: pgtest.Database(t), MaxConns: 3, StatementTimeout: 1500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var timeout string
	if err := pool.QueryRow(t.Context(), "SHOW statement_timeout").Scan(&timeout); err != nil || timeout != "1500ms" {
		t.Errorf("statement timeout: got %s, %v", timeout, err)
	}
	if got := pool.Config().MaxConns; got != 3 {
		t.Errorf("got %d connections", got)
	}
}

func TestReadyWhenEveryTableIsThere(t *testing.T) {
	pool, err := open(Config{PostgresURL: pgtest.Database(t)})
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
