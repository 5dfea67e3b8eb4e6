package order

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-playground/validator/v10"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/domain/money"
	"github.com/purserhq/purser/internal/fault"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const (
	maxLines    = 100
	maxQuantity = 9999
	// maxTotal is what an order may come to, in minor units: sums over thousands of the dearest orders fit into 64 bits.
	maxTotal = 1_000_000_000_000_000
)

// Line is what is ordered of one product, at the price of the moment.
type Line struct {
	ProductID, Name string
	Quantity        int64
	UnitPrice       *typev1.Money
}

// Place means to order.
type Place struct {
	ID string
	// Number is the order's name for people.
	Number        string
	CustomerID    string
	Lines         []Line
	Address       *typev1.Address
	PaymentMethod string
	// Priority unspecified is standard.
	Priority typev1.Priority
}

// Place accepts an order, or says ORDER_EXISTS, CURRENCY_MISMATCH or what is wrong with it.
func (s *State) Place(c Place) ([]proto.Message, error) {
	if s.State != none {
		return nil, fault.Taken(typev1.ErrorReason_ERROR_REASON_ORDER_EXISTS, "order", c.ID)
	}
	if c.CustomerID == "" {
		return nil, fault.InvalidField("customer_id", "must be given")
	}
	if err := checkLines(c.Lines); err != nil {
		return nil, err
	}
	if err := checkAddress(c.Address); err != nil {
		return nil, err
	}
	if c.PaymentMethod == "" {
		return nil, fault.InvalidField("payment_method", "must be given")
	}
	total, err := sum(c.Lines)
	if err != nil {
		return nil, err
	}
	priority := c.Priority
	if priority == typev1.Priority_PRIORITY_UNSPECIFIED {
		priority = typev1.Priority_PRIORITY_STANDARD
	}
	lines := make([]*orderevent.OrderLine, len(c.Lines))
	for i, l := range c.Lines {
		lines[i] = &orderevent.OrderLine{ProductId: l.ProductID, Name: l.Name, Quantity: l.Quantity, UnitPrice: l.UnitPrice}
	}
	return events(&orderevent.OrderPlaced{
		OrderId: c.ID, OrderNumber: c.Number, CustomerId: c.CustomerID, Lines: lines, Total: total,
		DeliveryAddress: c.Address, PaymentMethod: proto.String(c.PaymentMethod), Priority: priority,
	})
}

func checkLines(lines []Line) error {
	if len(lines) < 1 || len(lines) > maxLines {
		return fault.InvalidField("lines", "must be 1 to %d", maxLines)
	}
	seen := make(map[string]bool, len(lines))
	for i, l := range lines {
		switch {
		case seen[l.ProductID]:
			return fault.InvalidField(path(i, "product_id"), "stands in another line already")
		case l.Quantity < 1 || l.Quantity > maxQuantity:
			return fault.InvalidField(path(i, "quantity"), "must be from 1 to %d", maxQuantity)
		case l.UnitPrice.GetAmountMinor() < 0:
			return fault.InvalidField(path(i, "unit_price"), "must not be negative")
		}
		seen[l.ProductID] = true
	}
	return nil
}

// sum is what the lines come to.
func sum(lines []Line) (*typev1.Money, error) {
	total := &typev1.Money{CurrencyCode: lines[0].UnitPrice.GetCurrencyCode()}
	for i, l := range lines {
		price, err := money.Times(l.UnitPrice, l.Quantity)
		if err == nil {
			total, err = money.Add(total, price)
		}
		switch {
		case errors.Is(err, money.ErrCurrencies):
			f := fault.InvalidField(path(i, "product_id"), "is priced in another currency than line 0")
			f.Reason = typev1.ErrorReason_ERROR_REASON_CURRENCY_MISMATCH
			return nil, f
		case err != nil, total.GetAmountMinor() > maxTotal:
			return nil, fault.InvalidField("lines", "come to more than %d minor units", int64(maxTotal))
		}
	}
	return total, nil
}

// codes knows the countries of ISO 3166-1.
var codes = validator.New()

// checkAddress wants every part that a parcel needs.
func checkAddress(a *typev1.Address) error {
	for _, part := range []struct{ name, value string }{
		{"recipient", a.GetRecipient()}, {"line1", a.GetLine1()}, {"city", a.GetCity()},
		{"postal_code", a.GetPostalCode()}, {"country_code", a.GetCountryCode()},
	} {
		if strings.TrimSpace(part.value) == "" {
			return fault.InvalidField("delivery_address."+part.name, "must be given, and not be blank")
		}
	}
	if codes.Var(a.GetCountryCode(), "iso3166_1_alpha2") != nil {
		return fault.InvalidField("delivery_address.country_code", "must be an ISO 3166-1 code of two letters, such as NL")
	}
	return nil
}

func path(line int, field string) string { return fmt.Sprintf("lines[%d].%s", line, field) }
