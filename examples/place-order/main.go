// Command place-order places an order, waits until it is confirmed or rejected, and says which.
//
// It is a client to copy: client.go as it stands, and this file as a pattern. Of Purser it imports only the generated code and
// the service config, and it shows what every client has to get right:
//
//   - One request_id for one order, whatever the number of attempts. An attempt without an answer may have taken effect; the
//     same request_id makes the next one a repeat, which is answered as the first would have been.
//   - Two layers of retries. By the service config gRPC tries UNAVAILABLE four times within a second. An outage that lasts
//     longer, a deadline that has passed and contention are for the caller: see insist.
//   - Errors are told apart by the reason of their google.rpc.ErrorInfo (docs/reference/errors.md), never by their words.
//     That there is too little stock is no error: the order was placed, and is rejected.
//   - A read that is given the consistency_token of a command's reply sees at least what that command did.
//   - A command that is given the etag of a read is carried out only if nothing has changed since: see --cancel.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

type options struct {
	write, query                                string
	requestID, customer, product, paymentMethod string
	quantity                                    int64
	cancel                                      bool
}

func main() {
	log.SetFlags(0)
	var o options
	flag.StringVar(&o.write, "write", "127.0.0.1:50051", "host:port of the write service")
	flag.StringVar(&o.query, "query", "127.0.0.1:50052", "host:port of the query service")
	flag.StringVar(&o.requestID, "request-id", "", "that of an earlier run which got no answer; a new one if empty")
	flag.StringVar(&o.customer, "customer", "c-1", "id of the customer")
	flag.StringVar(&o.product, "product", "mug", "id of the product, which exists")
	flag.Int64Var(&o.quantity, "quantity", 1, "how many")
	flag.StringVar(&o.paymentMethod, "payment-method", "pm_card_visa", "token of the payment method at the gateway")
	flag.BoolVar(&o.cancel, "cancel", false, "cancel the order once it is confirmed")
	timeout := flag.Duration("timeout", time.Minute, "when to give up")
	flag.Parse()
	if flag.NArg() > 0 {
		log.Fatalf("%q is no flag", flag.Arg(0))
	}
	if o.requestID == "" {
		o.requestID = uuid.NewString()
		log.Printf("request id %s", o.requestID)
	}

	ctx, stop := context.WithTimeout(context.Background(), *timeout)
	defer stop()
	if err := run(ctx, o); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, o options) error {
	write, err := dial(o.write)
	if err != nil {
		return err
	}
	defer write.Close()
	query, err := dial(o.query)
	if err != nil {
		return err
	}
	defer query.Close()
	orders, queries := orderv1.NewOrderServiceClient(write), queryv1.NewQueryServiceClient(query)
	ctx = metadata.AppendToOutgoingContext(ctx, "purser-actor", "place-order") // the order's timeline says who

	placed, err := insist(ctx, orders.PlaceOrder, &orderv1.PlaceOrderRequest{
		RequestId: o.requestID, CustomerId: o.customer, PaymentMethod: o.paymentMethod,
		Lines: []*orderv1.OrderLineRequest{{ProductId: o.product, Quantity: o.quantity}},
		DeliveryAddress: &typev1.Address{
			Recipient: proto.String("A. Purser"), Line1: proto.String("Havenstraat 1"), City: proto.String("Rotterdam"),
			PostalCode: "3011 AA", CountryCode: "NL",
		},
	})
	switch reason(err) {
	case typev1.ErrorReason_ERROR_REASON_PRODUCT_NOT_FOUND, typev1.ErrorReason_ERROR_REASON_PRODUCT_DISCONTINUED:
		return fmt.Errorf("product %s is not for sale", o.product)
	}
	if err != nil {
		return fmt.Errorf("place the order: %w", err)
	}
	fmt.Printf("order %s is placed: %d minor units of %s\n", placed.GetOrderNumber(), placed.GetTotal().GetAmountMinor(), placed.GetTotal().GetCurrencyCode())

	order, err := await(ctx, queries, placed.GetOrderId(), placed.GetConsistencyToken())
	if err != nil {
		return fmt.Errorf("wait until order %s is confirmed or rejected: %w", placed.GetOrderNumber(), err)
	}
	show(order)
	if o.cancel && order.GetState() == typev1.OrderState_ORDER_STATE_CONFIRMED {
		return cancel(ctx, orders, queries, order)
	}
	return nil
}

// cancel cancels an order unless it has changed since it was read, and waits until all that was held for it is undone.
func cancel(ctx context.Context, orders orderv1.OrderServiceClient, queries queryv1.QueryServiceClient, order *queryv1.Order) error {
	reply, err := insist(ctx, orders.CancelOrder, &orderv1.CancelOrderRequest{
		RequestId: uuid.NewString(), Etag: order.GetEtag(), OrderId: order.GetOrderId(), Reason: "changed my mind",
	})
	if reason(err) == typev1.ErrorReason_ERROR_REASON_ETAG_MISMATCH {
		return fmt.Errorf("order %s was changed meanwhile: look at it, and decide again", order.GetOrderNumber())
	}
	if err != nil {
		return fmt.Errorf("cancel order %s: %w", order.GetOrderNumber(), err)
	}
	end, err := await(ctx, queries, order.GetOrderId(), reply.GetConsistencyToken())
	if err != nil {
		return fmt.Errorf("wait until order %s is cancelled: %w", order.GetOrderNumber(), err)
	}
	show(end)
	return nil
}

// await reads an order, at least as it was after the command that gave the token, until it is no longer being worked on.
func await(ctx context.Context, queries queryv1.QueryServiceClient, id, token string) (*queryv1.Order, error) {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		reply, err := insist(ctx, queries.GetOrder, &queryv1.GetOrderRequest{
			Order: &queryv1.GetOrderRequest_OrderId{OrderId: id}, ConsistencyToken: token,
		})
		if err != nil {
			return nil, err
		}
		switch order := reply.GetOrder(); order.GetState() {
		case typev1.OrderState_ORDER_STATE_PLACED, typev1.OrderState_ORDER_STATE_CANCELLING:
		default:
			return order, nil
		}
		if err := pass(ctx, pause); err != nil {
			return nil, err
		}
	}
}

func show(o *queryv1.Order) {
	why := ""
	if o.GetRejectReason() != typev1.RejectReason_REJECT_REASON_UNSPECIFIED {
		why = ": " + strings.TrimPrefix(o.GetRejectReason().String(), "REJECT_REASON_")
	}
	fmt.Printf("order %s is %s%s\n", o.GetOrderNumber(), strings.TrimPrefix(o.GetState().String(), "ORDER_STATE_"), why)
}
