package bench

import (
	"context"
	"fmt"
	"math/rand/v2"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const (
	maxLines     = 3
	maxQuantity  = 3
	maxCustomers = 1000
)

// PlaceOrder is the load of so many callers that each place one order after the other, of one to three of the products.
func PlaceOrder(figure string, write grpc.ClientConnInterface, callers int, products []string) Load {
	client := orderv1.NewOrderServiceClient(write)
	all := make([]*buyer, callers)
	for i := range all {
		all[i] = newBuyer(figure, i, products)
	}
	return Load{Figure: figure, Unit: "orders/s", Run: ClosedLoop(callers, func(ctx context.Context, i int) error {
		req, total := all[i].order()
		reply, err := client.PlaceOrder(ctx, req)
		if err != nil {
			return err
		}
		return checkPlaced(req, total, reply)
	})}
}

type buyer struct {
	ids      *rand.ChaCha8
	rand     *rand.Rand // out of the same source
	products []string
}

func newBuyer(load string, caller int, products []string) *buyer {
	ids := newRand(load, caller)
	return &buyer{ids: ids, rand: rand.New(ids), products: products}
}

// order is one that was not placed before, and what it comes to.
func (b *buyer) order() (req *orderv1.PlaceOrderRequest, total int64) {
	req = &orderv1.PlaceOrderRequest{
		RequestId: newID(b.ids), OrderId: newID(b.ids), CustomerId: fmt.Sprintf("customer-%d", b.rand.IntN(maxCustomers)),
		PaymentMethod: "pm_card_visa",
		DeliveryAddress: &typev1.Address{
			Recipient: proto.String("A. Purser"), Line1: proto.String("Havenstraat 1"), City: proto.String("Rotterdam"),
			PostalCode: "3011 AA", CountryCode: "NL",
		},
	}
	first := b.rand.IntN(len(b.products))
	for i := range 1 + b.rand.IntN(min(maxLines, len(b.products))) {
		product := (first + i) % len(b.products)
		quantity := 1 + b.rand.Int64N(maxQuantity)
		req.Lines = append(req.Lines, &orderv1.OrderLineRequest{ProductId: b.products[product], Quantity: quantity})
		total += quantity * priceOf(product)
	}
	return req, total
}

func checkPlaced(req *orderv1.PlaceOrderRequest, total int64, reply *orderv1.PlaceOrderResponse) error {
	want := &orderv1.PlaceOrderResponse{
		OrderId: req.GetOrderId(), State: typev1.OrderState_ORDER_STATE_PLACED, Etag: `"0"`,
		Total:       &typev1.Money{CurrencyCode: currency, AmountMinor: total},
		OrderNumber: reply.GetOrderNumber(), ConsistencyToken: reply.GetConsistencyToken(),
	}
	if reply.GetOrderNumber() == "" || reply.GetConsistencyToken() == "" || !proto.Equal(reply, want) {
		return fmt.Errorf("an order that comes to %d was answered %v", total, reply)
	}
	return nil
}
