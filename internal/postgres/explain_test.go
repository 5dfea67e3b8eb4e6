package postgres_test

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/purserhq/purser/internal/localpostgres"
	"github.com/purserhq/purser/internal/localpostgres/pgtest"
	"github.com/purserhq/purser/internal/postgres"
)

func TestExplainSaysWhereAndWhyInOneLine(t *testing.T) {
	server, err := localpostgres.Start(t.Context(), pgtest.Dir(t), slog.New(slog.DiscardHandler)) // which asks for a password, and has no TLS
	if err != nil {
		t.Fatal(err)
	}
	good, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(u *url.URL)) string {
		u := *good
		u.RawQuery = "" // which means TLS if the server has it
		change(&u)
		return u.String()
	}
	stranger, absent := url.UserPassword("stranger", "wrong"), "/absent"
	for name, c := range map[string]struct{ url, want string }{
		"a wrong password": {with(func(u *url.URL) { u.User = stranger }), good.Host + `: password authentication failed for user "stranger"`},
		"no such database": {with(func(u *url.URL) { u.Path = absent }), good.Host + `: database "absent" does not exist`},
		"nobody there":     {with(func(u *url.URL) { u.Host = "127.0.0.1:1" }), "127.0.0.1:1: connection refused"},
		"none of two":      {"host=127.0.0.1,127.0.0.2 port=1,1 user=a password=wrong dbname=b", "127.0.0.1:1, 127.0.0.2:1: connection refused"},
		"no TLS":           {with(func(u *url.URL) { u.RawQuery = "sslmode=require" }), good.Host + ": tls error: server refused TLS connection"},
	} {
		pool, err := postgres.Open(c.url, "query", 0)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		err = postgres.Explain(pool.Ping(t.Context()))
		if want := "no connection to Postgres at " + c.want; err == nil || err.Error() != want || !errors.As(err, new(*pgconn.ConnectError)) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	if err := postgres.Explain(context.Canceled); err != context.Canceled {
		t.Errorf("another error: %v", err)
	}
	if err := postgres.Explain(nil); err != nil {
		t.Errorf("no error: %v", err)
	}
}
