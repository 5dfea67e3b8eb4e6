package eventstore_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/uuid"

	"github.com/purserhq/purser/services/eventstore"
	"github.com/purserhq/purser/services/eventstore/storage"
)

func requestBackup(t *testing.T, addr string) *http.Response {
	t.Helper()
	resp, err := http.Get("http://" + addr + eventstore.BackupPath)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// A backup taken under load holds all that was acknowledged before it began, and starts.
func TestBackupUnderLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "eventstore")
	s := start(t, dir)
	var mu sync.Mutex
	acknowledged := []uuid.UUID{}
	const before = 400 // appends, until the backup is taken
	enough := make(chan struct{})
	ctx, stop := context.WithCancel(testContext(t))
	var wg sync.WaitGroup
	for w := range 8 {
		c := connect(t, s.url())
		wg.Go(func() {
			for {
				events := happened(2)
				_, err := c.AppendToStream(ctx, fmt.Sprint("load-", w), esdb.AppendToStreamOptions{ExpectedRevision: esdb.Any{}}, events...)
				if err != nil {
					return
				}
				mu.Lock()
				acknowledged = append(acknowledged, events[0].EventID, events[1].EventID)
				if len(acknowledged) == 2*before {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	<-enough
	mu.Lock()
	want := slices.Clone(acknowledged)
	mu.Unlock()
	copied := filepath.Join(t.TempDir(), "copy")
	err := storage.ReceiveBackup(requestBackup(t, s.Addr()).Body, copied, nil)
	stop()
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	report, err := storage.Verify(copied, slog.New(slog.DiscardHandler), nil)
	if err != nil || !report.Sound() {
		t.Fatalf("verify: %v, %+v", err, report)
	}
	got := map[uuid.UUID]bool{}
	for _, e := range readAll(t, connect(t, start(t, copied).url()), esdb.ReadAllOptions{From: esdb.Start{}}, math.MaxUint64) {
		got[e.Event.EventID] = true
	}
	for _, id := range want {
		if !got[id] {
			t.Fatalf("event %s is not among the %d of the backup", id, len(got))
		}
	}
	if len(got) != report.Events {
		t.Errorf("verify counted %d events, the server has %d", report.Events, len(got))
	}
	if left, err := filepath.Glob(filepath.Join(dir, "checkpoint*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestOneBackupAtATime(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	c := connect(t, s.url())
	for range 20 { // more than the buffers on the way take
		e := happened(1)
		e[0].Data = bytes.Repeat([]byte(uuid.NewString()), 1<<14)
		appendTo(t, c, "large", esdb.Any{}, e...)
	}
	first := requestBackup(t, s.Addr())
	if resp := requestBackup(t, s.Addr()); resp.StatusCode != http.StatusConflict {
		t.Errorf("a second backup: %s", resp.Status)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	if err := storage.ReceiveBackup(first.Body, copied, nil); err != nil {
		t.Error(err)
	}
	third := requestBackup(t, s.Addr())
	if third.StatusCode != http.StatusOK {
		t.Errorf("a third backup, after the first: %s", third.Status)
	}
	// The server stops although nobody receives it, and the receiver notices.
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if err := storage.ReceiveBackup(third.Body, filepath.Join(t.TempDir(), "third"), nil); err == nil {
		t.Error("a backup that was broken off looks whole")
	}
	if left, err := filepath.Glob(filepath.Join(dir, "checkpoint*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// What a crash during a backup leaves is removed at the next start.
func TestLeftOverCheckpointIsRemoved(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, "checkpoint.tmp")
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	start(t, dir)
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

// A stream that ends early, wherever, makes no directory.
func TestBackupCutOff(t *testing.T) {
	s := start(t, t.TempDir())
	appendTo(t, connect(t, s.url()), "s", esdb.Any{}, happened(3)...)
	whole, err := io.ReadAll(requestBackup(t, s.Addr()).Body)
	if err != nil {
		t.Fatal(err)
	}
	parent := t.TempDir()
	copied := filepath.Join(parent, "copy")
	const trailer = 3 * 512 // the padding of the last file and tar's own end, on which nothing depends
	for n := 0; n < len(whole)-trailer; n += 256 {
		if err := storage.ReceiveBackup(bytes.NewReader(whole[:n]), copied, nil); err == nil {
			t.Fatalf("%d of %d bytes look whole", n, len(whole))
		}
	}
	refused := errors.New("not sound")
	if err := storage.ReceiveBackup(bytes.NewReader(whole), copied, func(string) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := storage.ReceiveBackup(bytes.NewReader(whole), copied, nil); err != nil {
		t.Error(err)
	}
	if err := storage.ReceiveBackup(bytes.NewReader(whole), copied, nil); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("over an existing directory: %v", err)
	}
}

// A stream can't place files anywhere but in its directory, nor anything but files.
func TestHostileBackup(t *testing.T) {
	for _, h := range []tar.Header{
		{Name: "../escaped", Typeflag: tar.TypeReg},
		{Name: "/tmp/escaped", Typeflag: tar.TypeReg},
		{Name: "a/b", Typeflag: tar.TypeReg},
		{Name: `..\escaped`, Typeflag: tar.TypeReg},
		{Name: "..", Typeflag: tar.TypeReg},
		{Name: ".", Typeflag: tar.TypeDir},
		{Name: "dir", Typeflag: tar.TypeDir},
		{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"},
		{Name: "link", Typeflag: tar.TypeLink, Linkname: "../x"},
		{Name: "pipe", Typeflag: tar.TypeFifo},
		{Name: "", Typeflag: tar.TypeReg},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range []tar.Header{h, {Name: "ACKNOWLEDGED", Typeflag: tar.TypeReg}} {
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		parent := t.TempDir()
		err := storage.ReceiveBackup(&b, filepath.Join(parent, "copy"), nil)
		if err == nil {
			t.Errorf("%q of type %c was taken", h.Name, h.Typeflag)
		}
		if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
			t.Errorf("%q left behind: %v, %v", h.Name, left, err)
		}
	}
}
