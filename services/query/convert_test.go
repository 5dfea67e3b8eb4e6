package query

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/purserhq/purser/internal/readmodel"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

var (
	noon  = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	later = noon.Add(time.Minute)
)

func same(t *testing.T, got, want proto.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		t.Errorf("\n got %s\nwant %s", prototext.Format(got), prototext.Format(want))
	}
}

func eur(minor int64) *typev1.Money { return &typev1.Money{CurrencyCode: "EUR", AmountMinor: minor} }

func TestOrder(t *testing.T) {
	same(t, order(readmodel.OrderDetail{
		OrderID: "7", OrderNumber: "7K3M01QXA2TF", CustomerID: "c-1", State: "REJECTED", PaymentState: "OUTCOME_UNKNOWN",
		FulfillmentState: "RELEASED", Priority: "CRITICAL", RejectReason: "OUT_OF_STOCK", NeedsAttention: true,
		Lines:    []readmodel.Line{{ProductID: "cup", Name: "A cup", Quantity: 2, Currency: "EUR", UnitPrice: 1000}},
		Address:  readmodel.Address{Recipient: "Ada", Line1: "Canal 1", City: "Delft", Region: "ZH", PostalCode: "2611", CountryCode: "NL"},
		Currency: "EUR", Total: 2000, Revision: 3, CreateTime: noon, UpdateTime: later,
	}), &queryv1.Order{
		OrderId: "7", OrderNumber: "7K3M-01QX-A2TF", CustomerId: "c-1", State: typev1.OrderState_ORDER_STATE_REJECTED,
		PaymentState:     typev1.PaymentState_PAYMENT_STATE_OUTCOME_UNKNOWN,
		FulfillmentState: typev1.FulfillmentState_FULFILLMENT_STATE_RELEASED,
		Priority:         typev1.Priority_PRIORITY_CRITICAL,
		Lines:            []*queryv1.OrderLine{{ProductId: "cup", Name: "A cup", Quantity: 2, UnitPrice: eur(1000)}},
		Total:            eur(2000),
		DeliveryAddress: &typev1.Address{
			Recipient: new("Ada"), Line1: new("Canal 1"), City: new("Delft"), Region: "ZH", PostalCode: "2611", CountryCode: "NL",
		},
		RejectReason: typev1.RejectReason_REJECT_REASON_OUT_OF_STOCK, NeedsAttention: true, Etag: `"3"`,
		CreateTime: timestamppb.New(noon), UpdateTime: timestamppb.New(later),
	})
}

func TestOrderSummary(t *testing.T) {
	same(t, orderSummary(readmodel.OrderSummary{
		OrderID: "7", OrderNumber: "7K3M01QXA2TF", CustomerID: "c-1", State: "CANCELLING", PaymentState: "NONE", FulfillmentState: "PENDING",
		Priority: "STANDARD", NeedsAttention: true, Currency: "EUR", Total: 2000, CreateTime: noon, UpdateTime: later,
	}), &queryv1.OrderSummary{
		OrderId: "7", OrderNumber: "7K3M-01QX-A2TF", CustomerId: "c-1", State: typev1.OrderState_ORDER_STATE_CANCELLING,
		PaymentState: typev1.PaymentState_PAYMENT_STATE_NONE, Priority: typev1.Priority_PRIORITY_STANDARD, Total: eur(2000),
		FulfillmentState: typev1.FulfillmentState_FULFILLMENT_STATE_PENDING, NeedsAttention: true,
		CreateTime: timestamppb.New(noon), UpdateTime: timestamppb.New(later),
	})
}

func TestPayment(t *testing.T) {
	same(t, payment(readmodel.Payment{
		OrderID: "7", CustomerID: "c-1", State: "DECLINED", Currency: "EUR", Amount: 2000, GatewayReference: "sim_1",
		DeclineCode: "card_declined", NeedsAttention: true, Revision: 1, CreateTime: noon, UpdateTime: later,
	}), &queryv1.Payment{
		OrderId: "7", CustomerId: "c-1", State: typev1.PaymentState_PAYMENT_STATE_DECLINED, Amount: eur(2000), GatewayReference: "sim_1",
		DeclineCode: "card_declined", NeedsAttention: true, Etag: `"1"`,
		CreateTime: timestamppb.New(noon), UpdateTime: timestamppb.New(later),
	})
	same(t, payment(readmodel.Payment{OrderID: "7", State: "VOIDED", CreateTime: noon, UpdateTime: noon}), &queryv1.Payment{
		OrderId: "7", State: typev1.PaymentState_PAYMENT_STATE_VOIDED, Etag: `"0"`,
		CreateTime: timestamppb.New(noon), UpdateTime: timestamppb.New(noon),
	})
}

func TestProduct(t *testing.T) {
	same(t, product(readmodel.Product{
		ProductID: "cup", Name: "Cup", Description: "Holds tea", Currency: "EUR", Price: 0, Discontinued: true, Revision: 2,
		CreateTime: noon, UpdateTime: later,
	}), &queryv1.Product{
		ProductId: "cup", Name: "Cup", Description: "Holds tea", Price: eur(0), Discontinued: true, Etag: `"2"`,
		CreateTime: timestamppb.New(noon), UpdateTime: timestamppb.New(later),
	})
}

func TestStockLevel(t *testing.T) {
	same(t, stockLevel(readmodel.StockLevel{ProductID: "cup", OnHand: 9, Reserved: 4, Available: 5}), &queryv1.StockLevel{
		ProductId: "cup", OnHand: 9, Reserved: 4, Available: 5,
	})
}

func TestTimelineEntry(t *testing.T) {
	same(t, timelineEntry(readmodel.TimelineEntry{
		OrderID: "7", Position: 99, Time: noon, EventType: "OrderConfirmed", Summary: "Order confirmed", Actor: "saga", Cause: "3f0e",
		Stream: "order-7", Revision: 1, EventID: "5b0f", Correlation: "c0de",
	}), &queryv1.TimelineEntry{
		Time: timestamppb.New(noon), EventType: "OrderConfirmed", Summary: "Order confirmed", Actor: "saga", Cause: "3f0e",
		Stream: "order-7", Revision: 1, EventId: "5b0f", CorrelationId: "c0de",
	})
}

func TestCell(t *testing.T) {
	for want, c := range map[*queryv1.Cell]readmodel.Cell{
		{Value: &queryv1.Cell_Text{Text: "EUR"}}:        "EUR",
		{Value: &queryv1.Cell_Number{Number: 3}}:        int64(3),
		{Value: &queryv1.Cell_Date{Date: "2026-01-31"}}: noon.Truncate(24 * time.Hour),
		{Value: &queryv1.Cell_Money{Money: eur(0)}}:     readmodel.Money{Currency: "EUR"},
	} {
		same(t, cell(c), want)
	}
}

// Every value has a short name by which rows hold it, and is found again by it.
func TestEnums(t *testing.T) {
	for prefix, find := range map[string]func(string) protoreflect.Enum{
		"ORDER_STATE_":       func(s string) protoreflect.Enum { return orderState(s) },
		"PAYMENT_STATE_":     func(s string) protoreflect.Enum { return paymentState(s) },
		"FULFILLMENT_STATE_": func(s string) protoreflect.Enum { return fulfillmentState(s) },
		"PRIORITY_":          func(s string) protoreflect.Enum { return priority(s) },
		"REJECT_REASON_":     func(s string) protoreflect.Enum { return rejectReason(s) },
	} {
		if n := find("").Number(); n != 0 {
			t.Errorf("%s: no name is %d", prefix, n)
		}
		values := find("").Descriptor().Values()
		for i := range values.Len() {
			v := values.Get(i)
			short, ok := strings.CutPrefix(string(v.Name()), prefix)
			if got := find(short).Number(); !ok || got != v.Number() {
				t.Errorf("%s is found as %d", v.Name(), got)
			}
		}
	}
}
