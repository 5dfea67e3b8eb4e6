package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Pebble can't tell a log whose end was lost from one whose last writes never got that far: it stops reading its
// write-ahead log where a record is not whole. So the store keeps, in a file of its own, a mark: the position up to which
// appends were acknowledged. It is written after the log was synced and before the appends are answered, which makes it
// exact when only the process ends. It is not synced with every batch, so after a power failure it may lie behind, never
// ahead. A log that ends before the mark is damaged, and so is one without a mark, which is made before the log is.
//
// What the mark can't tell is a hole before the log's end: when a process is killed while Pebble writes a table, the events
// of that table are in an older file of the write-ahead log, beside the newer one that has the end. Pebble alone knows which
// files it still needs, their numbers have gaps of their own, and positions have gaps where events were scavenged. If such
// an older file goes missing, Verify notices it by the streams that go on after the hole.
const (
	markName = "ACKNOWLEDGED"
	markSize = 8 + 1 + 4 // position, whether the store was closed, checksum
)

// errNoMark says that the file is not there, or that nothing was ever written to it.
var errNoMark = fmt.Errorf("its file %s, which says what was acknowledged, is missing", markName)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// mark is what the file says.
type mark struct {
	position Position
	closed   bool // in good order
}

func (m mark) encode() []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, markSize), uint64(m.position))
	if m.closed {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func parseMark(b []byte) (mark, error) {
	if len(b) != markSize || crc32.Checksum(b[:markSize-4], castagnoli) != binary.BigEndian.Uint32(b[markSize-4:]) {
		return mark{}, fmt.Errorf("its file %s, which says what was acknowledged, is not whole", markName)
	}
	return mark{position: Position(binary.BigEndian.Uint64(b)), closed: b[8] == 1}, nil
}

// readMark reads a directory's mark. The error is errNoMark if it has none.
func readMark(files vfs.FS, dir string) (mark, error) {
	f, err := files.Open(files.PathJoin(dir, markName))
	if errors.Is(err, fs.ErrNotExist) {
		return mark{}, errNoMark
	}
	if err != nil {
		return mark{}, err
	}
	b, err := io.ReadAll(io.LimitReader(f, markSize+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return mark{}, err
	}
	if len(b) == 0 {
		return mark{}, errNoMark
	}
	return parseMark(b)
}

// marker keeps the mark of an open store.
type marker struct{ file vfs.File }

func openMarker(files vfs.FS, dir string, at Position) (marker, error) {
	f, err := files.OpenReadWrite(files.PathJoin(dir, markName), vfs.WriteCategoryUnspecified)
	if err != nil {
		return marker{}, err
	}
	m := marker{f}
	err = m.set(at)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = syncDir(files, dir)
	}
	if err != nil {
		return marker{}, errors.Join(err, f.Close())
	}
	return m, nil
}

// makeMark makes the mark of a store that has nothing yet.
func makeMark(files vfs.FS, dir string) error {
	m, err := openMarker(files, dir, 0)
	if err != nil {
		return err
	}
	return m.file.Close()
}

// set moves the mark, without a sync.
func (m marker) set(at Position) error {
	_, err := m.file.WriteAt(mark{position: at}.encode(), 0)
	return err
}

// setClosed notes that the store was closed in good order.
func (m marker) setClosed(at Position) error {
	_, err := m.file.WriteAt(mark{position: at, closed: true}.encode(), 0)
	return errors.Join(err, m.file.Sync())
}

func syncDir(files vfs.FS, dir string) error {
	d, err := files.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
