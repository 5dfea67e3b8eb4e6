package catalog_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/domain/catalog"
	"github.com/purserhq/purser/internal/fault"
	catalogevent "github.com/purserhq/purser/proto/purser/catalog/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

func eur(minor int64) *typev1.Money { return &typev1.Money{CurrencyCode: "EUR", AmountMinor: minor} }

var (
	created      = &catalogevent.ProductCreated{ProductId: "mug", Name: "Mug", Description: "Blue", Price: eur(1450)}
	renamed      = &catalogevent.ProductRenamed{ProductId: "mug", Name: "Cup"}
	repriced     = &catalogevent.PriceChanged{ProductId: "mug", Price: eur(900)}
	discontinued = &catalogevent.ProductDiscontinued{ProductId: "mug"}
)

func TestDecide(t *testing.T) {
	create := func(name string, price *typev1.Money) func(*catalog.State) ([]proto.Message, error) {
		return func(s *catalog.State) ([]proto.Message, error) {
			return s.Create(catalog.Create{ID: "mug", Name: name, Description: "Blue", Price: price})
		}
	}
	rename := func(s *catalog.State) ([]proto.Message, error) {
		return s.Rename(catalog.Rename{ID: "mug", Name: "Cup"})
	}
	reprice := func(p *typev1.Money) func(*catalog.State) ([]proto.Message, error) {
		return func(s *catalog.State) ([]proto.Message, error) {
			return s.ChangePrice(catalog.ChangePrice{ID: "mug", Price: p})
		}
	}
	discontinue := func(s *catalog.State) ([]proto.Message, error) { return s.Discontinue(catalog.Discontinue{ID: "mug"}) }
	const (
		fine    = typev1.ErrorReason_ERROR_REASON_UNSPECIFIED
		invalid = typev1.ErrorReason_ERROR_REASON_INVALID_FIELD
		exists  = typev1.ErrorReason_ERROR_REASON_PRODUCT_EXISTS
		missing = typev1.ErrorReason_ERROR_REASON_PRODUCT_NOT_FOUND
	)
	type past = []proto.Message
	for _, c := range []struct {
		name   string
		given  past
		when   func(*catalog.State) ([]proto.Message, error)
		then   past
		reason typev1.ErrorReason
	}{
		{"create", nil, create("Mug", eur(1450)), past{created}, fine},
		{"create, free of charge", nil, create("Mug", eur(0)), past{&catalogevent.ProductCreated{ProductId: "mug", Name: "Mug", Description: "Blue", Price: eur(0)}}, fine},
		{"create again", past{created}, create("Mug", eur(1450)), nil, exists},
		{"create without a name", nil, create("", eur(1450)), nil, invalid},
		{"create without a price", nil, create("Mug", nil), nil, invalid},
		{"create in no such currency", nil, create("Mug", &typev1.Money{CurrencyCode: "ABC", AmountMinor: 1450}), nil, invalid},
		{"create below zero", nil, create("Mug", eur(-1)), nil, invalid},
		{"create at the highest price", nil, create("Mug", eur(1e12)), past{&catalogevent.ProductCreated{ProductId: "mug", Name: "Mug", Description: "Blue", Price: eur(1e12)}}, fine},
		{"create above it", nil, create("Mug", eur(1e12+1)), nil, invalid},
		{"rename", past{created}, rename, past{renamed}, fine},
		{"rename to the same", past{created, renamed}, rename, nil, fine},
		{"rename nothing", nil, rename, nil, missing},
		{"reprice", past{created}, reprice(eur(900)), past{repriced}, fine},
		{"reprice to the same", past{created, repriced}, reprice(eur(900)), nil, fine},
		{"reprice below zero", past{created}, reprice(eur(-1)), nil, invalid},
		{"reprice nothing", nil, reprice(eur(900)), nil, missing},
		{"discontinue", past{created}, discontinue, past{discontinued}, fine},
		{"discontinue again", past{created, discontinued}, discontinue, nil, fine},
		{"discontinue nothing", nil, discontinue, nil, missing},
	} {
		var s catalog.State
		for _, m := range c.given {
			s.Evolve(m, time.Time{})
		}
		got, err := c.when(&s)
		if c.reason == fine && err != nil || c.reason != fine && !fault.Is(err, c.reason) {
			t.Errorf("%s: %v, want %v", c.name, err, c.reason)
		}
		if len(got) != len(c.then) || len(got) == 1 && !proto.Equal(got[0], c.then[0]) {
			t.Errorf("%s: %v, want %v", c.name, got, c.then)
		}
	}
}

func TestEvolve(t *testing.T) {
	var s catalog.State
	for _, m := range []proto.Message{created, renamed, repriced, discontinued} {
		s.Evolve(m, time.Time{})
	}
	if !s.Exists || s.Name != "Cup" || s.Description != "Blue" || s.Price.GetAmountMinor() != 900 || !s.Discontinued {
		t.Errorf("%+v", s)
	}
}
