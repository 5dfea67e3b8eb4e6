package saga

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/origin"
	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	paymentv1 "github.com/purserhq/purser/proto/purser/payment/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// Every step is one call, and what its reply says is on record afterwards.
func TestSteps(t *testing.T) {
	for _, c := range []struct {
		task   task
		script func(context.Context, aggregate.Command) (proto.Message, error)
		want   aggregate.Command
		event  proto.Message // in the fulfilment stream
	}{
		{
			item("RESERVE_STOCK", "mug"), fine, &inventoryv1.ReserveStockRequest{ProductId: "mug", OrderId: "7", Quantity: 2},
			&fulfillmentevent.LineReserved{OrderId: "7", ProductId: "mug", Quantity: 2},
		},
		{
			item("RESERVE_STOCK", "mug"), rejected, &inventoryv1.ReserveStockRequest{ProductId: "mug", OrderId: "7", Quantity: 2},
			&fulfillmentevent.LineRefused{OrderId: "7", ProductId: "mug", Requested: 2, Available: 1},
		},
		{
			item("RELEASE_STOCK", "mug"), fine, &inventoryv1.ReleaseReservationRequest{ProductId: "mug", OrderId: "7"},
			&fulfillmentevent.LineReleased{OrderId: "7", ProductId: "mug"},
		},
		{
			item("AUTHORIZE_PAYMENT", ""), fine, &paymentv1.AuthorizePaymentRequest{
				OrderId: "7", CustomerId: "ada", PaymentMethod: "pm_card_visa", Amount: &typev1.Money{CurrencyCode: "EUR", AmountMinor: 3200},
			}, nil,
		},
		{item("RECONCILE_PAYMENT", ""), fine, &paymentv1.ReconcilePaymentRequest{OrderId: "7"}, nil},
		{item("VOID_PAYMENT", ""), fine, &paymentv1.VoidPaymentRequest{OrderId: "7"}, nil},
		{item("CONFIRM_ORDER", ""), fine, &orderv1.ConfirmOrderRequest{OrderId: "7"}, nil},
		{item("REJECT_ORDER", ""), fine, &orderv1.RejectOrderRequest{OrderId: "7", Reason: typev1.RejectReason_REJECT_REASON_OUT_OF_STOCK}, nil},
		{item("MARK_CANCELLED", ""), fine, &orderv1.MarkCancelledRequest{OrderId: "7"}, nil},
	} {
		t.Run(c.task.Step, func(t *testing.T) {
			w := newWorld(t)
			w.peers.answer(c.script)
			w.add(c.task)
			stop := w.start()
			w.until("the call", func() bool { return w.peers.count() > 0 })
			if c.event != nil {
				w.until("the event", func() bool { return len(w.recorded("7")) > 0 })
				e := w.recorded("7")[0]
				if !proto.Equal(e.Messages[0], c.event) {
					t.Errorf("recorded %v, want %v", e.Messages[0], c.event)
				}
				if e.Meta.Actor != origin.Saga || e.Meta.CausationID != "cause" || e.Meta.CorrelationID != "correlation" || e.Meta.Traceparent != "trace" {
					t.Errorf("recorded on account of %+v", e.Meta)
				}
			}
			stop()
			got := w.peers.calls[0]
			if o := got.origin; o.Actor != origin.Saga || o.CausationID != "cause" || o.CorrelationID != "correlation" || o.Traceparent != "trace" {
				t.Errorf("called on account of %+v", o)
			}
			if id, err := uuid.Parse(got.req.GetRequestId()); err != nil || id.Version() != 5 {
				t.Errorf("request id %q", got.req.GetRequestId())
			}
			if r, ok := got.req.(*inventoryv1.ReserveStockRequest); ok {
				if life := time.Until(r.GetValidUntil().AsTime()); life < 30*time.Second || life > time.Minute {
					t.Errorf("valid for another %s", life)
				}
				r.ValidUntil = nil
			}
			clear := got.req.ProtoReflect()
			clear.Clear(clear.Descriptor().Fields().ByName("request_id"))
			if !proto.Equal(got.req, c.want) {
				t.Errorf("called %v, want %v", got.req, c.want)
			}
		})
	}
}

// A step that this build does not know, of a newer one, say, is no reason to do anything else.
func TestUnknownStepsAreNotCarriedOut(t *testing.T) {
	for _, step := range []string{"", "UNSPECIFIED", "SHIP_ORDER"} {
		if req, err := request(item(step, ""), time.Now()); err == nil {
			t.Errorf("%q became %v", step, req)
		}
	}
}

func TestRequestIDs(t *testing.T) {
	base := item("RESERVE_STOCK", "mug")
	other := func(change func(*task)) task { c := base; change(&c); return c }
	ids := map[string]string{
		"base":    requestID(base),
		"intent":  requestID(other(func(t *task) { t.Intent = 1 })),
		"order":   requestID(other(func(t *task) { t.OrderID = "8" })),
		"step":    requestID(other(func(t *task) { t.Step = "RELEASE_STOCK" })),
		"product": requestID(other(func(t *task) { t.ProductID = "pen" })),
	}
	seen := map[string]string{}
	for name, id := range ids {
		if seen[id] != "" {
			t.Errorf("%s and %s have the same request id", name, seen[id])
		}
		seen[id] = name
	}
	// Pinned: a request that one build sends is repeated by the next.
	if want := "241a4385-0b28-56a0-af9d-ae0e63c0869d"; ids["base"] != want {
		t.Errorf("request id %s, want %s", ids["base"], want)
	}
	again := other(func(t *task) { t.Attempts, t.Since, t.Priority = 7, time.Now(), 3 })
	if requestID(again) != ids["base"] {
		t.Error("another attempt has another request id")
	}
}
