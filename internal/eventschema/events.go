package eventschema

import (
	"slices"

	"google.golang.org/protobuf/proto"

	catalogevent "github.com/purserhq/purser/proto/purser/catalog/event/v1"
	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
	stockevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
)

// The categories of streams: an entity's stream is its category, "-" and its id.
const (
	Product     = "product"
	Order       = "order"
	Stock       = "stock"
	Payment     = "payment"
	Fulfillment = "fulfillment"
)

// Categories returns all categories.
func Categories() []string {
	return []string{Product, Order, Stock, Payment, Fulfillment}
}

// event is a type of event: its message and the version of the schema that the message is.
type event struct {
	message proto.Message
	version int
}

// events lists every type of event there is. An event whose type is not among them can be neither stored nor read.
func events() []event {
	return slices.Concat(productEvents(), orderEvents(), stockEvents(), paymentEvents(), fulfillmentEvents())
}

func productEvents() []event {
	return []event{
		{&catalogevent.ProductCreated{}, 1},
		{&catalogevent.ProductRenamed{}, 1},
		{&catalogevent.PriceChanged{}, 1},
		{&catalogevent.ProductDiscontinued{}, 1},
	}
}

func orderEvents() []event {
	return []event{
		{&orderevent.OrderPlaced{}, 2},
		{&orderevent.DeliveryAddressChanged{}, 1},
		{&orderevent.OrderConfirmed{}, 1},
		{&orderevent.OrderRejected{}, 1},
		{&orderevent.OrderCancellationRequested{}, 1},
		{&orderevent.OrderCancelled{}, 1},
	}
}

func stockEvents() []event {
	return []event{
		{&stockevent.StockReceived{}, 1},
		{&stockevent.StockReserved{}, 1},
		{&stockevent.StockReservationRejected{}, 1},
		{&stockevent.ReservationReleased{}, 1},
		{&stockevent.ReservationCommitted{}, 1},
	}
}

func paymentEvents() []event {
	return []event{
		{&paymentevent.AuthorizationRequested{}, 1},
		{&paymentevent.PaymentAuthorized{}, 1},
		{&paymentevent.AuthorizationDeclined{}, 1},
		{&paymentevent.AuthorizationFailed{}, 1},
		{&paymentevent.AuthorizationOutcomeUnknown{}, 1},
		{&paymentevent.VoidRequested{}, 1},
		{&paymentevent.PaymentVoided{}, 1},
		{&paymentevent.VoidOutcomeUnknown{}, 1},
		{&paymentevent.PaymentReconciled{}, 1},
		{&paymentevent.PaymentContradicted{}, 1},
	}
}

func fulfillmentEvents() []event {
	return []event{
		{&fulfillmentevent.LineReserved{}, 1},
		{&fulfillmentevent.LineRefused{}, 1},
		{&fulfillmentevent.LineReleased{}, 1},
		{&fulfillmentevent.StepRefused{}, 1},
	}
}
