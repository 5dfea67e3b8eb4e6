package storage

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
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
