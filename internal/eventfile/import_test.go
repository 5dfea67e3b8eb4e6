package eventfile_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/purserhq/purser/internal/eventfile"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/services/eventstore/eventstoretest"
)

// newLog returns the log of a fresh embedded store.
func newLog(t *testing.T) *eventlog.Log {
	t.Helper()
	l, err := eventlog.Open(eventstoretest.Start(t), eventschema.New(), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func importFile(ctx context.Context, target eventfile.Target, file string) (eventfile.Imported, error) {
	return eventfile.Import(ctx, target, eventfile.NewReader(strings.NewReader(file), false), nil)
}

// export returns what a log holds, by stream.
func export(t *testing.T, l *eventlog.Log) map[string][]eventlog.Recorded {
	t.Helper()
	streams := make(map[string][]eventlog.Recorded)
	for e, err := range l.All(within(t)) {
		if err != nil {
			t.Fatal(err)
		}
		if !eventlog.IsSystem(e.Stream) {
			streams[e.Stream] = append(streams[e.Stream], e)
		}
	}
	return streams
}

// wantStreams compares a log with the events of a file: each stream is the same, but for when its events were stored, and
// streams that share a key are in the order of the file.
func wantStreams(t *testing.T, l *eventlog.Log, want []eventlog.Recorded) {
	t.Helper()
	got := export(t, l)
	last := make(map[string]eventlog.Position)
	n := 0
	for _, w := range want {
		stream := got[w.Stream]
		if int(w.Revision) >= len(stream) {
			t.Fatalf("%s has %d events, and not revision %d", w.Stream, len(stream), w.Revision)
		}
		g := stream[w.Revision]
		g.Created = w.Created
		if !same(g, w) {
			t.Fatalf("%+v became %+v", w, g)
		}
		_, key, _ := eventlog.SplitStream(w.Stream)
		if g.Position <= last[key] {
			t.Fatalf("%s@%d is out of the order of its key", w.Stream, w.Revision)
		}
		last[key] = g.Position
	}
	for _, stream := range got {
		n += len(stream)
	}
	if n != len(want) {
		t.Errorf("%d events of %d", n, len(want))
	}
}

// history makes events of streams that share keys, in an order of their own.
func history(n int) []eventlog.Recorded {
	r := rand.New(rand.NewPCG(1, 2))
	next := make(map[string]eventlog.Revision)
	events := make([]eventlog.Recorded, n)
	stream := ""
	for i := range events {
		if stream == "" || r.IntN(3) == 0 {
			stream = fmt.Sprintf("%s-%d", []string{"order", "payment", "fulfillment"}[r.IntN(3)], r.IntN(n/8))
		}
		events[i] = event(stream, next[stream], fmt.Sprintf(`{"n":%d}`, i))
		next[stream]++
	}
	return events
}

func TestImportIsExactAndRepeatable(t *testing.T) {
	l := newLog(t)
	events := history(800)
	file := write(t, events...)
	first, err := importFile(within(t), l, file)
	if err != nil || first != (eventfile.Imported{Added: 800}) {
		t.Fatalf("%+v, %v", first, err)
	}
	wantStreams(t, l, events)
	head, err := l.Head(within(t))
	if err != nil {
		t.Fatal(err)
	}
	second, err := importFile(within(t), l, file)
	if err != nil || second != (eventfile.Imported{Present: 800}) {
		t.Errorf("again: %+v, %v", second, err)
	}
	if now, err := l.Head(within(t)); err != nil || now != head {
		t.Errorf("importing again moved the head from %d to %d, %v", head, now, err)
	}
}

// cutOff is a log whose appends fail after some; half of them are stored all the same, and part of one batch.
type cutOff struct {
	*eventlog.Log
	left atomic.Int64
}

var errCutOff = errors.New("cut off")

func (c *cutOff) AppendRecorded(ctx context.Context, stream string, expected eventlog.Revision, events []eventlog.Recorded) (eventlog.Appended, error) {
	if left := c.left.Add(-1); left < 0 {
		if left%2 == 0 {
			_, _ = c.Log.AppendRecorded(ctx, stream, expected, events[:(len(events)+1)/2])
		}
		return eventlog.Appended{}, errCutOff
	}
	return c.Log.AppendRecorded(ctx, stream, expected, events)
}

func TestAnInterruptedImportIsContinued(t *testing.T) {
	l := newLog(t)
	events := history(600)
	file := write(t, events...)
	interruptions := 0
	for appends := int64(5); ; appends *= 2 {
		target := &cutOff{Log: l}
		target.left.Store(appends)
		imported, err := importFile(within(t), target, file)
		if err == nil {
			if imported.Present == 0 || imported.Present+imported.Added != 600 {
				t.Errorf("%+v", imported)
			}
			break
		}
		if !errors.Is(err, errCutOff) && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		interruptions++
	}
	if interruptions < 3 {
		t.Errorf("only %d interruptions", interruptions)
	}
	wantStreams(t, l, events)
}

// A batch of the file that the store has in part is completed, whatever the part.
func TestBatchesAreContinuedAnywhere(t *testing.T) {
	l := newLog(t)
	for had := range 6 {
		stream := fmt.Sprintf("stock-%d", had)
		var events []eventlog.Recorded
		for i := range 5 {
			events = append(events, event(stream, eventlog.Revision(i), "{}"))
		}
		if had > 0 {
			if _, err := l.AppendRecorded(within(t), stream, eventlog.NoStream, events[:had]); err != nil {
				t.Fatal(err)
			}
		}
		imported, err := importFile(within(t), l, write(t, events...))
		if err != nil || imported != (eventfile.Imported{Added: int64(5 - had), Present: int64(had)}) {
			t.Errorf("with %d there: %+v, %v", had, imported, err)
		}
	}
}

func TestOtherStreamsAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		store, file []eventlog.Recorded
		metadata    string
		revision    eventlog.Revision
		after       int // events of the stream that follow
	}{
		"another first event":  {store: []eventlog.Recorded{event("a-1", 0, "{}")}, revision: 0, after: 1},
		"another second event": {store: []eventlog.Recorded{event("a-1", 1, "{}")}, revision: 1, after: 2},
		"truncated":            {metadata: `{"$tb":5}`, revision: 0},
		"deleted":              {metadata: `{"$tb":9223372036854775807}`, revision: 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			file := []eventlog.Recorded{event("a-1", 0, "{}"), event("a-1", 1, "{}"), event("a-1", 2, "{}")}
			there := append(file[:c.revision:c.revision], c.store...)
			if len(there) > 0 {
				if _, err := l.AppendRecorded(within(t), "a-1", eventlog.NoStream, there); err != nil {
					t.Fatal(err)
				}
			}
			if c.metadata != "" {
				tb := eventlog.Recorded{ID: uuid.New(), Type: "$metadata", ContentType: "application/json", Data: []byte(c.metadata)}
				if _, err := l.AppendRecorded(within(t), "$$a-1", eventlog.NoStream, []eventlog.Recorded{tb}); err != nil {
					t.Fatal(err)
				}
			}
			_, err := importFile(within(t), l, write(t, file...))
			var diverged *eventfile.DivergedError
			if !errors.As(err, &diverged) || diverged.Stream != "a-1" || diverged.Revision != c.revision {
				t.Errorf("%v", err)
			}
			if events := export(t, l)["a-1"]; len(events) != c.after {
				t.Errorf("the stream has %d events, and had %d", len(events), c.after)
			}
		})
	}
}

func TestUnfitStreamsEndAnImportOrAreLeftOut(t *testing.T) {
	l := newLog(t)
	good := event("good-1", 0, "{}")
	file := write(t, good, event("cut-1", 4, "{}"), event("cut-1", 5, "{}"))
	var unfit *eventfile.UnfitError
	if _, err := importFile(within(t), newLog(t), file); !errors.As(err, &unfit) || unfit.Stream != "cut-1" {
		t.Errorf("%v", err)
	}
	checked, err := eventfile.Check(eventfile.NewReader(strings.NewReader(file), false))
	if err != nil {
		t.Fatal(err)
	}
	imported, err := eventfile.Import(within(t), l, eventfile.NewReader(strings.NewReader(file), false), checked)
	if err != nil || imported != (eventfile.Imported{Added: 1, Skipped: 2}) {
		t.Errorf("%+v, %v", imported, err)
	}
	wantStreams(t, l, []eventlog.Recorded{good})
}

func TestLargeEventsAreImportedOneByOne(t *testing.T) {
	l := newLog(t)
	var events []eventlog.Recorded
	for i := range 5 {
		events = append(events, event("big-1", eventlog.Revision(i), `"`+strings.Repeat("x", eventlog.MaxAppend-1000+i*500)+`"`))
	}
	if imported, err := importFile(within(t), l, write(t, events...)); err != nil || imported.Added != 5 {
		t.Errorf("%+v, %v", imported, err)
	}
	over := event("huge-1", 0, `"`+strings.Repeat("x", 2<<20)+`"`)
	if _, err := importFile(within(t), l, write(t, over)); !errors.Is(err, eventlog.ErrTooLarge) {
		t.Errorf("%v", err)
	}
}
