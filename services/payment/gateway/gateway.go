// Package gateway says what Purser asks of a payment gateway. A provider is added by implementing [Gateway] and running
// the suite of package gatewaytest against it.
//
// What keeps money from being taken twice is the idempotency key: calls under one key have one effect and one answer,
// in whatever order and however often they arrive, as long as the gateway remembers the key. What keeps an unknown
// result from being guessed is that an error says which of two things is true: the call was certainly not taken, or
// nobody knows.
package gateway

import (
	"context"
	"errors"
	"time"

	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

var (
	// ErrUnavailable: the gateway certainly did not take the call; it had no effect and never will.
	ErrUnavailable = errors.New("payment gateway unavailable")
	// ErrOutcomeUnknown: the gateway may have taken the call; its answer is lost.
	ErrOutcomeUnknown = errors.New("the payment gateway's answer is lost")
	// ErrNotFound: the gateway knows nothing under this reference so far. A call on its way may still arrive.
	ErrNotFound = errors.New("not known to the payment gateway")
	// ErrRefused: the gateway will not void this payment, now or later.
	ErrRefused = errors.New("refused by the payment gateway")
)

// Gateway moves money. Its methods are safe for concurrent use, honour their context, and fail only with the errors
// named at each, possibly wrapped. Any other error of a method that moves money is to be taken for [ErrOutcomeUnknown].
type Gateway interface {
	// Authorize holds money. An outcome is definite: the same key gives the same one for as long as it is remembered.
	// A key that comes back with another reference or amount is [Failed].
	// Errors: ErrUnavailable, ErrOutcomeUnknown.
	Authorize(ctx context.Context, c Authorize) (Outcome, error)

	// Void gives held money back. It succeeds where nothing is held any more, whatever the cause: voided before, expired.
	// Errors: ErrUnavailable, ErrOutcomeUnknown, ErrRefused.
	Void(ctx context.Context, c Void) error

	// LookUp says how the authorization made under our reference was answered: approved, if any was, or declined.
	// A void afterwards does not change that. Errors: ErrUnavailable, ErrNotFound.
	LookUp(ctx context.Context, reference string) (Outcome, error)

	// KeyLifetime is how long the gateway remembers an idempotency key after its first use: several hours at least.
	// Under an older key a call could take effect a second time.
	KeyLifetime() time.Duration

	// Ping tells whether the gateway can be reached.
	Ping(ctx context.Context) error
}

// Authorize is a call to hold money.
type Authorize struct {
	// Key is the idempotency key.
	Key string
	// Reference is our own name for the payment: the order id.
	Reference string
	// Amount is never negative.
	Amount *typev1.Money
	// Method is the token of a payment method. One that the gateway does not know is declined.
	Method string
}

// Void is a call to give held money back.
type Void struct {
	// Key is the idempotency key.
	Key string
	// GatewayReference is the gateway's name for the payment, from the approval.
	GatewayReference string
}

// Outcome is a gateway's definite answer to an authorization.
type Outcome struct {
	Result Result
	// GatewayReference is the gateway's own name for the payment; where approved.
	GatewayReference string
	// Code is the gateway's reason; where declined or failed.
	Code string
}

// Result is the kind of an outcome. The zero value is none.
type Result uint8

const (
	Approved Result = iota + 1 // the money is held
	Declined                   // refused to the customer; another method may do
	Failed                     // the request itself is refused; no retry cures it
)
