//go:build unix

// Package pgtest gives tests databases on a real Postgres.
//
// The tests of a process share one server, which the first that asks starts, and which is gone with the process,
// however that ends; or they use the server that PURSER_TEST_POSTGRES_URL names, whose role must be allowed to create
// databases.
package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/purserhq/purser/internal/localpostgres"
	"github.com/purserhq/purser/internal/localpostgres/internal/reap"
)

const timeout = time.Minute

// Database makes an empty database for one test and returns its connection string. It is dropped when the test ends,
// with the connections that are still open.
func Database(t testing.TB) string {
	t.Helper()
	server, err := shared()
	if err != nil {
		t.Fatalf("start Postgres for the tests: %v", err)
	}
	address, err := url.Parse(server.url)
	if err != nil {
		t.Fatalf("the connection string of the test server: %v", err)
	}
	name := "test_" + strings.ToLower(rand.Text())
	if err := execute(server.url, "CREATE DATABASE "+name); err != nil {
		t.Fatalf("create a test database: %v", err)
	}
	t.Cleanup(func() {
		if err := execute(server.url, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop the test database: %v", err)
		}
	})
	address.Path = "/" + name
	return address.String()
}

// Dir makes a directory for one test that starts and kills Postgres servers of its own, itself or through other
// processes. What then still runs under it is killed and the directory removed when the test ends, however it ends.
func Dir(t testing.TB) string {
	t.Helper()
	return reap.Dir(t)
}

// server is where databases are made. It holds on to what keeps it running: the garbage collector closes the files
// of what nobody holds.
type server struct {
	url     string
	private *localpostgres.Server
	release func() error
}

// shared is the server of the process: tests of one package have nothing but the process in common. It has no stop;
// the end of the process is the only moment that comes after the last test for sure.
var shared = sync.OnceValues(func() (server, error) {
	if given := os.Getenv("PURSER_TEST_POSTGRES_URL"); given != "" {
		return server{url: given}, nil
	}
	dir, release, err := reap.New()
	if err != nil {
		return server{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	private, err := localpostgres.Start(ctx, dir, slog.New(slog.DiscardHandler))
	if err != nil {
		return server{}, errors.Join(err, release())
	}
	// Its data need not outlive the tests, and without waiting for the disk they are several times as fast.
	if err := execute(private.URL(),
		"ALTER SYSTEM SET fsync = off",
		"ALTER SYSTEM SET synchronous_commit = off",
		"ALTER SYSTEM SET full_page_writes = off",
		"SELECT pg_reload_conf()"); err != nil {
		return server{}, errors.Join(err, private.Stop(ctx), release())
	}
	return server{url: private.URL(), private: private, release: release}, nil
})

func execute(address string, statements ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	for _, statement := range statements {
		if _, err = conn.Exec(ctx, statement); err != nil {
			err = fmt.Errorf("%s: %w", statement, err)
			break
		}
	}
	return errors.Join(err, conn.Close(ctx))
}
