package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	catalogv1 "github.com/purserhq/purser/proto/purser/catalog/v1"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// settle bounds how long an order may take to reach its end on a busy machine under the race detector.
const settle = 30 * time.Second

const price = 1450

// stocked makes a product with stock.
func (c clients) stocked(t *testing.T, quantity int64) string {
	t.Helper()
	id := "p-" + uuid.NewString()[:8]
	if _, err := c.catalog.CreateProduct(t.Context(), &catalogv1.CreateProductRequest{
		RequestId: uuid.NewString(), ProductId: id, Name: "Mug", Price: &typev1.Money{CurrencyCode: "EUR", AmountMinor: price},
	}); err != nil {
		t.Fatal(err)
	}
	if quantity > 0 {
		if _, err := c.inventory.ReceiveStock(t.Context(), &inventoryv1.ReceiveStockRequest{
			RequestId: uuid.NewString(), ProductId: id, Quantity: quantity,
		}); err != nil {
			t.Fatal(err)
		}
	}
	return id
}

func orderOf(product string, quantity int64, method string) *orderv1.PlaceOrderRequest {
	return &orderv1.PlaceOrderRequest{
		RequestId: uuid.NewString(), CustomerId: "c-1", PaymentMethod: method,
		Lines: []*orderv1.OrderLineRequest{{ProductId: product, Quantity: quantity}},
		DeliveryAddress: &typev1.Address{
			Recipient: proto.String("A. Purser"), Line1: proto.String("Havenstraat 1"), City: proto.String("Rotterdam"),
			PostalCode: "3011 AA", CountryCode: "NL",
		},
	}
}

func (c clients) get(ctx context.Context, id, token string) (*queryv1.Order, error) {
	reply, err := c.query.GetOrder(ctx, &queryv1.GetOrderRequest{Order: &queryv1.GetOrderRequest_OrderId{OrderId: id}, ConsistencyToken: token})
	return reply.GetOrder(), err
}

// reaches waits until an order is in a state.
func (c clients) reaches(t *testing.T, id string, want typev1.OrderState) *queryv1.Order {
	t.Helper()
	var o *queryv1.Order
	eventually(t, settle, func() (err error) {
		if o, err = c.get(t.Context(), id, ""); err != nil {
			return err
		}
		if o.GetState() != want {
			return fmt.Errorf("order %s is %s, want %s", id, o.GetState(), want)
		}
		return nil
	})
	return o
}

func (c clients) level(t *testing.T, product string) *queryv1.GetStockLevelResponse {
	t.Helper()
	l, err := c.query.GetStockLevel(t.Context(), &queryv1.GetStockLevelRequest{ProductId: product})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestOrders(t *testing.T) {
	c := newInstance(t).clients

	t.Run("a placed order is seen at once and confirmed", func(t *testing.T) {
		product := c.stocked(t, 10)
		req := orderOf(product, 3, "pm_card_visa")
		placed, err := c.orders.PlaceOrder(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if placed.GetTotal().GetAmountMinor() != 3*price {
			t.Errorf("total %v", placed.GetTotal())
		}
		o, err := c.get(t.Context(), placed.GetOrderId(), placed.GetConsistencyToken())
		if err != nil || o.GetOrderNumber() != placed.GetOrderNumber() {
			t.Fatalf("read with the token: %v, %v", o, err)
		}
		o = c.reaches(t, placed.GetOrderId(), typev1.OrderState_ORDER_STATE_CONFIRMED)
		if o.GetPaymentState() != typev1.PaymentState_PAYMENT_STATE_AUTHORIZED || o.GetFulfillmentState() != typev1.FulfillmentState_FULFILLMENT_STATE_RESERVED {
			t.Errorf("payment %s, goods %s", o.GetPaymentState(), o.GetFulfillmentState())
		}
		if l := c.level(t, product); l.GetOnHand() != 10 || l.GetReserved() != 3 || l.GetAvailable() != 7 {
			t.Errorf("stock %v", l)
		}
		byNumber, err := c.query.GetOrder(t.Context(), &queryv1.GetOrderRequest{Order: &queryv1.GetOrderRequest_OrderNumber{OrderNumber: placed.GetOrderNumber()}})
		if err != nil || byNumber.GetOrder().GetOrderId() != placed.GetOrderId() {
			t.Errorf("by number: %v, %v", byNumber, err)
		}
	})

	t.Run("out of stock is rejected, and nothing is held", func(t *testing.T) {
		product := c.stocked(t, 2)
		placed, err := c.orders.PlaceOrder(t.Context(), orderOf(product, 3, "pm_card_visa"))
		if err != nil {
			t.Fatal(err)
		}
		o := c.reaches(t, placed.GetOrderId(), typev1.OrderState_ORDER_STATE_REJECTED)
		if o.GetRejectReason() != typev1.RejectReason_REJECT_REASON_OUT_OF_STOCK || o.GetPaymentState() != typev1.PaymentState_PAYMENT_STATE_NONE {
			t.Errorf("reason %s, payment %s", o.GetRejectReason(), o.GetPaymentState())
		}
		if l := c.level(t, product); l.GetReserved() != 0 {
			t.Errorf("stock %v", l)
		}
	})

	t.Run("a declined card is rejected, and the stock released", func(t *testing.T) {
		product := c.stocked(t, 5)
		placed, err := c.orders.PlaceOrder(t.Context(), orderOf(product, 2, "pm_card_chargeDeclined"))
		if err != nil {
			t.Fatal(err)
		}
		o := c.reaches(t, placed.GetOrderId(), typev1.OrderState_ORDER_STATE_REJECTED)
		if o.GetRejectReason() != typev1.RejectReason_REJECT_REASON_PAYMENT_DECLINED || o.GetPaymentState() != typev1.PaymentState_PAYMENT_STATE_DECLINED ||
			o.GetFulfillmentState() != typev1.FulfillmentState_FULFILLMENT_STATE_RELEASED {
			t.Errorf("reason %s, payment %s, goods %s", o.GetRejectReason(), o.GetPaymentState(), o.GetFulfillmentState())
		}
		eventually(t, settle, func() error {
			if l := c.level(t, product); l.GetReserved() != 0 || l.GetAvailable() != 5 {
				return fmt.Errorf("stock %v", l)
			}
			return nil
		})
	})

	for method, want := range map[string]typev1.OrderState{
		"pm_sim_timeout":          typev1.OrderState_ORDER_STATE_CONFIRMED,
		"pm_sim_timeout_declined": typev1.OrderState_ORDER_STATE_REJECTED,
		"pm_sim_unavailable":      typev1.OrderState_ORDER_STATE_CONFIRMED,
		"pm_sim_slow":             typev1.OrderState_ORDER_STATE_CONFIRMED,
	} {
		t.Run("a bank that fails: "+method, func(t *testing.T) {
			t.Parallel()
			placed, err := c.orders.PlaceOrder(t.Context(), orderOf(c.stocked(t, 1), 1, method))
			if err != nil {
				t.Fatal(err)
			}
			c.reaches(t, placed.GetOrderId(), want)
		})
	}

	t.Run("cancelled", func(t *testing.T) {
		product := c.stocked(t, 5)
		placed, err := c.orders.PlaceOrder(t.Context(), orderOf(product, 2, "pm_card_visa"))
		if err != nil {
			t.Fatal(err)
		}
		c.reaches(t, placed.GetOrderId(), typev1.OrderState_ORDER_STATE_CONFIRMED)
		if _, err := c.orders.CancelOrder(t.Context(), &orderv1.CancelOrderRequest{RequestId: uuid.NewString(), OrderId: placed.GetOrderId(), Reason: "no longer wanted"}); err != nil {
			t.Fatal(err)
		}
		o := c.reaches(t, placed.GetOrderId(), typev1.OrderState_ORDER_STATE_CANCELLED)
		if o.GetPaymentState() != typev1.PaymentState_PAYMENT_STATE_VOIDED || o.GetFulfillmentState() != typev1.FulfillmentState_FULFILLMENT_STATE_RELEASED {
			t.Errorf("payment %s, goods %s", o.GetPaymentState(), o.GetFulfillmentState())
		}
		eventually(t, settle, func() error {
			if l := c.level(t, product); l.GetReserved() != 0 {
				return fmt.Errorf("stock %v", l)
			}
			return nil
		})
		timeline, err := c.query.GetOrderTimeline(t.Context(), &queryv1.GetOrderTimelineRequest{OrderId: placed.GetOrderId()})
		if err != nil {
			t.Fatal(err)
		}
		types := map[string]string{}
		for _, e := range timeline.GetEntries() {
			types[e.GetEventType()] = e.GetActor()
		}
		for event, actor := range map[string]string{
			"OrderPlaced": "anonymous", "PaymentAuthorized": "saga", "OrderConfirmed": "saga",
			"OrderCancellationRequested": "anonymous", "PaymentVoided": "saga", "LineReleased": "saga", "OrderCancelled": "saga",
		} {
			if types[event] != actor {
				t.Errorf("%s by %q in the timeline, want %q", event, types[event], actor)
			}
		}
	})

	t.Run("sent twice, placed once", func(t *testing.T) {
		product := c.stocked(t, 5)
		req := orderOf(product, 1, "pm_card_visa")
		var replies []*orderv1.PlaceOrderResponse
		for range 2 {
			r, err := c.orders.PlaceOrder(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			replies = append(replies, r)
			req = proto.CloneOf(req)
			req.RequestId = strings.ToUpper(req.GetRequestId()) // the same UUID
			c.reaches(t, r.GetOrderId(), typev1.OrderState_ORDER_STATE_CONFIRMED)
		}
		replies[1].ConsistencyToken = replies[0].ConsistencyToken
		if !proto.Equal(replies[0], replies[1]) {
			t.Errorf("answers differ:\n%v\n%v", replies[0], replies[1])
		}
		if l := c.level(t, product); l.GetReserved() != 1 {
			t.Errorf("stock %v", l)
		}
		other := proto.CloneOf(req)
		other.Lines[0].Quantity = 2
		_, err := c.orders.PlaceOrder(t.Context(), other)
		wantError(t, err, codes.InvalidArgument, "REQUEST_ID_REUSED")
	})

	t.Run("lists and reports", func(t *testing.T) {
		product := c.stocked(t, 5)
		customer := "c-" + uuid.NewString()[:8]
		ids := map[string]bool{}
		for range 3 {
			req := orderOf(product, 1, "pm_card_visa")
			req.CustomerId = customer
			placed, err := c.orders.PlaceOrder(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			c.reaches(t, placed.GetOrderId(), typev1.OrderState_ORDER_STATE_CONFIRMED)
			ids[placed.GetOrderId()] = true
		}
		list := &queryv1.ListOrdersRequest{PageSize: 2, Filter: fmt.Sprintf("state = CONFIRMED AND customer_id = %q", customer)}
		for pages := 1; ; pages++ {
			page, err := c.query.ListOrders(t.Context(), list)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range page.GetOrders() {
				if !ids[o.GetOrderId()] {
					t.Errorf("order %s is listed twice, or is not of the customer", o.GetOrderId())
				}
				delete(ids, o.GetOrderId())
			}
			if list.PageToken = page.GetNextPageToken(); list.PageToken == "" {
				if pages != 2 || len(ids) != 0 {
					t.Errorf("%d pages, missing %v", pages, ids)
				}
				break
			}
		}
		reports, err := c.query.ListReports(t.Context(), &queryv1.ListReportsRequest{})
		if err != nil || !slices.ContainsFunc(reports.GetReports(), func(r *queryv1.Report) bool { return r.GetName() == "sales_by_day" }) {
			t.Fatalf("reports %v, %v", reports, err)
		}
		report, err := c.query.RunReport(t.Context(), &queryv1.RunReportRequest{Report: "sales_by_day"})
		if err != nil || len(report.GetRows()) == 0 {
			t.Fatalf("report %v, %v", report, err)
		}
	})
}

// 200 orders of one piece meet a stock of 50.
func TestStockIsNeverOversold(t *testing.T) {
	i := newInstance(t)
	product := i.stocked(t, 50)
	ids := i.placeMany(t, t.Context(), product, 200)
	i.wantSold(t, product, ids, 50)
}

// placeMany places orders of one piece, concurrently, and goes on until each was accepted.
func (c clients) placeMany(t *testing.T, ctx context.Context, product string, n int) []string {
	t.Helper()
	ids := make([]string, n)
	var wg sync.WaitGroup
	for i := range ids {
		req := orderOf(product, 1, "pm_card_visa")
		req.OrderId = "o-" + req.GetRequestId()
		ids[i] = req.GetOrderId()
		wg.Go(func() {
			for {
				_, err := c.orders.PlaceOrder(ctx, req)
				switch {
				case err == nil:
					return
				case ctx.Err() != nil:
					t.Error(err)
					return
				case status.Code(err) != codes.Unavailable && status.Code(err) != codes.DeadlineExceeded && status.Code(err) != codes.Canceled:
					t.Error(err)
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	return ids
}

// The whole process is killed again and again while orders are placed.
func TestKilledAtAnyMomentEveryOrderReachesItsEnd(t *testing.T) {
	i := newInstance(t)
	product := i.stocked(t, 50)
	placed := make(chan []string)
	go func() { placed <- i.placeMany(t, t.Context(), product, 200) }()
	for _, after := range []time.Duration{150 * time.Millisecond, 400 * time.Millisecond, 900 * time.Millisecond} {
		time.Sleep(after) // any moment will do
		i.kill()
		i.start()
	}
	i.wantSold(t, product, <-placed, 50)
}

// wantError checks a status and its one ErrorInfo.
func wantError(t *testing.T, err error, code codes.Code, reason string) *status.Status {
	t.Helper()
	s, ok := status.FromError(err)
	if err == nil || !ok || s.Code() != code {
		t.Fatalf("got %v, want %s", err, code)
	}
	var infos []*errdetails.ErrorInfo
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			infos = append(infos, info)
		}
	}
	if len(infos) != 1 || infos[0].GetReason() != reason || infos[0].GetDomain() != "purser" {
		t.Fatalf("%v carries %v, want reason %s", err, infos, reason)
	}
	return s
}
