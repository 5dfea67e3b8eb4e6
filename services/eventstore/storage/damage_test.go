package storage

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// disk is the contents of a store's directory by file name, as a process that is killed leaves it.
type disk map[string][]byte

// image copies the files of the directory "db", whose store may be open.
func image(t *testing.T, files vfs.FS) disk {
	t.Helper()
	names, err := files.List("db")
	if err != nil {
		t.Fatal(err)
	}
	d := disk{}
	for _, name := range names {
		f, err := files.Open(files.PathJoin("db", name))
		if err != nil {
			t.Fatal(err)
		}
		if d[name], err = io.ReadAll(f); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// with is the image with one file changed.
func (d disk) with(name string, content []byte) disk {
	changed := disk{}
	for n, c := range d {
		changed[n] = c
	}
	changed[name] = content
	return changed
}

func (d disk) without(name string) disk {
	changed := d.with(name, nil)
	delete(changed, name)
	return changed
}

// flipped is the image with one bit changed.
func (d disk) flipped(name string, at int) disk {
	content := bytes.Clone(d[name])
	content[at] ^= 1 << (at % 8)
	return d.with(name, content)
}

// files puts the image into a file system in memory.
func (d disk) files(t *testing.T) *vfs.MemFS {
	t.Helper()
	files := vfs.NewMem()
	if err := files.MkdirAll("db", 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range d {
		f, err := files.Create(files.PathJoin("db", name), vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(bytes.Clone(content)); err != nil { // it may change what it is given
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// the is the name of the only file that ends so.
func (d disk) the(t *testing.T, suffix string) string {
	t.Helper()
	var found []string
	for name := range d {
		if strings.HasSuffix(name, suffix) {
			found = append(found, name)
		}
	}
	if len(found) != 1 {
		t.Fatalf("files that end in %s: %v", suffix, found)
	}
	return found[0]
}

func (d disk) manifest(t *testing.T) string {
	t.Helper()
	for name := range d {
		if strings.HasPrefix(name, "MANIFEST-") {
			return name
		}
	}
	t.Fatal("no manifest")
	return ""
}

// open opens the image; on success the store must take appends, survive a restart and verify.
func (d disk) open(t *testing.T) ([]string, error) {
	t.Helper()
	files := d.files(t)
	s, err := open(files, "db", slog.New(slog.DiscardHandler), Hooks{})
	if err != nil {
		if after := image(t, files).without("LOCK"); !slices.EqualFunc(sorted(after), sorted(d.without("LOCK")), bytes.Equal) {
			t.Error("the refused directory was changed")
		}
		return nil, err
	}
	log := all(t, s, Forwards)
	mustAppend(t, s, "after", NoStream, proposal(1))
	closeStore(t, s)
	if r := verified(t, files); !r.Sound() || r.Events != len(log)+1 {
		t.Errorf("after opening: %+v", r)
	}
	return log, nil
}

func sorted(d disk) [][]byte {
	var out [][]byte
	for name, content := range d {
		out = append(out, fmt.Appendf(nil, "%s:%s", name, content))
	}
	slices.SortFunc(out, bytes.Compare)
	return out
}

func verified(t *testing.T, files vfs.FS) *Report {
	t.Helper()
	r, err := verify(files, "db", slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// refused opens a damaged image, which must fail with one sentence that names the directory.
func (d disk) refused(t *testing.T, what string) {
	t.Helper()
	_, err := d.open(t)
	if err == nil {
		t.Errorf("%s: the store opens", what)
		return
	}
	if s := err.Error(); !strings.Contains(s, "event store in db is damaged") || !strings.Contains(s, "restore a backup") || strings.Contains(s, "\n") {
		t.Errorf("%s: got %q", what, s)
	}
	if r := verified(t, d.files(t)); r.Sound() {
		t.Errorf("%s: verify finds nothing", what)
	}
}

// crashed is a directory as a kill leaves it: after the events that were acknowledged, and after one append more.
func crashed(t *testing.T) (before, after disk) {
	t.Helper()
	files := vfs.NewMem()
	s := openFS(t, files, "db")
	defer closeStore(t, s)
	mustAppend(t, s, "a", NoStream, proposal(2))
	mustAppend(t, s, "b", NoStream, proposal(1))
	before = image(t, files)
	mustAppend(t, s, "a", 1, proposal(2))
	return before, image(t, files)
}

// The end of the log was being written when the process was killed: what was acknowledged is there, and nothing else.
func TestTornTailThatWasNotAcknowledged(t *testing.T) {
	before, after := crashed(t)
	log := after.the(t, ".log")
	start, end := len(before[log]), len(after[log])
	acknowledged := []string{"1 a@0", "2 a@1", "3 b@0"}
	everything := append(slices.Clip(acknowledged), "4 a@2", "5 a@3")
	torn := after.with(markName, before[markName])
	check := func(what string, d disk, want []string) {
		t.Helper()
		got, err := d.open(t)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %v, %v, want %v", what, got, err, want)
		}
	}
	for n := start; n < end; n++ {
		check(fmt.Sprintf("cut at %d of %d", n, end), torn.with(log, after[log][:n]), acknowledged)
		check(fmt.Sprintf("bit flipped at %d of %d", n, end), torn.flipped(log, n), acknowledged)
	}
	for _, garbage := range []byte{0, 1, 0x5a, 0xff} {
		tail := bytes.Repeat([]byte{garbage}, 100)
		check(fmt.Sprintf("tail of %x", garbage), torn.with(log, append(bytes.Clone(before[log]), tail...)), acknowledged)
	}
	check("whole", torn, everything)
	check("whole and acknowledged", after, everything)
}

// The log has lost what was acknowledged, at its end or before it.
func TestDamagedLogIsRefused(t *testing.T) {
	before, after := crashed(t)
	log := after.the(t, ".log")
	for n := range after[log] {
		if n < len(before[log]) && n%7 != 0 {
			continue // each byte of the last record, a sample of the others
		}
		after.with(log, after[log][:n]).refused(t, fmt.Sprintf("cut at %d of %d", n, len(after[log])))
		after.flipped(log, n).refused(t, fmt.Sprintf("bit flipped at %d of %d", n, len(after[log])))
	}
	after.without(log).refused(t, "no log")
	for n := range after[markName] {
		after.flipped(markName, n).refused(t, fmt.Sprintf("bit of the mark flipped at %d", n))
	}
}

// tabled is a directory whose events are in a table, after a clean end.
func tabled(t *testing.T, events int) disk {
	t.Helper()
	files := vfs.NewMem()
	s := openFS(t, files, "db")
	for i := range events {
		mustAppend(t, s, fmt.Sprint("s-", i%3), Expected(i/3-1), proposal(1))
	}
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	return image(t, files)
}

func TestMissingFilesAreRefused(t *testing.T) {
	d := tabled(t, 30)
	table, manifest := d.the(t, ".sst"), d.manifest(t)
	d.without(table).refused(t, "no table")
	d.with(table, d[table][:len(d[table])-1]).refused(t, "short table")
	d.without(manifest).refused(t, "no manifest")
}

// Pebble takes some damage to its manifest for an end that was being written. The store is refused, unless all is there.
func TestDamagedManifest(t *testing.T) {
	d := tabled(t, 30)
	want, err := d.open(t)
	if err != nil {
		t.Fatal(err)
	}
	manifest := d.manifest(t)
	refused := 0
	check := func(what string, damaged disk) {
		t.Helper()
		got, err := damaged.open(t)
		switch {
		case err != nil:
			refused++
		case !slices.Equal(got, want):
			t.Errorf("%s: opens with %d events of %d", what, len(got), len(want))
		}
	}
	for n := range d[manifest] {
		check(fmt.Sprintf("cut at %d", n), d.with(manifest, d[manifest][:n]))
		check(fmt.Sprintf("bit flipped at %d", n), d.flipped(manifest, n))
	}
	if refused == 0 {
		t.Error("nothing was refused")
	}
}

// A damaged table is not read at a start; reads of what is damaged fail, and Verify finds it.
func TestDamagedTable(t *testing.T) {
	d := tabled(t, 60)
	want, err := d.open(t)
	if err != nil {
		t.Fatal(err)
	}
	table := d.the(t, ".sst")
	step := len(d[table])/20 + 1
	for n := 0; n < len(d[table]); n += step {
		damaged := d.flipped(table, n)
		if r := verified(t, damaged.files(t)); r.Sound() {
			t.Errorf("bit flipped at %d of %d: verify finds nothing", n, len(d[table]))
		}
		files := damaged.files(t)
		s, err := open(files, "db", slog.New(slog.DiscardHandler), Hooks{})
		if err != nil {
			continue
		}
		var got []string
		for rec, err := range s.ReadAll(0, Forwards) {
			if err != nil {
				got = want // said so
				break
			}
			got = append(got, fmt.Sprintf("%d %s@%d", rec.Position, rec.Stream, rec.Revision))
		}
		if !slices.Equal(got, want) {
			t.Errorf("bit flipped at %d of %d: read %d events, and no error", n, len(d[table]), len(got))
		}
		if err := s.Close(); err != nil {
			t.Log(err)
		}
	}
}

// A directory that lacks its manifest, as an incomplete copy does, is not taken for an empty one.
func TestDataWithoutAManifestIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	mustAppend(t, s, "s", NoStream, proposal(3))
	closeStore(t, s)
	for _, pattern := range []string{"marker.manifest*", markName} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(names) == 0 {
			t.Fatal(pattern, names, err)
		}
		for _, name := range names {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	before, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, slog.New(slog.DiscardHandler), Hooks{}); err == nil || !strings.Contains(err.Error(), "restore a backup") {
		t.Errorf("opened: %v", err)
	}
	if _, err := Verify(dir, slog.New(slog.DiscardHandler), nil); err == nil || !strings.Contains(err.Error(), "restore a backup") {
		t.Errorf("verified: %v", err)
	}
	if after, err := os.ReadDir(dir); err != nil || len(after) < len(before) {
		t.Errorf("%d files became %d, %v", len(before), len(after), err)
	}
}

// Without its mark a store doesn't know what was acknowledged, and is refused; one that was never whole has no mark yet.
func TestAStoreWithoutItsMarkIsRefused(t *testing.T) {
	_, written := crashed(t)
	empty := vfs.NewMem()
	closeStore(t, openFS(t, empty, "db"))
	for name, d := range map[string]disk{"in the log": written, "in a table": tabled(t, 30), "no event": image(t, empty)} {
		d.without(markName).refused(t, name)
		d.with(markName, nil).refused(t, name+", empty mark")
	}
	neither := written.without(written.the(t, ".log")).without(markName)
	neither.refused(t, "neither mark nor log")
	if r := verified(t, neither.files(t)); r.Unread {
		t.Errorf("no table is damaged: %+v", r)
	}
}

// A process that is killed while it makes a store leaves a directory that opens.
func TestAStoreThatWasBeingMadeOpens(t *testing.T) {
	var seen []disk
	disks := vfs.NewMem()
	inner := errorfs.Wrap(disks, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose {
			if _, err := disks.Stat("db"); err == nil {
				seen = append(seen, image(t, disks))
			}
		}
		return nil
	}))
	s := openFS(t, inner, "db")
	images := len(seen)
	closeStore(t, s)
	if images < 10 {
		t.Fatalf("only %d moments were seen", images)
	}
	for i, d := range seen[:images] {
		if got, err := d.open(t); err != nil || len(got) > 0 {
			t.Errorf("before write %d of %d: %d events, %v", i, images, len(got), err)
		}
	}
}

// Damage is told once for each file, whatever is read of it and however often; a read fails with one sentence.
func TestDamageIsToldOnce(t *testing.T) {
	d := tabled(t, 600)
	table := d.the(t, ".sst")
	var log bytes.Buffer
	var told []string
	damaged := func(file string) { told = append(told, file) }
	s, err := open(d.flipped(table, 1).files(t), "db", slog.New(slog.NewTextHandler(&log, nil)), Hooks{Damaged: damaged})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		var failed error
		for _, err := range s.ReadAll(0, Forwards) {
			failed = err
		}
		if failed == nil || !strings.HasPrefix(failed.Error(), "read the log: the table "+table+" is damaged: block ") || strings.ContainsAny(failed.Error(), "<\n") {
			t.Errorf("the read fails with %v", failed)
		}
	}
	closeStore(t, s)
	if len(told) != 1 || filepath.Base(told[0]) != table {
		t.Errorf("told of %q", told)
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
		t.Errorf("%d lines in the log: %s", n, &log)
	}
}
