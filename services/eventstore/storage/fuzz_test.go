package storage

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// Whatever is on disk, it is parsed or refused; what was parsed and is written again parses the same.
func FuzzRecord(f *testing.F) {
	e := proposal(1)[0]
	whole := appendRecord(nil, "a", 7, 1, &e)
	f.Add(whole)
	f.Add(whole[:len(whole)-2])
	f.Add([]byte{})
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add(mark{position: 3, closed: true}.encode())
	f.Add(head{revision: 1, position: 2}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := parseMark(b); err == nil {
			again, err := parseMark(m.encode())
			equal(t, "mark", again, m)
			equal(t, "mark's error", err, nil)
		}
		if h, err := parseHead(b); err == nil {
			again, err := parseHead(h.append(nil))
			equal(t, "head", again, h)
			equal(t, "head's error", err, nil)
		}
		if p, err := parsePosition(b); err == nil {
			again, err := parsePosition(appendPosition(nil, p))
			equal(t, "position", again, p)
			equal(t, "position's error", err, nil)
		}
		var rec, again Record
		if rec.parse(1, b) != nil {
			return
		}
		e := Proposed{ID: rec.ID, Type: string(rec.Type), JSON: rec.JSON, Metadata: rec.Metadata, Data: rec.Data}
		equal(t, "record's error", again.parse(1, appendRecord(nil, string(rec.Stream), rec.Revision, rec.Created, &e)), nil)
		equal(t, "record", again, rec)
	})
}

// A stream of bytes makes one directory of plain files, or none and nothing else.
func FuzzReceiveBackup(f *testing.F) {
	archive := func(headers ...tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			h.Mode = 0o600
			if err := w.WriteHeader(&h); err != nil {
				f.Fatal(err)
			}
			if _, err := w.Write(make([]byte, h.Size)); err != nil {
				f.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		return b.Bytes()
	}
	f.Add([]byte{})
	f.Add(archive(tar.Header{Name: "000002.log", Size: 9}, tar.Header{Name: markName, Size: markSize}))
	f.Add(archive(tar.Header{Name: markName}, tar.Header{Name: "x"}))
	f.Add(archive(tar.Header{Name: "../x", Size: 1}, tar.Header{Name: markName}))
	f.Add(archive(tar.Header{Name: "x", Typeflag: tar.TypeSymlink, Linkname: ".."}, tar.Header{Name: markName}))
	f.Fuzz(func(t *testing.T, b []byte) {
		parent := t.TempDir()
		err := ReceiveBackup(bytes.NewReader(b), filepath.Join(parent, "copy"), nil)
		made, rerr := os.ReadDir(parent)
		if rerr != nil {
			t.Fatal(rerr)
		}
		if (err == nil) != (len(made) == 1) || len(made) > 1 {
			t.Fatalf("%v, and there is %v", err, made)
		}
		if err != nil {
			return
		}
		entries, err := os.ReadDir(filepath.Join(parent, "copy"))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !e.Type().IsRegular() {
				t.Errorf("%s is no file", e.Name())
			}
		}
	})
}
