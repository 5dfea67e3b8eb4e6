package inventory

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/services/eventstore"
)

// newLog opens a log on an event store of its own.
func newLog(t *testing.T) *eventlog.Log {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	store, err := eventstore.Open(eventstore.Config{Dir: t.TempDir(), Addr: "127.0.0.1:0"}, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := store.Serve(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		wg.Wait()
	})
	log, err := eventlog.Open("esdb://"+store.Addr()+"?tls=false", eventschema.New(), quiet, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(log.Close)
	return log
}
