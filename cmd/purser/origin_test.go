package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/grpc/metadata"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/origin"
	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const aliceTrace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// hop is an event with how it came about.
type hop struct {
	eventlog.Recorded
	meta eventlog.Metadata
}

// hops reads streams, and finds what each event was caused by.
func (i *instance) hops(t *testing.T, streams ...string) (all []hop, byID map[string]hop) {
	t.Helper()
	log := onStore(t, "esdb://"+i.addr(eventstorePorts)+"?tls=false").log
	byID = map[string]hop{}
	for _, stream := range streams {
		events, err := log.Read(t.Context(), stream, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			h := hop{Recorded: e}
			if err := json.Unmarshal(e.Metadata, &h.meta); err != nil {
				t.Fatal(err)
			}
			all = append(all, h)
			byID[e.ID.String()] = h
		}
	}
	slices.SortFunc(all, func(a, b hop) int { return cmp.Compare(a.Position, b.Position) })
	return all, byID
}

// Who asked for an order, and in which trace, stands in every event that followed in whatever service, and each names the
// event that it is a consequence of. A cancellation is asked for by somebody else, and begins a chain of its own.
func TestEveryEventTellsWhoCausedIt(t *testing.T) {
	i := newInstance(t)
	product := i.stocked(t, 5)
	alice := metadata.AppendToOutgoingContext(t.Context(), "purser-actor", "alice", "traceparent", aliceTrace)
	placed, err := i.orders.PlaceOrder(alice, orderOf(product, 2, "pm_card_visa"))
	if err != nil {
		t.Fatal(err)
	}
	id := placed.GetOrderId()
	i.reaches(t, id, typev1.OrderState_ORDER_STATE_CONFIRMED)
	bob := metadata.AppendToOutgoingContext(t.Context(), "purser-actor", "bob", "purser-correlation-id", "the complaint")
	if _, err := i.orders.CancelOrder(bob, &orderv1.CancelOrderRequest{RequestId: uuid.NewString(), OrderId: id}); err != nil {
		t.Fatal(err)
	}
	i.reaches(t, id, typev1.OrderState_ORDER_STATE_CANCELLED)

	all, byID := i.hops(t, "order-"+id, "payment-"+id, "fulfillment-"+id, "stock-"+product)
	all = slices.DeleteFunc(all, func(h hop) bool { return h.Type == "StockReceived" })
	correlation := all[0].meta.CorrelationID
	if correlation == "" {
		t.Error("the order has no correlation id")
	}
	causes := map[string]string{}
	for _, h := range all {
		causes[h.Type] = byID[h.meta.CausationID].Type
		if cause, ok := byID[h.meta.CausationID]; ok && cause.Position >= h.Position {
			t.Errorf("%s@%d is caused by a later event", h.Stream, h.Revision)
		}
		want := hop{meta: eventlog.Metadata{Actor: origin.Saga, CorrelationID: correlation, Traceparent: aliceTrace}}
		if slices.Contains([]string{
			"OrderCancellationRequested", "LineReleased", "ReservationReleased", "VoidRequested", "PaymentVoided", "OrderCancelled",
		}, h.Type) {
			want.meta.CorrelationID, want.meta.Traceparent = "the complaint", h.meta.Traceparent
			if len(h.meta.Traceparent) != len(aliceTrace) || h.meta.Traceparent == aliceTrace {
				t.Errorf("%s belongs to the trace %s", h.Type, h.meta.Traceparent)
			}
		}
		switch h.Type {
		case "OrderPlaced":
			want.meta.Actor = "alice"
		case "OrderCancellationRequested":
			want.meta.Actor = "bob"
		}
		if h.meta.Actor != want.meta.Actor || h.meta.CorrelationID != want.meta.CorrelationID || h.meta.Traceparent != want.meta.Traceparent {
			t.Errorf("%s came about by %+v, want %+v", h.Type, h.meta, want.meta)
		}
	}
	if got, want := fmt.Sprint(causes), fmt.Sprint(map[string]string{
		"OrderPlaced": "", "StockReserved": "OrderPlaced", "LineReserved": "OrderPlaced",
		"AuthorizationRequested": "LineReserved", "PaymentAuthorized": "LineReserved", "OrderConfirmed": "PaymentAuthorized",
		"OrderCancellationRequested": "", "ReservationReleased": "OrderCancellationRequested", "LineReleased": "OrderCancellationRequested",
		"VoidRequested": "OrderCancellationRequested", "PaymentVoided": "OrderCancellationRequested", "OrderCancelled": causes["OrderCancelled"],
	}); got != want {
		t.Errorf("causes\n%s, want\n%s", got, want)
	}
	if last := causes["OrderCancelled"]; last != "LineReleased" && last != "PaymentVoided" { // whichever came last
		t.Errorf("the order was marked cancelled because of %q", last)
	}
	i.tellsInItsTimeline(t, id, all)
}

// tellsInItsTimeline expects the timeline to say the same as the log.
func (i *instance) tellsInItsTimeline(t *testing.T, id string, all []hop) {
	t.Helper()
	own := slices.DeleteFunc(slices.Clone(all), func(h hop) bool { c, _, _ := eventlog.SplitStream(h.Stream); return c == "stock" })
	eventually(t, settle, func() error {
		timeline, err := i.query.GetOrderTimeline(t.Context(), &queryv1.GetOrderTimelineRequest{OrderId: id})
		if err != nil {
			return err
		}
		if len(timeline.GetEntries()) != len(own) {
			return fmt.Errorf("%d entries of %d events", len(timeline.GetEntries()), len(own))
		}
		for n, e := range timeline.GetEntries() {
			h := own[n]
			got := [...]string{e.GetEventId(), e.GetEventType(), e.GetActor(), e.GetCause(), e.GetCorrelationId()}
			if want := [...]string{h.ID.String(), h.Type, h.meta.Actor, h.meta.CausationID, h.meta.CorrelationID}; got != want {
				return fmt.Errorf("the timeline says %q, want %q", got, want)
			}
		}
		return nil
	})
}
