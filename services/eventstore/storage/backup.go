package storage

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A backup is a tar stream of the files of a directory as Open takes it. The mark comes last: a stream that ends before
// it was cut off. It says what was acknowledged when the backup began, so that Verify notices an end that is missing.

// checkpointName is the folder below the store's own in which a backup's files are linked while it is being sent.
const checkpointName = "checkpoint.tmp"

// ErrBackupRunning is the answer to a second backup at the same time.
var ErrBackupRunning = errors.New("another backup is being taken")

// Backup writes a backup of the store to w while the store goes on. Everything acknowledged before is in it.
func (s *Store) Backup(w io.Writer) (err error) {
	if !s.backup.TryLock() {
		return ErrBackupRunning
	}
	defer s.backup.Unlock()
	select {
	case <-s.stop:
		return ErrClosed
	default:
	}
	dir := s.files.PathJoin(s.dir, checkpointName)
	defer func() { err = errors.Join(err, s.files.RemoveAll(dir)) }()
	acknowledged := s.Head()
	if err := s.db.Checkpoint(dir); err != nil {
		return fmt.Errorf("checkpoint of the event store: %w", err)
	}
	if err := sendFiles(s.files, dir, w, mark{position: acknowledged, closed: true}); err != nil {
		return fmt.Errorf("send the backup: %w", err)
	}
	return nil
}

// sendFiles writes a directory's files and then the mark.
func sendFiles(files vfs.FS, dir string, w io.Writer, m mark) error {
	names, err := files.List(dir)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(w)
	for _, name := range names {
		if err := sendFile(files, files.PathJoin(dir, name), archive); err != nil {
			return err
		}
	}
	if err := archive.WriteHeader(header(markName, markSize)); err != nil {
		return err
	}
	if _, err := archive.Write(m.encode()); err != nil {
		return err
	}
	return archive.Close()
}

func sendFile(files vfs.FS, path string, archive *tar.Writer) error {
	f, err := files.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		err = archive.WriteHeader(header(files.PathBase(path), info.Size()))
	}
	if err == nil {
		_, err = io.Copy(archive, f)
	}
	return errors.Join(err, f.Close())
}

func header(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600}
}

// ReceiveBackup makes the directory dir, which must not exist, of a backup. It appears whole and synced, or not at all.
// check, if not nil, is given the directory, still under another name, before that.
func ReceiveBackup(r io.Reader, dir string, check func(dir string) error) (err error) {
	dir = filepath.Clean(dir)
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("%s exists already", dir), err)
	}
	parent := filepath.Dir(dir)
	partial, err := os.MkdirTemp(parent, filepath.Base(dir)+".partial-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(partial))
		}
	}()
	if err := receiveFiles(r, partial); err != nil {
		return err
	}
	if check != nil {
		if err := check(partial); err != nil {
			return err
		}
	}
	if err := syncDir(vfs.Default, partial); err != nil {
		return err
	}
	if err := os.Rename(partial, dir); err != nil {
		return err
	}
	return syncDir(vfs.Default, parent)
}

func receiveFiles(r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	archive := tar.NewReader(r)
	for last := ""; ; {
		h, err := archive.Next()
		switch {
		case errors.Is(err, io.EOF) && last == markName:
			return nil
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return errors.New("the backup was cut off")
		case err != nil:
			return err
		case last == markName, h.Typeflag != tar.TypeReg, !plainName(h.Name):
			return fmt.Errorf("the backup holds %q, which is no file of an event store", h.Name)
		}
		last = h.Name
		if err := receiveFile(root, h.Name, archive); err != nil {
			return err
		}
	}
}

// plainName says that a name is one of a file in this directory, here and on any other system.
func plainName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\\:\x00")
}

func receiveFile(root *os.Root, name string, r io.Reader) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the backup was cut off")
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
