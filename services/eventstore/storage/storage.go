// Package storage is the event store's log on disk.
//
// It promises: an append is whole or absent, and once acknowledged it survives a crash of the process or the machine; the
// events of a stream have revisions 0, 1, 2, ... without gaps, which are never used again; the log has one order that never
// changes, and nothing is read, announced or confirmed as a repeat before it is safe on disk. A stream shows what its
// metadata says, at once; what it no longer shows is deleted from the disk a little later, from the stream's beginning on
// and all but its last event. Memory and start-up time don't grow with the log.
//
// How: a Pebble store holds each event under its position, an index from (stream, revision) to position, and each stream's
// head. Two goroutines write. The writer (writer.go) takes the appends that are waiting and decides each in turn against the
// state that those before it leave. The committer (commit.go) writes what it is handed as one batch with one sync, and only
// then answers; meanwhile the writer fills the next batch. Pebble shows a batch to readers before its log is synced, so every
// read stops at the position that was last synced; a position that a crash takes back has been seen by nobody. A third
// goroutine looks for what may be deleted (scavenge.go).
package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	formatVersion = 1

	memTableBytes = 16 << 20 // also bounds what a start after a crash has to replay
	// Pebble takes its memtables, of which there are up to three (one being filled, one being flushed, one kept for reuse),
	// out of the cache. What is left must hold the filters of all tables, or each append to a new stream reads some again.
	cacheBytes = 32<<20 + 3*memTableBytes
	blockBytes = 16 << 10
)

// ErrClosed is the answer to an append that a store had not begun to write when it was closed.
var ErrClosed = errors.New("the store is closed")

// Position is an event's place in the log. The first event has position 1; zero is before every event.
type Position uint64

// Revision is an event's place in its stream, from 0.
type Revision int64

// NoRevision stands for the last revision of a stream without events.
const NoRevision Revision = -1

// ID identifies an event. Stores compare it only within one stream.
type ID [16]byte

// Proposed is an event to append. Its slices must not be changed afterwards: an append that was given up may yet be written.
type Proposed struct {
	ID       ID
	Type     string
	JSON     bool
	Metadata []byte
	Data     []byte
}

// Record is a stored event. Its byte slices are the store's own: they must not be changed, nor used after the step of
// the iteration that gave them.
type Record struct {
	Position Position
	Revision Revision
	ID       ID
	JSON     bool
	Created  int64 // 100 ns ticks since the Unix epoch
	Stream   []byte
	Type     []byte
	Metadata []byte
	Data     []byte
}

// Commit describes one synced batch.
type Commit struct {
	Appends   int // the appends and deletions that it answered, refusals and repeats included
	Events    int
	Scavenged int // events deleted for good
	Bytes     int
	Sync      time.Duration // writing and syncing
}

// Hooks are told what happens in a store. Each may be nil.
type Hooks struct {
	Committed func(Commit)      // after every batch, on the committer's goroutine
	Damaged   func(file string) // the first time that a file is found damaged, on the goroutine that reads it
}

// Store is an open data directory. Its methods may be called by many goroutines at once.
type Store struct {
	dir    string
	files  vfs.FS
	db     *pebble.DB
	lock   *pebble.Lock
	marker marker
	backup sync.Mutex // held while a backup is taken
	synced atomic.Uint64
	queue  chan *request
	watch  watchers

	described atomic.Bool  // whether any stream has metadata
	now       func() int64 // in ticks, as Record.Created

	scavenger  *scavenger
	scavenging sync.WaitGroup

	stop     chan struct{}
	stopped  chan struct{}
	stopOnce sync.Once
}

// Open opens the store in dir, and makes one where there is none. The directory belongs to one process at a time. One that
// lacks what was acknowledged, or whose files are damaged, is refused and left as it is; damage inside a table that a start
// doesn't read is found when it is read, or by Verify. An error is one sentence for the operator.
func Open(dir string, log *slog.Logger, hooks Hooks) (*Store, error) {
	return open(vfs.Default, dir, log, hooks)
}

func open(files vfs.FS, dir string, log *slog.Logger, hooks Hooks) (*Store, error) {
	s, err := openIdle(files, ticks, dir, log, hooks)
	if err != nil {
		return nil, err
	}
	s.scavenging.Go(s.scavenger.run)
	return s, nil
}

// openIdle opens a store without a scavenger at work.
func openIdle(files vfs.FS, now func() int64, dir string, log *slog.Logger, hooks Hooks) (*Store, error) {
	lock, err := lockDir(files, dir)
	if err != nil {
		return nil, err
	}
	s := &Store{
		dir:     dir,
		files:   files,
		lock:    lock,
		queue:   make(chan *request, queueLength),
		now:     now,
		stop:    make(chan struct{}),
		stopped: make(chan struct{}),
	}
	s.scavenger = newScavenger(s, log)
	head, err := s.load(log, newDamageWatch(log, hooks.Damaged))
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	// Pebble syncs all that it recovers before it opens, so whatever is there is safe.
	s.synced.Store(uint64(head))
	w := newWriter(s, head, hooks.Committed)
	go func() {
		defer close(s.stopped)
		w.run()
	}()
	return s, nil
}

// load opens the log after a look at what there is, and finds the last event.
func (s *Store) load(log *slog.Logger, damage *damageWatch) (head Position, err error) {
	fresh, err := inspect(s.files, s.dir, log, s.lock)
	if err != nil {
		return 0, err
	}
	if fresh { // the mark comes before the log, so that a log without one has lost it
		if err := makeMark(s.files, s.dir); err != nil {
			return 0, fmt.Errorf("make the event store in %s: %w", s.dir, err)
		}
	}
	if err := s.files.RemoveAll(s.files.PathJoin(s.dir, checkpointName)); err != nil {
		return 0, fmt.Errorf("remove what a backup left: %w", err)
	}
	o := options(s.files, log, s.lock)
	o.EventListener = damage.listener()
	if s.db, err = pebble.Open(s.dir, o); err != nil {
		return 0, openError(s.dir, err)
	}
	head, err = s.prepare()
	if err == nil {
		s.marker, err = openMarker(s.files, s.dir, head)
	}
	if err != nil {
		return 0, errors.Join(fmt.Errorf("open the event store in %s: %w", s.dir, err), s.db.Close())
	}
	return head, nil
}

func lockDir(files vfs.FS, dir string) (*pebble.Lock, error) {
	if err := files.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the event store's directory: %w", err)
	}
	lock, err := pebble.LockDirectory(dir, files)
	var file *fs.PathError
	if errors.As(err, &file) {
		return nil, fmt.Errorf("lock the event store's directory: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("the event store's directory %s is in use by another process", dir)
	}
	return lock, nil
}

func options(files vfs.FS, log *slog.Logger, lock *pebble.Lock) *pebble.Options {
	o := &pebble.Options{
		CacheSize: cacheBytes,
		// The read that finds it fails, which is enough: without a listener Pebble would end the process.
		EventListener:      &pebble.EventListener{DataCorruption: func(pebble.DataCorruptionInfo) {}},
		FS:                 files,
		FormatMajorVersion: pebble.FormatNewest,
		Lock:               lock,
		Logger:             pebbleLogger{log},
		MemTableSize:       memTableBytes,
	}
	for i := range o.Levels {
		o.Levels[i].BlockSize = blockBytes
		// Most appends ask for a head that isn't there: that of a new stream, or of the one that would describe it.
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return o
}

// prepare checks or writes the format version, and recalls what the store has to know. It returns the last event.
func (s *Store) prepare() (Position, error) {
	err := view{Reader: s.db}.checkFormat()
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, s.db.Set(formatKey, strconv.AppendInt(nil, formatVersion, 10), pebble.Sync)
	}
	if err != nil {
		return 0, err
	}
	return s.recall()
}

// recall finds the last event, and whether any stream has metadata.
func (s *Store) recall() (Position, error) {
	head, err := lastPosition(s.db)
	if err != nil {
		return 0, err
	}
	err = view{Reader: s.db}.scan(headKey(metaPrefix), []byte{headPrefix + 1}, Forwards, func(key, _ []byte) (bool, error) {
		s.described.Store(bytes.HasPrefix(key, headKey(metaPrefix)))
		return false, nil
	})
	return head, err
}

func (v view) checkFormat() error {
	return v.get(formatKey, func(format []byte) error {
		if string(format) != strconv.Itoa(formatVersion) {
			return fmt.Errorf("it has format %s, but this program knows only format %d", format, formatVersion)
		}
		return nil
	})
}

// Head is the position of the last event that may be read, or 0.
func (s *Store) Head() Position { return Position(s.synced.Load()) }

// Close waits for the batch and the backup being written, refuses the appends that wait and releases the directory. No
// read may be in progress or follow.
func (s *Store) Close() error {
	s.stopOnce.Do(func() { close(s.stop) })
	<-s.stopped
	s.scavenging.Wait()
	s.backup.Lock() // for good: none may begin, and the last one has removed its files
	err := s.db.Close()
	if err == nil {
		err = s.marker.setClosed(s.Head())
	}
	return errors.Join(err, s.marker.file.Close(), s.lock.Close())
}

// pebbleLogger passes on what goes wrong; the rest of what Pebble says is of no use to an operator.
type pebbleLogger struct{ log *slog.Logger }

func (pebbleLogger) Infof(string, ...any) {}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.log.Error("event store: " + fmt.Sprintf(format, args...))
}

// Fatalf ends the process, as Pebble requires: after a failed write or sync nobody knows what is on disk until it is
// opened again.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.Errorf(format, args...)
	os.Exit(1)
}
