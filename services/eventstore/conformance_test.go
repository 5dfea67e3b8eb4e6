package eventstore_test

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
)

// The tests named Conformance are about what every EventStoreDB does, through its own client. They run against the server
// that PURSER_TEST_EVENTSTORE_URL names, so they use streams of their own and expect other events in $all.

func TestConformanceAppendAndReadBack(t *testing.T) {
	c, stream := conformanceClient(t), newStream()
	before := time.Now().Add(-time.Minute)
	events := happened(2)
	events[1].ContentType, events[1].Metadata, events[1].Data = esdb.ContentTypeBinary, nil, []byte{0, 1, 255}
	res := appendTo(t, c, stream, esdb.NoStream{}, events...)
	if res.NextExpectedVersion != 1 || res.CommitPosition == 0 || res.CommitPosition != res.PreparePosition {
		t.Fatalf("got %+v", res)
	}
	got := readStream(t, c, stream, esdb.ReadStreamOptions{From: esdb.Start{}}, 10)
	wantRevisions(t, got, 0, 1)
	for i, g := range got {
		e, want := g.Event, events[i]
		if e.EventID != want.EventID || e.EventType != want.EventType || e.StreamID != stream ||
			!bytes.Equal(e.Data, want.Data) || !bytes.Equal(e.UserMetadata, want.Metadata) {
			t.Errorf("event %d: got %+v, want %+v", i, e, want)
		}
		if e.CreatedDate.Before(before) || e.CreatedDate.After(time.Now().Add(time.Minute)) {
			t.Errorf("event %d: created %v", i, e.CreatedDate)
		}
		if g.Link != nil || e.Position.Commit == 0 || e.Position.Commit < e.Position.Prepare {
			t.Errorf("event %d: link %v, position %v", i, g.Link, e.Position)
		}
	}
	if a, b := got[0].Event.ContentType, got[1].Event.ContentType; a != "application/json" || b != "application/octet-stream" {
		t.Errorf("content types %q, %q", a, b)
	}
	if got[0].Event.Position.Commit >= got[1].Event.Position.Commit || got[1].Event.Position.Commit != res.CommitPosition {
		t.Errorf("positions %v and %v, appended at %d", got[0].Event.Position, got[1].Event.Position, res.CommitPosition)
	}
}

func TestConformanceExpectedRevision(t *testing.T) {
	c := conformanceClient(t)
	// Each case has a stream with the events 0, 1 and 2, and one that doesn't exist.
	for _, tt := range []struct {
		name     string
		missing  bool
		expected esdb.ExpectedRevision
		want     int // the new last revision; -1 for a wrong expected version
	}{
		{"any", false, esdb.Any{}, 3},
		{"any, missing", true, esdb.Any{}, 0},
		{"stream exists", false, esdb.StreamExists{}, 3},
		{"stream exists, missing", true, esdb.StreamExists{}, -1},
		{"no stream", true, esdb.NoStream{}, 0},
		{"no stream, exists", false, esdb.NoStream{}, -1},
		{"last revision", false, esdb.Revision(2), 3},
		{"earlier revision", false, esdb.Revision(1), -1},
		{"later revision", false, esdb.Revision(3), -1},
		{"revision, missing", true, esdb.Revision(0), -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stream := newStream()
			if !tt.missing {
				appendTo(t, c, stream, esdb.NoStream{}, happened(3)...)
			}
			opts := esdb.AppendToStreamOptions{ExpectedRevision: tt.expected}
			res, err := c.AppendToStream(testContext(t), stream, opts, happened(1)...)
			if tt.want < 0 {
				wantCode(t, err, esdb.ErrorCodeWrongExpectedVersion)
				current := "'2'"
				if tt.missing {
					current = "'no_stream'"
				}
				if !strings.Contains(err.Error(), "but got "+current) {
					t.Fatalf("got %v, want the current revision %s in it", err, current)
				}
				return
			}
			if err != nil || res.NextExpectedVersion != uint64(tt.want) {
				t.Fatalf("got %+v, %v; want revision %d", res, err, tt.want)
			}
		})
	}
}

func TestConformanceRepeatedAppend(t *testing.T) {
	c := conformanceClient(t)
	more := happened(1)
	for _, tt := range []struct {
		name     string
		expected esdb.ExpectedRevision
		repeat   func(written []esdb.EventData) []esdb.EventData
		want     int // the revision answered; -1 for a wrong expected version
	}{
		{"no stream", esdb.NoStream{}, func(w []esdb.EventData) []esdb.EventData { return w }, 2},
		{"no stream, prefix", esdb.NoStream{}, func(w []esdb.EventData) []esdb.EventData { return w[:2] }, 1},
		{"no stream, and more", esdb.NoStream{}, func(w []esdb.EventData) []esdb.EventData { return append(w, more...) }, -1},
		{"revision", esdb.Revision(0), func(w []esdb.EventData) []esdb.EventData { return w[1:] }, 2},
		{"revision, another id", esdb.Revision(0), func(w []esdb.EventData) []esdb.EventData {
			return []esdb.EventData{w[1], more[0]}
		}, -1},
		{"any", esdb.Any{}, func(w []esdb.EventData) []esdb.EventData { return w }, 2},
		{"any, and more", esdb.Any{}, func(w []esdb.EventData) []esdb.EventData { return append(w, more...) }, -1},
		{"stream exists", esdb.StreamExists{}, func(w []esdb.EventData) []esdb.EventData { return w[1:] }, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stream, events := newStream(), happened(3)
			first := appendTo(t, c, stream, esdb.NoStream{}, events...)
			opts := esdb.AppendToStreamOptions{ExpectedRevision: tt.expected}
			res, err := c.AppendToStream(testContext(t), stream, opts, tt.repeat(slices.Clone(events))...)
			if tt.want < 0 {
				wantCode(t, err, esdb.ErrorCodeWrongExpectedVersion)
			} else if err != nil || res.NextExpectedVersion != uint64(tt.want) {
				t.Fatalf("got %+v, %v; want revision %d", res, err, tt.want)
			} else if tt.want == 2 && res.CommitPosition != first.CommitPosition {
				t.Errorf("repeat at position %d, first at %d", res.CommitPosition, first.CommitPosition)
			}
			wantRevisions(t, readStream(t, c, stream, esdb.ReadStreamOptions{From: esdb.Start{}}, 10), 0, 1, 2)
		})
	}
}

// An empty append at the last revision proves that it is the last.
func TestConformanceEmptyAppend(t *testing.T) {
	c, stream := conformanceClient(t), newStream()
	appendTo(t, c, stream, esdb.NoStream{}, happened(3)...)
	if res := appendTo(t, c, stream, esdb.Revision(2)); res.NextExpectedVersion != 2 {
		t.Errorf("got %+v", res)
	}
	_, err := c.AppendToStream(testContext(t), stream, esdb.AppendToStreamOptions{ExpectedRevision: esdb.Revision(1)})
	wantCode(t, err, esdb.ErrorCodeWrongExpectedVersion)
	wantRevisions(t, readStream(t, c, stream, esdb.ReadStreamOptions{From: esdb.Start{}}, 10), 0, 1, 2)
}

func TestConformanceReadStream(t *testing.T) {
	c, stream := conformanceClient(t), newStream()
	appendTo(t, c, stream, esdb.NoStream{}, happened(5)...)
	for _, tt := range []struct {
		name  string
		dir   esdb.Direction
		from  esdb.StreamPosition
		count uint64
		want  []uint64
	}{
		{"all", esdb.Forwards, esdb.Start{}, math.MaxUint64, []uint64{0, 1, 2, 3, 4}},
		{"limit", esdb.Forwards, esdb.Start{}, 2, []uint64{0, 1}},
		{"from, inclusive", esdb.Forwards, esdb.Revision(2), 2, []uint64{2, 3}},
		{"from the last", esdb.Forwards, esdb.Revision(4), 10, []uint64{4}},
		{"from beyond the end", esdb.Forwards, esdb.Revision(5), 10, nil},
		{"from the end", esdb.Forwards, esdb.End{}, 10, nil},
		{"backwards", esdb.Backwards, esdb.End{}, math.MaxUint64, []uint64{4, 3, 2, 1, 0}},
		{"backwards, limit", esdb.Backwards, esdb.End{}, 1, []uint64{4}},
		{"backwards from, inclusive", esdb.Backwards, esdb.Revision(2), 2, []uint64{2, 1}},
		{"backwards from beyond the end", esdb.Backwards, esdb.Revision(50), 2, []uint64{4, 3}},
		{"backwards from the start", esdb.Backwards, esdb.Start{}, 10, []uint64{0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opts := esdb.ReadStreamOptions{Direction: tt.dir, From: tt.from}
			wantRevisions(t, readStream(t, c, stream, opts, tt.count), tt.want...)
		})
	}
}

func TestConformanceReadMissingStream(t *testing.T) {
	c := conformanceClient(t)
	r, err := c.ReadStream(testContext(t), newStream(), esdb.ReadStreamOptions{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, err = r.Recv()
	wantCode(t, err, esdb.ErrorCodeResourceNotFound)
	if _, err := r.Recv(); err != io.EOF {
		t.Errorf("then got %v", err)
	}
}

func TestConformanceLongStream(t *testing.T) {
	c, stream := conformanceClient(t), newStream()
	const appends, each = 13, 100 // more than any page
	for i := range appends {
		var expected esdb.ExpectedRevision = esdb.NoStream{}
		if i > 0 {
			expected = esdb.Revision(uint64(i*each - 1))
		}
		appendTo(t, c, stream, expected, happened(each)...)
	}
	up := revisions(readStream(t, c, stream, esdb.ReadStreamOptions{}, math.MaxUint64))
	down := revisions(readStream(t, c, stream, esdb.ReadStreamOptions{Direction: esdb.Backwards, From: esdb.End{}}, math.MaxUint64))
	slices.Reverse(down)
	if len(up) != appends*each || !slices.Equal(up, down) {
		t.Fatalf("read %d events forwards, %d backwards", len(up), len(down))
	}
	for i, r := range up {
		if r != uint64(i) {
			t.Fatalf("event %d has revision %d", i, r)
		}
	}
}

func TestConformanceReadAll(t *testing.T) {
	c, stream := conformanceClient(t), newStream()
	appendTo(t, c, stream, esdb.NoStream{}, happened(3)...)
	own := readStream(t, c, stream, esdb.ReadStreamOptions{}, 10)
	first, last := own[0].Event.Position, own[2].Event.Position

	up := readAll(t, c, esdb.ReadAllOptions{From: first}, math.MaxUint64)
	if len(up) < 3 || up[0].Event.EventID != own[0].Event.EventID {
		t.Fatal("a read forwards does not begin with the event at its position")
	}
	down := readAll(t, c, esdb.ReadAllOptions{Direction: esdb.Backwards, From: last}, 2)
	if len(down) != 2 || !(down[1].Event.Position.Commit < down[0].Event.Position.Commit && down[0].Event.Position.Commit < last.Commit) {
		t.Fatalf("a read backwards does not begin before its position: %v", down)
	}
	from := readAll(t, c, esdb.ReadAllOptions{Direction: esdb.Backwards, From: esdb.End{}}, uint64(len(up)))
	if e := from[len(from)-1].Event; len(from) == len(up) && e.Position.Commit > first.Commit {
		t.Errorf("read back from the end to %v, not to %v", e.Position, first)
	}
	start := readAll(t, c, esdb.ReadAllOptions{From: esdb.Start{}}, 2)
	if len(start) != 2 || start[0].Event.Position.Commit == 0 || start[0].Event.Position.Commit >= start[1].Event.Position.Commit {
		t.Errorf("got %v from the start", start)
	}
	if n := len(readAll(t, c, esdb.ReadAllOptions{Direction: esdb.Backwards, From: esdb.Start{}}, 2)); n != 0 {
		t.Errorf("got %d events before the start", n)
	}
}

func TestConformanceStreamMetadata(t *testing.T) {
	c, stream := conformanceClient(t), newStream()
	var meta esdb.StreamMetadata
	meta.SetMaxCount(7)
	if _, err := c.SetStreamMetadata(testContext(t), stream, esdb.AppendToStreamOptions{ExpectedRevision: esdb.NoStream{}}, meta); err != nil {
		t.Fatal(err)
	}
	got, err := c.GetStreamMetadata(testContext(t), stream, esdb.ReadStreamOptions{})
	if err != nil || got.MaxCount() == nil || *got.MaxCount() != 7 {
		t.Fatalf("got %+v, %v", got, err)
	}
	appendTo(t, c, stream, esdb.StreamExists{}, happened(1)...) // one that has metadata exists
}

func TestConformanceOversizedAppend(t *testing.T) {
	c, stream := conformanceClient(t), newStream()
	events := happened(3)
	events[1].Data = bytes.Repeat([]byte("x"), 17<<20) // more than any server takes
	_, err := c.AppendToStream(testContext(t), stream, esdb.AppendToStreamOptions{ExpectedRevision: esdb.NoStream{}}, events...)
	if err == nil {
		t.Fatal("an event of 17 MiB was accepted")
	}
	appendTo(t, c, stream, esdb.NoStream{}, happened(1)...) // nothing was stored, and the server goes on
}

func TestConformanceSubscribeToStream(t *testing.T) {
	c, stream := conformanceClient(t), newStream()
	appendTo(t, c, stream, esdb.NoStream{}, happened(3)...)
	for _, tt := range []struct {
		name    string
		from    esdb.StreamPosition
		history []uint64
	}{
		{"start", esdb.Start{}, []uint64{0, 1, 2}},
		{"revision, exclusive", esdb.Revision(0), []uint64{1, 2}},
		{"last revision", esdb.Revision(2), nil},
		{"end", esdb.End{}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			next := uint64(len(readStream(t, c, stream, esdb.ReadStreamOptions{}, 1000)))
			want := tt.history
			for r := uint64(3); r < next && tt.name != "end"; r++ {
				want = append(want, r)
			}
			s := subscribeStream(t, c, stream, tt.from)
			wantRevisions(t, s.history(), want...)
			appendTo(t, c, stream, esdb.Revision(next-1), happened(2)...)
			for _, want := range []uint64{next, next + 1} {
				if e := s.event(); e.EventNumber != want {
					t.Fatalf("live: got revision %d, want %d", e.EventNumber, want)
				}
			}
		})
	}
}

func TestConformanceSubscribeToMissingStream(t *testing.T) {
	c, stream := conformanceClient(t), newStream()
	s := subscribeStream(t, c, stream, esdb.Start{})
	wantRevisions(t, s.history())
	appendTo(t, c, stream+"x", esdb.NoStream{}, happened(1)...) // another stream, which it must not deliver
	appendTo(t, c, stream, esdb.NoStream{}, happened(1)...)
	if e := s.event(); e.StreamID != stream || e.EventNumber != 0 {
		t.Errorf("got %s@%d", e.StreamID, e.EventNumber)
	}
}

func TestConformanceSubscribeToFilteredAll(t *testing.T) {
	c, cat := conformanceClient(t), category()
	var events []esdb.EventData
	for i, typ := range []string{"Opened", "Changed", "Closed"} {
		events = append(events, happened(1)...)
		events[i].EventType = cat + typ
	}
	written := []uint64{}
	for _, name := range []string{"-a", "-b"} {
		appendTo(t, c, cat+name, esdb.NoStream{}, events...)
		appendTo(t, c, newStream(), esdb.NoStream{}, happened(2)...)
		for _, e := range readStream(t, c, cat+name, esdb.ReadStreamOptions{}, 10) {
			written = append(written, e.Event.Position.Commit)
		}
	}
	pick := func(indexes ...int) (out []uint64) {
		for _, i := range indexes {
			out = append(out, written[i])
		}
		return out
	}
	at := func(i int) esdb.Position { return esdb.Position{Commit: written[i], Prepare: written[i]} }
	byType := func(f esdb.SubscriptionFilter) *esdb.SubscriptionFilter { f.Type = esdb.EventFilterType; return &f }
	byStream := func(f esdb.SubscriptionFilter) *esdb.SubscriptionFilter { f.Type = esdb.StreamFilterType; return &f }
	for _, tt := range []struct {
		name   string
		from   esdb.AllPosition
		filter *esdb.SubscriptionFilter
		want   []uint64
	}{
		{"stream prefix", esdb.Start{}, prefix(cat), written},
		{"stream prefixes", esdb.Start{}, byStream(esdb.SubscriptionFilter{Prefixes: []string{cat + "-b", cat + "-c"}}), pick(3, 4, 5)},
		{"stream pattern", esdb.Start{}, byStream(esdb.SubscriptionFilter{Regex: "^" + cat + "-[ac]$"}), pick(0, 1, 2)},
		{"type prefix", esdb.Start{}, byType(esdb.SubscriptionFilter{Prefixes: []string{cat + "C"}}), pick(1, 2, 4, 5)},
		{"type pattern, unanchored", esdb.Start{}, byType(esdb.SubscriptionFilter{Regex: cat[4:] + "(Opened|Closed)"}), pick(0, 2, 3, 5)},
		{"from a position, exclusive", at(1), prefix(cat), written[2:]},
		{"from the last position", at(5), prefix(cat), nil},
		{"from the end", esdb.End{}, prefix(cat), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := subscribeAll(t, c, esdb.SubscribeToAllOptions{From: tt.from, Filter: tt.filter})
			var got []uint64
			for _, e := range s.history() {
				got = append(got, e.Event.Position.Commit)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got positions %v, want %v", got, tt.want)
			}
		})
	}
}

func TestConformanceUnfilteredAll(t *testing.T) {
	c, stream := conformanceClient(t), newStream()
	s := subscribeAll(t, c, esdb.SubscribeToAllOptions{From: esdb.End{}})
	if n := len(s.history()); n != 0 {
		t.Errorf("%d events from the end on", n)
	}
	appendTo(t, c, stream, esdb.NoStream{}, happened(2)...)
	for r := uint64(0); r < 2; {
		if e := s.event(); e.StreamID == stream {
			if e.EventNumber != r {
				t.Fatalf("got revision %d, want %d", e.EventNumber, r)
			}
			r++
		}
	}
}

func TestConformanceBadPattern(t *testing.T) {
	c := conformanceClient(t)
	sub, err := c.SubscribeToAll(testContext(t), esdb.SubscribeToAllOptions{
		Filter: &esdb.SubscriptionFilter{Type: esdb.StreamFilterType, Regex: "("},
	})
	if err == nil {
		_ = sub.Close()
		t.Fatal("the pattern ( was accepted")
	}
}

// A subscription that begins in the middle of concurrent appends delivers every event once, in the order of the log.
func TestConformanceLiveHandOver(t *testing.T) {
	c, cat := conformanceClient(t), category()
	const writers, rounds, each = 8, 40, 3
	var wg sync.WaitGroup
	defer wg.Wait()
	write := func(w int) {
		stream := fmt.Sprintf("%s-%d", cat, w)
		for range rounds {
			opts := esdb.AppendToStreamOptions{ExpectedRevision: esdb.Any{}}
			if _, err := c.AppendToStream(testContext(t), stream, opts, happened(each)...); err != nil {
				t.Error(err)
				return
			}
		}
	}
	for w := range writers {
		wg.Go(func() { write(w) })
	}
	for i := range 3 {
		s := subscribeAll(t, c, esdb.SubscribeToAllOptions{From: esdb.Start{}, Filter: prefix(cat)})
		wantEveryEventOnce(t, s, writers*rounds*each)
		if i == 0 {
			continue
		}
		one := subscribeStream(t, c, cat+"-0", esdb.Start{})
		wantEveryEventOnce(t, one, rounds*each)
	}
}

// wantEveryEventOnce receives so many events and checks that positions grow and that no revision of a stream is missing.
func wantEveryEventOnce(t *testing.T, s *subscriber, count int) {
	t.Helper()
	next, last := map[string]uint64{}, uint64(0)
	for range count {
		e := s.event()
		if e.Position.Commit <= last {
			t.Fatalf("position %d after %d", e.Position.Commit, last)
		}
		if e.EventNumber != next[e.StreamID] {
			t.Fatalf("%s: revision %d, want %d", e.StreamID, e.EventNumber, next[e.StreamID])
		}
		last = e.Position.Commit
		next[e.StreamID]++
	}
}

// A consumer that does not read while much more is appended than any buffer holds loses nothing and is not dropped.
func TestConformanceSlowConsumer(t *testing.T) {
	c, stream := conformanceClient(t), newStream()
	s := subscribeStream(t, c, stream, esdb.Start{})
	wantRevisions(t, s.history())
	const appends, each = 20, 100
	next := uint64(0)
	for range appends {
		events := happened(each)
		for i := range events {
			events[i].Data = fmt.Appendf(nil, `{"pad":%q}`, strings.Repeat("x", 4000))
		}
		var expected esdb.ExpectedRevision = esdb.NoStream{}
		if next > 0 {
			expected = esdb.Revision(next - 1)
		}
		appendTo(t, c, stream, expected, events...)
		next += each
	}
	wantEveryEventOnce(t, s, appends*each)
}

func TestConformanceCheckpoints(t *testing.T) {
	c, cat := conformanceClient(t), category()
	appendTo(t, c, newStream(), esdb.NoStream{}, happened(100)...)
	appendTo(t, c, cat+"-1", esdb.NoStream{}, happened(1)...)
	own := readStream(t, c, cat+"-1", esdb.ReadStreamOptions{}, 1)[0].Event.Position
	s := subscribeAll(t, c, esdb.SubscribeToAllOptions{
		From: esdb.Start{}, Filter: prefix(cat), MaxSearchWindow: 10, CheckpointInterval: 2,
	})
	if n := len(s.history()); n != 1 {
		t.Fatalf("got %d events, want 1", n)
	}
	appendTo(t, c, newStream(), esdb.NoStream{}, happened(100)...)
	appendTo(t, c, cat+"-1", esdb.Revision(0), happened(1)...)
	live := s.event()
	var last esdb.Position
	for _, p := range s.checkpoints {
		if p.Commit == math.MaxUint64 {
			continue // a known defect of EventStoreDB 24.10.0 to 24.10.4
		}
		if p.Commit <= last.Commit || p.Commit > live.Position.Commit {
			t.Errorf("checkpoint %v after %v, before the event at %v", p, last, live.Position)
		}
		last = p
	}
	if last.Commit <= own.Commit {
		t.Errorf("100 events that don't match moved no checkpoint: %v", s.checkpoints)
	}
	resumed := subscribeAll(t, c, esdb.SubscribeToAllOptions{From: last, Filter: prefix(cat)})
	if e := resumed.event(); e.EventID != live.EventID {
		t.Errorf("resumed at the checkpoint with %s@%d", e.StreamID, e.EventNumber)
	}
}
