package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// FillOrders appends all that so many confirmed orders leave behind, as the services would. Their ids are the numbers from 1,
// which pgbench can make up as well.
func FillOrders(ctx context.Context, log *eventlog.Log, orders int) error {
	products := Products("product", maxCustomers)
	g, ctx := errgroup.WithContext(ctx)
	for filler := range preparing {
		b := newBuyer("fill", filler, products)
		g.Go(func() error {
			for id := 1 + filler; id <= orders; id += preparing {
				for _, s := range b.confirmed(id) {
					if err := appendAll(ctx, log, s.name, s.messages, b.ids); err != nil {
						return fmt.Errorf("fill the store: %w", err)
					}
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func appendAll(ctx context.Context, log *eventlog.Log, stream string, messages []proto.Message, ids *rand.ChaCha8) error {
	events := make([]eventlog.NewEvent, len(messages))
	for i, m := range messages {
		events[i] = eventlog.NewEvent{
			ID: uuid.Must(uuid.NewRandomFromReader(ids)), Message: m, Meta: eventlog.Metadata{OccurredAt: time.Now(), Actor: "bench"},
		}
	}
	_, err := log.Append(ctx, stream, eventlog.NoStream, events)
	return err
}

// history is all that a stream holds.
type history struct {
	name     string
	messages []proto.Message
}

// confirmed is the history of an order that went well. The order itself comes last, so that a saga that runs already finds
// everything done.
func (b *buyer) confirmed(number int) []history {
	id := strconv.Itoa(number)
	req, total := b.order()
	amount := &typev1.Money{CurrencyCode: currency, AmountMinor: total}
	placed := &orderevent.OrderPlaced{
		OrderId: id, OrderNumber: fmt.Sprintf("%012d", number), CustomerId: req.GetCustomerId(), PaymentMethod: proto.String(req.GetPaymentMethod()),
		DeliveryAddress: req.GetDeliveryAddress(), Priority: typev1.Priority_PRIORITY_STANDARD, Total: amount,
	}
	var reserved []proto.Message
	for _, l := range req.GetLines() {
		placed.Lines = append(placed.Lines, &orderevent.OrderLine{
			ProductId: l.GetProductId(), Name: "Product " + l.GetProductId(), Quantity: l.GetQuantity(),
			UnitPrice: &typev1.Money{CurrencyCode: currency, AmountMinor: priceOf(0)},
		})
		reserved = append(reserved, &fulfillmentevent.LineReserved{OrderId: id, ProductId: l.GetProductId(), Quantity: l.GetQuantity()})
	}
	return []history{
		{eventlog.StreamName(eventschema.Fulfillment, id), reserved},
		{eventlog.StreamName(eventschema.Payment, id), []proto.Message{
			&paymentevent.AuthorizationRequested{OrderId: id, CustomerId: req.GetCustomerId(), Amount: amount},
			&paymentevent.PaymentAuthorized{OrderId: id},
		}},
		{eventlog.StreamName(eventschema.Order, id), []proto.Message{placed, &orderevent.OrderConfirmed{OrderId: id}}},
	}
}

// GetOrder is the load of so many callers that each read one order after the other, any of those of [FillOrders].
func GetOrder(figure string, query grpc.ClientConnInterface, callers, orders int) Load {
	client := queryv1.NewQueryServiceClient(query)
	all := make([]*rand.Rand, callers)
	for i := range all {
		all[i] = rand.New(newRand(figure, i))
	}
	return Load{Figure: figure, Unit: "calls/s", Run: ClosedLoop(callers, func(ctx context.Context, i int) error {
		id := strconv.Itoa(1 + all[i].IntN(orders))
		reply, err := client.GetOrder(ctx, &queryv1.GetOrderRequest{Order: &queryv1.GetOrderRequest_OrderId{OrderId: id}})
		if err != nil {
			return err
		}
		o := reply.GetOrder()
		if o.GetOrderId() != id || o.GetState() != typev1.OrderState_ORDER_STATE_CONFIRMED || len(o.GetLines()) == 0 {
			return fmt.Errorf("asked for order %s, and was answered %v", id, o)
		}
		return nil
	})}
}
