package eventlog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/purserhq/purser/internal/eventlog"
)

// plain is an event of which the log knows nothing.
func plain(data string) eventlog.Recorded {
	return eventlog.Recorded{ID: uuid.New(), Type: "Anything", ContentType: "application/json", Data: []byte(data)}
}

func appendAll(t *testing.T, l *eventlog.Log, stream string, expected eventlog.Revision, events ...eventlog.Recorded) eventlog.Appended {
	t.Helper()
	a, err := l.AppendRecorded(within(t, 20*time.Second), stream, expected, events)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestEventsAreCopiedAsTheyAreStored(t *testing.T) {
	l := newStore(t).open()
	ctx := within(t, 20*time.Second)
	originals := []eventlog.Recorded{
		{ID: uuid.New(), Type: "No JSON at all", ContentType: "application/json", Data: []byte("{ \x00"), Metadata: []byte("\xff")},
		{ID: uuid.New(), Type: "Bytes", ContentType: "application/octet-stream", Data: []byte{0, 1, 2, '\n', 0xff}, Metadata: []byte(` {"a" : 1} `)},
		{ID: uuid.New(), Type: "Empty", ContentType: "application/octet-stream"},
	}
	appendAll(t, l, "from", eventlog.NoStream, originals...)
	stored, err := l.Read(ctx, "from", 0, 0)
	if err != nil || len(stored) != len(originals) {
		t.Fatalf("%d events, %v", len(stored), err)
	}
	a := appendAll(t, l, "to", eventlog.NoStream, stored...)
	if again := appendAll(t, l, "to", eventlog.NoStream, stored[:2]...); a.Revision != 2 || again.Revision != 1 || again.Position >= a.Position {
		t.Errorf("%+v, and the first two again %+v", a, again)
	}
	copied, err := l.Read(ctx, "to", 0, 0)
	if err != nil || len(copied) != len(originals) {
		t.Fatalf("%d events, %v", len(copied), err)
	}
	for i, o := range originals {
		c := copied[i]
		if c.ID != o.ID || c.Type != o.Type || c.ContentType != o.ContentType || !bytes.Equal(c.Data, o.Data) || !bytes.Equal(c.Metadata, o.Metadata) {
			t.Errorf("%+v became %+v", o, c)
		}
	}
	if _, err := l.AppendRecorded(ctx, "to", 2, []eventlog.Recorded{{ID: uuid.New(), Type: "X", ContentType: "text/plain"}}); err == nil {
		t.Error("a content type that the store would change was taken")
	}
}

func TestAConflictTellsWhereTheStreamIs(t *testing.T) {
	l := newStore(t).open()
	ctx := within(t, 20*time.Second)
	appendAll(t, l, "s-1", eventlog.NoStream, plain("1"), plain("2"), plain("3"))
	for _, c := range []struct {
		stream           string
		expected, actual eventlog.Revision
	}{
		{"s-1", eventlog.NoStream, 2}, {"s-1", 0, 2}, {"s-1", 7, 2}, {"s-2", 0, eventlog.NoStream},
	} {
		_, err := l.AppendRecorded(ctx, c.stream, c.expected, []eventlog.Recorded{plain("4")})
		var conflict *eventlog.ConflictError
		if !errors.As(err, &conflict) || conflict.Actual == nil || *conflict.Actual != c.actual || conflict.Expected != c.expected {
			t.Errorf("%s at %d: %v", c.stream, c.expected, err)
		}
	}
}

func TestTheWholeLogIsReadInOrder(t *testing.T) {
	l := newStore(t).open()
	const streams, each = 3, 800 // more than a page
	var want []uuid.UUID
	for i := range each / 100 {
		for s := range streams {
			batch := make([]eventlog.Recorded, 100)
			for j := range batch {
				batch[j] = plain("{}")
				want = append(want, batch[j].ID)
			}
			appendAll(t, l, fmt.Sprintf("s-%d", s), eventlog.Revision(i*100)-1, batch...)
		}
	}
	n, last := 0, eventlog.Position(0)
	for e, err := range l.All(within(t, time.Minute)) {
		if err != nil {
			t.Fatal(err)
		}
		if eventlog.IsSystem(e.Stream) {
			continue
		}
		if e.ID != want[n] || e.Position <= last {
			t.Fatalf("event %d is %s@%d at %d, after %d", n, e.Stream, e.Revision, e.Position, last)
		}
		if n == 0 { // what is appended meanwhile is left to the next walk
			appendAll(t, l, "late-1", eventlog.NoStream, plain("{}"))
		}
		n, last = n+1, e.Position
	}
	if n != len(want) {
		t.Errorf("%d events of %d", n, len(want))
	}
	next := eventlog.Revision(1)
	for e, err := range l.Stream(within(t, time.Minute), "s-1", next) {
		if err != nil || e.Revision != next {
			t.Fatalf("revision %d in place of %d, %v", e.Revision, next, err)
		}
		next++
	}
	if next != each {
		t.Errorf("the stream ended before revision %d", next)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range l.All(ended) {
		if err == nil {
			t.Error("an event was read after the context had ended")
		}
	}
}

func TestStreamsAreFollowedByName(t *testing.T) {
	l := newStore(t).open()
	first := appendAll(t, l, "order-1", eventlog.NoStream, plain("1"))
	appendAll(t, l, "order-2", eventlog.NoStream, plain("1"))
	appendAll(t, l, "orders", eventlog.NoStream, plain("1"))
	appendAll(t, l, "payment-1", eventlog.NoStream, plain("1"))
	last := appendAll(t, l, "stock-1", eventlog.NoStream, plain("1"))
	for name, c := range map[string]struct {
		filter eventlog.Filter
		after  eventlog.Position
		want   string
	}{
		"all":         {eventlog.Filter{}, first.Position, "order-2 orders payment-1 stock-1 "},
		"prefix":      {eventlog.Filter{Prefixes: []string{"order"}}, 0, "order-1 order-2 orders "},
		"prefixes":    {eventlog.Filter{Prefixes: []string{"order-", "stock"}}, first.Position, "order-2 stock-1 "},
		"expression":  {eventlog.Filter{Regexp: "-1$"}, 0, "order-1 payment-1 stock-1 "},
		"one of both": {eventlog.Filter{Prefixes: []string{"payment"}, Regexp: "^orders$"}, 0, "orders "},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(within(t, 20*time.Second))
			got := ""
			err := l.Follow(ctx, c.filter, c.after, func(_ context.Context, d eventlog.Delivery) error {
				if d.Event != nil && !eventlog.IsSystem(d.Event.Stream) {
					got += d.Event.Stream + " "
				}
				if d.CaughtUp || d.Position >= last.Position {
					cancel()
				}
				return nil
			})
			if !errors.Is(err, context.Canceled) || got != c.want {
				t.Errorf("got %q, want %q; %v", got, c.want, err)
			}
		})
	}
	if err := l.Follow(t.Context(), eventlog.Filter{Regexp: "("}, 0, nil); err == nil {
		t.Error("an expression that can't be read was taken")
	}
}

func TestTruncatedStreamsAreTold(t *testing.T) {
	l := newStore(t).open()
	ctx := within(t, 20*time.Second)
	for stream, c := range map[string]struct {
		metadata string
		want     eventlog.Revision
	}{
		"none": {"", 0}, "other": {`{"$maxCount":1}`, 0}, "truncated": {`{"$tb":3}`, 3}, "bad": {`[`, 0},
		"deleted": {`{"$tb":9223372036854775807}`, 1<<63 - 1},
	} {
		if c.metadata != "" {
			appendAll(t, l, "$$"+stream, eventlog.NoStream, plain(c.metadata))
		}
		if got, err := l.TruncatedBefore(ctx, stream); err != nil || got != c.want {
			t.Errorf("%s: %d, %v", stream, got, err)
		}
	}
}
