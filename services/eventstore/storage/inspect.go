package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// inspect looks at a directory, changing nothing, before it is opened: opening throws away what it can't read. It
// refuses a log that lacks what was acknowledged, says how the store was left, and tells whether there is none yet.
func inspect(files vfs.FS, dir string, log *slog.Logger, lock *pebble.Lock) (fresh bool, err error) {
	found, err := pebble.Peek(dir, files)
	if err != nil {
		return false, openError(dir, err)
	}
	if !found.Exists {
		return true, inspectFresh(files, dir)
	}
	m, err := readMark(files, dir)
	if err != nil {
		return false, damaged(dir, err)
	}
	head, err := peek(files, dir, m, log, lock)
	if err != nil {
		return false, openError(dir, err)
	}
	if head < m.position {
		return false, damaged(dir, lost(head, m.position))
	}
	if !m.closed {
		log.Warn("the event store was not closed in good order; everything acknowledged is there",
			"acknowledged", uint64(m.position), "head", uint64(head))
	}
	return false, nil
}

// inspectFresh looks at a directory without a log, which may have had one.
func inspectFresh(files vfs.FS, dir string) error {
	m, err := readMark(files, dir)
	marked := err == nil
	if errors.Is(err, errNoMark) {
		err = nil
	}
	if err == nil {
		err = checkNothingLeft(files, dir, marked)
	}
	if err == nil && m.position > 0 {
		err = lost(0, m.position)
	}
	if err != nil {
		return damaged(dir, err)
	}
	return nil
}

// checkNothingLeft expects no data in a directory without a manifest: Pebble would take it for empty, and remove the data.
// A manifest that does not count yet is what a process leaves that was killed just after it had made the mark.
func checkNothingLeft(files vfs.FS, dir string, marked bool) error {
	names, err := files.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, tableSuffix) || strings.HasSuffix(name, ".log") || strings.HasPrefix(name, "MANIFEST-") && !marked {
			return fmt.Errorf("it has no manifest that says what belongs to it, but %s", name)
		}
	}
	return nil
}

func lost(head, acknowledged Position) error {
	return fmt.Errorf("its log ends at position %d, but appends up to position %d were acknowledged", head, acknowledged)
}

// peek finds the last event without writing to the directory.
func peek(files vfs.FS, dir string, m mark, log *slog.Logger, lock *pebble.Lock) (head Position, err error) {
	db, err := openReadOnly(files, dir, log, lock)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if m.closed {
		if err := checkStrayTables(files, dir, db); err != nil {
			return 0, err
		}
	}
	return lastPosition(db)
}

// checkStrayTables expects every table to be in use, which is so after a store was closed. Pebble takes a manifest with a
// damaged end for one that was being written, and would then delete the tables that the manifest no longer names.
func checkStrayTables(files vfs.FS, dir string, db *pebble.DB) error {
	tables, err := tablesOf(db)
	if err != nil {
		return err
	}
	used := make(map[string]bool, len(tables))
	for _, name := range tables {
		used[name] = true
	}
	names, err := files.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, tableSuffix) && !used[name] {
			return fmt.Errorf("its manifest does not name the table %s", name)
		}
	}
	return nil
}

const tableSuffix = ".sst"

// tablesOf gives the names of the files that hold the tables in use.
func tablesOf(db *pebble.DB) ([]string, error) {
	levels, err := db.SSTables()
	if err != nil {
		return nil, fmt.Errorf("list the tables: %w", err)
	}
	var names []string
	for _, level := range levels {
		for _, t := range level {
			names = append(names, t.BackingSSTNum.String()+tableSuffix)
		}
	}
	return names, nil
}

func openReadOnly(files vfs.FS, dir string, log *slog.Logger, lock *pebble.Lock) (*pebble.DB, error) {
	o := options(files, log, lock)
	o.ReadOnly = true
	return pebble.Open(dir, o)
}

func lastPosition(db pebble.Reader) (Position, error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: eventKey(0), UpperBound: eventEnd})
	if err != nil {
		return 0, err
	}
	var last Position
	if it.Last() {
		if len(it.Key()) != len(eventKey(0)) {
			return 0, errors.Join(errDamaged, it.Close())
		}
		last = eventPosition(it.Key())
	}
	return last, readError(it.Close()) // an error of the iteration is among those of Close
}

// openError says in one sentence why Pebble can't open a directory.
func openError(dir string, err error) error {
	var file *fs.PathError
	if errors.As(err, &file) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open the event store in %s: %w", dir, err)
	}
	return damaged(dir, err)
}

func damaged(dir string, reason error) error {
	return fmt.Errorf("the event store in %s is damaged: %w; restore a backup", dir, oneLine{reason})
}

// oneLine is an error whose text has no line breaks: Pebble's often has.
type oneLine struct{ error }

func (e oneLine) Error() string { return strings.Join(strings.Split(e.error.Error(), "\n"), ", ") }

func (e oneLine) Unwrap() error { return e.error }
