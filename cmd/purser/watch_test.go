package main

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// An order that is watched is seen to be confirmed, and to be cancelled; and who watches does not keep Purser from stopping.
func TestAnOrderIsWatched(t *testing.T) {
	i := newInstance(t)
	placed, err := i.orders.PlaceOrder(t.Context(), orderOf(i.stocked(t, 10), 1, "pm_card_visa"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*settle)
	defer cancel()
	watch, err := i.query.WatchOrder(ctx, &queryv1.WatchOrderRequest{OrderId: placed.GetOrderId(), ConsistencyToken: placed.GetConsistencyToken()})
	if err != nil {
		t.Fatal(err)
	}
	var last *queryv1.Order
	becomes := func(want typev1.OrderState) {
		t.Helper()
		for last.GetState() != want {
			reply, err := watch.Recv()
			if err != nil {
				t.Fatalf("%v; last the order was %v, want %s", err, last, want)
			}
			o := reply.GetOrder()
			if o.GetUpdateTime().AsTime().Before(last.GetUpdateTime().AsTime()) {
				t.Errorf("%v comes after %v", o, last)
			}
			last = o
		}
	}
	becomes(typev1.OrderState_ORDER_STATE_CONFIRMED)
	if _, err := i.orders.CancelOrder(t.Context(), &orderv1.CancelOrderRequest{RequestId: uuid.NewString(), OrderId: placed.GetOrderId()}); err != nil {
		t.Fatal(err)
	}
	becomes(typev1.OrderState_ORDER_STATE_CANCELLED)

	began := time.Now()
	i.stop()
	if took := time.Since(began); took > 9*time.Second {
		t.Errorf("the stop took %s", took)
	}
	for { // what else there was to see of the order
		if _, err := watch.Recv(); err != nil {
			if status.Code(err) != codes.Unavailable {
				t.Errorf("the watch ended by %v, want UNAVAILABLE", err)
			}
			return
		}
	}
}
