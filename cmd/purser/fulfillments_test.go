package main

import (
	"fmt"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	fulfillmentv1 "github.com/purserhq/purser/proto/purser/fulfillment/v1"
	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	paymentv1 "github.com/purserhq/purser/proto/purser/payment/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// An operator finds the order that waits for a person among those that do not, sees why, and that cancelling it helps.
func TestFulfillments(t *testing.T) {
	i := newInstance(t)
	conn, err := grpc.NewClient(i.addr(sagaPorts), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	saga := fulfillmentv1.NewFulfillmentServiceClient(conn)
	mug := i.stocked(t, 10)
	placed, err := i.orders.PlaceOrder(t.Context(), orderOf(mug, 1, "pm_card_visa"))
	if err != nil {
		t.Fatal(err)
	}
	i.reaches(t, placed.GetOrderId(), typev1.OrderState_ORDER_STATE_CONFIRMED)
	if _, err := i.payment.AuthorizePayment(t.Context(), &paymentv1.AuthorizePaymentRequest{ // of another amount than the order's
		RequestId: uuid.NewString(), OrderId: "stuck", CustomerId: "c-1", PaymentMethod: "pm_card_visa",
		Amount: &typev1.Money{CurrencyCode: "EUR", AmountMinor: 1},
	}); err != nil {
		t.Fatal(err)
	}
	stuck := orderOf(mug, 1, "pm_card_visa")
	stuck.OrderId = "stuck"
	if placed, err = i.orders.PlaceOrder(t.Context(), stuck); err != nil {
		t.Fatal(err)
	}
	first, err := saga.GetFulfillment(t.Context(), &fulfillmentv1.GetFulfillmentRequest{OrderId: "stuck", ConsistencyToken: placed.GetConsistencyToken()})
	if err != nil || first.GetFulfillment().GetGoal() != fulfillmentv1.Goal_GOAL_FULFIL {
		t.Errorf("just placed: %v, %v", first, err)
	}
	// attention waits until these orders and no others need attention.
	attention := func(want int) (all []*fulfillmentv1.Fulfillment) {
		t.Helper()
		eventually(t, settle, func() error {
			reply, err := saga.ListFulfillments(t.Context(), &fulfillmentv1.ListFulfillmentsRequest{Filter: "needs_attention"})
			if all = reply.GetFulfillments(); err == nil && len(all) != want {
				err = fmt.Errorf("%d orders need attention, want %d: %v", len(all), want, all)
			}
			return err
		})
		return all
	}
	if f := attention(1)[0]; f.GetOrderId() != "stuck" || f.GetAttention() != "PAYMENT_DIFFERS" {
		t.Errorf("attention is asked for %v", f)
	}
	if _, err := i.orders.CancelOrder(t.Context(), &orderv1.CancelOrderRequest{RequestId: uuid.NewString(), OrderId: "stuck"}); err != nil {
		t.Fatal(err)
	}
	attention(0)
	i.reaches(t, "stuck", typev1.OrderState_ORDER_STATE_CANCELLED)
	eventually(t, settle, func() error {
		reply, err := saga.GetFulfillment(t.Context(), &fulfillmentv1.GetFulfillmentRequest{OrderId: "stuck"})
		f := reply.GetFulfillment()
		if err == nil && (f.GetGoal() != fulfillmentv1.Goal_GOAL_CANCEL || len(f.GetToDo()) > 0 ||
			f.GetFulfillmentState() != typev1.FulfillmentState_FULFILLMENT_STATE_RELEASED) {
			err = fmt.Errorf("cancelled: %v", f)
		}
		return err
	})
	if _, err := saga.GetFulfillment(t.Context(), &fulfillmentv1.GetFulfillmentRequest{OrderId: "nothing"}); status.Code(err) != codes.NotFound {
		t.Errorf("of no order: %v", err)
	}
	if _, err := saga.ListFulfillments(t.Context(), &fulfillmentv1.ListFulfillmentsRequest{Filter: "state = CONFIRMED"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("by a field that there is not: %v", err)
	}
}
