package memorylog_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventlog/memorylog"
	"github.com/purserhq/purser/internal/eventschema"
	stockevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	"github.com/purserhq/purser/services/eventstore"
)

// log is what the two have in common.
type log interface {
	aggregate.Log
	consumer.Log
	AppendRecorded(ctx context.Context, stream string, expected eventlog.Revision, events []eventlog.Recorded) (eventlog.Appended, error)
}

var (
	_ log = (*memorylog.Log)(nil)
	_ log = (*eventlog.Log)(nil)
)

// onBoth runs a test against the log in memory and the real one, each with a function that takes it down or up again.
func onBoth(t *testing.T, test func(t *testing.T, l log, setDown func(down bool))) {
	t.Run("memory", func(t *testing.T) {
		l := memorylog.New(eventschema.New())
		test(t, l, l.SetDown)
	})
	t.Run("store", func(t *testing.T) {
		quiet := slog.New(slog.DiscardHandler)
		dir, addr := t.TempDir(), "127.0.0.1:0"
		stop := func() {}
		setDown := func(down bool) {
			if stop(); down {
				return
			}
			server, err := eventstore.Open(eventstore.Config{Dir: dir, Addr: addr}, quiet, nil)
			if err != nil {
				t.Fatal(err)
			}
			addr = server.Addr()
			ctx, cancel := context.WithCancel(context.Background())
			served := make(chan error, 1)
			go func() { served <- server.Serve(ctx) }()
			stop = func() {
				cancel()
				if err := <-served; err != nil {
					t.Error(err)
				}
				stop = func() {}
			}
		}
		setDown(false)
		t.Cleanup(func() { stop() })
		l, err := eventlog.Open("esdb://"+addr+"?tls=false", eventschema.New(), quiet, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.Close)
		test(t, l, setDown)
	})
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

var noon = time.Date(2026, 1, 31, 12, 0, 0, 1, time.UTC)

func received(n int64) eventlog.NewEvent {
	return eventlog.NewEvent{
		ID: uuid.New(), Message: &stockevent.StockReceived{ProductId: "p", Quantity: n},
		Meta: eventlog.Metadata{RequestID: "r", Actor: "a", OccurredAt: noon},
	}
}

func TestAppend(t *testing.T) {
	onBoth(t, func(t *testing.T, l log, _ func(bool)) {
		ctx := within(t, 20*time.Second)
		three := []eventlog.NewEvent{received(1), received(2), received(3)}
		first, err := l.Append(ctx, "stock-p", eventlog.NoStream, three)
		if err != nil || first.Revision != 2 {
			t.Fatalf("%+v, %v", first, err)
		}
		other, err := l.Append(ctx, "stock-q", eventlog.NoStream, []eventlog.NewEvent{received(4)})
		if err != nil || other.Revision != 0 || other.Position <= first.Position {
			t.Errorf("%+v, %v after %+v", other, err, first)
		}
		if again, err := l.Append(ctx, "stock-p", eventlog.NoStream, three); err != nil || again != first {
			t.Errorf("the same again: %+v, %v, the first %+v", again, err, first)
		}
		if part, err := l.Append(ctx, "stock-p", 0, three[1:]); err != nil || part != first {
			t.Errorf("the last two again: %+v, %v, the first %+v", part, err, first)
		}
		for name, c := range map[string]struct {
			expected eventlog.Revision
			events   []eventlog.NewEvent
		}{
			"no stream":                    {eventlog.NoStream, []eventlog.NewEvent{received(5)}},
			"too low":                      {0, []eventlog.NewEvent{received(5)}},
			"too high":                     {7, []eventlog.NewEvent{received(5)}},
			"in another order":             {eventlog.NoStream, []eventlog.NewEvent{three[1], three[0]}},
			"the same and one more":        {0, []eventlog.NewEvent{three[1], three[2], received(5)}},
			"the same, at another place":   {0, []eventlog.NewEvent{three[2]}},
			"the same, behind what exists": {3, []eventlog.NewEvent{three[2]}},
			"nothing, where nothing is":    {eventlog.NoStream, nil},
			"nothing, too low":             {1, nil},
			"nothing, too high":            {3, nil},
		} {
			var conflict *eventlog.ConflictError
			_, err := l.Append(ctx, "stock-p", c.expected, c.events)
			if !errors.As(err, &conflict) || conflict.Stream != "stock-p" || conflict.Expected != c.expected || conflict.Actual == nil || *conflict.Actual != 2 {
				t.Errorf("%s: %v", name, err)
			}
		}
		for stream, at := range map[string]eventlog.Revision{"stock-p": 2, "stock-none": eventlog.NoStream} {
			if proof, err := l.Append(ctx, stream, at, nil); err != nil || proof != (eventlog.Appended{Revision: at}) {
				t.Errorf("nothing to %s at %d: %+v, %v", stream, at, proof, err)
			}
		}
		if head, err := l.Head(ctx); err != nil || head != other.Position {
			t.Errorf("head %d, %v, want %d", head, err, other.Position)
		}
	})
}

func TestReadAndDecode(t *testing.T) {
	onBoth(t, func(t *testing.T, l log, _ func(bool)) {
		ctx := within(t, 20*time.Second)
		batch := []eventlog.NewEvent{received(1), received(2), received(3)}
		last, err := l.Append(ctx, "stock-p", eventlog.NoStream, batch)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			stream string
			from   eventlog.Revision
			max    int
			want   string
		}{
			{"stock-p", 0, 0, "[0 1 2]"}, {"stock-p", 1, 0, "[1 2]"}, {"stock-p", 1, 1, "[1]"}, {"stock-p", 0, 9, "[0 1 2]"},
			{"stock-p", 3, 0, "[]"}, {"stock-p", 9, 1, "[]"}, {"stock-q", 0, 0, "[]"},
		} {
			events, err := l.Read(ctx, c.stream, c.from, c.max)
			var got []eventlog.Revision
			for _, e := range events {
				got = append(got, e.Revision)
			}
			if err != nil || fmt.Sprint(got) != c.want {
				t.Errorf("%+v: %v, %v", c, got, err)
			}
		}
		events, err := l.Read(ctx, "stock-p", 2, 1)
		if err != nil {
			t.Fatal(err)
		}
		e, err := l.Decode(events[0])
		if err != nil || !proto.Equal(e.Messages[0], batch[2].Message) || e.ID != batch[2].ID || e.Stream != "stock-p" || e.Position != last.Position {
			t.Errorf("%+v, %v", e, err)
		}
		if want := (eventlog.Metadata{RequestID: "r", Actor: "a", OccurredAt: noon, SchemaVersion: 1}); e.Meta != want {
			t.Errorf("metadata %+v, want %+v", e.Meta, want)
		}
		for id, want := range map[uuid.UUID]bool{batch[2].ID: true, batch[1].ID: false} {
			if has, err := l.Has(ctx, last.Position, id); err != nil || has != want {
				t.Errorf("has %v, %v, want %v", has, err, want)
			}
		}
		if has, err := l.Has(ctx, last.Position+1, batch[2].ID); err != nil || has {
			t.Errorf("behind the head: %v, %v", has, err)
		}
		one, err := l.Identity(ctx)
		again, err2 := l.Identity(ctx)
		if one == "" || again != one || errors.Join(err, err2) != nil {
			t.Errorf("identities %q and %q: %v", one, again, errors.Join(err, err2))
		}
	})
}

// Events as they are stored are kept as they are, and those that can't be read are told apart.
func TestAppendRecorded(t *testing.T) {
	onBoth(t, func(t *testing.T, l log, _ func(bool)) {
		ctx := within(t, 20*time.Second)
		json := func(eventType, metadata, data string) eventlog.Recorded {
			return eventlog.Recorded{ID: uuid.New(), Type: eventType, ContentType: "application/json", Data: []byte(data), Metadata: []byte(metadata)}
		}
		const version1 = `{"schemaVersion":1}`
		for i, c := range []struct {
			event eventlog.Recorded
			want  error // nil: any
		}{
			{json("Unheard", version1, `{}`), eventlog.ErrUnknownType},
			{json("Unheard", `[]`, `{}`), eventlog.ErrUnknownType},
			{json("StockReceived", `{"schemaVersion":1000}`, `{}`), eventlog.ErrNewerVersion},
			{json("StockReceived", version1, `[]`), nil},
			{json("StockReceived", `[]`, `{}`), nil},
		} {
			expected := eventlog.Revision(i - 1)
			if _, err := l.AppendRecorded(ctx, "stock-p", expected, []eventlog.Recorded{c.event}); err != nil {
				t.Fatal(err)
			}
			events, err := l.Read(ctx, "stock-p", expected+1, 1)
			if err != nil || len(events) != 1 {
				t.Fatalf("%v, %v", events, err)
			}
			got := events[0]
			if got.ID != c.event.ID || got.Type != c.event.Type || got.ContentType != c.event.ContentType ||
				string(got.Data) != string(c.event.Data) || string(got.Metadata) != string(c.event.Metadata) || got.Created.IsZero() {
				t.Errorf("stored %+v, want %+v", got, c.event)
			}
			if _, err := l.Decode(got); err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%s %s %s: %v", got.Type, got.Metadata, got.Data, err)
			}
		}
	})
}

func TestSubscribe(t *testing.T) {
	onBoth(t, func(t *testing.T, l log, setDown func(bool)) {
		ctx := within(t, 60*time.Second)
		add := func(stream string, n int64) eventlog.Position {
			t.Helper()
			stored, err := l.Read(ctx, stream, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			a, err := l.Append(ctx, stream, eventlog.Revision(len(stored)-1), []eventlog.NewEvent{received(n)})
			if err != nil {
				t.Fatal(err)
			}
			return a.Position
		}
		add("stock-p", 0)
		after := add("stock-q", 0)
		add("stock-p", 1)
		add("product-p", 9)
		add("stock-q", 2)
		add("stocks-p", 9)

		deliveries := make(chan eventlog.Delivery, 100)
		subCtx, cancel := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() {
			ended <- l.Subscribe(subCtx, []string{"stock", "order"}, after, func(_ context.Context, d eventlog.Delivery) error {
				deliveries <- d
				return nil
			})
		}()
		last := after
		// until reads on to one delivery, and returns the quantities that were delivered up to it.
		until := func(what string, is func(eventlog.Delivery) bool) string {
			t.Helper()
			var got []int64
			for {
				select {
				case d := <-deliveries:
					if d.Position < last || d.Event != nil && (d.Position == last || d.Position != d.Event.Position) {
						t.Errorf("position %d after %d", d.Position, last)
					}
					if last = d.Position; d.Event != nil {
						e, err := l.Decode(*d.Event)
						if err != nil {
							t.Fatal(err)
						}
						got = append(got, e.Messages[0].(*stockevent.StockReceived).GetQuantity())
					}
					if is(d) {
						return fmt.Sprint(got)
					}
				case <-ctx.Done():
					t.Fatalf("waited in vain to hear %s; so far %v", what, got)
				}
			}
		}
		at := func(p eventlog.Position) func(eventlog.Delivery) bool {
			return func(d eventlog.Delivery) bool { return d.Event != nil && d.Position == p }
		}
		caughtUp := func(d eventlog.Delivery) bool { return d.CaughtUp }
		if got := until("that it caught up", caughtUp); got != "[1 2]" {
			t.Errorf("of what existed: %s", got)
		}
		add("order-p", 3)
		if got := until("what is new", at(add("stock-p", 4))); got != "[3 4]" {
			t.Errorf("of what is new: %s", got)
		}

		setDown(true)
		until("of the outage", func(d eventlog.Delivery) bool { return d.Interrupted != nil })
		if _, err := l.Read(within(t, 100*time.Millisecond), "stock-p", 0, 0); !errors.Is(err, eventlog.ErrUnavailable) {
			t.Errorf("read: %v", err)
		}
		if _, err := l.Append(within(t, 100*time.Millisecond), "stock-r", eventlog.NoStream, nil); !errors.Is(err, eventlog.ErrUnavailable) {
			t.Errorf("append: %v", err)
		}
		setDown(false)
		if got := until("that it caught up again", caughtUp); got != "[]" {
			t.Errorf("delivered twice: %s", got)
		}
		if got := until("what is new", at(add("stock-p", 5))); got != "[5]" {
			t.Errorf("after the outage: %s", got)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestASubscriberThatFailsEndsItsSubscription(t *testing.T) {
	onBoth(t, func(t *testing.T, l log, _ func(bool)) {
		ctx := within(t, 20*time.Second)
		if _, err := l.Append(ctx, "stock-p", eventlog.NoStream, []eventlog.NewEvent{received(1), received(2)}); err != nil {
			t.Fatal(err)
		}
		enough := errors.New("enough")
		calls := 0
		err := l.Subscribe(ctx, []string{"stock"}, 0, func(context.Context, eventlog.Delivery) error { calls++; return enough })
		if err != enough || calls != 1 {
			t.Errorf("%v after %d calls", err, calls)
		}
	})
}
