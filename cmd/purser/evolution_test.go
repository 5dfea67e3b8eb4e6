package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/ordernumber"
	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
	"github.com/purserhq/purser/services/eventstore/eventstoretest"
)

// pastStore is an event store that is written to as an earlier Purser did: JSON, by the official client alone.
type pastStore struct {
	t      *testing.T
	url    string
	client *esdb.Client
}

func newPastStore(t *testing.T) *pastStore {
	t.Helper()
	s := &pastStore{t: t, url: eventstoretest.Start(t)}
	cfg, err := esdb.ParseConnectionString(s.url)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Logger = esdb.NoopLogging()
	if s.client, err = esdb.NewClient(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.client.Close() })
	return s
}

// write appends an event to a stream. Its metadata is what is told in JSON, and when it happened.
func (s *pastStore) write(stream, eventType string, version int, data, metadata string) {
	s.t.Helper()
	meta := fmt.Sprintf(`{"schemaVersion":%d,"occurredAt":"2020-01-31T09:30:00.5Z","actor":"ann"%s}`, version, metadata)
	_, err := s.client.AppendToStream(s.t.Context(), stream, esdb.AppendToStreamOptions{ExpectedRevision: esdb.Any{}}, esdb.EventData{
		EventID: uuid.New(), EventType: eventType, ContentType: esdb.ContentTypeJson, Data: []byte(data), Metadata: []byte(meta),
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// placed writes that an order of pieces of product mug was placed: in version 1, which had no priority, or in version 2.
func (s *pastStore) placed(id string, version, quantity int, requestID string) {
	s.t.Helper()
	priority := ""
	if version == 2 {
		priority = `, "priority": "PRIORITY_STANDARD"`
	}
	s.write("order-"+id, "OrderPlaced", version, fmt.Sprintf(`{
		"order_id": %q, "order_number": %q, "customer_id": "c-old",
		"lines": [{"product_id": "mug", "name": "Enamel mug", "quantity": "%d", "unit_price": {"currency_code": "EUR", "amount_minor": "1450"}}],
		"total": {"currency_code": "EUR", "amount_minor": "%d"},
		"delivery_address": {"recipient": "A. Purser", "line1": "Havenstraat 1", "city": "Rotterdam", "postal_code": "3011 AA", "country_code": "NL"},
		"payment_method": "pm_card_visa"%s}`, id, orderNumberOf(id), quantity, quantity*price, priority),
		fmt.Sprintf(`,"requestId":%q`, requestID))
}

// orderNumberOf is 12 characters, told apart by the order's id.
func orderNumberOf(id string) string { return (fmt.Sprintf("%X", id) + "0000")[:12] }

// confirmed writes all that an order of two pieces leaves behind when it is confirmed.
func (s *pastStore) confirmed(id string, version int, requestID string) {
	s.t.Helper()
	s.placed(id, version, 2, requestID)
	s.write("stock-mug", "StockReserved", 1, fmt.Sprintf(`{"product_id": "mug", "order_id": %q, "quantity": "2"}`, id), "")
	s.write("fulfillment-"+id, "LineReserved", 1, fmt.Sprintf(`{"order_id": %q, "product_id": "mug", "quantity": "2"}`, id), "")
	s.write("payment-"+id, "AuthorizationRequested", 1, fmt.Sprintf(`{"order_id": %q, "customer_id": "c-old",
		"amount": {"currency_code": "EUR", "amount_minor": "2900"}, "payment_method": "pm_card_visa", "gateway_key": "k"}`, id), "")
	s.write("payment-"+id, "PaymentAuthorized", 1, fmt.Sprintf(`{"order_id": %q, "gateway_reference": "g"}`, id), "")
	s.write("order-"+id, "OrderConfirmed", 1, fmt.Sprintf(`{"order_id": %q}`, id), "")
}

// Events of version 1, from before this Purser was started and while it runs, are read by every service as if they had
// always been of version 2.
func TestAStoreOfThePast(t *testing.T) {
	past := newPastStore(t)
	past.write("product-mug", "ProductCreated", 1, `{"product_id": "mug", "name": "Enamel mug", "price": {"currency_code": "EUR", "amount_minor": "1450"}}`, "")
	past.write("stock-mug", "StockReceived", 1, `{"product_id": "mug", "quantity": "20"}`, "")
	request := uuid.NewString()
	past.confirmed("old-1", 1, request)
	past.confirmed("old-2", 2, uuid.NewString())
	past.placed("open", 1, 3, uuid.NewString())
	i := newInstance(t, "--eventstore-url", past.url)

	t.Run("the saga brings an order to its end", func(t *testing.T) {
		past.placed("late", 1, 4, uuid.NewString())
		for _, id := range []string{"open", "late"} {
			o := i.reaches(t, id, typev1.OrderState_ORDER_STATE_CONFIRMED)
			if o.GetPaymentState() != typev1.PaymentState_PAYMENT_STATE_AUTHORIZED || o.GetFulfillmentState() != typev1.FulfillmentState_FULFILLMENT_STATE_RESERVED {
				t.Errorf("payment %s, goods %s", o.GetPaymentState(), o.GetFulfillmentState())
			}
		}
		eventually(t, settle, func() error {
			if l := i.level(t, "mug"); l.GetOnHand() != 20 || l.GetReserved() != 2+2+3+4 {
				return fmt.Errorf("stock %v", l)
			}
			return nil
		})
	})

	t.Run("queries", func(t *testing.T) {
		same := func(ask func(id string) (proto.Message, error)) string {
			t.Helper()
			var texts []string
			for _, id := range []string{"old-1", "old-2"} {
				reply, err := ask(id)
				if err != nil {
					t.Fatal(err)
				}
				texts = append(texts, asOneOrder(reply, id))
			}
			if texts[0] != texts[1] {
				t.Errorf("stored in version 1\n%s\nin version 2\n%s", texts[0], texts[1])
			}
			return texts[0]
		}
		got := same(func(id string) (proto.Message, error) { return i.get(t.Context(), id, "") })
		if !strings.Contains(got, "PRIORITY_STANDARD") || !strings.Contains(got, "ORDER_STATE_CONFIRMED") {
			t.Errorf("the order is %s", got)
		}
		same(func(id string) (proto.Message, error) {
			return i.query.GetOrder(t.Context(), &queryv1.GetOrderRequest{Order: &queryv1.GetOrderRequest_OrderNumber{OrderNumber: orderNumberOf(id)}})
		})
		same(func(id string) (proto.Message, error) {
			reply, err := i.query.GetOrderTimeline(t.Context(), &queryv1.GetOrderTimelineRequest{OrderId: id})
			if err == nil && len(reply.GetEntries()) != 5 {
				err = fmt.Errorf("the timeline of %s is %v", id, reply)
			}
			for _, e := range reply.GetEntries() {
				e.EventId = "" // every event has another
			}
			return reply, err
		})
		var list *queryv1.ListOrdersResponse
		eventually(t, settle, func() (err error) {
			list, err = i.query.ListOrders(t.Context(), &queryv1.ListOrdersRequest{Filter: `state = CONFIRMED AND customer_id = "c-old"`})
			if err == nil && len(list.GetOrders()) != 4 {
				err = fmt.Errorf("listed %v", list)
			}
			return err
		})
		for _, o := range list.GetOrders() {
			if o.GetPriority() != typev1.Priority_PRIORITY_STANDARD {
				t.Errorf("listed with priority %s: %v", o.GetPriority(), o)
			}
		}
		report, err := i.query.RunReport(t.Context(), &queryv1.RunReportRequest{Report: "sales_by_day"})
		if err != nil || len(report.GetRows()) != 1 {
			t.Errorf("sold %v, %v", report, err)
		}
	})

	t.Run("commands", func(t *testing.T) {
		moved := orderOf("mug", 2, "pm_card_visa").GetDeliveryAddress()
		moved.Line1 = proto.String("Havenstraat 2")
		changed, err := i.orders.ChangeDeliveryAddress(t.Context(), &orderv1.ChangeDeliveryAddressRequest{
			RequestId: uuid.NewString(), OrderId: "old-1", Etag: `"1"`, DeliveryAddress: moved,
		})
		if err != nil {
			t.Fatal(err)
		}
		o, err := i.get(t.Context(), "old-1", changed.GetConsistencyToken())
		if err != nil || o.GetDeliveryAddress().GetLine1() != "Havenstraat 2" || o.GetPriority() != typev1.Priority_PRIORITY_STANDARD {
			t.Errorf("with another address: %v, %v", o, err)
		}
		if _, err := i.orders.CancelOrder(t.Context(), &orderv1.CancelOrderRequest{RequestId: uuid.NewString(), OrderId: "open"}); err != nil {
			t.Fatal(err)
		}
		o = i.reaches(t, "open", typev1.OrderState_ORDER_STATE_CANCELLED)
		if o.GetPaymentState() != typev1.PaymentState_PAYMENT_STATE_VOIDED || o.GetFulfillmentState() != typev1.FulfillmentState_FULFILLMENT_STATE_RELEASED {
			t.Errorf("payment %s, goods %s", o.GetPaymentState(), o.GetFulfillmentState())
		}
	})

	t.Run("a command that was sent then and is repeated now", func(t *testing.T) {
		req := orderOf("mug", 2, "pm_card_visa")
		req.RequestId, req.OrderId, req.CustomerId = request, "old-1", "c-old"
		placed, err := i.orders.PlaceOrder(t.Context(), req)
		if err != nil || placed.GetEtag() != `"0"` || placed.GetTotal().GetAmountMinor() != 2*price {
			t.Errorf("answered %v, %v", placed, err)
		}
	})
}

// asOneOrder is a reply without that by which the orders of the past differ: ids, numbers, and places in the log.
func asOneOrder(reply proto.Message, id string) string {
	text := strings.NewReplacer(id, "ID", ordernumber.Grouped(orderNumberOf(id)), "NUMBER").Replace(protojson.Format(reply))
	return strings.ReplaceAll(text, " ", "") // the spacing of protojson varies on purpose
}
