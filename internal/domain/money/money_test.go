package money_test

import (
	"errors"
	"math"
	"testing"

	"github.com/purserhq/purser/internal/domain/money"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

func eur(minor int64) *typev1.Money { return &typev1.Money{CurrencyCode: "EUR", AmountMinor: minor} }

func TestAdd(t *testing.T) {
	usd := &typev1.Money{CurrencyCode: "USD", AmountMinor: 1}
	for _, c := range []struct {
		name string
		a, b *typev1.Money
		want int64
		err  error
	}{
		{"sum", eur(2), eur(3), 5, nil},
		{"nothing", eur(2), eur(0), 2, nil},
		{"below zero", eur(2), eur(-3), -1, nil},
		{"largest", eur(math.MaxInt64 - 1), eur(1), math.MaxInt64, nil},
		{"too large", eur(math.MaxInt64), eur(1), 0, money.ErrOverflow},
		{"too small", eur(math.MinInt64), eur(-1), 0, money.ErrOverflow},
		{"currencies", eur(1), usd, 0, money.ErrCurrencies},
	} {
		got, err := money.Add(c.a, c.b)
		if !errors.Is(err, c.err) || got.GetAmountMinor() != c.want {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
		if err == nil && got.GetCurrencyCode() != "EUR" {
			t.Errorf("%s: currency %q", c.name, got.GetCurrencyCode())
		}
	}
}

func TestTimes(t *testing.T) {
	for _, c := range []struct {
		name string
		a, n int64
		want int64
		err  error
	}{
		{"product", 3, 4, 12, nil},
		{"none", 3, 0, 0, nil},
		{"negative amount", -3, 4, -12, nil},
		{"largest", math.MaxInt64, 1, math.MaxInt64, nil},
		{"too large", math.MaxInt64/2 + 1, 2, 0, money.ErrOverflow},
		{"far too large", math.MaxInt64, math.MaxInt64, 0, money.ErrOverflow},
		{"negative count", 1, -1, 0, money.ErrOverflow},
	} {
		got, err := money.Times(eur(c.a), c.n)
		if !errors.Is(err, c.err) || got.GetAmountMinor() != c.want {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}
