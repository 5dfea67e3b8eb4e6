package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"
)

// machine runs the same steps on a store and on the model, with what scavenging leaves checked as exactly as the rest.
type machine struct {
	*model
	disk  *vfs.MemFS
	store *Store
}

func (m *machine) open(t *rapid.T) {
	s, err := openIdle(m.disk, func() int64 { return m.now }, "db", slog.New(slog.DiscardHandler), Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	m.store = s
	m.recent = map[ID]place{}
}

func (m *machine) close(t *rapid.T) {
	if err := m.store.Close(); err != nil {
		t.Fatal(err)
	}
}

func same(t *rapid.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %s, want %s", what, got, want)
	}
}

func drawStream(t *rapid.T) string { return rapid.SampledFrom([]string{"a", "b"}).Draw(t, "stream") }

func drawExpected(t *rapid.T) Expected {
	return rapid.SampledFrom([]Expected{Any, Any, Any, NoStream, StreamExists, 0, 1, 2, 3, 5}).Draw(t, "expected")
}

func drawEvents(t *rapid.T) []Proposed {
	return ids(rapid.SliceOfN(rapid.Byte(), 1, 3).Draw(t, "ids")...)
}

func (m *machine) Append(t *rapid.T) {
	stream, expected, events := drawStream(t), drawExpected(t), drawEvents(t)
	got := outcome(m.store.Append(t.Context(), stream, expected, events))
	same(t, "append", got, m.append(stream, expected, events))
}

func (m *machine) SetMetadata(t *rapid.T) {
	stream, expected, e := drawStream(t), drawExpected(t), drawEvents(t)[0]
	meta := rapid.SampledFrom(metadatas).Draw(t, "metadata")
	e.JSON, e.Data = true, []byte(meta.json)
	got := outcome(m.store.Append(t.Context(), metaPrefix+stream, expected, []Proposed{e}))
	same(t, "set metadata", got, m.setMetadata(stream, expected, e, meta.modelMeta))
}

func (m *machine) Delete(t *rapid.T) {
	stream, expected := drawStream(t), drawExpected(t)
	p, err := m.store.Delete(t.Context(), stream, expected)
	same(t, "delete", outcomeAt(p, err), m.delete(stream, expected))
}

func (m *machine) Tombstone(t *rapid.T) {
	if rapid.IntRange(0, 9).Draw(t, "rarely") > 0 {
		t.Skip("it ends a stream for good")
	}
	stream, expected := drawStream(t), drawExpected(t)
	p, err := m.store.Tombstone(t.Context(), stream, expected)
	same(t, "tombstone", outcomeAt(p, err), m.tombstone(stream, expected))
}

func (m *machine) TimePasses(t *rapid.T) {
	m.now += rapid.Int64Range(1, 12*ticksPerSecond).Draw(t, "ticks")
}

func (m *machine) Scavenge(t *rapid.T) {
	scavengeAll(t, m.store)
	m.scavenge()
}

func (m *machine) Restart(t *rapid.T) {
	m.close(t)
	m.open(t)
}

func (m *machine) LosePower(t *rapid.T) {
	after := m.disk.CrashClone(vfs.CrashCloneCfg{})
	m.close(t)
	m.disk = after
	m.open(t)
}

// Check compares all that can be read.
func (m *machine) Check(t *rapid.T) {
	for _, stream := range []string{"a", "b", "$$a", "$$b"} {
		want := m.read(stream)
		same(t, "read "+stream, m.readStore(stream, 0, Forwards), want)
		back := m.readStore(stream, deletedRevision, Backwards)
		same(t, "read backwards "+stream, back, want)
	}
	var all []string
	for rec, err := range m.store.ReadAll(0, Forwards) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%d %s@%d", rec.Position, rec.Stream, rec.Revision))
	}
	same(t, "read all", fmt.Sprint(all), fmt.Sprint(m.all()))
	same(t, "head", fmt.Sprint(m.store.Head()), fmt.Sprint(m.log))
}

// readStore answers with the revisions in ascending order.
func (m *machine) readStore(stream string, from Revision, dir Direction) string {
	out := []Revision{}
	for rec, err := range m.store.ReadStream(stream, from, dir) {
		var deleted *DeletedError
		switch {
		case errors.Is(err, ErrNoStream):
			return "no stream"
		case errors.As(err, &deleted):
			return "tombstoned"
		case err != nil:
			return err.Error()
		}
		out = append(out, rec.Revision)
	}
	if dir == Backwards {
		slices.Reverse(out)
	}
	return fmt.Sprint(out)
}

func outcome(w Written, err error) string {
	var deleted *DeletedError
	if errors.As(err, &deleted) {
		return "deleted"
	}
	return describe(w, err)
}

func outcomeAt(p Position, err error) string {
	if err != nil {
		return outcome(Written{}, err)
	}
	return fmt.Sprint("at ", p)
}

// scavengeAll sweeps until nothing is due.
func scavengeAll(t interface{ Fatal(...any) }, s *Store) {
	for range 1000 {
		wait, err := s.scavenger.sweep()
		if err != nil {
			t.Fatal(err)
		}
		if wait > 0 {
			return
		}
	}
	t.Fatal("the scavenger's list never ends")
}

// Whatever is appended, deleted, described and scavenged, with restarts and power losses between, the store answers every
// change and every read as the model does.
func TestStoreMatchesAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &machine{model: newModel(), disk: vfs.NewCrashableMem()}
		m.open(rt)
		defer func() { _ = m.store.Close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"append": m.Append, "append more": m.Append, "set metadata": m.SetMetadata, "delete": m.Delete,
			"tombstone": m.Tombstone, "time passes": m.TimePasses, "scavenge": m.Scavenge,
			"restart": m.Restart, "lose power": m.LosePower, "": m.Check,
		})
	})
}
