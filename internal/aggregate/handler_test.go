package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventlog/memorylog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/origin"
	"github.com/purserhq/purser/internal/secret"
	inventoryevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// counter is a small aggregate: what was received, of at most limit.
type counter struct {
	total int64
	last  time.Time
}

const limit = 100

func (c *counter) Evolve(m proto.Message, at time.Time) {
	c.total += m.(*inventoryevent.StockReceived).GetQuantity()
	c.last = at
}

func (c *counter) Clone() *counter {
	copied := *c
	return &copied
}

func receive(n int64) aggregate.Decide[counter] {
	return func(c *counter) ([]proto.Message, error) {
		if c.total+n > limit {
			return nil, fault.Refused(typev1.ErrorReason_ERROR_REASON_STOCK_LIMIT, "over %d", limit)
		}
		return []proto.Message{&inventoryevent.StockReceived{ProductId: "p", Quantity: n}}, nil
	}
}

func command(requestID string, n int64) *inventoryv1.ReceiveStockRequest {
	return &inventoryv1.ReceiveStockRequest{RequestId: requestID, ProductId: "p", Quantity: n}
}

func newHandler(t *testing.T, log aggregate.Log) *aggregate.Handler[counter] {
	t.Helper()
	s, err := secret.LoadOrCreate(filepath.Join(t.TempDir(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	return newReplica(log, s)
}

func newReplica(log aggregate.Log, s *secret.Secret) *aggregate.Handler[counter] {
	clock := func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC) }
	return aggregate.New[counter](log, "stock", s, clock)
}

func TestARepeatHasNoSecondEffectAndTheSameAnswer(t *testing.T) {
	log := newShakyLog()
	h := newHandler(t, log)
	id := uuid.NewString()
	first, err := h.Handle(t.Context(), "p", command(id, 60), receive(60))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Handle(t.Context(), "p", command(uuid.NewString(), 40), receive(40)); err != nil {
		t.Fatal(err)
	}
	// The command could not be accepted any more, were it decided again.
	again, err := h.Handle(t.Context(), "p", command(id, 60), receive(60))
	if err != nil {
		t.Fatal(err)
	}
	if !again.Repeat || again.Etag() != first.Etag() || again.Token() != first.Token() || !proto.Equal(again.Messages[0], first.Messages[0]) {
		t.Errorf("the repeat was answered %+v, the first %+v", again, first)
	}
	if n := len(log.Events()); n != 2 {
		t.Errorf("%d events are stored, want 2", n)
	}
}

func TestARepeatIsKnownToAReplicaThatNeverSawTheFirst(t *testing.T) {
	log := newShakyLog()
	s, err := secret.LoadOrCreate(filepath.Join(t.TempDir(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	id := uuid.NewString()
	var answers []aggregate.Done
	for range 3 {
		done, err := newReplica(log, s).Handle(t.Context(), "p", command(id, 60), receive(60))
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, done)
	}
	if answers[2].Etag() != answers[0].Etag() || len(log.Events()) != 1 {
		t.Errorf("answers %+v, %d events", answers, len(log.Events()))
	}
}

func TestAReusedRequestIDIsRefused(t *testing.T) {
	log := newShakyLog()
	h := newHandler(t, log)
	id := uuid.NewString()
	if _, err := h.Handle(t.Context(), "p", command(id, 1), receive(1)); err != nil {
		t.Fatal(err)
	}
	_, err := h.Handle(t.Context(), "p", command(id, 2), receive(2))
	if !fault.Is(err, typev1.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED) {
		t.Errorf("got %v, want REQUEST_ID_REUSED", err)
	}
}

func TestEtag(t *testing.T) {
	h := newHandler(t, newShakyLog())
	done, err := h.Handle(t.Context(), "p", command(uuid.NewString(), 1), receive(1))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		etag string
		want typev1.ErrorReason
	}{
		{`"7"`, typev1.ErrorReason_ERROR_REASON_ETAG_MISMATCH},
		{done.Etag(), typev1.ErrorReason_ERROR_REASON_UNSPECIFIED},
		{done.Etag(), typev1.ErrorReason_ERROR_REASON_ETAG_MISMATCH}, // moved on by the one before
	} {
		cmd := command(uuid.NewString(), 1)
		cmd.Etag = c.etag
		_, err := h.Handle(t.Context(), "p", cmd, receive(1))
		if got := reason(err); got != c.want {
			t.Errorf("etag %s: %v, want %v", c.etag, err, c.want)
		}
	}
}

func TestARefusalIsNeverAnsweredFromAStaleMemory(t *testing.T) {
	log := newShakyLog()
	s, err := secret.LoadOrCreate(filepath.Join(t.TempDir(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	a, b := newReplica(log, s), newReplica(log, s)
	if _, err := a.Handle(t.Context(), "p", command(uuid.NewString(), limit), receive(limit)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Handle(t.Context(), "p", command(uuid.NewString(), -limit), receive(-limit)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Handle(t.Context(), "p", command(uuid.NewString(), 1), receive(1)); err != nil {
		t.Errorf("a remembers what is no longer true: %v", err)
	}
}

// laggingLog reads as a node of a cluster does that has lost its leadership: it passes appends on, and knows only what it had.
type laggingLog struct {
	*memorylog.Log
	lags atomic.Int32 // for so many reads
}

func (l *laggingLog) Read(ctx context.Context, stream string, from eventlog.Revision, max int) ([]eventlog.Recorded, error) {
	if l.lags.Add(-1) >= 0 {
		return nil, nil
	}
	return l.Log.Read(ctx, stream, from, max)
}

func TestNothingIsAnsweredFromWhatALaggingNodeKnows(t *testing.T) {
	log := &laggingLog{Log: memorylog.New(eventschema.New())}
	s, err := secret.LoadOrCreate(filepath.Join(t.TempDir(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newReplica(log, s).Handle(t.Context(), "p", command(uuid.NewString(), limit), receive(limit)); err != nil {
		t.Fatal(err)
	}
	for name, decide := range map[string]aggregate.Decide[counter]{
		"refused": func(c *counter) ([]proto.Message, error) {
			if c.total == 0 {
				return nil, fault.Refused(typev1.ErrorReason_ERROR_REASON_STOCK_LIMIT, "there is nothing")
			}
			return nil, nil
		},
		"nothing to do": func(c *counter) ([]proto.Message, error) { return nil, nil },
	} {
		log.lags.Store(3)
		done, err := newReplica(log, s).Handle(t.Context(), "p", command(uuid.NewString(), 1), decide)
		if err != nil || done.Etag() != `"0"` {
			t.Errorf("%s: answered %+v, %v", name, done, err)
		}
	}
}

func TestConcurrentCommandsOnReplicasLoseNothing(t *testing.T) {
	log := newShakyLog()
	s, err := secret.LoadOrCreate(filepath.Join(t.TempDir(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	replicas := []*aggregate.Handler[counter]{newReplica(log, s), newReplica(log, s)}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	outcomes := map[typev1.ErrorReason]int{}
	for i := range 2 * limit {
		id := uuid.NewString()
		for range 2 { // every command is sent twice, through either replica
			wg.Go(func() {
				_, err := replicas[i%2].Handle(ctx, "p", command(id, 1), receive(1))
				mu.Lock()
				defer mu.Unlock()
				outcomes[reason(err)]++
			})
		}
	}
	wg.Wait()
	if outcomes[0] != 2*limit || outcomes[typev1.ErrorReason_ERROR_REASON_STOCK_LIMIT] != 2*limit {
		t.Errorf("outcomes %v, want %d accepted and as many refused", outcomes, 2*limit)
	}
	if n := len(log.Events()); n != limit {
		t.Errorf("%d events, want %d", n, limit)
	}
}

func TestAnAppendThatTookEffectButWasNotAnsweredIsFoundAgain(t *testing.T) {
	log := newShakyLog()
	h := newHandler(t, log)
	id := uuid.NewString()
	log.loseNextAnswer = true
	if _, err := h.Handle(t.Context(), "p", command(id, 60), receive(60)); !errors.Is(err, eventlog.ErrUnavailable) {
		t.Fatalf("got %v, want the lost answer", err)
	}
	done, err := h.Handle(t.Context(), "p", command(id, 60), receive(60))
	if err != nil || !done.Repeat || done.Etag() != `"0"` {
		t.Errorf("sent again: %+v, %v", done, err)
	}
}

func TestContinueRecordsOnceUnderTheSameRequest(t *testing.T) {
	log := newShakyLog()
	h := newHandler(t, log)
	id, other := uuid.NewString(), uuid.NewString()
	if _, err := h.Handle(t.Context(), "p", command(id, 1), receive(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Handle(t.Context(), "p", command(other, 5), receive(5)); err != nil {
		t.Fatal(err)
	}
	outcome := func(c *counter) ([]proto.Message, error) {
		if c.total >= 8 {
			return nil, nil
		}
		return []proto.Message{&inventoryevent.StockReceived{ProductId: "p", Quantity: 2}}, nil
	}
	for range 2 {
		done, err := h.Continue(t.Context(), "p", id, outcome)
		if err != nil {
			t.Fatal(err)
		}
		if len(done.Messages) != 2 || done.Etag() != `"2"` {
			t.Errorf("the request recorded %v up to %s, want two events up to revision 2", done.Messages, done.Etag())
		}
	}
	if n := len(log.Events()); n != 3 {
		t.Errorf("%d events, want 3", n)
	}
	if _, err := h.Continue(t.Context(), "p", uuid.NewString(), outcome); err == nil {
		t.Error("a request that was never recorded was continued")
	}
}

func TestWaitingForAHotEntityEndsWithTheDeadline(t *testing.T) {
	h := newHandler(t, newShakyLog())
	started, finish := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := h.Handle(t.Context(), "p", command(uuid.NewString(), 1), func(*counter) ([]proto.Message, error) {
			close(started)
			<-finish
			return nil, nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-started
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := h.Handle(ctx, "p", command(uuid.NewString(), 1), receive(1))
	if !errors.Is(err, context.DeadlineExceeded) || fault.Of(err) != nil {
		t.Errorf("got %v, want no more than that the deadline has passed: nobody else changed it", err)
	}
	close(finish)
	wg.Wait()
}

func TestConflictsUntilTheDeadlineAreContention(t *testing.T) {
	log := newShakyLog()
	log.fast = true
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := newHandler(t, log).Handle(ctx, "p", command(uuid.NewString(), 1), receive(1))
	if !fault.Is(err, typev1.ErrorReason_ERROR_REASON_CONTENTION) {
		t.Errorf("got %v, want CONTENTION", err)
	}
}

func TestEventsCarryWhereTheyComeFrom(t *testing.T) {
	log := newShakyLog()
	h := newHandler(t, log)
	ctx := origin.With(t.Context(), origin.Origin{Actor: "ann", CorrelationID: "c", CausationID: "e", Traceparent: "t"})
	cmd := command(uuid.NewString(), 1)
	if _, err := h.Handle(ctx, "p", cmd, receive(1)); err != nil {
		t.Fatal(err)
	}
	e, err := log.Decode(log.Events()[0])
	if err != nil {
		t.Fatal(err)
	}
	m := e.Meta
	if m.Actor != "ann" || m.CorrelationID != "c" || m.CausationID != "e" || m.Traceparent != "t" ||
		m.RequestID != cmd.RequestId || m.RequestHash == "" || m.OccurredAt.Nanosecond() != 6 {
		t.Errorf("metadata %+v", m)
	}
}

func reason(err error) typev1.ErrorReason {
	if f := fault.Of(err); f != nil {
		return f.Reason
	}
	if err != nil {
		return typev1.ErrorReason_ERROR_REASON_INTERNAL
	}
	return typev1.ErrorReason_ERROR_REASON_UNSPECIFIED
}

// shakyLog is an event log in memory that can lose an answer, and have others that are always faster.
type shakyLog struct {
	*memorylog.Log
	loseNextAnswer bool
	fast           bool
}

func newShakyLog() *shakyLog { return &shakyLog{Log: memorylog.New(eventschema.New())} }

func (l *shakyLog) Append(ctx context.Context, stream string, expected eventlog.Revision, events []eventlog.NewEvent) (eventlog.Appended, error) {
	if l.fast {
		return eventlog.Appended{}, &eventlog.ConflictError{Stream: stream, Expected: expected}
	}
	a, err := l.Log.Append(ctx, stream, expected, events)
	if l.loseNextAnswer {
		l.loseNextAnswer = false
		return eventlog.Appended{}, fmt.Errorf("append: %w", eventlog.ErrUnavailable)
	}
	return a, err
}

// keep forgets all but the first events.
func (l *shakyLog) keep(n int) {
	var last eventlog.Position
	for _, e := range l.Events()[:n] {
		last = e.Position
	}
	l.SetBack(last)
}
