package postgres_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/purserhq/purser/internal/localpostgres/pgtest"
	"github.com/purserhq/purser/internal/postgres"
)

func TestOpen(t *testing.T) {
	database := pgtest.Database(t)
	for _, c := range []struct {
		timeout time.Duration
		want    string
	}{{0, "0"}, {1500 * time.Millisecond, "1500ms"}} {
		pool, err := postgres.Open(database, "query", c.timeout)
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

// Else a server would keep the locks of a client that is gone for up to two hours.
func TestAServerNoticesThatAClientIsGone(t *testing.T) {
	base, err := url.Parse(pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ key, value, keepalive, userTimeout string }{
		{"", "", "5", "10000"},
		{"tcp_keepalives_idle", "60", "60", "10000"},
		{"options", "-ctcp_user_timeout=7s", "5", "7000"},
	} {
		u := *base
		if q := u.Query(); c.key != "" {
			q.Set(c.key, c.value)
			u.RawQuery = q.Encode()
		}
		pool, err := postgres.Open(u.String(), "query", 0)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		for setting, want := range map[string]string{
			"tcp_keepalives_idle": c.keepalive, "tcp_user_timeout": c.userTimeout, "client_connection_check_interval": "5s",
		} {
			var got string
			if err := pool.QueryRow(t.Context(), "SHOW "+setting).Scan(&got); err != nil || got != want {
				t.Errorf("%s=%s: %s is %q (%v), want %q", c.key, c.value, setting, got, err, want)
			}
		}
	}
}

func TestTheURLSaysHowManyConnectionsThereMayBe(t *testing.T) {
	for url, want := range map[string]int32{
		"postgres://127.0.0.1:1/purser":                               10,
		"postgres://127.0.0.1:1/purser?pool_max_conns=3":              3,
		"host=127.0.0.1 port=1 dbname=purser pool_max_conns=40":       40,
		"postgres://127.0.0.1:1/purser?pool_max_conn_lifetime=1h0m0s": 10,
	} {
		pool, err := postgres.Open(url, "query", 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := pool.Config().MaxConns; got < want || want != 10 && got != want { // more on a machine with many cores
			t.Errorf("%s: %d connections, want %d", url, got, want)
		}
		pool.Close()
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
