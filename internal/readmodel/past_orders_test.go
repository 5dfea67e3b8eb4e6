package readmodel

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventlog/memorylog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/fault"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// What GetOrder said right after each event of an order is what it says of that revision ever after, and of the last one
// what it says now.
func TestPastOrdersAreWhatTheyWere(t *testing.T) {
	w := newWorld(t)
	past := NewPastOrders(w.log)
	events := history("7", placedOrder(), reserved("cup"), &orderevent.DeliveryAddressChanged{}, reserved("pen"),
		requestedPayment(), &paymentevent.PaymentAuthorized{}, &orderevent.OrderConfirmed{}, &orderevent.OrderCancellationRequested{},
		releasedLine("cup"), &paymentevent.PaymentVoided{}, releasedLine("pen"), &orderevent.OrderCancelled{})
	var was []OrderDetail // by revision
	for i, e := range events {
		live, err := w.GetOrder(t.Context(), "7", w.append(e))
		if err != nil {
			t.Fatal(err)
		}
		if e.Category == eventschema.Order {
			was = append(was, live)
		}
		for revision, want := range was {
			got, err := past.AsOfRevision(t.Context(), "7", eventlog.Revision(revision))
			if err != nil {
				t.Fatal(err)
			}
			equal(t, utc(got), utc(want))
		}
		// Times between two events are those of the one before; what is not the order's own waits for its next event.
		got, err := past.AsOf(t.Context(), "7", e.OccurredAt.Add(30*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		equal(t, utc(got), utc(was[len(was)-1]))
		if i == len(events)-1 {
			equal(t, utc(got), utc(live))
		}
	}
	got, err := past.AsOf(t.Context(), "7", was[2].UpdateTime)
	if err != nil || got.State != "CONFIRMED" {
		t.Errorf("at the very time it was confirmed: %v, %v", got.State, err)
	}
}

// Time goes by the order of the log: an event that a fast clock dated later hides those after it until then.
func TestAsOfStopsBeforeTheFirstLaterEvent(t *testing.T) {
	log := memorylog.New(eventschema.New())
	w := &world{t: t, log: log}
	events := history("7", placedOrder(), &orderevent.OrderConfirmed{}, &orderevent.OrderCancellationRequested{})
	events[1].OccurredAt = at(10).Add(999 * time.Nanosecond)
	w.append(events...)
	for when, want := range map[time.Time]string{at(5): "PLACED", at(10): "CANCELLING"} {
		if got, err := NewPastOrders(log).AsOf(t.Context(), "7", when); err != nil || got.State != want {
			t.Errorf("as of %s: %s, %v, want %s", when, got.State, err, want)
		}
	}
}

func TestPastThatIsNone(t *testing.T) {
	log := memorylog.New(eventschema.New())
	w := &world{t: t, log: log}
	w.append(history("7", placedOrder())...)
	w.append(history("8", requestedPayment())...)
	w.append(history("9", placedOrder())...)
	w.poison(eventschema.Order, "9")
	past := NewPastOrders(log)
	_, err := past.AsOf(t.Context(), "7", at(-1))
	isMissing(t, err, typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND)
	for _, id := range []string{"8", "none"} {
		_, err = past.AsOfRevision(t.Context(), id, 0)
		isMissing(t, err, typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND)
	}
	_, err = past.AsOfRevision(t.Context(), "7", 1)
	if f := fault.Of(err); f == nil || f.Kind != fault.Invalid || f.Fields[0].Path != "as_of_revision" {
		t.Errorf("beyond the last revision: %v", err)
	}
	if _, err := past.AsOfRevision(t.Context(), "9", 1); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_ENTITY_PARKED) {
		t.Errorf("with an event that can't be read: %v", err)
	}
	if o, err := past.AsOfRevision(t.Context(), "9", 0); err != nil || o.State != "PLACED" {
		t.Errorf("before that event: %v, %v", o.State, err)
	}

	log.SetDown(true)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := past.AsOf(ctx, "7", at(0)); !errors.Is(err, eventlog.ErrUnavailable) {
		t.Errorf("while the log is away: %v", err)
	}
}
