package bench

import (
	"testing"

	"google.golang.org/protobuf/proto"

	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

func TestOrdersAreTheSameInEveryRunAndNoneComesTwice(t *testing.T) {
	products := Products("product", 5)
	a, b, other := newBuyer("load", 1, products), newBuyer("load", 1, products), newBuyer("load", 2, products)
	ids := map[string]bool{}
	lines := map[int]bool{}
	for range 100 {
		x, total := a.order()
		if y, same := b.order(); !proto.Equal(x, y) || total != same {
			t.Fatalf("%v and %v differ", x, y)
		}
		y, _ := other.order()
		for _, id := range []string{x.GetOrderId(), x.GetRequestId(), y.GetOrderId(), y.GetRequestId()} {
			if ids[id] {
				t.Errorf("%s comes twice", id)
			}
			ids[id] = true
		}
		lines[len(x.GetLines())] = true
		in := map[string]bool{}
		for _, l := range x.GetLines() {
			in[l.GetProductId()] = true
		}
		if len(in) != len(x.GetLines()) {
			t.Errorf("a product in two lines: %v", x)
		}
	}
	if len(lines) != maxLines || lines[0] {
		t.Errorf("orders have %v lines", lines)
	}
}

func TestAnOrderThatWasNotPlacedAsAskedIsNoticed(t *testing.T) {
	req := &orderv1.PlaceOrderRequest{OrderId: "7"}
	good := func() *orderv1.PlaceOrderResponse {
		return &orderv1.PlaceOrderResponse{
			OrderId: "7", OrderNumber: "4T7Q-9M2K-XW3E", State: typev1.OrderState_ORDER_STATE_PLACED, Etag: `"0"`, ConsistencyToken: "t",
			Total: &typev1.Money{CurrencyCode: "EUR", AmountMinor: 250},
		}
	}
	if err := checkPlaced(req, 250, good()); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*orderv1.PlaceOrderResponse){
		"another order": func(r *orderv1.PlaceOrderResponse) { r.OrderId = "8" },
		"another total": func(r *orderv1.PlaceOrderResponse) { r.Total.AmountMinor++ },
		"another state": func(r *orderv1.PlaceOrderResponse) { r.State = typev1.OrderState_ORDER_STATE_CONFIRMED },
		"not the first": func(r *orderv1.PlaceOrderResponse) { r.Etag = `"1"` },
		"no number":     func(r *orderv1.PlaceOrderResponse) { r.OrderNumber = "" },
		"no token":      func(r *orderv1.PlaceOrderResponse) { r.ConsistencyToken = "" },
	} {
		r := good()
		spoil(r)
		if checkPlaced(req, 250, r) == nil {
			t.Errorf("%s: %v passes", name, r)
		}
	}
}
