package eventlog_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	catalogevent "github.com/purserhq/purser/proto/purser/catalog/event/v1"
	stockevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	"github.com/purserhq/purser/services/eventstore"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// store is an embedded event store that can be stopped and started again on the same address.
type store struct {
	t    *testing.T
	dir  string
	addr string
	stop func()
}

func newStore(t *testing.T) *store {
	t.Helper()
	s := &store{t: t, dir: t.TempDir(), addr: "127.0.0.1:0"}
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *store) start() {
	s.t.Helper()
	server, err := eventstore.Open(eventstore.Config{Dir: s.dir, Addr: s.addr}, quiet(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.addr = server.Addr()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			s.t.Error(err)
		}
	})
}

func (s *store) open() *eventlog.Log {
	s.t.Helper()
	l, err := eventlog.Open("esdb://"+s.addr+"?tls=false", eventschema.New(), quiet(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(l.Close)
	return l
}

func received(n int64) eventlog.NewEvent {
	return eventlog.NewEvent{
		ID: uuid.New(), Message: &stockevent.StockReceived{ProductId: "p", Quantity: n},
		Meta: eventlog.Metadata{RequestID: "r", Actor: "a", OccurredAt: time.Unix(1, 2).UTC()},
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestAppendAndRead(t *testing.T) {
	l := newStore(t).open()
	ctx := within(t, 20*time.Second)
	if events, err := l.Read(ctx, "stock-p", 0, 0); err != nil || len(events) != 0 {
		t.Fatalf("a stream that is not there: %v, %v", events, err)
	}
	batch := []eventlog.NewEvent{received(1), received(2)}
	first, err := l.Append(ctx, "stock-p", eventlog.NoStream, batch)
	if err != nil || first.Revision != 1 {
		t.Fatalf("%+v, %v", first, err)
	}
	if again, err := l.Append(ctx, "stock-p", eventlog.NoStream, batch); err != nil || again != first {
		t.Errorf("the same append again: %+v, %v; first %+v", again, err, first)
	}
	var conflict *eventlog.ConflictError
	for _, expected := range []eventlog.Revision{eventlog.NoStream, 0, 5} {
		if _, err := l.Append(ctx, "stock-p", expected, []eventlog.NewEvent{received(3)}); !errors.As(err, &conflict) {
			t.Errorf("expected revision %d: %v", expected, err)
		}
	}
	second, err := l.Append(ctx, "stock-p", 1, []eventlog.NewEvent{received(3)})
	if err != nil || second.Revision != 2 || second.Position <= first.Position {
		t.Errorf("%+v, %v", second, err)
	}
	events, err := l.Read(ctx, "stock-p", 1, 1)
	if err != nil || len(events) != 1 || events[0].Revision != 1 || events[0].ID != batch[1].ID {
		t.Fatalf("%+v, %v", events, err)
	}
	e, err := l.Decode(events[0])
	if err != nil || e.Messages[0].(*stockevent.StockReceived).GetQuantity() != 2 || e.Meta.SchemaVersion != 1 || !e.Meta.OccurredAt.Equal(time.Unix(1, 2)) {
		t.Errorf("%+v, %v", e, err)
	}
	if head, err := l.Head(ctx); err != nil || head != second.Position {
		t.Errorf("head %d, %v", head, err)
	}
}

func TestAReadGoesOnOverManyPages(t *testing.T) {
	l := newStore(t).open()
	ctx := within(t, time.Minute)
	const n = 2500
	for at := eventlog.NoStream; at < n-1; {
		var batch []eventlog.NewEvent
		for range 250 {
			batch = append(batch, received(int64(at)))
		}
		a, err := l.Append(ctx, "stock-p", at, batch)
		if err != nil {
			t.Fatal(err)
		}
		at = a.Revision
	}
	events, err := l.Read(ctx, "stock-p", 0, 0)
	if err != nil || len(events) != n {
		t.Fatalf("%d events, %v", len(events), err)
	}
	for i, e := range events {
		if e.Revision != eventlog.Revision(i) {
			t.Fatalf("event %d has revision %d", i, e.Revision)
		}
	}
}

func TestTooLargeIsRefusedBeforeItIsSent(t *testing.T) {
	l := newStore(t).open()
	ctx := within(t, 20*time.Second)
	big := eventlog.NewEvent{ID: uuid.New(), Message: &catalogevent.ProductCreated{Description: strings.Repeat("x", eventlog.MaxEvent)}}
	if _, err := l.Append(ctx, "product-p", eventlog.NoStream, []eventlog.NewEvent{big}); !errors.Is(err, eventlog.ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestIdentityIsOneForAll(t *testing.T) {
	s := newStore(t)
	ctx := within(t, 20*time.Second)
	ids := make([]string, 8)
	var wg sync.WaitGroup
	for i := range ids {
		l := s.open()
		wg.Go(func() {
			id, err := l.Identity(ctx)
			if err != nil {
				t.Error(err)
			}
			ids[i] = id
		})
	}
	wg.Wait()
	if len(slices.Compact(ids)) != 1 || ids[0] == "" {
		t.Errorf("identities %v", ids)
	}
	if other, err := newStore(t).open().Identity(ctx); err != nil || other == ids[0] {
		t.Errorf("another store is called %q, %v", other, err)
	}
}

func TestUndecodableEventsAreDeliveredAllTheSame(t *testing.T) {
	l := newStore(t).open()
	for name, r := range map[string]eventlog.Recorded{
		"unknown type": {Type: "Nothing", ContentType: "application/json", Data: []byte("{}"), Metadata: []byte(`{"schemaVersion":1}`)},
		"newer":        {Type: "StockReceived", ContentType: "application/json", Data: []byte("{}"), Metadata: []byte(`{"schemaVersion":9}`)},
		"no metadata":  {Type: "StockReceived", ContentType: "application/json", Data: []byte("{}")},
		"a note":       {Type: "Note", ContentType: "application/json", Data: []byte("{}")},
		"no JSON":      {Type: "StockReceived", ContentType: "application/json", Data: []byte("["), Metadata: []byte(`{"schemaVersion":1}`)},
	} {
		_, err := l.Decode(r)
		if err == nil || errors.Is(err, eventlog.ErrUnknownType) != (name == "unknown type" || name == "a note") || errors.Is(err, eventlog.ErrNewerVersion) != (name == "newer") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A subscription and writers live through restarts of the store: nothing is lost, doubled or out of order, and no call
// outlasts its context.
func TestRestartsOfTheStoreAreLivedThrough(t *testing.T) {
	s := newStore(t)
	l := s.open()
	const streams, each = 4, 30
	ctx := within(t, 2*time.Minute)

	var wg sync.WaitGroup
	subCtx, stopSub := context.WithCancel(ctx)
	got := make(chan eventlog.Recorded, streams*each)
	wg.Go(func() {
		err := l.Subscribe(subCtx, []string{eventschema.Stock}, 0, func(_ context.Context, d eventlog.Delivery) error {
			if d.Event != nil {
				got <- *d.Event
			}
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the subscription ended with %v", err)
		}
	})
	for i := range streams {
		wg.Go(func() {
			stream := fmt.Sprintf("stock-%d", i)
			at := eventlog.NoStream
			for at < each-1 {
				callCtx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
				started := time.Now()
				e := received(1)
				a, err := l.Append(callCtx, stream, at, []eventlog.NewEvent{e})
				for errors.Is(err, eventlog.ErrUnavailable) && ctx.Err() == nil {
					if took := time.Since(started); took > 5*time.Second {
						t.Errorf("a call outlasted its context by %s", took)
					}
					cancel()
					callCtx, cancel = context.WithTimeout(ctx, 500*time.Millisecond)
					started = time.Now()
					a, err = l.Append(callCtx, stream, at, []eventlog.NewEvent{e}) // as it was
				}
				cancel()
				if err != nil {
					t.Error(err)
					return
				}
				at = a.Revision
			}
		})
	}
	for range 3 {
		<-time.After(300 * time.Millisecond)
		s.stop()
		<-time.After(1500 * time.Millisecond) // longer than the client would take to give up for good
		s.start()
	}
	last := eventlog.Position(0)
	next := map[string]eventlog.Revision{}
	for range streams * each {
		select {
		case e := <-got:
			if e.Position <= last || e.Revision != next[e.Stream] {
				t.Fatalf("%s@%d at %d came after position %d, revision %d was expected", e.Stream, e.Revision, e.Position, last, next[e.Stream])
			}
			last, next[e.Stream] = e.Position, e.Revision+1
		case <-ctx.Done():
			t.Fatal("events are missing")
		}
	}
	stopSub()
	wg.Wait()
}

func TestSubscriptionsAreOfTheirCategoriesAndCatchUp(t *testing.T) {
	l := newStore(t).open()
	ctx, cancel := context.WithCancel(within(t, 20*time.Second))
	first, err := l.Append(ctx, "stock-a", eventlog.NoStream, []eventlog.NewEvent{received(1)})
	if err != nil {
		t.Fatal(err)
	}
	for _, stream := range []string{"stocks-a", "product-a", "stock-b"} {
		if _, err := l.Append(ctx, stream, eventlog.NoStream, []eventlog.NewEvent{received(1)}); err != nil {
			t.Fatal(err)
		}
	}
	var seen []string
	err = l.Subscribe(ctx, []string{"stock", "product"}, first.Position, func(_ context.Context, d eventlog.Delivery) error {
		switch {
		case d.Event != nil:
			seen = append(seen, d.Event.Stream)
		case d.CaughtUp:
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || !slices.Equal(seen, []string{"product-a", "stock-b"}) {
		t.Errorf("%v, %v", seen, err)
	}
	failed := errors.New("full")
	if err := l.Subscribe(t.Context(), []string{"stock"}, 0, func(context.Context, eventlog.Delivery) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("the subscriber's error became %v", err)
	}
}

// An outage is said to the subscriber, who may end it all; and a log that was set back meanwhile can be told.
func TestASubscriberIsToldOfAnInterruption(t *testing.T) {
	s := newStore(t)
	l := s.open()
	ctx := within(t, 30*time.Second)
	interrupted := errors.New("interrupted")
	seen, ended := make(chan eventlog.Recorded, 10), make(chan error, 1)
	go func() {
		ended <- l.Subscribe(ctx, []string{"stock"}, 0, func(_ context.Context, d eventlog.Delivery) error {
			switch {
			case d.Interrupted != nil:
				return interrupted
			case d.Event != nil:
				seen <- *d.Event
			}
			return nil
		})
	}()
	if _, err := l.Append(ctx, "stock-a", eventlog.NoStream, []eventlog.NewEvent{received(1)}); err != nil {
		t.Fatal(err)
	}
	e := <-seen
	if has, err := l.Has(ctx, e.Position, e.ID); err != nil || !has {
		t.Errorf("has: %t, %v", has, err)
	}
	s.stop()
	if err := <-ended; !errors.Is(err, interrupted) {
		t.Errorf("ended with %v", err)
	}
	s.dir = t.TempDir()
	s.start()
	for n := range 3 {
		if _, err := s.open().Append(ctx, fmt.Sprintf("stock-%d", n), eventlog.NoStream, []eventlog.NewEvent{received(1)}); err != nil {
			t.Fatal(err)
		}
	}
	if has, err := l.Has(ctx, e.Position, e.ID); err != nil || has {
		t.Errorf("after the log was set back, has: %t, %v", has, err)
	}
}

func TestConnectionStrings(t *testing.T) {
	for url, ok := range map[string]bool{
		"esdb://127.0.0.1:2113?tls=false":                                   true,
		"esdb+discover://a:2113,b:2113?tls=false":                           true,
		"esdb://user:s3cret@127.0.0.1:2113?tlsVerifyCert=false":             true,
		"esdb+discover://user:p%40ss@cluster.example?nodePreference=leader": true,
		"http://127.0.0.1:2113":                                             false,
		"esdb://user:s3cret@127.0.0.1:none":                                 false,
		"":                                                                  false,
	} {
		l, err := eventlog.Open(url, eventschema.New(), quiet(), nil)
		if (err == nil) != ok {
			t.Errorf("%q: %v", url, err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the error shows the password: %v", err)
		}
		if l != nil {
			l.Close()
		}
	}
}
