package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/uuid"
)

const testTimeout = 30 * time.Second

func openFS(t *testing.T, files vfs.FS, dir string) *Store {
	t.Helper()
	s, err := open(files, dir, slog.New(slog.NewTextHandler(io.Discard, nil)), Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func openStore(t *testing.T, dir string) *Store { return openFS(t, vfs.Default, dir) }

func closeStore(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// proposal makes events with fresh ids, whose data is their number.
func proposal(n int) []Proposed {
	events := make([]Proposed, n)
	for i := range events {
		events[i] = Proposed{
			ID: ID(uuid.New()), Type: "Happened", JSON: i%2 == 0,
			Metadata: []byte(`{"meta":true}`), Data: fmt.Append(nil, i),
		}
	}
	return events
}

func mustAppend(t *testing.T, s *Store, stream string, expected Expected, events []Proposed) Written {
	t.Helper()
	w, err := s.Append(t.Context(), stream, expected, events)
	if err != nil {
		t.Fatalf("append to %s at %d: %v", stream, expected, err)
	}
	return w
}

// all lists the log as "position stream@revision".
func all(t *testing.T, s *Store, dir Direction) []string {
	t.Helper()
	from := Position(0)
	if dir == Backwards {
		from = math.MaxUint64
	}
	var out []string
	for rec, err := range s.ReadAll(from, dir) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%d %s@%d", rec.Position, rec.Stream, rec.Revision))
	}
	return out
}

func revisions(t *testing.T, s *Store, stream string, from Revision, dir Direction) (out []Revision) {
	t.Helper()
	for rec, err := range s.ReadStream(stream, from, dir) {
		if errors.Is(err, ErrNoStream) {
			return nil
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, rec.Revision)
	}
	return out
}

func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Errorf("%s: got %s, want %s", what, g, w)
	}
}

func TestEventsReadBackAsTheyWereWritten(t *testing.T) {
	s := openStore(t, t.TempDir())
	defer closeStore(t, s)
	events := proposal(2)
	events[1].Metadata, events[1].Data = nil, nil
	before := time.Now().UnixNano() / 100
	equal(t, "written", mustAppend(t, s, "a-1", NoStream, events), Written{Revision: 1, Position: 2})

	i := 0
	for rec, err := range s.ReadStream("a-1", 0, Forwards) {
		if err != nil {
			t.Fatal(err)
		}
		e := events[i]
		got := Proposed{ID: rec.ID, Type: string(rec.Type), JSON: rec.JSON, Metadata: rec.Metadata, Data: rec.Data}
		equal(t, "event", got, e)
		equal(t, "place", fmt.Sprint(rec.Position, string(rec.Stream), rec.Revision), fmt.Sprint(i+1, "a-1", i))
		if now := time.Now().UnixNano() / 100; rec.Created < before || rec.Created > now {
			t.Errorf("created at %d, want within %d and %d", rec.Created, before, now)
		}
		i++
	}
	equal(t, "events", i, 2)
}

// Streams whose names are beginnings of one another, or hold the bytes that keys are made of, are kept apart.
func TestStreamsDoNotMix(t *testing.T) {
	s := openStore(t, t.TempDir())
	defer closeStore(t, s)
	names := []string{"a", "a-", "a-1", "a-1\x00", "a-11", "a-\U0010ffff", "a-1\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
	for i, name := range names {
		mustAppend(t, s, name, NoStream, proposal(i+1))
	}
	for i, name := range names {
		equal(t, name, len(revisions(t, s, name, 0, Forwards)), i+1)
		last, err := s.LastRevision(name)
		equal(t, name+" last", fmt.Sprint(last, err), fmt.Sprint(i, nil))
	}
}

func TestReadBoundaries(t *testing.T) {
	s := openStore(t, t.TempDir())
	defer closeStore(t, s)
	mustAppend(t, s, "a", NoStream, proposal(2))
	mustAppend(t, s, "b", NoStream, proposal(1))
	mustAppend(t, s, "a", 1, proposal(1))

	equal(t, "all", all(t, s, Forwards), []string{"1 a@0", "2 a@1", "3 b@0", "4 a@2"})
	equal(t, "all backwards", all(t, s, Backwards), []string{"4 a@2", "3 b@0", "2 a@1", "1 a@0"})
	equal(t, "from 1", revisions(t, s, "a", 1, Forwards), []Revision{1, 2})
	equal(t, "from 1 backwards", revisions(t, s, "a", 1, Backwards), []Revision{1, 0})
	equal(t, "from beyond the end", revisions(t, s, "a", 3, Forwards), []Revision{})
	equal(t, "from the last possible", revisions(t, s, "a", math.MaxInt64, Forwards), []Revision{})
	equal(t, "from beyond the end backwards", revisions(t, s, "a", math.MaxInt64, Backwards), []Revision{2, 1, 0})
	equal(t, "no such stream", revisions(t, s, "c", 0, Forwards), []Revision{})
	for range s.ReadAll(2, Forwards) {
		break // a read may be left early
	}
}

func TestRestartKeepsEverythingAndRecognisesRepeats(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	first, second := proposal(3), proposal(2)
	wrote := mustAppend(t, s, "a", NoStream, first)
	mustAppend(t, s, "a", 2, second)
	before := all(t, s, Forwards)
	closeStore(t, s)

	s = openStore(t, dir)
	defer closeStore(t, s)
	equal(t, "log", all(t, s, Forwards), before)
	equal(t, "repeat", mustAppend(t, s, "a", NoStream, first), wrote)
	equal(t, "repeated prefix", mustAppend(t, s, "a", NoStream, first[:2]), Written{Revision: 1, Position: 2})
	equal(t, "next", mustAppend(t, s, "b", NoStream, proposal(1)), Written{Revision: 0, Position: 6})
}

// A process that is killed leaves its files as they are: a copy of them, taken at any moment, opens with all that was
// acknowledged before.
func TestCopyOfAnOpenStoreOpens(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	defer closeStore(t, s)
	for i := range 20 {
		mustAppend(t, s, "a", Expected(i-1), proposal(1))
		if i%5 != 0 {
			continue
		}
		copied := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		c := openStore(t, copied)
		equal(t, "copied log", all(t, c, Forwards), all(t, s, Forwards))
		closeStore(t, c)
	}
}

// What was acknowledged survives the loss of everything that was not synced.
func TestPowerLoss(t *testing.T) {
	disk := vfs.NewCrashableMem()
	s := openFS(t, disk, "db")
	for i := range 10 {
		mustAppend(t, s, "a", Expected(i-1), proposal(3 - i%3)[:1])
	}
	want := all(t, s, Forwards)
	after := disk.CrashClone(vfs.CrashCloneCfg{})
	closeStore(t, s)

	s = openFS(t, after, "db")
	defer closeStore(t, s)
	equal(t, "log", all(t, s, Forwards), want)
}

// Pebble shows a batch as soon as it has begun to sync it; the store must not.
func TestNothingIsSeenBeforeItIsSynced(t *testing.T) {
	var syncing = make(chan struct{})
	var release = make(chan struct{})
	var armed sync.Mutex
	blocking := false
	files := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		armed.Lock()
		block := blocking && strings.HasSuffix(op.Path, ".log") &&
			(op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo)
		if block {
			blocking = false
		}
		armed.Unlock()
		if block {
			close(syncing)
			<-release
		}
		return nil
	}))
	s := openFS(t, files, "db")
	defer closeStore(t, s)
	goOn := sync.OnceFunc(func() { close(release) })
	defer goOn()
	mustAppend(t, s, "a", NoStream, proposal(1))
	w := s.Watch("a")
	defer w.Close()

	armed.Lock()
	blocking = true
	armed.Unlock()
	answers := make(chan answer, 4)
	begin := func(expected Expected, events []Proposed) {
		go func() {
			written, err := s.Append(context.Background(), "a", expected, events)
			answers <- answer{written, err}
		}()
	}
	first, second := proposal(2), proposal(1)
	begin(0, first)
	await(t, syncing)
	begin(0, first) // a repeat of what is being synced
	begin(2, second)
	begin(2, second) // both can be decided, and the repeat follows what it repeats
	published := func() bool {
		_, closer, err := s.db.Get(eventKey(3))
		return err == nil && closer.Close() == nil
	}
	eventually(t, "Pebble publishes the batch (else this test shows nothing)", published)
	equal(t, "head", s.Head(), 1)
	equal(t, "all", all(t, s, Forwards), []string{"1 a@0"})
	equal(t, "all backwards", all(t, s, Backwards), []string{"1 a@0"})
	equal(t, "stream", revisions(t, s, "a", 0, Forwards), []Revision{0})
	equal(t, "stream backwards", revisions(t, s, "a", math.MaxInt64, Backwards), []Revision{0})
	last, err := s.LastRevision("a")
	equal(t, "last", fmt.Sprint(last, err), "0 <nil>")
	select {
	case a := <-answers:
		t.Errorf("answered %v before the sync", a)
	case <-w.C:
		t.Error("announced before the sync")
	case <-time.After(100 * time.Millisecond): // for the writer to look at what waits
	}

	goOn()
	got := map[answer]int{}
	for range 4 {
		got[await(t, answers)]++
	}
	equal(t, "answers", got, map[answer]int{
		{written: Written{Revision: 2, Position: 3}}: 2,
		{written: Written{Revision: 3, Position: 4}}: 2,
	})
	await(t, w.C)
	equal(t, "head", s.Head(), 4)
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testTimeout); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

func await[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(testTimeout):
		t.Fatal("timed out")
	}
	return v
}

// Writers that race for the same streams lose no event, double none and leave no gap.
func TestConcurrentAppends(t *testing.T) {
	s := openStore(t, t.TempDir())
	defer closeStore(t, s)
	const writers, rounds, streams = 16, 30, 3
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range rounds {
				stream := fmt.Sprint("s-", (w+i)%streams)
				expected := NoStream
				for {
					_, err := s.Append(t.Context(), stream, expected, proposal(2))
					var conflict *ConflictError
					if !errors.As(err, &conflict) {
						if err != nil {
							t.Error(err)
						}
						break
					}
					expected = Expected(conflict.Current)
				}
			}
		})
	}
	wg.Wait()
	total, next := Position(0), map[string]Revision{}
	for rec, err := range s.ReadAll(0, Forwards) {
		if err != nil {
			t.Fatal(err)
		}
		total++
		equal(t, "position", rec.Position, total)
		equal(t, "revision", rec.Revision, next[string(rec.Stream)])
		next[string(rec.Stream)]++
	}
	equal(t, "events", int(total), writers*rounds*2)
}

func TestWatch(t *testing.T) {
	s := openStore(t, t.TempDir())
	defer closeStore(t, s)
	log, a, b := s.Watch(""), s.Watch("a"), s.Watch("b")
	mustAppend(t, s, "a", NoStream, proposal(1))
	await(t, log.C)
	await(t, a.C)
	select {
	case <-b.C:
		t.Error("woken by another stream")
	default:
	}
	for _, w := range []*Watcher{log, a, b} {
		w.Close()
	}
	equal(t, "watchers", len(s.watch.byStream), 0)
}

func TestDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	_, err := Open(dir, slog.New(slog.DiscardHandler), Hooks{})
	if err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("got %v", err)
	}
	closeStore(t, s)
	closeStore(t, openStore(t, dir))
}

func TestUnknownFormatIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	if err := s.db.Set(formatKey, []byte("2"), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	_, err := Open(dir, slog.New(slog.DiscardHandler), Hooks{})
	if err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("got %v", err)
	}
}

// Pebble takes its memtables out of the cache: one that is too small is none, and each new stream reads filters again.
func TestNewStreamsAreLookedUpInTheCache(t *testing.T) {
	s := openStore(t, t.TempDir())
	defer closeStore(t, s)
	const size = 256 << 10
	stream := 0
	appendNew := func() {
		events := proposal(1)
		events[0].Data = make([]byte, size)
		mustAppend(t, s, fmt.Sprintf("s-%d", stream), NoStream, events)
		stream++
	}
	for range 4 * memTableBytes / size { // until there are as many memtables as there can be
		appendNew()
	}
	eventually(t, "a memtable is flushed", func() bool { return s.db.Metrics().Flush.Count > 0 && s.db.Metrics().MemTable.Count == 1 })
	appendNew() // the first one after a flush reads what the others find
	before := s.db.Metrics().BlockCache.Hits
	const more = 10
	for range more {
		appendNew()
	}
	if hits := s.db.Metrics().BlockCache.Hits - before; hits < more {
		t.Errorf("%d streams were looked up with %d hits of the cache", more, hits)
	}
}

func TestAppendAfterClose(t *testing.T) {
	s := openStore(t, t.TempDir())
	closeStore(t, s)
	if _, err := s.Append(t.Context(), "a", Any, proposal(1)); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestDamagedRecordIsAnError(t *testing.T) {
	e := proposal(1)[0]
	whole := appendRecord(nil, "a", 7, 1, &e)
	for n := range len(whole) - len(e.Data) {
		if err := new(Record).parse(1, whole[:n]); !errors.Is(err, errDamaged) {
			t.Errorf("%d bytes of a record: got %v", n, err)
		}
	}
}
