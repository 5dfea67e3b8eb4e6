package postgres_test

import (
	"strings"
	"testing"
	"time"

	"github.com/purserhq/purser/internal/localpostgres/pgtest"
	"github.com/purserhq/purser/internal/postgres"
)

func TestOpen(t *testing.T) {
	url := pgtest.Database(t)
	for _, c := range []struct {
		timeout time.Duration
		want    string
	}{{0, "0"}, {1500 * time.Millisecond, "1500ms"}} {
		pool, err := postgres.Open(url, "query", c.timeout)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		for setting, want := range map[string]string{"statement_timeout": c.want, "application_name": "purser-query"} {
			var got string
			if err := pool.QueryRow(t.Context(), "SHOW "+setting).Scan(&got); err != nil || got != want {
				t.Errorf("%s is %q (%v), want %q", setting, got, err, want)
			}
		}
	}
}

func TestOpenWhatIsDownOrNoURL(t *testing.T) {
	pool, err := postgres.Open("postgres://purser@127.0.0.1:1/purser", "query", 0)
	if err != nil {
		t.Fatalf("a server that is down: %v", err)
	}
	pool.Close()
	if _, err := postgres.Open("postgres://purser:hunter2@[", "query", 0); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a bad URL: %v", err)
	}
}
