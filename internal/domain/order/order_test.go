package order_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/domain/order"
	"github.com/purserhq/purser/internal/fault"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const (
	fine      = typev1.ErrorReason_ERROR_REASON_UNSPECIFIED
	invalid   = typev1.ErrorReason_ERROR_REASON_INVALID_FIELD
	mixed     = typev1.ErrorReason_ERROR_REASON_CURRENCY_MISMATCH
	exists    = typev1.ErrorReason_ERROR_REASON_ORDER_EXISTS
	missing   = typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND
	illegal   = typev1.ErrorReason_ERROR_REASON_ILLEGAL_TRANSITION
	noStock   = typev1.RejectReason_REJECT_REASON_OUT_OF_STOCK
	noPayment = typev1.RejectReason_REJECT_REASON_PAYMENT_DECLINED
)

func eur(minor int64) *typev1.Money { return &typev1.Money{CurrencyCode: "EUR", AmountMinor: minor} }

func address(city string) *typev1.Address {
	return &typev1.Address{
		Recipient: proto.String("Ada"), Line1: proto.String("Street 1"), City: proto.String(city),
		PostalCode: "1011 AB", CountryCode: "NL",
	}
}

func place(change func(*order.Place)) order.Place {
	c := order.Place{
		ID: "7", Number: "ABCDEFGHJKMN", CustomerID: "ada", PaymentMethod: "pm_card_visa", Address: address("Delft"),
		Lines: []order.Line{
			{ProductID: "mug", Name: "Mug", Quantity: 2, UnitPrice: eur(1450)},
			{ProductID: "pen", Name: "Pen", Quantity: 3, UnitPrice: eur(100)},
		},
	}
	change(&c)
	return c
}

func same(*order.Place) {}

func TestPlace(t *testing.T) {
	var s order.State
	got, err := s.Place(place(same))
	want := &orderevent.OrderPlaced{
		OrderId: "7", OrderNumber: "ABCDEFGHJKMN", CustomerId: "ada", PaymentMethod: proto.String("pm_card_visa"),
		Total: eur(3200), DeliveryAddress: address("Delft"), Priority: typev1.Priority_PRIORITY_STANDARD,
		Lines: []*orderevent.OrderLine{
			{ProductId: "mug", Name: "Mug", Quantity: 2, UnitPrice: eur(1450)},
			{ProductId: "pen", Name: "Pen", Quantity: 3, UnitPrice: eur(100)},
		},
	}
	if err != nil || len(got) != 1 || !proto.Equal(got[0], want) {
		t.Fatalf("%v, %v", got, err)
	}
	s.Evolve(got[0], time.Time{})
	if _, err := s.Place(place(same)); !fault.Is(err, exists) {
		t.Errorf("placed again: %v", err)
	}
}

func TestPlaceTakesTheDearestOrder(t *testing.T) {
	got, err := new(order.State).Place(place(func(c *order.Place) {
		c.Lines[0].Quantity, c.Lines[0].UnitPrice = 1, eur(1e15-300) // with the 3 pens
	}))
	if err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestPlaceRefuses(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*order.Place)
		reason typev1.ErrorReason
		field  string
	}{
		{"no customer", func(c *order.Place) { c.CustomerID = "" }, invalid, "customer_id"},
		{"no lines", func(c *order.Place) { c.Lines = nil }, invalid, "lines"},
		{"too many lines", func(c *order.Place) { c.Lines = make([]order.Line, 101) }, invalid, "lines"},
		{"a product twice", func(c *order.Place) { c.Lines[1].ProductID = "mug" }, invalid, "lines[1].product_id"},
		{"quantity 0", func(c *order.Place) { c.Lines[1].Quantity = 0 }, invalid, "lines[1].quantity"},
		{"quantity 10000", func(c *order.Place) { c.Lines[0].Quantity = 10000 }, invalid, "lines[0].quantity"},
		{"negative price", func(c *order.Place) { c.Lines[0].UnitPrice = eur(-1) }, invalid, "lines[0].unit_price"},
		{"two currencies", func(c *order.Place) { c.Lines[1].UnitPrice = &typev1.Money{CurrencyCode: "USD"} }, mixed, "lines[1].product_id"},
		{"line too dear", func(c *order.Place) { c.Lines[0].UnitPrice = eur(math.MaxInt64) }, invalid, "lines"},
		{"sum too large", func(c *order.Place) {
			c.Lines[0].UnitPrice, c.Lines[1].UnitPrice = eur(math.MaxInt64/2), eur(math.MaxInt64/3)
		}, invalid, "lines"},
		{"total of more than 10^15", func(c *order.Place) {
			c.Lines[0].Quantity, c.Lines[0].UnitPrice = 1, eur(1e15-300)
			c.Lines[1].Quantity, c.Lines[1].UnitPrice = 1, eur(301)
		}, invalid, "lines"},
		{"no address", func(c *order.Place) { c.Address = nil }, invalid, "delivery_address.recipient"},
		{"no city", func(c *order.Place) { c.Address.City = nil }, invalid, "delivery_address.city"},
		{"no country", func(c *order.Place) { c.Address.CountryCode = "" }, invalid, "delivery_address.country_code"},
		{"no such country", func(c *order.Place) { c.Address.CountryCode = "XX" }, invalid, "delivery_address.country_code"},
		{"a country no more", func(c *order.Place) { c.Address.CountryCode = "YU" }, invalid, "delivery_address.country_code"},
		{"blank recipient", func(c *order.Place) { c.Address.Recipient = proto.String(" \t ") }, invalid, "delivery_address.recipient"},
		{"blank street", func(c *order.Place) { c.Address.Line1 = proto.String("\u00a0") }, invalid, "delivery_address.line1"},
		{"blank city", func(c *order.Place) { c.Address.City = proto.String(" ") }, invalid, "delivery_address.city"},
		{"blank postal code", func(c *order.Place) { c.Address.PostalCode = " " }, invalid, "delivery_address.postal_code"},
		{"no payment method", func(c *order.Place) { c.PaymentMethod = "" }, invalid, "payment_method"},
	} {
		got, err := new(order.State).Place(place(c.change))
		f := fault.Of(err)
		if got != nil || f == nil || f.Kind != fault.Invalid || f.Reason != c.reason || len(f.Fields) != 1 || f.Fields[0].Path != c.field {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}

func TestTransitions(t *testing.T) {
	type past = []proto.Message
	placed, err := new(order.State).Place(place(same))
	if err != nil {
		t.Fatal(err)
	}
	var (
		confirmed  = &orderevent.OrderConfirmed{OrderId: "7"}
		rejected   = &orderevent.OrderRejected{OrderId: "7", Reason: noStock}
		cancelling = &orderevent.OrderCancellationRequested{OrderId: "7", CustomerId: "ada", Reason: proto.String("changed my mind")}
		cancelled  = &orderevent.OrderCancelled{OrderId: "7"}
		moved      = &orderevent.DeliveryAddressChanged{OrderId: "7", CustomerId: "ada", DeliveryAddress: address("Leiden")}
	)
	pasts := map[string]past{
		"nothing":            nil,
		"placed":             placed,
		"confirmed":          append(slices.Clone(placed), confirmed),
		"rejected":           append(slices.Clone(placed), rejected),
		"cancelling":         append(slices.Clone(placed), cancelling),
		"cancelling, late":   append(slices.Clone(placed), confirmed, cancelling),
		"cancelled":          append(slices.Clone(placed), cancelling, cancelled),
		"placed, then moved": append(slices.Clone(placed), moved),
	}
	steps := map[string]func(*order.State) ([]proto.Message, error){
		"confirm": func(s *order.State) ([]proto.Message, error) { return s.Confirm(order.Confirm{ID: "7"}) },
		"reject":  func(s *order.State) ([]proto.Message, error) { return s.Reject(order.Reject{ID: "7", Reason: noStock}) },
		"cancel": func(s *order.State) ([]proto.Message, error) {
			return s.Cancel(order.Cancel{ID: "7", Reason: "changed my mind"})
		},
		"mark": func(s *order.State) ([]proto.Message, error) { return s.MarkCancelled(order.MarkCancelled{ID: "7"}) },
		"move": func(s *order.State) ([]proto.Message, error) {
			return s.ChangeAddress(order.ChangeAddress{ID: "7", Address: address("Leiden")})
		},
	}
	var (
		afterPlaced    = []string{"ChangeDeliveryAddress", "ConfirmOrder", "RejectOrder", "CancelOrder"}
		afterConfirmed = []string{"ChangeDeliveryAddress", "CancelOrder"}
		afterCancel    = []string{"MarkCancelled"}
	)
	for _, c := range []struct {
		given, when string
		then        proto.Message
		reason      typev1.ErrorReason
		allowed     []string
	}{
		{"nothing", "confirm", nil, missing, nil},
		{"nothing", "reject", nil, missing, nil},
		{"nothing", "cancel", nil, missing, nil},
		{"nothing", "mark", nil, missing, nil},
		{"nothing", "move", nil, missing, nil},
		{"placed", "confirm", confirmed, fine, nil},
		{"placed", "reject", rejected, fine, nil},
		{"placed", "cancel", cancelling, fine, nil},
		{"placed", "mark", nil, illegal, afterPlaced},
		{"placed", "move", moved, fine, nil},
		{"placed, then moved", "move", nil, fine, nil},
		{"confirmed", "confirm", nil, fine, nil},
		{"confirmed", "reject", nil, illegal, afterConfirmed},
		{"confirmed", "cancel", cancelling, fine, nil},
		{"confirmed", "mark", nil, illegal, afterConfirmed},
		{"confirmed", "move", moved, fine, nil},
		{"rejected", "confirm", nil, illegal, nil},
		{"rejected", "reject", nil, fine, nil},
		{"rejected", "cancel", nil, illegal, nil},
		{"rejected", "mark", nil, illegal, nil},
		{"rejected", "move", nil, illegal, nil},
		{"cancelling", "confirm", nil, illegal, afterCancel},
		{"cancelling", "reject", nil, illegal, afterCancel},
		{"cancelling", "cancel", nil, fine, nil},
		{"cancelling", "mark", cancelled, fine, nil},
		{"cancelling", "move", nil, illegal, afterCancel},
		{"cancelling, late", "confirm", nil, illegal, afterCancel},
		{"cancelling, late", "mark", cancelled, fine, nil},
		{"cancelled", "confirm", nil, illegal, nil},
		{"cancelled", "reject", nil, illegal, nil},
		{"cancelled", "cancel", nil, fine, nil},
		{"cancelled", "mark", nil, fine, nil},
		{"cancelled", "move", nil, illegal, nil},
	} {
		t.Run(fmt.Sprintf("%s/%s", c.given, c.when), func(t *testing.T) {
			var s order.State
			for _, m := range pasts[c.given] {
				s.Evolve(m, time.Time{})
			}
			got, err := steps[c.when](&s)
			if c.reason == fine && err != nil || c.reason != fine && !fault.Is(err, c.reason) {
				t.Fatalf("%v, want %v", err, c.reason)
			}
			if f := fault.Of(err); f != nil && !slices.Equal(f.Allowed, c.allowed) {
				t.Errorf("allowed %q, want %q", f.Allowed, c.allowed)
			}
			if c.then == nil && len(got) != 0 || c.then != nil && (len(got) != 1 || !proto.Equal(got[0], c.then)) {
				t.Errorf("%v, want %v", got, c.then)
			}
		})
	}
}

func TestOtherRefusals(t *testing.T) {
	placed, err := new(order.State).Place(place(same))
	if err != nil {
		t.Fatal(err)
	}
	var s order.State
	s.Evolve(placed[0], time.Time{})
	if _, err := s.Reject(order.Reject{ID: "7"}); !fault.Is(err, invalid) {
		t.Errorf("rejected without a reason: %v", err)
	}
	if _, err := s.ChangeAddress(order.ChangeAddress{ID: "7", Address: address("")}); !fault.Is(err, invalid) {
		t.Errorf("moved to no city: %v", err)
	}
	s.Evolve(&orderevent.OrderRejected{OrderId: "7", Reason: noStock}, time.Time{})
	if got, err := s.Reject(order.Reject{ID: "7", Reason: noPayment}); got != nil || err != nil {
		t.Errorf("rejected again: %v, %v", got, err)
	}
}
