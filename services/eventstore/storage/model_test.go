package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// model is what a store should be: events in a list, and the rules written down as they are told.
type model struct {
	now    int64
	log    Position
	disk   map[string][]modelEvent // what has not been scavenged
	last   map[string]Revision     // absent for a stream that never was
	meta   map[string]modelMeta
	recent map[ID]place
}

type modelEvent struct {
	head
	id      ID
	created int64
}

type modelMeta struct {
	maxCount, maxAge int64 // seconds
	tb               Revision
	object           bool // what it was read from is a JSON object
}

const never = NoRevision

func newModel() *model {
	return &model{
		now: 1_000_000 * ticksPerSecond, disk: map[string][]modelEvent{}, last: map[string]Revision{},
		meta: map[string]modelMeta{}, recent: map[ID]place{},
	}
}

func (m *model) end(stream string) Revision {
	if r, ok := m.last[stream]; ok {
		return r
	}
	return never
}

func (m *model) tombstoned(stream string) bool {
	return m.end(stream) == deletedRevision || m.end(strings.TrimPrefix(stream, metaPrefix)) == deletedRevision
}

func (m *model) deleted(stream string) bool { return m.meta[stream].tb == deletedRevision }

func (m *model) exists(stream string) bool {
	return m.end(stream) != never || m.end(metaPrefix+stream) != never
}

func (m *model) shows(stream string, e modelEvent) bool {
	meta, end := m.meta[stream], m.end(stream)
	if strings.HasPrefix(stream, metaPrefix) {
		meta = modelMeta{maxCount: 1}
	}
	return e.revision >= meta.tb && (meta.maxCount == 0 || e.revision > end-Revision(meta.maxCount)) &&
		(meta.maxAge == 0 || e.created >= m.now-meta.maxAge*ticksPerSecond)
}

// read answers as the store does.
func (m *model) read(stream string) string {
	switch {
	case m.tombstoned(stream):
		return "tombstoned"
	case m.end(stream) == never, m.deleted(stream):
		return "no stream"
	}
	shown := []Revision{}
	for _, e := range m.disk[stream] {
		if m.shows(stream, e) {
			shown = append(shown, e.revision)
		}
	}
	return fmt.Sprint(shown)
}

func (m *model) all() []string {
	var events []modelEvent
	streams := map[Position]string{}
	for stream, list := range m.disk {
		for _, e := range list {
			events = append(events, e)
			streams[e.position] = stream
		}
	}
	slices.SortFunc(events, func(a, b modelEvent) int { return int(a.position) - int(b.position) })
	out := []string{}
	for _, e := range events {
		out = append(out, fmt.Sprintf("%d %s@%d", e.position, streams[e.position], e.revision))
	}
	return out
}

func (m *model) scavenge() {
	for stream, list := range m.disk {
		m.disk[stream] = slices.DeleteFunc(list, func(e modelEvent) bool {
			switch {
			case m.tombstoned(stream):
				return e.revision != deletedRevision
			case e.revision == m.end(stream):
				return false
			}
			return !m.shows(stream, e)
		})
	}
}

func (m *model) write(stream string, events ...Proposed) string {
	for _, e := range events {
		m.log++
		at := head{revision: m.end(stream) + 1, position: m.log}
		m.last[stream] = at.revision
		m.disk[stream] = append(m.disk[stream], modelEvent{head: at, id: e.ID, created: m.now})
		m.recent[e.ID] = place{stream, at.written()}
	}
	return fmt.Sprintf("%d@%d", m.end(stream), m.log)
}

// decide answers a change; write carries it out if it is allowed.
func (m *model) decide(stream string, expected Expected, events []Proposed, write func() string) string {
	end, soft := m.end(stream), m.deleted(stream)
	conflict := fmt.Sprintf("conflict at %d", end)
	switch {
	case m.tombstoned(stream), expected == StreamExists && soft:
		return "deleted"
	case expected == StreamExists && !m.exists(stream):
		return conflict
	case expected == Any || expected == StreamExists:
		known := 0
		for known < len(events) && m.recent[events[known].ID].stream == stream {
			known++
		}
		switch known {
		case 0:
			return write()
		case len(events):
			return describe(m.recent[events[known-1].ID].Written, nil)
		}
		return conflict
	case Revision(expected) > end:
		return conflict
	case Revision(expected) == end:
		return write()
	}
	var same []modelEvent
	for i, e := range events {
		for _, d := range m.disk[stream] {
			if d.revision == Revision(expected)+1+Revision(i) && d.id == e.ID && len(same) == i {
				same = append(same, d)
			}
		}
	}
	switch {
	case len(same) == len(events):
		return describe(same[len(same)-1].written(), nil)
	case len(same) == 0 && expected == NoStream && soft:
		return write()
	}
	return conflict
}

func (m *model) append(stream string, expected Expected, events []Proposed) string {
	return m.decide(stream, expected, events, func() string {
		from := m.end(stream) + 1
		answer := m.write(stream, events...)
		if m.deleted(stream) {
			m.undelete(stream, from)
		}
		return answer
	})
}

func (m *model) undelete(stream string, from Revision) {
	meta := m.meta[stream]
	meta.tb = from
	m.meta[stream] = meta
	m.write(metaPrefix+stream, Proposed{ID: ID(uuid.New())})
}

func (m *model) setMetadata(stream string, expected Expected, e Proposed, meta modelMeta) string {
	return m.decide(metaPrefix+stream, expected, []Proposed{e}, func() string {
		wasDeleted := m.deleted(stream)
		answer := m.write(metaPrefix+stream, e)
		m.meta[stream] = meta
		if wasDeleted && meta.object {
			m.undelete(stream, m.end(stream)+1)
		}
		return answer
	})
}

func (m *model) delete(stream string, expected Expected) string {
	fresh := []Proposed{{ID: ID(uuid.New())}}
	return m.decide(stream, expected, fresh, func() string {
		if !m.exists(stream) {
			return "conflict at -1"
		}
		m.meta[stream] = modelMeta{tb: deletedRevision, object: true}
		m.write(metaPrefix+stream, fresh...)
		return fmt.Sprint("at ", m.log)
	})
}

func (m *model) tombstone(stream string, expected Expected) string {
	fresh := []Proposed{{ID: ID(uuid.New())}}
	return m.decide(stream, expected, fresh, func() string {
		m.last[stream] = deletedRevision - 1
		m.write(stream, fresh...)
		return fmt.Sprint("at ", m.log)
	})
}

// metadatas are what a stream may be described by, with what that means.
var metadatas = []struct {
	json string
	modelMeta
}{
	{`{}`, modelMeta{object: true}},
	{`{"$maxCount":2,"mine":[1,2]}`, modelMeta{maxCount: 2, object: true}},
	{`{"$maxCount":1,"$tb":3}`, modelMeta{maxCount: 1, tb: 3, object: true}},
	{`{"$maxAge":10}`, modelMeta{maxAge: 10, object: true}},
	{`{"$maxAge":5,"$maxCount":3}`, modelMeta{maxAge: 5, maxCount: 3, object: true}},
	{`{"$tb":2}`, modelMeta{tb: 2, object: true}},
	{`{"$tb":9223372036854775807}`, modelMeta{tb: deletedRevision, object: true}},
	{`{"$maxCount":-3,"$maxAge":0}`, modelMeta{object: true}},
	{`[{"$maxCount":1}]`, modelMeta{}},
	{`nothing`, modelMeta{}},
	{`null`, modelMeta{}},
	{``, modelMeta{}},
}

// machine runs the same steps on a store and on the model, with what scavenging leaves checked as exactly as the rest.
type machine struct {
	*model
	disk  *vfs.MemFS
	store *Store
}

func (m *machine) open(t *rapid.T) {
	s, err := openIdle(m.disk, func() int64 { return m.now }, "db", slog.New(slog.DiscardHandler), nil)
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
