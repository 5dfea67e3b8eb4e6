package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const maxFindings = 100 // that are put into words; the rest is counted

// Report is what Verify found in a directory.
type Report struct {
	Streams      int // with events
	Emptied      int // streams of which all events have been scavenged
	Events       int
	Bytes        int64 // of events, before compression
	Head         Position
	Acknowledged Position // appends were acknowledged up to here
	Findings     []string // what is wrong, a sentence each; at most 100 of them
	Unlisted     int      // findings beyond those
	Unread       bool     // a damaged table hides a part of the log, and the counts leave it out

	damaged map[string]bool // tables that a finding names
}

// Sound says that nothing is wrong.
func (r *Report) Sound() bool { return len(r.Findings) == 0 }

func (r *Report) find(format string, args ...any) {
	finding := fmt.Sprintf(format, args...)
	switch {
	case slices.Contains(r.Findings, finding):
	case len(r.Findings) == maxFindings:
		r.Unlisted++
	default:
		r.Findings = append(r.Findings, finding)
	}
}

// unread takes note of what ended a check.
func (r *Report) unread(err error) {
	var file *fileError
	if !errors.As(err, &file) {
		r.find("%v", oneLine{err})
		return
	}
	r.Unread = true
	r.findDamage(file)
}

// findDamage names a damaged table once, whatever can't be read because of it.
func (r *Report) findDamage(file *fileError) {
	if !r.damaged[file.name] {
		r.damaged[file.name] = true
		r.find("%v", file)
	}
}

// Verify checks a directory that no process uses, and changes nothing in it: the checksum of every block on disk, that
// every event is where its stream's index says and the other way round, that a stream's revisions have no gap and end at
// its head, and that the log reaches as far as appends were acknowledged. The first revisions of a stream may be missing,
// having been scavenged, though never the last; that of a stream that was deleted for good is the greatest there is.
//
// progress, if not nil, is called with the share of the work that is done, from 0 to 1. Memory doesn't grow with the log.
// The error says that the directory could not be checked; what is wrong with it is in the report.
func Verify(dir string, log *slog.Logger, progress func(done float64)) (*Report, error) {
	return verify(vfs.Default, dir, log, progress)
}

func verify(files vfs.FS, dir string, log *slog.Logger, progress func(done float64)) (*Report, error) {
	if _, err := files.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no event store in %s: there is no such directory", dir)
	}
	found, err := pebble.Peek(dir, files)
	switch {
	case err != nil:
		return nil, fmt.Errorf("there is no event store in %s: %w", dir, oneLine{err})
	case !found.Exists:
		if err := inspectFresh(files, dir); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("there is no event store in %s", dir)
	}
	lock, err := lockDir(files, dir)
	if err != nil {
		return nil, err
	}
	v := verification{files: files, dir: dir, report: &Report{damaged: make(map[string]bool)}, progress: progress}
	if v.progress == nil {
		v.progress = func(float64) {}
	}
	return v.report, errors.Join(v.run(log, lock), lock.Close())
}

// verification is a check in progress.
type verification struct {
	files    vfs.FS
	dir      string
	db       *pebble.DB
	report   *Report
	progress func(done float64)
}

func (v *verification) run(log *slog.Logger, lock *pebble.Lock) (err error) {
	m, err := readMark(v.files, v.dir)
	if err != nil {
		v.report.find("%v", oneLine{err})
	}
	v.report.Acknowledged = m.position
	if v.db, err = openReadOnly(v.files, v.dir, log, lock); err != nil {
		v.report.find("the log can't be opened: %v", oneLine{err})
		return nil
	}
	defer func() { err = errors.Join(err, v.db.Close()) }()
	if m.closed {
		if err := checkStrayTables(v.files, v.dir, v.db); err != nil {
			v.report.find("%v", oneLine{err})
		}
	}
	if err := v.checkTables(); err != nil {
		return err
	}
	s := scanner{view: view{Reader: v.db}, report: v.report, progress: func(done float64) { v.progress((1 + 2*done) / 3) }}
	for _, check := range []func() error{s.checkVersion, s.checkPrefixes, s.checkEvents, s.checkStreams, s.checkHeads} {
		// A block that can't be read ends one scan early, but not the others.
		if err := check(); err != nil && !errors.Is(err, errUnread) {
			v.report.unread(err)
		}
	}
	if s.headKnown && v.report.Head < m.position {
		v.report.find("%v", lost(v.report.Head, m.position))
	}
	v.progress(1)
	return nil
}

// checkTables checks the checksum of every block of the tables in use.
func (v *verification) checkTables() error {
	tables, err := tablesOf(v.db)
	if err != nil {
		return err
	}
	for i, name := range tables {
		if err := v.checkTable(v.files.PathJoin(v.dir, name)); err != nil {
			v.report.findDamage(&fileError{name: name, cause: err})
		}
		v.progress(float64(i+1) / float64(3*len(tables)))
	}
	return nil
}

func (v *verification) checkTable(path string) error {
	f, err := v.files.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return err
	}
	source, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	o := options(v.files, slog.New(slog.DiscardHandler), nil)
	o.EnsureDefaults()
	r, err := sstable.NewReader(context.Background(), source, o.MakeReaderOptions())
	if err != nil {
		return errors.Join(err, source.Close())
	}
	return errors.Join(r.ValidateBlockChecksums(), r.Close())
}
