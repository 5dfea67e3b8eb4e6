package storage

import (
	"fmt"
	"testing"
)

// What every kind of change answers for a stream in every state. See also the model.
func TestDecisionsOnDeletedStreams(t *testing.T) {
	// "soft" had the ids 1 2 3 at the positions 1 to 3 and is deleted (4); "hard" had id 4 (5) and has a tombstone (6);
	// "meta" has only metadata (7).
	appended := func(s *Store, stream string, expected Expected) string {
		return outcome(s.Append(t.Context(), stream, expected, ids(9)))
	}
	deleted := func(s *Store, stream string, expected Expected) string {
		return outcomeAt(s.Delete(t.Context(), stream, expected))
	}
	tombstoned := func(s *Store, stream string, expected Expected) string {
		return outcomeAt(s.Tombstone(t.Context(), stream, expected))
	}
	for _, tt := range []struct {
		stream                    string
		expected                  Expected
		append, delete, tombstone string
	}{
		{"soft", Any, "3@8", "at 8", "at 8"},
		{"soft", NoStream, "3@8", "at 8", "at 8"},
		{"soft", StreamExists, "deleted", "deleted", "deleted"},
		{"soft", 2, "3@8", "at 8", "at 8"},
		{"soft", 1, "conflict at 2", "conflict at 2", "conflict at 2"},
		{"soft", 3, "conflict at 2", "conflict at 2", "conflict at 2"},
		{"hard", Any, "deleted", "deleted", "deleted"},
		{"hard", NoStream, "deleted", "deleted", "deleted"},
		{"hard", StreamExists, "deleted", "deleted", "deleted"},
		{"hard", 0, "deleted", "deleted", "deleted"},
		{"$$hard", Any, "deleted", "deleted", "deleted"},
		{"meta", Any, "0@8", "at 8", "at 8"},
		{"meta", NoStream, "0@8", "at 8", "at 8"},
		{"meta", StreamExists, "0@8", "at 8", "at 8"},
		{"meta", 0, "conflict at -1", "conflict at -1", "conflict at -1"},
		{"none", Any, "0@8", "conflict at -1", "at 8"},
		{"none", NoStream, "0@8", "conflict at -1", "at 8"},
		{"none", StreamExists, "conflict at -1", "conflict at -1", "conflict at -1"},
		{"none", 0, "conflict at -1", "conflict at -1", "conflict at -1"},
	} {
		for name, op := range map[string]struct {
			do   func(*Store, string, Expected) string
			want string
		}{"append": {appended, tt.append}, "delete": {deleted, tt.delete}, "tombstone": {tombstoned, tt.tombstone}} {
			t.Run(fmt.Sprintf("%s to %s at %d", name, tt.stream, tt.expected), func(t *testing.T) {
				s := idleStore(t)
				mustAppend(t, s, "soft", NoStream, ids(1, 2, 3))
				equal(t, "delete", deleted(s, "soft", Any), "at 4")
				mustAppend(t, s, "hard", NoStream, ids(4))
				equal(t, "tombstone", tombstoned(s, "hard", Any), "at 6")
				mustAppend(t, s, "$$meta", NoStream, ids(5))
				equal(t, "answer", op.do(s, tt.stream, tt.expected), op.want)
			})
		}
	}
}

// Undeleting keeps what else the metadata says, and what a later change of it says.
func TestUndeleteRewritesMetadata(t *testing.T) {
	for _, tt := range []struct {
		name   string
		stream string // that is written to
		data   string
		want   string
	}{
		{"by an append", "a", "", `{"$maxCount":7,"$tb":3,"mine":{"n":12345678901234567890}}`},
		{"by metadata", "$$a", `{"$maxCount":8}`, `{"$maxCount":8,"$tb":3}`},
		{"by metadata that deletes it", "$$a", `{"$tb":9223372036854775807,"x":[1]}`, `{"$tb":3,"x":[1]}`},
		{"by what is not metadata", "$$a", `[]`, `[]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := idleStore(t)
			mustAppend(t, s, "a", NoStream, proposal(3))
			deletion := metadataEvent(`{"$maxCount":7,"mine":{"n":12345678901234567890},"$tb":9223372036854775807}`)
			mustAppend(t, s, "$$a", NoStream, deletion)
			equal(t, "deleted", revisions(t, s, "a", 0, Forwards), []Revision{})
			e := proposal(1)
			e[0].JSON, e[0].Data = true, []byte(tt.data)
			mustAppend(t, s, tt.stream, Any, e)
			equal(t, "metadata", lastData(t, s, "$$a"), tt.want)
		})
	}
}

func lastData(t *testing.T, s *Store, stream string) (data string) {
	t.Helper()
	for rec, err := range s.ReadStream(stream, deletedRevision, Backwards) {
		if err != nil {
			t.Fatal(err)
		}
		return string(rec.Data)
	}
	return ""
}

// A stream of metadata can have a tombstone of its own; then nothing can describe the stream any more.
func TestTombstoneOfMetadata(t *testing.T) {
	s := idleStore(t)
	mustAppend(t, s, "a", NoStream, proposal(3))
	mustAppend(t, s, "$$a", NoStream, metadataEvent(`{"$maxCount":1}`))
	equal(t, "tombstone", outcomeAt(s.Tombstone(t.Context(), "$$a", Any)), "at 5")
	equal(t, "shown", revisions(t, s, "a", 0, Forwards), []Revision{0, 1, 2})
	equal(t, "delete", outcomeAt(s.Delete(t.Context(), "a", Any)), "deleted")
	equal(t, "append", outcome(s.Append(t.Context(), "a", 2, ids(1))), "3@6")
	scavengeAll(t, s)
	consistent(t, s)
}
