package inventory

import (
	"log/slog"
	"testing"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/services/eventstore/eventstoretest"
)

// newLog opens a log on an event store of its own.
func newLog(t *testing.T) *eventlog.Log {
	t.Helper()
	log, err := eventlog.Open(eventstoretest.Start(t), eventschema.New(), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(log.Close)
	return log
}
