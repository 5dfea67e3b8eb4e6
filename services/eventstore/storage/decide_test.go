package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"
)

// ids makes events with these ids.
func ids(list ...byte) []Proposed {
	events := make([]Proposed, len(list))
	for i, id := range list {
		events[i] = Proposed{ID: ID{id}, Type: "Happened"}
	}
	return events
}

func TestDecisions(t *testing.T) {
	// The stream "s" holds the ids 1 2 3 at the positions 1 2 3; "$$m" holds 9 at position 4.
	const conflict = "conflict at "
	for _, tt := range []struct {
		name     string
		stream   string
		expected Expected
		events   []Proposed
		want     string
	}{
		{"exact, last", "s", 2, ids(4), "3@5"},
		{"exact, ahead", "s", 3, ids(4), conflict + "2"},
		{"exact, far ahead", "s", Exactly(1 << 63), ids(4), conflict + "2"},
		{"exact, behind", "s", 1, ids(4), conflict + "2"},
		{"exact, no stream", "n", 0, ids(4), conflict + "-1"},
		{"exact, repeat", "s", 0, ids(2, 3), "2@3"},
		{"exact, repeated prefix", "s", 0, ids(2), "1@2"},
		{"exact, repeat and more", "s", 1, ids(3, 4), conflict + "2"},
		{"exact, second differs", "s", 0, ids(2, 4), conflict + "2"},
		{"exact, ids of elsewhere", "n", NoStream, ids(1), "0@5"},
		{"exact, same id twice", "s", 2, ids(4, 4), "4@6"},
		{"exact, empty", "s", 2, nil, "2@0"},
		{"exact, empty, behind", "s", 1, nil, conflict + "2"},
		{"exact, empty, ahead", "s", 3, nil, conflict + "2"},
		{"no stream, new", "n", NoStream, ids(4, 5), "1@6"},
		{"no stream, exists", "s", NoStream, ids(4), conflict + "2"},
		{"no stream, repeat", "s", NoStream, ids(1, 2, 3), "2@3"},
		{"no stream, repeated prefix", "s", NoStream, ids(1), "0@1"},
		{"no stream, repeat and more", "s", NoStream, ids(1, 2, 3, 4), conflict + "2"},
		{"no stream, empty", "n", NoStream, nil, "-1@0"},
		{"no stream, empty, exists", "s", NoStream, nil, conflict + "2"},
		{"any, new", "n", Any, ids(4), "0@5"},
		{"any, exists", "s", Any, ids(4), "3@5"},
		{"any, repeat", "s", Any, ids(1, 2), "1@2"},
		{"any, repeat and more", "s", Any, ids(3, 4), conflict + "2"},
		{"any, ids of elsewhere", "n", Any, ids(1), "0@5"},
		{"any, empty", "s", Any, nil, "2@0"},
		{"any, empty, no stream", "n", Any, nil, "-1@0"},
		{"exists", "s", StreamExists, ids(4), "3@5"},
		{"exists, does not", "n", StreamExists, ids(4), conflict + "-1"},
		{"exists, as metadata only", "m", StreamExists, ids(4), "0@5"},
		{"exists, repeat", "s", StreamExists, ids(3), "2@3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := openFS(t, vfs.NewMem(), "db")
			defer closeStore(t, s)
			mustAppend(t, s, "s", NoStream, ids(1, 2, 3))
			mustAppend(t, s, "$$m", NoStream, ids(9))
			equal(t, "answer", describe(s.Append(t.Context(), tt.stream, tt.expected, tt.events)), tt.want)
		})
	}
}

// describe writes an answer as "revision@position" or "conflict at revision".
func describe(w Written, err error) string {
	var conflict *ConflictError
	switch {
	case errors.As(err, &conflict):
		return fmt.Sprintf("conflict at %d", conflict.Current)
	case err != nil:
		return err.Error()
	}
	return fmt.Sprintf("%d@%d", w.Revision, w.Position)
}

// Appends at exact revisions, with restarts between them, answer as a list of ids would.
func TestExactAppendsMatchAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		files := vfs.NewMem()
		open := func() *Store {
			s, err := open(files, "db", slog.New(slog.DiscardHandler), Hooks{})
			if err != nil {
				rt.Fatal(err)
			}
			return s
		}
		s := open()
		defer func() { _ = s.Close() }()
		model, log := map[string][]place{}, Position(0)
		written := map[string][]ID{}
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			if rapid.IntRange(0, 9).Draw(rt, "restart") == 0 {
				if err := s.Close(); err != nil {
					rt.Fatal(err)
				}
				s = open()
			}
			stream := rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "stream")
			expected := rapid.Int64Range(-1, 6).Draw(rt, "expected")
			events := ids(rapid.SliceOfN(rapid.ByteRange(1, 3), 1, 3).Draw(rt, "ids")...)

			have, next := model[stream], int(expected+1)
			want := fmt.Sprintf("conflict at %d", len(have)-1)
			switch {
			case next == len(have):
				for i, e := range events {
					log++
					model[stream] = append(model[stream], place{Written: Written{Revision(next + i), log}})
					written[stream] = append(written[stream], e.ID)
				}
				want = describe(model[stream][len(model[stream])-1].Written, nil)
			case next < len(have) && hasPrefix(written[stream][next:], events):
				want = describe(have[next+len(events)-1].Written, nil)
			}
			if got := describe(s.Append(t.Context(), stream, Expected(expected), events)); got != want {
				rt.Fatalf("append of %v to %s at %d: got %s, want %s", events, stream, expected, got, want)
			}
		}
	})
}

func hasPrefix(have []ID, events []Proposed) bool {
	if len(events) > len(have) {
		return false
	}
	for i, e := range events {
		if have[i] != e.ID {
			return false
		}
	}
	return true
}
