package aggregate_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventlog/memorylog"
	"github.com/purserhq/purser/internal/eventschema"
	inventoryevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// evolved is a schema with a past: PalletsReceived is what several StockReceived once were, GoodsReceived was renamed, and
// ShelfPainted means nothing any more.
type evolved struct {
	*eventschema.Registry
	broken *bool // half of what a PalletsReceived is can't be folded
}

func (s evolved) Knows(eventType string) bool {
	switch eventType {
	case "PalletsReceived", "GoodsReceived", "ShelfPainted":
		return true
	}
	return s.Registry.Knows(eventType)
}

func (s evolved) Decode(eventType string, version int, contentType string, data []byte) ([]proto.Message, error) {
	ten := &inventoryevent.StockReceived{ProductId: "p", Quantity: 10}
	switch eventType {
	case "PalletsReceived":
		if s.broken != nil && *s.broken {
			return []proto.Message{ten, &inventoryevent.StockReserved{}}, nil
		}
		return []proto.Message{ten, ten}, nil
	case "GoodsReceived":
		return []proto.Message{ten}, nil
	case "ShelfPainted":
		return nil, nil
	}
	return s.Registry.Decode(eventType, version, contentType, data)
}

// past fills a stream with events as they were stored.
func past(t *testing.T, requestID string, events ...eventlog.Recorded) *shakyLog {
	t.Helper()
	log := &shakyLog{Log: memorylog.New(evolved{Registry: eventschema.New()})}
	for i := range events {
		e := &events[i]
		e.ID, e.ContentType = uuid.New(), eventschema.ContentTypeJSON
		if e.Metadata == nil {
			e.Metadata = fmt.Appendf(nil, `{"schemaVersion":1,"occurredAt":"2020-01-02T03:04:05Z","requestId":%q}`, requestID)
		}
	}
	if _, err := log.AppendRecorded(t.Context(), "stock-p", eventlog.NoStream, events); err != nil {
		t.Fatal(err)
	}
	return log
}

func TestOldEventsAreFoldedAsTheEventsOfToday(t *testing.T) {
	h := newHandler(t, past(t, "", eventlog.Recorded{Type: "PalletsReceived"}, eventlog.Recorded{Type: "GoodsReceived"}, eventlog.Recorded{Type: "ShelfPainted"}))
	state, revision, err := h.Load(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	// Each stored event is one revision, whatever it reads as.
	if state.total != 30 || revision != 2 || !state.last.Equal(time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)) {
		t.Errorf("%+v at revision %d", state, revision)
	}
	done, err := h.Handle(t.Context(), "p", command(uuid.NewString(), limit-30), receive(limit-30))
	if err != nil || done.Etag() != `"3"` {
		t.Errorf("the next command: %+v, %v", done, err)
	}
}

// A command whose events are read otherwise today is still known by its request id, and has no second effect.
func TestACommandOfThePastIsStillKnown(t *testing.T) {
	id := uuid.NewString()
	log := past(t, id, eventlog.Recorded{Type: "PalletsReceived"})
	done, err := newHandler(t, log).Handle(t.Context(), "p", command(id, 20), receive(20))
	if err != nil || !done.Repeat || len(done.Messages) != 2 || done.Etag() != `"0"` {
		t.Errorf("answered %+v, %v", done, err)
	}
	if n := len(log.Events()); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
}

// What this build can't read may forbid what was asked for, so nothing is decided without it.
func TestNothingIsDecidedOnAnEventThatCantBeRead(t *testing.T) {
	for name, c := range map[string]struct {
		event eventlog.Recorded
		is    error
		want  string
	}{
		"of an unknown type":   {eventlog.Recorded{Type: "StockEnchanted"}, eventlog.ErrUnknownType, "StockEnchanted"},
		"of a newer version":   {eventlog.Recorded{Type: "StockReceived", Metadata: []byte(`{"schemaVersion":2}`)}, eventlog.ErrNewerVersion, "StockReceived version 2"},
		"not what its type is": {eventlog.Recorded{Type: "StockReceived", Data: []byte("Ada")}, nil, "no StockReceived of version 1"},
	} {
		t.Run(name, func(t *testing.T) {
			log := past(t, "", eventlog.Recorded{Type: "GoodsReceived"}, c.event)
			h := newHandler(t, log)
			for range 2 { // also once it is remembered
				_, err := h.Handle(t.Context(), "p", command(uuid.NewString(), 1), receive(1))
				if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "stock-p") || c.is != nil && !errors.Is(err, c.is) {
					t.Errorf("got %v", err)
				}
			}
			if n := len(log.Events()); n != 2 {
				t.Errorf("%d events, want 2", n)
			}
		})
	}
}

// A fold that panics in the midst of what an event was split into leaves nothing half folded, and panics at nobody.
func TestAPanicInTheMidstOfAnEvent(t *testing.T) {
	broken := false
	log := &shakyLog{Log: memorylog.New(evolved{eventschema.New(), &broken})}
	h := newHandler(t, log)
	if _, err := h.Handle(t.Context(), "p", command(uuid.NewString(), 5), receive(5)); err != nil {
		t.Fatal(err)
	}
	pallets := eventlog.Recorded{ID: uuid.New(), Type: "PalletsReceived", ContentType: eventschema.ContentTypeJSON, Metadata: []byte(`{"schemaVersion":1}`)}
	if _, err := log.AppendRecorded(t.Context(), "stock-p", 0, []eventlog.Recorded{pallets}); err != nil {
		t.Fatal(err)
	}
	broken = true
	_, handled := h.Handle(t.Context(), "p", command(uuid.NewString(), 7), receive(7))
	_, _, loaded := h.Load(t.Context(), "p")
	for _, err := range []error{handled, loaded} {
		if err == nil || !strings.Contains(err.Error(), "fold stock-p@1: panic: ") {
			t.Errorf("answered %v, want that and where the fold panicked", err)
		}
	}
	broken = false
	done, err := h.Handle(t.Context(), "p", command(uuid.NewString(), 75), receive(limit-25))
	if err != nil || done.Etag() != `"2"` {
		t.Errorf("the next command: %+v, %v", done, err)
	}
	if _, err := h.Handle(t.Context(), "p", command(uuid.NewString(), 1), receive(1)); reason(err) != typev1.ErrorReason_ERROR_REASON_STOCK_LIMIT {
		t.Errorf("over the limit: %v", err)
	}
}
