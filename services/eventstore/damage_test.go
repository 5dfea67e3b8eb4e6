package eventstore_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/purserhq/purser/services/eventstore"
	"github.com/purserhq/purser/services/eventstore/storage"
)

// Damage that reads come upon is counted by file, and a read of it fails with one sentence.
func TestDamageIsCounted(t *testing.T) {
	dir := t.TempDir()
	damageTable(t, dir)
	reg := prometheus.NewRegistry()
	s, err := eventstore.Open(eventstore.Config{Dir: dir, Addr: "127.0.0.1:0"}, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	r := serve(t, s)
	c := connect(t, r.url())
	for range 2 {
		read, err := c.ReadAll(testContext(t), esdb.ReadAllOptions{Direction: esdb.Forwards, From: esdb.Start{}}, 10)
		if err != nil {
			t.Fatal(err)
		}
		_, err = read.Recv()
		read.Close()
		if err == nil || !strings.Contains(err.Error(), ".sst is damaged: block ") || strings.ContainsAny(err.Error(), "<\n") {
			t.Errorf("the read fails with %v", err)
		}
	}
	if _, body := get(t, r, "/metrics"); !strings.Contains(body, "purser_eventstore_damage_total 1\n") {
		t.Errorf("/metrics: %s", body)
	}
}

// damageTable makes a store in dir, with a table whose first block, of many, is damaged.
func damageTable(t *testing.T, dir string) {
	t.Helper()
	for range 2 { // the second start writes the table
		s, err := storage.Open(dir, slog.New(slog.DiscardHandler), storage.Hooks{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 300 {
			e := storage.Proposed{ID: storage.ID(uuid.New()), Type: "Happened", Data: []byte(uuid.NewString() + uuid.NewString())}
			if _, err := s.Append(testContext(t), fmt.Sprint("s-", i), storage.Any, []storage.Proposed{e}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) != 1 {
		t.Fatal(tables, err)
	}
	table, err := os.OpenFile(tables[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = table.WriteAt([]byte("damage"), 100)
	if err := errors.Join(err, table.Close()); err != nil {
		t.Fatal(err)
	}
}
