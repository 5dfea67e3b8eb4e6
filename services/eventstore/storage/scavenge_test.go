package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// idleStore is a store whose scavenger works only when the test says so.
func idleStore(t *testing.T) *Store {
	t.Helper()
	s, err := openIdle(vfs.NewMem(), ticks, "db", slog.New(slog.DiscardHandler), Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

func metadataEvent(json string) []Proposed {
	e := proposal(1)
	e[0].JSON, e[0].Data = true, []byte(json)
	return e
}

// listed are the streams on the scavenger's list.
func listed(t *testing.T, s *Store) []string {
	t.Helper()
	out := []string{}
	v := view{Reader: s.db}
	err := v.scan(workStart, workEnd, Forwards, func(key, _ []byte) (bool, error) {
		_, stream := parseWorkKey(key)
		out = append(out, stream)
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// consistent checks what always holds: an event and its place in the index are there together or not at all, and what is
// there of a stream reaches to its head without a gap.
func consistent(t *testing.T, s *Store) {
	t.Helper()
	v := s.snapshot()
	defer v.Close()
	events, heads := map[string][]Revision{}, map[string]Revision{}
	count := 0
	err := errors.Join(
		v.scan(eventKey(0), eventEnd, Forwards, func(key, value []byte) (bool, error) {
			var rec Record
			err := rec.parse(eventPosition(key), value)
			events[string(rec.Stream)] = append(events[string(rec.Stream)], rec.Revision)
			count++
			return true, errors.Join(err, v.get(indexKey(string(rec.Stream), rec.Revision), func([]byte) error { return nil }))
		}),
		v.scan([]byte{indexPrefix}, []byte{indexPrefix + 1}, Forwards, func(_, value []byte) (bool, error) {
			p, err := parsePosition(value)
			count--
			return true, errors.Join(err, v.event(p, func(*Record) error { return nil }))
		}),
		v.scan([]byte{headPrefix}, []byte{headPrefix + 1}, Forwards, func(key, value []byte) (bool, error) {
			h, err := parseHead(value)
			heads[string(key[1:])] = h.revision
			return true, err
		}))
	if err != nil || count != 0 {
		t.Fatalf("the index and the events differ: %v, by %d", err, count)
	}
	for stream, revisions := range events {
		end := len(revisions) - 1
		if revisions[end] != heads[stream] {
			t.Fatalf("%s ends at %d, but its head says %d", stream, revisions[end], heads[stream])
		}
		if heads[stream] == deletedRevision {
			end--
		}
		for i := 1; i <= end; i++ {
			if revisions[i] != revisions[i-1]+1 {
				t.Fatalf("%s has a gap: %v", stream, revisions)
			}
		}
	}
}

// A long stream is deleted in bounded steps, from its beginning on.
func TestScavengingIsDoneInSteps(t *testing.T) {
	s := idleStore(t)
	const events = 3*sweepEvents + 7
	mustAppend(t, s, "long", NoStream, proposal(events))
	mustAppend(t, s, "short", NoStream, proposal(2))
	mustAppend(t, s, "$$long", NoStream, metadataEvent(`{"$maxCount":5}`))
	mustAppend(t, s, "$$short", NoStream, metadataEvent(`{"$maxCount":1}`))
	for left := len(all(t, s, Forwards)); ; {
		wait, err := s.scavenger.sweep()
		if err != nil {
			t.Fatal(err)
		}
		consistent(t, s)
		equal(t, "shown", revisions(t, s, "long", 0, Forwards), []Revision{events - 5, events - 4, events - 3, events - 2, events - 1})
		now := len(all(t, s, Forwards))
		if left-now > sweepEvents {
			t.Fatalf("%d events deleted at once", left-now)
		}
		if left = now; wait > 0 {
			break
		}
	}
	equal(t, "left", len(all(t, s, Forwards)), 5+1+2)
	equal(t, "listed", listed(t, s), []string{})
	equal(t, "read on from a position that is gone", fmt.Sprint(positionsFrom(t, s, 3)[0]), fmt.Sprint(events-4))
}

func positionsFrom(t *testing.T, s *Store, from Position) (out []Position) {
	t.Helper()
	for rec, err := range s.ReadAll(from, Forwards) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, rec.Position)
	}
	return out
}

// What a change of metadata shows again while the scavenger is about to delete it is not deleted.
func TestScavengingYieldsToNewMetadata(t *testing.T) {
	s := idleStore(t)
	mustAppend(t, s, "a", NoStream, proposal(4))
	mustAppend(t, s, "$$a", NoStream, metadataEvent(`{"$maxCount":1}`))
	found, _, err := s.scavenger.look()
	if err != nil || len(found.streams) != 1 || len(found.streams[0].events) != 3 {
		t.Fatalf("found %+v, %v", found, err)
	}
	mustAppend(t, s, "$$a", 0, metadataEvent(`{"$maxCount":3}`))
	if _, err := s.do(t.Context(), found); err != nil {
		t.Fatal(err)
	}
	equal(t, "shown", revisions(t, s, "a", 0, Forwards), []Revision{1, 2, 3})
	scavengeAll(t, s)
	equal(t, "left", all(t, s, Forwards), []string{"2 a@1", "3 a@2", "4 a@3", "6 $$a@1"})
}

// What is appended while the scavenger is at work is found by its next sweep.
func TestScavengingSeesLaterAppends(t *testing.T) {
	s := idleStore(t)
	mustAppend(t, s, "a", NoStream, proposal(4))
	mustAppend(t, s, "$$a", NoStream, metadataEvent(`{"$maxCount":2}`))
	found, _, err := s.scavenger.look()
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, "a", 3, proposal(2))
	if _, err := s.do(t.Context(), found); err != nil {
		t.Fatal(err)
	}
	consistent(t, s)
	equal(t, "after the sweep", all(t, s, Forwards), []string{"3 a@2", "4 a@3", "5 $$a@0", "6 a@4", "7 a@5"})
	scavengeAll(t, s)
	equal(t, "after the next", all(t, s, Forwards), []string{"5 $$a@0", "6 a@4", "7 a@5"})
	equal(t, "listed", listed(t, s), []string{})
}

// A stream that can't be read doesn't keep the others from being scavenged.
func TestScavengingPassesOverDamage(t *testing.T) {
	s := idleStore(t)
	for _, stream := range []string{"a", "b"} {
		mustAppend(t, s, stream, NoStream, proposal(3))
		mustAppend(t, s, "$$"+stream, NoStream, metadataEvent(`{"$maxCount":1}`))
	}
	if err := s.db.Set(eventKey(4), []byte("damaged"), pebble.Sync); err != nil { // $$a@0
		t.Fatal(err)
	}
	scavengeAll(t, s)
	equal(t, "b", revisions(t, s, "b", 0, Forwards), []Revision{2})
	equal(t, "events", s.mustCount(t), 3+1+1+1)
	equal(t, "listed for later", listed(t, s), []string{"a"})
}

// mustCount counts the records of events, readable or not.
func (s *Store) mustCount(t *testing.T) (n int) {
	t.Helper()
	err := view{Reader: s.db}.scan(eventKey(0), eventEnd, Forwards, func(_, _ []byte) (bool, error) {
		n++
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The scavenger works beside writers, readers and changes of metadata; at any moment a power loss leaves it consistent.
func TestScavengingBesideEverythingElse(t *testing.T) {
	disk := vfs.NewCrashableMem()
	s := openFS(t, disk, "db")
	const streams, rounds = 4, 60
	name := func(i int) string { return fmt.Sprint("s-", i) }
	for i := range streams {
		mustAppend(t, s, "$$"+name(i), NoStream, metadataEvent(`{"$maxCount":3}`))
	}
	var wg sync.WaitGroup
	for i := range streams {
		wg.Go(func() {
			for r := range rounds {
				expected := Expected(4*r - 1)
				if _, err := s.Append(t.Context(), name(i), expected, proposal(4)); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for r := range rounds {
				json := fmt.Sprintf(`{"$maxCount":%d}`, 3+r%3)
				if _, err := s.Append(t.Context(), "$$"+name(i), Any, metadataEvent(json)); err != nil {
					t.Error(err)
				}
				wantWindow(t, s, name(i))
			}
		})
	}
	for i := range uint64(20) {
		half := vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(1, i))}
		after := openFS(t, disk.CrashClone(half), "db")
		consistent(t, after)
		closeStore(t, after)
	}
	wg.Wait()
	for i := range streams { // what a smaller $maxCount has cost is gone for good
		mustAppend(t, s, name(i), Any, proposal(5))
	}
	eventually(t, "nothing is left to scavenge", func() bool { return len(listed(t, s)) == 0 })
	consistent(t, s)
	equal(t, "left", s.mustCount(t), streams*(5+1)) // 5 is the last $maxCount
	closeStore(t, s)
}

// wantWindow checks that a read shows the last few revisions, without a gap.
func wantWindow(t *testing.T, s *Store, stream string) {
	var got []Revision
	for rec, err := range s.ReadStream(stream, 0, Forwards) {
		if err != nil && !errors.Is(err, ErrNoStream) {
			t.Error(err)
		}
		if err != nil {
			return
		}
		got = append(got, rec.Revision)
	}
	if len(got) < 3 || len(got) > 5 || !slices.IsSorted(got) || got[len(got)-1]-got[0] != Revision(len(got)-1) {
		t.Errorf("%s shows %v", stream, got)
	}
}

// An event expires without any further change, also when the store has been closed in the meantime.
func TestExpiryIsRemembered(t *testing.T) {
	files, now := vfs.NewMem(), int64(1000*ticksPerSecond)
	reopen := func() *Store {
		s, err := openIdle(files, func() int64 { return now }, "db", slog.New(slog.DiscardHandler), Hooks{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := reopen()
	mustAppend(t, s, "$$a", NoStream, metadataEvent(`{"$maxAge":60}`))
	mustAppend(t, s, "a", NoStream, proposal(2))
	scavengeAll(t, s)
	closeStore(t, s)

	now += 59 * ticksPerSecond
	s = reopen()
	wait, err := s.scavenger.sweep()
	if err != nil || wait <= time.Second || wait > 2*time.Second {
		t.Fatalf("waits %v, %v; want a little more than a second", wait, err)
	}
	equal(t, "not expired", revisions(t, s, "a", 0, Forwards), []Revision{0, 1})
	closeStore(t, s)

	now += 2 * ticksPerSecond
	s = reopen()
	defer closeStore(t, s)
	equal(t, "expired", revisions(t, s, "a", 0, Forwards), []Revision{})
	scavengeAll(t, s)
	equal(t, "left", all(t, s, Forwards), []string{"1 $$a@0", "3 a@1"})
	equal(t, "listed", listed(t, s), []string{})
	equal(t, "next", mustAppend(t, s, "a", 1, proposal(1)), Written{Revision: 2, Position: 4})
}
