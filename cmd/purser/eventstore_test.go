package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/uuid"
)

// runCommand runs a command of the tree in this process, and gives what it prints on standard output.
func runCommand(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := rootCommand()
	root.SetArgs(append(args, "--log-level", "error"))
	root.SetOut(&out)
	root.SetErr(&bytes.Buffer{})
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func wantLines(t *testing.T, out string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), line) {
			t.Errorf("no %q in\n%s", line, out)
		}
	}
}

// A backup of a running store is checked, and can be put in the store's place. Beside what the test appends, a store has
// four events in three streams: those of its users.
func TestEventstoreBackupAndVerify(t *testing.T) {
	dataDir, copied := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	store := startStore(t, dataDir, "127.0.0.1:0")
	appendEvents(t, store.addr, 3)

	out, err := runCommand(t, "eventstore", "backup", copied, "--url", "http://"+store.addr)
	if err != nil {
		t.Fatal(err)
	}
	wantLines(t, out, "events 7", "head position 7", "result sound", "the backup is in "+copied)
	if _, err := runCommand(t, "eventstore", "backup", copied+"1", "--url", store.addr); err != nil {
		t.Errorf("from an address without a scheme: %v", err)
	}
	if _, err := runCommand(t, "eventstore", "verify", dataDir); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("verify of a store in use: %v", err)
	}
	store.stop(t)
	_, err = runCommand(t, "eventstore", "backup", copied+"2", "--url", store.addr)
	if want := "back up the event store: the event store at " + store.addr + " does not answer: connection refused"; err == nil || err.Error() != want {
		t.Errorf("a backup of a store that doesn't run: %v", err)
	}
	for _, dir := range []string{dataDir, eventstoreDir(dataDir), copied} {
		out, err := runCommand(t, "eventstore", "verify", dir)
		if err != nil {
			t.Fatal(err)
		}
		wantLines(t, out, "streams 4", "events 7", "head position 7", "result sound")
	}
	if _, err := runCommand(t, "eventstore", "verify", t.TempDir()); err == nil || !strings.Contains(err.Error(), "no event store in") {
		t.Errorf("verify of nothing: %v", err)
	}

	restored := t.TempDir()
	if err := os.Rename(copied, eventstoreDir(restored)); err != nil {
		t.Fatal(err)
	}
	appendEvents(t, startStore(t, restored, "127.0.0.1:0").addr, 1)
}

func TestEventstoreVerifyNamesDamage(t *testing.T) {
	dataDir := t.TempDir()
	store := startStore(t, dataDir, "127.0.0.1:0")
	appendEvents(t, store.addr, 3)
	store.stop(t)
	logs, err := filepath.Glob(filepath.Join(eventstoreDir(dataDir), "*.log"))
	if err != nil || len(logs) != 1 {
		t.Fatal(logs, err)
	}
	if err := os.Truncate(logs[0], 100); err != nil {
		t.Fatal(err)
	}
	out, err := runCommand(t, "eventstore", "verify", dataDir)
	if err == nil || !strings.Contains(err.Error(), "restore a backup") {
		t.Errorf("got %v", err)
	}
	wantLines(t, out, "WRONG its log ends at position 0, but appends up to position 7 were acknowledged")
}

func appendEvents(t *testing.T, addr string, n int) {
	t.Helper()
	cfg, err := esdb.ParseConnectionString("esdb://" + addr + "?tls=false")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Logger = esdb.NoopLogging()
	client, err := esdb.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	for range n {
		e := esdb.EventData{EventID: uuid.New(), EventType: "Happened", ContentType: esdb.ContentTypeJson, Data: []byte(`{}`)}
		if _, err := client.AppendToStream(context.Background(), "s-1", esdb.AppendToStreamOptions{ExpectedRevision: esdb.Any{}}, e); err != nil {
			t.Fatal(err)
		}
	}
}
