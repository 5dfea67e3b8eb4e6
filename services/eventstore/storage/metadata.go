package storage

import (
	"encoding/json"
	"maps"
	"math"
	"strconv"
	"strings"
)

// The last event of the stream "$$s" describes the stream s: a JSON object, of which the store itself heeds how many events
// s shows ($maxCount), for how many seconds ($maxAge), and from which revision on ($tb). What describes "$$s" is fixed: it
// shows its last event.
const (
	metaPrefix = "$$"

	keyMaxCount       = "$maxCount"
	keyMaxAge         = "$maxAge"
	keyTruncateBefore = "$tb"

	// deletedRevision as $tb deletes a stream until something is appended; a tombstone has it as its revision.
	deletedRevision Revision = math.MaxInt64

	ticksPerSecond = 10_000_000
)

// metadata describes a stream.
type metadata struct {
	at             head  // of the event that says so; noHead if none does
	maxCount       int64 // 0 for any number
	maxAge         int64 // ticks; 0 for any age
	truncateBefore Revision
	fields         map[string]json.RawMessage // nil if the event holds no JSON object
}

// describedBy is the stream that a stream of metadata describes.
func describedBy(stream string) (string, bool) { return strings.CutPrefix(stream, metaPrefix) }

// parseMetadata is the metadata of a stream as an event gives it. What is not valid says nothing.
func parseMetadata(stream string, at head, isJSON bool, data []byte) metadata {
	m := metadata{at: at}
	if _, ok := describedBy(stream); ok {
		m.maxCount = 1
		return m
	}
	if !isJSON || json.Unmarshal(data, &m.fields) != nil {
		return metadata{at: at}
	}
	var maxCount, maxAge, before int64
	for key, value := range map[string]*int64{keyMaxCount: &maxCount, keyMaxAge: &maxAge, keyTruncateBefore: &before} {
		if raw, ok := m.fields[key]; ok && json.Unmarshal(raw, value) != nil {
			return m
		}
	}
	m.maxCount = max(maxCount, 0)
	m.truncateBefore = Revision(before)
	if maxAge <= math.MaxInt64/ticksPerSecond { // or it is longer than anything lasts
		m.maxAge = max(maxAge, 0) * ticksPerSecond
	}
	return m
}

// deleted reports whether the stream is deleted until something is appended to it.
func (m *metadata) deleted() bool { return m.truncateBefore == deletedRevision }

// first is the lowest revision that a stream with this last revision shows.
func (m *metadata) first(last Revision) Revision {
	first := max(0, m.truncateBefore)
	if m.maxCount > 0 {
		first = max(first, last-Revision(m.maxCount)+1)
	}
	return first
}

// since is when the oldest event that it shows may have been created.
func (m *metadata) since(now int64) int64 {
	if m.maxAge == 0 {
		return math.MinInt64
	}
	return now - m.maxAge
}

// hides reports whether a stream with this last revision may have, now or later, an event that it doesn't show.
func (m *metadata) hides(last Revision) bool { return m.maxAge > 0 || m.first(last) > 0 }

// truncated is the same description but with another $tb.
func (m *metadata) truncated(before Revision) []byte {
	fields := maps.Clone(m.fields)
	fields[keyTruncateBefore] = strconv.AppendInt(nil, int64(before), 10)
	data, err := json.Marshal(fields)
	if err != nil {
		panic(err) // the fields came out of JSON
	}
	return data
}
