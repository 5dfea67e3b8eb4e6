// Package eventstoretest gives tests event stores of their own.
package eventstoretest

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"github.com/purserhq/purser/services/eventstore"
)

// Start runs an empty event store for one test, and returns its connection string.
func Start(t testing.TB) string {
	t.Helper()
	store, err := eventstore.Open(eventstore.Config{Dir: t.TempDir(), Addr: "127.0.0.1:0"}, slog.New(slog.DiscardHandler), nil)
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
	return "esdb://" + store.Addr() + "?tls=false"
}
