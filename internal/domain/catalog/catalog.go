// Package catalog decides what may become of a product, and says what is true of it now.
package catalog

import (
	"time"

	"github.com/go-playground/validator/v10"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/domain/money"
	"github.com/purserhq/purser/internal/fault"
	catalogevent "github.com/purserhq/purser/proto/purser/catalog/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// maxPrice bounds a price, in minor units, so that no order's total can be too large to count.
const maxPrice = 1_000_000_000_000

// State is what the past of one product says. The zero value is a product that was never created.
type State struct {
	Exists      bool
	Name        string
	Description string
	Price       *typev1.Money
	// Discontinued products can't be ordered.
	Discontinued bool
}

// Evolve folds an event into the state.
func (s *State) Evolve(m proto.Message, _ time.Time) {
	switch e := m.(type) {
	case *catalogevent.ProductCreated:
		s.Exists, s.Name, s.Description, s.Price = true, e.GetName(), e.GetDescription(), e.GetPrice()
	case *catalogevent.ProductRenamed:
		s.Name = e.GetName()
	case *catalogevent.PriceChanged:
		s.Price = e.GetPrice()
	case *catalogevent.ProductDiscontinued:
		s.Discontinued = true
	}
}

// Clone returns a copy.
func (s *State) Clone() *State {
	c := *s // what it points to is never changed
	return &c
}

// Create means to make a product.
type Create struct {
	ID, Name, Description string
	Price                 *typev1.Money
}

// Create makes the product, or says PRODUCT_EXISTS.
func (s *State) Create(c Create) ([]proto.Message, error) {
	if s.Exists {
		return nil, fault.Taken(typev1.ErrorReason_ERROR_REASON_PRODUCT_EXISTS, "product", c.ID)
	}
	if err := checkName(c.Name); err != nil {
		return nil, err
	}
	if err := checkPrice(c.Price); err != nil {
		return nil, err
	}
	return events(&catalogevent.ProductCreated{ProductId: c.ID, Name: c.Name, Description: c.Description, Price: c.Price})
}

// Rename means to give a product another name.
type Rename struct{ ID, Name string }

// Rename renames the product.
func (s *State) Rename(c Rename) ([]proto.Message, error) {
	if !s.Exists {
		return nil, missing(c.ID)
	}
	if err := checkName(c.Name); err != nil {
		return nil, err
	}
	if s.Name == c.Name {
		return nil, nil
	}
	return events(&catalogevent.ProductRenamed{ProductId: c.ID, Name: c.Name})
}

// ChangePrice means to sell a product at another price from now on.
type ChangePrice struct {
	ID    string
	Price *typev1.Money
}

// ChangePrice changes the price.
func (s *State) ChangePrice(c ChangePrice) ([]proto.Message, error) {
	if !s.Exists {
		return nil, missing(c.ID)
	}
	if err := checkPrice(c.Price); err != nil {
		return nil, err
	}
	if money.Equal(s.Price, c.Price) {
		return nil, nil
	}
	return events(&catalogevent.PriceChanged{ProductId: c.ID, Price: c.Price})
}

// Discontinue means to sell a product no more.
type Discontinue struct{ ID string }

// Discontinue ends the sale of the product.
func (s *State) Discontinue(c Discontinue) ([]proto.Message, error) {
	switch {
	case !s.Exists:
		return nil, missing(c.ID)
	case s.Discontinued:
		return nil, nil
	}
	return events(&catalogevent.ProductDiscontinued{ProductId: c.ID})
}

func checkName(name string) error {
	if name == "" {
		return fault.InvalidField("name", "must not be empty")
	}
	return nil
}

// codes knows the currencies of ISO 4217.
var codes = validator.New()

func checkPrice(p *typev1.Money) error {
	switch {
	case codes.Var(p.GetCurrencyCode(), "iso4217") != nil:
		return fault.InvalidField("price.currency_code", "must be an ISO 4217 code, such as EUR")
	case p.GetAmountMinor() < 0, p.GetAmountMinor() > maxPrice:
		return fault.InvalidField("price.amount_minor", "must be from 0 to %d", int64(maxPrice))
	}
	return nil
}

func missing(id string) error {
	return fault.Missing(typev1.ErrorReason_ERROR_REASON_PRODUCT_NOT_FOUND, "product", id)
}

func events(m ...proto.Message) ([]proto.Message, error) { return m, nil }
