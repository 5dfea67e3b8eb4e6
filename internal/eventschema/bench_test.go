package eventschema

import (
	"fmt"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	stockevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// How events are stored, as protobuf JSON or binary: what a rebuild decodes and an append encodes, for the events of one
// confirmed order. docs/architecture.md has the decision that rests on it.

func BenchmarkDecodeJSON(b *testing.B)   { benchmarkDecode(b, ContentTypeJSON) }
func BenchmarkDecodeBinary(b *testing.B) { benchmarkDecode(b, ContentTypeBinary) }

func BenchmarkEncodeJSON(b *testing.B)   { benchmarkEncode(b, ContentTypeJSON) }
func BenchmarkEncodeBinary(b *testing.B) { benchmarkEncode(b, ContentTypeBinary) }

func benchmarkDecode(b *testing.B, contentType string) {
	r := New()
	messages := orderOfTwoLines()
	data := make([][]byte, len(messages))
	bytes := 0
	for i, m := range messages {
		data[i] = encodeAs(b, r, m, contentType)
		bytes += len(data[i])
	}
	types := make([]schema, len(messages))
	for i, m := range messages {
		name := string(m.ProtoReflect().Descriptor().Name())
		types[i] = schema{name, r.current[name].version}
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		i := n % len(messages)
		if _, err := r.Decode(types[i].eventType, types[i].version, contentType, data[i]); err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(float64(bytes)/float64(len(messages)), "bytes/event")
}

func benchmarkEncode(b *testing.B, contentType string) {
	r := New()
	messages := orderOfTwoLines()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		encodeAs(b, r, messages[n%len(messages)], contentType)
		n++
	}
}

func encodeAs(b *testing.B, r *Registry, m proto.Message, contentType string) []byte {
	if contentType == ContentTypeBinary {
		data, err := proto.Marshal(m)
		if err != nil {
			b.Fatal(err)
		}
		return data
	}
	e, err := r.Encode(m)
	if err != nil {
		b.Fatal(err)
	}
	return e.Data
}

// orderOfTwoLines is what an order of two lines that is confirmed leaves in the log, but for the fulfilment's own notes.
func orderOfTwoLines() []proto.Message {
	id := func(n byte) string { return uuid.NewSHA1(uuid.Nil, []byte{n}).String() }
	order, customer := id(1), id(2)
	money := func(minor int64) *typev1.Money { return &typev1.Money{CurrencyCode: "EUR", AmountMinor: minor} }
	line := func(n int) *orderevent.OrderLine {
		return &orderevent.OrderLine{ProductId: fmt.Sprintf("product-%d", n), Name: "A coffee mug with a ship", Quantity: 2, UnitPrice: money(1450)}
	}
	return []proto.Message{
		&orderevent.OrderPlaced{
			OrderId: order, OrderNumber: "7K2M9QX4TB1D", CustomerId: customer,
			Lines: []*orderevent.OrderLine{line(1), line(2)}, Total: money(5800),
			DeliveryAddress: &typev1.Address{
				Recipient: proto.String("A. Purser"), Line1: proto.String("Havenstraat 1"), City: proto.String("Rotterdam"),
				PostalCode: "3011 AA", CountryCode: "NL",
			},
			PaymentMethod: proto.String("pm_card_visa"), Priority: typev1.Priority_PRIORITY_STANDARD,
		},
		&stockevent.StockReserved{ProductId: "product-1", OrderId: order, Quantity: 2},
		&stockevent.StockReserved{ProductId: "product-2", OrderId: order, Quantity: 2},
		&paymentevent.AuthorizationRequested{OrderId: order, CustomerId: customer, Amount: money(5800), PaymentMethod: proto.String("pm_card_visa"), GatewayKey: id(3)},
		&paymentevent.PaymentAuthorized{OrderId: order, GatewayReference: id(4)},
		&orderevent.OrderConfirmed{OrderId: order},
	}
}
