package eventstore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/uuid"

	"github.com/purserhq/purser/services/eventstore"
)

const (
	urlVariable = "PURSER_TEST_EVENTSTORE_URL"
	testTimeout = 60 * time.Second
)

// conformanceURL is the server that the conformance tests run against, all of them one after the other: the one named in
// the environment, else an embedded one.
var conformanceURL = os.Getenv(urlVariable)

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	if dir := os.Getenv(asServer); dir != "" {
		return serveUntilEOF(dir)
	}
	if conformanceURL != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "eventstore")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	s := startIn(dir)
	defer func() { _ = s.stop() }()
	conformanceURL = s.url()
	return m.Run()
}

// running is an embedded server that serves.
type running struct {
	*eventstore.Server
	cancel context.CancelFunc
	served chan error
}

func startIn(dir string) *running {
	s, err := eventstore.Open(eventstore.Config{Dir: dir, Addr: "127.0.0.1:0"}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		panic(err)
	}
	return serving(s)
}

func serving(s *eventstore.Server) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Server: s, cancel: cancel, served: make(chan error, 1)}
	go func() { r.served <- s.Serve(ctx) }()
	return r
}

// start runs an embedded server for one test.
func start(t testing.TB, dir string) *running {
	t.Helper()
	return stopped(t, startIn(dir))
}

// serve runs a server that is already open for one test.
func serve(t testing.TB, s *eventstore.Server) *running { return stopped(t, serving(s)) }

func stopped(t testing.TB, r *running) *running {
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// stop ends the server and waits for it. It may be called again.
func (r *running) stop() error {
	r.cancel()
	err := <-r.served
	r.served <- err
	return err
}

func (r *running) url() string { return "esdb://" + r.Addr() + "?tls=false" }

func connect(t testing.TB, url string) *esdb.Client {
	t.Helper()
	c, err := newClient(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func newClient(url string) (*esdb.Client, error) {
	cfg, err := esdb.ParseConnectionString(url)
	if err != nil {
		return nil, err
	}
	cfg.Logger = esdb.NoopLogging()
	return esdb.NewClient(cfg)
}

func conformanceClient(t *testing.T) *esdb.Client { return connect(t, conformanceURL) }

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// category is the beginning of the names of one test's streams.
func category() string { return "conformance" + uuid.NewString()[:8] }

// newStream is the name of a stream that doesn't exist.
func newStream() string { return category() + "-1" }

func happened(n int) []esdb.EventData {
	events := make([]esdb.EventData, n)
	for i := range events {
		events[i] = esdb.EventData{
			EventID: uuid.New(), EventType: "Happened", ContentType: esdb.ContentTypeJson,
			Data: fmt.Appendf(nil, `{"n":%d}`, i), Metadata: []byte(`{"m":1}`),
		}
	}
	return events
}

func appendTo(t testing.TB, c *esdb.Client, stream string, expected esdb.ExpectedRevision, events ...esdb.EventData) *esdb.WriteResult {
	t.Helper()
	res, err := c.AppendToStream(testContext(t), stream, esdb.AppendToStreamOptions{ExpectedRevision: expected}, events...)
	if err != nil {
		t.Fatalf("append to %s expecting %v: %v", stream, expected, err)
	}
	return res
}

func errorCode(err error) esdb.ErrorCode {
	var e *esdb.Error
	if errors.As(err, &e) {
		return e.Code()
	}
	return esdb.ErrorCodeUnknown
}

func wantCode(t *testing.T, err error, want esdb.ErrorCode) {
	t.Helper()
	if err == nil || errorCode(err) != want {
		t.Fatalf("got error %v (code %d), want code %d", err, errorCode(err), want)
	}
}

func drainRead(t *testing.T, r *esdb.ReadStream, err error) []*esdb.ResolvedEvent {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out []*esdb.ResolvedEvent
	for {
		e, err := r.Recv()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
}

func readStream(t *testing.T, c *esdb.Client, stream string, opts esdb.ReadStreamOptions, count uint64) []*esdb.ResolvedEvent {
	t.Helper()
	r, err := c.ReadStream(testContext(t), stream, opts, count)
	return drainRead(t, r, err)
}

func readAll(t *testing.T, c *esdb.Client, opts esdb.ReadAllOptions, count uint64) []*esdb.ResolvedEvent {
	t.Helper()
	r, err := c.ReadAll(testContext(t), opts, count)
	return drainRead(t, r, err)
}

func revisions(events []*esdb.ResolvedEvent) []uint64 {
	out := []uint64{}
	for _, e := range events {
		out = append(out, e.Event.EventNumber)
	}
	return out
}

func wantRevisions(t *testing.T, events []*esdb.ResolvedEvent, want ...uint64) {
	t.Helper()
	if got := revisions(events); !slices.Equal(got, want) {
		t.Fatalf("got revisions %v, want %v", got, want)
	}
}

// subscriber receives in order; it fails the test when the subscription drops.
type subscriber struct {
	t   *testing.T
	sub *esdb.Subscription

	checkpoints []esdb.Position
}

func subscribed(t *testing.T, sub *esdb.Subscription, err error) *subscriber {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Close() })
	return &subscriber{t: t, sub: sub}
}

func subscribeStream(t *testing.T, c *esdb.Client, stream string, from esdb.StreamPosition) *subscriber {
	t.Helper()
	sub, err := c.SubscribeToStream(testContext(t), stream, esdb.SubscribeToStreamOptions{From: from})
	return subscribed(t, sub, err)
}

func subscribeAll(t *testing.T, c *esdb.Client, opts esdb.SubscribeToAllOptions) *subscriber {
	t.Helper()
	sub, err := c.SubscribeToAll(testContext(t), opts)
	return subscribed(t, sub, err)
}

func prefix(p string) *esdb.SubscriptionFilter {
	return &esdb.SubscriptionFilter{Type: esdb.StreamFilterType, Prefixes: []string{p}}
}

// event is the next event; caught_up and checkpoints before it are passed over.
func (s *subscriber) event() *esdb.RecordedEvent {
	s.t.Helper()
	for {
		if e := s.next().EventAppeared; e != nil {
			return e.Event
		}
	}
}

func (s *subscriber) next() *esdb.SubscriptionEvent {
	s.t.Helper()
	e := s.sub.Recv()
	if e.SubscriptionDropped != nil {
		s.t.Fatalf("dropped: %v", e.SubscriptionDropped.Error)
	}
	if e.CheckPointReached != nil {
		s.checkpoints = append(s.checkpoints, *e.CheckPointReached)
	}
	return e
}

// history is all events until the subscription is caught up.
func (s *subscriber) history() []*esdb.ResolvedEvent {
	s.t.Helper()
	var out []*esdb.ResolvedEvent
	for {
		switch e := s.next(); {
		case e.CaughtUp != nil:
			return out
		case e.EventAppeared != nil:
			out = append(out, e.EventAppeared)
		}
	}
}
