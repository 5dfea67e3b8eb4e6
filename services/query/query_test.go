package query

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog/memorylog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/localpostgres/pgtest"
	"github.com/purserhq/purser/internal/postgres"
	"github.com/purserhq/purser/internal/readmodel"
)

// The service is ready once the projector has filled every table, and says which it lacks.
func TestReadyWhenEveryTableIsThere(t *testing.T) {
	pool, err := postgres.Open(pgtest.Database(t), "query", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	models := readmodel.NewQueries(pool, nil)
	var names []string
	for _, r := range readmodel.Replays() {
		names = append(names, r.Name)
	}
	missing := func(tables ...string) {
		t.Helper()
		err := ready(t.Context(), models)
		if err == nil {
			t.Fatalf("ready without %v", tables)
		}
		for _, table := range tables {
			if !strings.Contains(err.Error(), table) {
				t.Errorf("without %s: got %v", table, err)
			}
		}
	}
	missing(names...)

	projector := consumer.New(pool, memorylog.New(eventschema.New()), "projector", eventschema.Categories(), readmodel.Models(),
		slog.New(slog.DiscardHandler), consumer.NewMetrics(prometheus.NewRegistry()))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- projector.Run(ctx) }()
	for deadline := time.Now().Add(20 * time.Second); projector.Ready(ctx) != nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error("the projector does not get ready")
			break
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := ready(t.Context(), models); err != nil {
		t.Error(err)
	}

	for _, name := range names {
		if _, err := pool.Exec(t.Context(), "DELETE FROM consumer.relations WHERE partition = 7 AND name = $1", name); err != nil {
			t.Fatal(err)
		}
		missing(name)
	}
}

func TestWithoutPostgresTheReasonIsThat(t *testing.T) {
	pool, err := postgres.Open("postgres://purser:wrong@127.0.0.1:1/purser", "query", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	const want = "ask for the read models: no connection to Postgres at 127.0.0.1:1: connection refused"
	if err := ready(t.Context(), readmodel.NewQueries(pool, nil)); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
