package readmodel

import (
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/domain/fulfillment"
	"github.com/purserhq/purser/internal/eventlog"
	catalogevent "github.com/purserhq/purser/proto/purser/catalog/event/v1"
	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
	stockevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// history makes events of one key, a minute apart from noon, each with the next revision of its stream.
func history(key string, messages ...proto.Message) []consumer.Event {
	revisions := map[string]eventlog.Revision{}
	var events []consumer.Event
	for i, m := range messages {
		// The packages of event messages are purser.<area>.event.v1.
		category := map[string]string{
			"catalog": "product", "inventory": "stock", "order": "order", "payment": "payment", "fulfillment": "fulfillment",
		}[string(m.ProtoReflect().Descriptor().ParentFile().Package().Parent().Parent().Name())]
		events = append(events, consumer.Event{
			Key: key, Category: category, Stream: eventlog.StreamName(category, key),
			Revision: revisions[category], Position: eventlog.Position(100 + i),
			Type: string(m.ProtoReflect().Descriptor().Name()), Message: m,
			OccurredAt: noon.Add(time.Duration(i) * time.Minute), Actor: "alice",
		})
		revisions[category]++
	}
	return events
}

func folded[R any](f *consumer.Fold[R], messages ...proto.Message) R {
	var row R
	for _, e := range history("7", messages...) {
		f.Evolve(&row, e)
	}
	return row
}

func equal[T any](t *testing.T, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
}

func at(minute int) time.Time { return noon.Add(time.Duration(minute) * time.Minute) }

func eur(minor int64) *typev1.Money { return &typev1.Money{CurrencyCode: "EUR", AmountMinor: minor} }

func placedOrder() *orderevent.OrderPlaced {
	return &orderevent.OrderPlaced{
		OrderId: "7", OrderNumber: "7K3M9QXA2TFD", CustomerId: "c-1", Total: eur(2500),
		Priority: typev1.Priority_PRIORITY_EXPEDITED, PaymentMethod: new("pm_card_visa"),
		DeliveryAddress: &typev1.Address{Recipient: new("Ada"), Line1: new("Canal 1"), City: new("Delft"), PostalCode: "2611", CountryCode: "NL"},
		Lines: []*orderevent.OrderLine{
			{ProductId: "cup", Name: "A cup", Quantity: 2, UnitPrice: eur(1000)},
			{ProductId: "pen", Name: "A pen", Quantity: 1, UnitPrice: eur(500)},
		},
	}
}

func rejectedOrder() *orderevent.OrderRejected {
	return &orderevent.OrderRejected{OrderId: "7", Reason: typev1.RejectReason_REJECT_REASON_OUT_OF_STOCK}
}

func reserved(product string) proto.Message {
	return &fulfillmentevent.LineReserved{OrderId: "7", ProductId: product, Quantity: 1}
}

func refusedLine(product string) proto.Message {
	return &fulfillmentevent.LineRefused{OrderId: "7", ProductId: product, Requested: 2, Available: 1}
}

func releasedLine(product string) proto.Message {
	return &fulfillmentevent.LineReleased{OrderId: "7", ProductId: product}
}

func TestProducts(t *testing.T) {
	created := &catalogevent.ProductCreated{ProductId: "7", Name: "Cup", Description: "Holds tea", Price: eur(1000)}
	equal(t, folded(&Products, created), Product{
		Name: "Cup", Description: "Holds tea", Currency: "EUR", Price: 1000, CreateTime: at(0), UpdateTime: at(0),
	})
	equal(t, folded(&Products, created,
		&catalogevent.ProductRenamed{Name: "Mug"},
		&catalogevent.PriceChanged{Price: &typev1.Money{CurrencyCode: "USD", AmountMinor: 900}},
		&catalogevent.ProductDiscontinued{},
	), Product{
		Name: "Mug", Description: "Holds tea", Currency: "USD", Price: 900, Discontinued: true,
		Revision: 3, CreateTime: at(0), UpdateTime: at(3),
	})
}

func TestStockLevels(t *testing.T) {
	level := folded(&StockLevels,
		&stockevent.StockReceived{Quantity: 10},
		&stockevent.StockReserved{OrderId: "1", Quantity: 4},
		&stockevent.StockReserved{OrderId: "2", Quantity: 3},
		&stockevent.StockReservationRejected{OrderId: "3", Requested: 9, Available: 3},
		&stockevent.ReservationReleased{OrderId: "1", Quantity: 4},
		&stockevent.ReservationReleased{OrderId: "4", Quantity: 0}, // came before its reservation
		&stockevent.StockReserved{OrderId: "5", Quantity: 2},
		&stockevent.ReservationCommitted{OrderId: "5", Quantity: 2},
	)
	equal(t, level, StockLevel{OnHand: 8, Reserved: 3, Available: 5})
}

func TestPayments(t *testing.T) {
	requested := requestedPayment()
	unknown := &paymentevent.AuthorizationOutcomeUnknown{}
	reconciled := func(o paymentevent.ReconciledOutcome) proto.Message {
		return &paymentevent.PaymentReconciled{Outcome: o}
	}
	for _, c := range []struct {
		name   string
		events []proto.Message
		want   string
	}{
		{"asked for", []proto.Message{requested}, "REQUESTED"},
		{"authorized", []proto.Message{requested, &paymentevent.PaymentAuthorized{}}, "AUTHORIZED"},
		{"declined", []proto.Message{requested, &paymentevent.AuthorizationDeclined{}}, "DECLINED"},
		{"failed", []proto.Message{requested, &paymentevent.AuthorizationFailed{}}, "FAILED"},
		{"answer lost", []proto.Message{requested, unknown}, "OUTCOME_UNKNOWN"},
		{"found authorized", []proto.Message{requested, unknown, reconciled(paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_AUTHORIZED)}, "AUTHORIZED"},
		{"found declined", []proto.Message{requested, unknown, reconciled(paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_DECLINED)}, "DECLINED"},
		{"never happened", []proto.Message{requested, unknown, reconciled(paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_NEVER_HAPPENED)}, "NONE"},
		{"being voided", []proto.Message{requested, &paymentevent.PaymentAuthorized{}, &paymentevent.VoidRequested{}}, "AUTHORIZED"},
		{"answer to the void lost", []proto.Message{requested, &paymentevent.PaymentAuthorized{}, &paymentevent.VoidRequested{}, &paymentevent.VoidOutcomeUnknown{}}, "OUTCOME_UNKNOWN"},
		{"voided", []proto.Message{requested, &paymentevent.PaymentAuthorized{}, &paymentevent.VoidRequested{}, &paymentevent.PaymentVoided{}}, "VOIDED"},
		{"voided is final", []proto.Message{requested, &paymentevent.PaymentVoided{}, reconciled(paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_AUTHORIZED)}, "VOIDED"},
		{"voided before it was asked for", []proto.Message{&paymentevent.PaymentVoided{}}, "VOIDED"},
		{"contradicted", []proto.Message{requested, &paymentevent.PaymentAuthorized{}, &paymentevent.PaymentContradicted{}}, "AUTHORIZED"},
	} {
		t.Run(c.name, func(t *testing.T) { equal(t, folded(&Payments, c.events...).State, c.want) })
	}

	equal(t, folded(&Payments, requested, &paymentevent.PaymentAuthorized{GatewayReference: "sim_1"}, &paymentevent.PaymentContradicted{}), Payment{
		CustomerID: "c-1", State: "AUTHORIZED", Currency: "EUR", Amount: 2500, GatewayReference: "sim_1", NeedsAttention: true,
		Revision: 2, CreateTime: at(0), UpdateTime: at(2),
	})
	equal(t, folded(&Payments, requested, &paymentevent.AuthorizationDeclined{DeclineCode: "card_declined"}).DeclineCode, "card_declined")
}

func requestedPayment() *paymentevent.AuthorizationRequested {
	return &paymentevent.AuthorizationRequested{CustomerId: "c-1", Amount: eur(2500), PaymentMethod: new("pm_card_visa")}
}

func TestOrderSummaries(t *testing.T) {
	want := OrderSummary{
		OrderNumber: "7K3M9QXA2TFD", CustomerID: "c-1", State: "PLACED", PaymentState: "NONE", FulfillmentState: "PENDING", Priority: "EXPEDITED",
		Currency: "EUR", Total: 2500, CreateTime: at(0), UpdateTime: at(0),
	}
	summary := func(messages ...proto.Message) OrderSummary {
		o := folded(&OrderSummaries, messages...)
		equal(t, o.Fulfillment, folded(&OrderDetails, messages...).Fulfillment)
		o.Fulfillment = fulfillment.State{}
		return o
	}
	equal(t, summary(placedOrder()), want)

	want.State, want.PaymentState, want.UpdateTime = "CONFIRMED", "AUTHORIZED", at(3)
	equal(t, summary(placedOrder(),
		requestedPayment(), &paymentevent.PaymentAuthorized{}, &orderevent.OrderConfirmed{}), want)

	want.State, want.PaymentState, want.RejectReason, want.UpdateTime = "REJECTED", "NONE", "OUT_OF_STOCK", at(1)
	equal(t, summary(placedOrder(), rejectedOrder()), want)
}

// The streams of a key are written by different services, so their facts may come in any order.
func TestFactsOfOtherStreamsMayComeFirst(t *testing.T) {
	early := folded(&OrderSummaries, &paymentevent.PaymentVoided{})
	equal(t, early.State, "")
	equal(t, len(SalesByDay.Contribute(early)), 0)

	late := folded(&OrderSummaries, &paymentevent.PaymentVoided{}, placedOrder())
	equal(t, late.State, "PLACED")
	equal(t, late.PaymentState, "VOIDED")

	equal(t, folded(&OrderDetails, reserved("cup"), reserved("pen"), placedOrder()).FulfillmentState, "RESERVED")
}

func TestOrderStates(t *testing.T) {
	for _, c := range []struct {
		name   string
		events []proto.Message
		want   string
	}{
		{"placed", []proto.Message{placedOrder()}, "PLACED"},
		{"with another address", []proto.Message{placedOrder(), &orderevent.DeliveryAddressChanged{}}, "PLACED"},
		{"confirmed", []proto.Message{placedOrder(), &orderevent.OrderConfirmed{}}, "CONFIRMED"},
		{"rejected", []proto.Message{placedOrder(), rejectedOrder()}, "REJECTED"},
		{"being cancelled", []proto.Message{placedOrder(), &orderevent.OrderConfirmed{}, &orderevent.OrderCancellationRequested{}}, "CANCELLING"},
		{"cancelled", []proto.Message{placedOrder(), &orderevent.OrderCancellationRequested{}, &orderevent.OrderCancelled{}}, "CANCELLED"},
	} {
		t.Run(c.name, func(t *testing.T) {
			equal(t, folded(&OrderSummaries, c.events...).State, c.want)
			equal(t, folded(&OrderDetails, c.events...).State, c.want)
		})
	}
}

func TestOrderDetails(t *testing.T) {
	moved := &orderevent.DeliveryAddressChanged{DeliveryAddress: &typev1.Address{Recipient: new("Ada"), Line1: new("Canal 2"), Line2: new("Attic"),
		City: new("Delft"), Region: "ZH", PostalCode: "2612", CountryCode: "NL"}}
	got := folded(&OrderDetails, placedOrder(), reserved("cup"), moved, requestedPayment())
	equal(t, got, OrderDetail{
		OrderNumber: "7K3M9QXA2TFD", CustomerID: "c-1", State: "PLACED", PaymentState: "REQUESTED", FulfillmentState: "PENDING",
		Priority: "EXPEDITED", Currency: "EUR", Total: 2500,
		Lines: []Line{
			{ProductID: "cup", Name: "A cup", Quantity: 2, Currency: "EUR", UnitPrice: 1000},
			{ProductID: "pen", Name: "A pen", Quantity: 1, Currency: "EUR", UnitPrice: 500},
		},
		Address:    Address{Recipient: "Ada", Line1: "Canal 2", Line2: "Attic", City: "Delft", Region: "ZH", PostalCode: "2612", CountryCode: "NL"},
		Revision:   1, // of the order's stream alone
		CreateTime: at(0), UpdateTime: at(3),
		Fulfillment: got.Fulfillment,
	})
	equal(t, got.Fulfillment.Goal, fulfillment.Fulfil)
	equal(t, got.Fulfillment.Method, "")
}

func TestFulfillmentState(t *testing.T) {
	for _, c := range []struct {
		name   string
		events []proto.Message
		want   string
	}{
		{"nothing held", nil, "PENDING"},
		{"one line held", []proto.Message{reserved("cup")}, "PENDING"},
		{"all held", []proto.Message{reserved("cup"), reserved("pen")}, "RESERVED"},
		{"one refused", []proto.Message{reserved("cup"), refusedLine("pen")}, "PENDING"},
		{"one refused, the other released", []proto.Message{reserved("cup"), refusedLine("pen"), releasedLine("cup")}, "RELEASED"},
		{"all refused", []proto.Message{refusedLine("cup"), refusedLine("pen")}, "RELEASED"},
		{"one released of two held", []proto.Message{reserved("cup"), reserved("pen"), releasedLine("pen")}, "PENDING"},
		{"held after its release", []proto.Message{releasedLine("cup"), releasedLine("pen"), reserved("cup"), reserved("pen")}, "RELEASED"},
		{"rejected by somebody while held", []proto.Message{reserved("cup"), reserved("pen"), rejectedOrder()}, "RESERVED"},
		{"held after a refusal", []proto.Message{refusedLine("cup"), reserved("cup"), reserved("pen")}, "RESERVED"},
	} {
		t.Run(c.name, func(t *testing.T) {
			events := append([]proto.Message{placedOrder()}, c.events...)
			equal(t, folded(&OrderDetails, events...).FulfillmentState, c.want)
			equal(t, folded(&OrderSummaries, events...).FulfillmentState, c.want)
		})
	}
}

func TestNeedsAttention(t *testing.T) {
	step := &fulfillmentevent.StepRefused{Step: fulfillmentevent.Step_STEP_RESERVE_STOCK, ProductId: "cup", Reason: "PRODUCT_NOT_FOUND"}
	cancelled := &orderevent.OrderCancellationRequested{}
	for _, c := range []struct {
		name   string
		events []proto.Message
		want   bool
	}{
		{"nothing happened", nil, false},
		{"a step was refused", []proto.Message{step}, true},
		{"one that is not to be done any more", []proto.Message{reserved("cup"), step}, false},
		{"and the order cancelled", []proto.Message{step, cancelled}, false},
		{"the gateway refused the request", []proto.Message{requestedPayment(), &paymentevent.AuthorizationFailed{}}, true},
		{"a card was declined", []proto.Message{requestedPayment(), &paymentevent.AuthorizationDeclined{}}, false},
		{"somebody else asked for a payment", []proto.Message{&paymentevent.AuthorizationRequested{CustomerId: "c-2", Amount: eur(1)}}, true},
		{"the gateway contradicts itself", []proto.Message{&paymentevent.PaymentContradicted{}, cancelled}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			events := append([]proto.Message{placedOrder()}, c.events...)
			equal(t, folded(&OrderDetails, events...).NeedsAttention, c.want)
			equal(t, folded(&OrderSummaries, events...).NeedsAttention, c.want)
		})
	}
}

func TestFulfillments(t *testing.T) {
	want := Fulfillment{
		CustomerID: "c-1", Goal: "FULFIL", FulfillmentState: "PENDING", Priority: "EXPEDITED",
		ToDo: []ToDo{
			{"RESERVE_STOCK", "cup", at(0)}, {"RESERVE_STOCK", "pen", at(0)},
		},
		WaitingSince: at(0), CreateTime: at(0), UpdateTime: at(0),
	}
	events := []proto.Message{placedOrder()}
	then := func(m proto.Message) {
		t.Helper()
		events = append(events, m)
		want.UpdateTime = at(len(events) - 1)
		got := folded(&Fulfillments, events...)
		equal(t, got.State.Method, "")
		got.State = fulfillment.State{}
		equal(t, got, want)
	}
	want.ToDo = want.ToDo[1:]
	then(reserved("cup"))
	want.NeedsAttention, want.Attention = true, "RESERVE_STOCK pen PRODUCT_NOT_FOUND"
	want.ToDo, want.WaitingSince = []ToDo{}, notWaiting
	then(&fulfillmentevent.StepRefused{Step: fulfillmentevent.Step_STEP_RESERVE_STOCK, ProductId: "pen", Reason: "PRODUCT_NOT_FOUND"})
	want.Goal, want.NeedsAttention, want.Attention = "CANCEL", false, ""
	want.ToDo = []ToDo{{"RELEASE_STOCK", "cup", at(3)}, {"RELEASE_STOCK", "pen", at(3)}}
	want.WaitingSince = at(3)
	then(&orderevent.OrderCancellationRequested{})
	want.ToDo = want.ToDo[:1]
	then(releasedLine("pen"))
	want.FulfillmentState, want.ToDo, want.WaitingSince = "RELEASED", []ToDo{{"MARK_CANCELLED", "", at(5)}}, at(5)
	then(releasedLine("cup"))
	want.ToDo, want.WaitingSince = []ToDo{}, notWaiting
	then(&orderevent.OrderCancelled{})
}

func TestSalesByDay(t *testing.T) {
	// 23:30 on the 30th in New York is the 31st by UTC.
	when := time.Date(2026, 1, 30, 23, 30, 0, 0, time.FixedZone("EST", -5*60*60))
	day := time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC)
	sold := []DaySales{{Day: day, Currency: "EUR", Orders: 1, Revenue: 2500}}
	for state, want := range map[string][]DaySales{
		"": nil, "PLACED": sold, "CONFIRMED": sold, "CANCELLING": sold, "CANCELLED": nil, "REJECTED": nil,
	} {
		got := SalesByDay.Contribute(OrderSummary{State: state, Currency: "EUR", Total: 2500, CreateTime: when})
		t.Run("state "+state, func(t *testing.T) { equal(t, got, want) })
	}
}
