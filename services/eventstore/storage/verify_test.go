package storage

import (
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Each case changes a store in which "a" has the positions 1 2 5, "ab" 3, and "b" 4.
func TestVerify(t *testing.T) {
	value := func(p Position) []byte { return appendPosition(nil, p) }
	for _, tt := range []struct {
		name   string
		set    map[string][]byte
		remove [][]byte
		want   []string // in the findings, one each; none means sound
	}{
		{name: "untouched"},
		{name: "scavenged first revisions", remove: [][]byte{eventKey(1), eventKey(2), indexKey("a", 0), indexKey("a", 1)}},
		{
			name: "lost stream", remove: [][]byte{eventKey(3), indexKey("ab", 0)},
			want: []string{`the head of stream "ab" says revision 0, which is not in the stream's index`},
		},
		{
			name: "deleted for good",
			set: map[string][]byte{
				string(eventKey(6)):                  appendRecord(nil, "b", math.MaxInt64, 1, &Proposed{Type: "$streamDeleted"}),
				string(indexKey("b", math.MaxInt64)): value(6),
				string(headKey("b")):                 head{math.MaxInt64, 6}.append(nil),
			},
		},
		{
			name: "event without entry", remove: [][]byte{indexKey("a", 1)},
			want: []string{`the event at position 2, revision 1 of stream "a", is not in the stream's index`, `stream "a" goes on from revision 0 to 2`},
		},
		{
			name: "entry without event", remove: [][]byte{eventKey(4)},
			want: []string{`the index of stream "b" says that revision 0 is at position 4, where there is no event`},
		},
		{
			name: "gap", remove: [][]byte{eventKey(2), indexKey("a", 1)},
			want: []string{`stream "a" goes on from revision 0 to 2`},
		},
		{
			name: "lost last event", remove: [][]byte{eventKey(5), indexKey("a", 2)},
			want: []string{`stream "a" ends at revision 1, position 2, but its head says revision 2, position 5`, `head of stream "a" says revision 2`, "its log ends at position 4"},
		},
		{
			name: "wrong entry", set: map[string][]byte{string(indexKey("b", 0)): value(3)},
			want: []string{`revision 0 of stream "b" is the event at position 4, but the stream's index says position 3`, `stream "b" ends at`},
		},
		{
			name: "no head", remove: [][]byte{headKey("ab")},
			want: []string{`stream "ab" has events up to revision 0, but no head`},
		},
		{
			name: "damaged values",
			set: map[string][]byte{
				string(eventKey(3)):       {0},
				string(indexKey("b", 0)):  {},
				string(headKey("a")):      {2},
				string(headKey("gone")):   {},
				string(formatKey):         []byte("7"),
				string([]byte{'e', 1}):    {},
				string([]byte{'s', 1, 2}): {},
			},
			want: []string{
				"event at position 3", `index of stream "b" is damaged`, `head of stream "a" is damaged`, `head of stream "gone" is damaged`,
				"format 7", "no position", "no revision of a stream",
			},
		},
		{name: "unknown key", set: map[string][]byte{"q1": nil, "\xff": nil}, want: []string{`unknown kind 'q'`, `unknown kind 'ÿ'`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := vfs.NewMem()
			s := openFS(t, files, "db")
			mustAppend(t, s, "a", NoStream, proposal(2))
			mustAppend(t, s, "ab", NoStream, proposal(1))
			mustAppend(t, s, "b", NoStream, proposal(1))
			mustAppend(t, s, "a", 1, proposal(1))
			b := s.db.NewBatch()
			for key, value := range tt.set {
				if err := b.Set([]byte(key), value, nil); err != nil {
					t.Fatal(err)
				}
			}
			for _, key := range tt.remove {
				if err := b.Delete(key, nil); err != nil {
					t.Fatal(err)
				}
			}
			if err := b.Commit(pebble.Sync); err != nil {
				t.Fatal(err)
			}
			closeStore(t, s)
			r := verified(t, files)
			for _, want := range tt.want {
				if !strings.Contains(strings.Join(r.Findings, "\n"), want) {
					t.Errorf("no finding %q", want)
				}
			}
			if len(r.Findings) != len(tt.want) {
				t.Errorf("findings: %q", r.Findings)
			}
		})
	}
}

func TestVerifyReport(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	for i := range 10 {
		mustAppend(t, s, fmt.Sprint("s-", i), NoStream, proposal(i+1))
	}
	if _, err := Verify(dir, slog.New(slog.DiscardHandler), nil); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("verify of a store in use: %v", err)
	}
	closeStore(t, s)
	last := 0.0
	r, err := Verify(dir, slog.New(slog.DiscardHandler), func(done float64) {
		if done < last || done > 1 {
			t.Errorf("progress from %v to %v", last, done)
		}
		last = done
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Bytes == 0 || last != 1 {
		t.Errorf("%d bytes, progress %v", r.Bytes, last)
	}
	r.Bytes = 0
	equal(t, "report", *r, Report{Streams: 10, Events: 55, Head: 55, Acknowledged: 55})
	if _, err := Verify(t.TempDir(), slog.New(slog.DiscardHandler), nil); err == nil || !strings.Contains(err.Error(), "no event store") {
		t.Errorf("verify of an empty directory: %v", err)
	}
}

// A damaged block is one finding that names its table, whatever can't be read because of it. That the log ends early is
// said only where that is known.
func TestVerifyNamesADamagedTableOnce(t *testing.T) {
	d := tabled(t, 600)
	table := d.the(t, ".sst")
	for n := 0; n < len(d[table]); n += len(d[table])/15 + 1 {
		r := verified(t, d.flipped(table, n).files(t))
		if len(r.Findings) != 1 || r.Unlisted > 0 || !strings.HasPrefix(r.Findings[0], "the table "+table+" is damaged: ") {
			t.Errorf("bit flipped at %d of %d: %q", n, len(d[table]), r.Findings)
			continue
		}
		if text := r.Findings[0]; strings.ContainsAny(text, "<\n") || strings.Contains(text, "000000") {
			t.Errorf("bit flipped at %d of %d: %s", n, len(d[table]), text)
		}
	}
	beyond := d.with(markName, mark{position: 700, closed: true}.encode()).flipped(table, 0)
	r := verified(t, beyond.files(t))
	if len(r.Findings) != 2 || r.Findings[1] != lost(600, 700).Error() || !r.Unread {
		t.Errorf("a damaged block, and a lost end: %+v", r)
	}
}
