// Package money calculates with amounts: sums and multiples that never mix currencies and never wrap around.
//
// Amounts are the messages that the API and the events carry, int64 minor units with an ISO 4217 code. Nothing here
// changes its arguments.
package money

import (
	"errors"
	"math/bits"

	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

var (
	// ErrCurrencies: the amounts are of different currencies.
	ErrCurrencies = errors.New("amounts of different currencies")
	// ErrOverflow: the result does not fit into 64 bits.
	ErrOverflow = errors.New("amount too large")
)

// Add returns a + b. It fails with [ErrCurrencies] or [ErrOverflow].
func Add(a, b *typev1.Money) (*typev1.Money, error) {
	if a.GetCurrencyCode() != b.GetCurrencyCode() {
		return nil, ErrCurrencies
	}
	x, y := a.GetAmountMinor(), b.GetAmountMinor()
	sum := x + y
	if (sum > x) != (y > 0) && y != 0 {
		return nil, ErrOverflow
	}
	return &typev1.Money{CurrencyCode: a.GetCurrencyCode(), AmountMinor: sum}, nil
}

// Times returns a taken n times; n is at least 0. It fails with [ErrOverflow].
func Times(a *typev1.Money, n int64) (*typev1.Money, error) {
	x := a.GetAmountMinor()
	magnitude := uint64(x)
	if x < 0 {
		magnitude = -magnitude
	}
	high, low := bits.Mul64(magnitude, uint64(n))
	if n < 0 || high != 0 || int64(low) < 0 {
		return nil, ErrOverflow
	}
	product := int64(low)
	if x < 0 {
		product = -product
	}
	return &typev1.Money{CurrencyCode: a.GetCurrencyCode(), AmountMinor: product}, nil
}

// Equal tells whether two amounts are the same in the same currency.
func Equal(a, b *typev1.Money) bool {
	return a.GetCurrencyCode() == b.GetCurrencyCode() && a.GetAmountMinor() == b.GetAmountMinor()
}
