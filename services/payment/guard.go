package payment

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"

	"github.com/purserhq/purser/services/payment/gateway"
)

const (
	// defaultGatewayTimeout bounds a call to the gateway.
	defaultGatewayTimeout = 5 * time.Second

	// The circuit opens when most of a fair number of recent calls failed, so that a few payments in trouble do not
	// hold up the others, and tries again after a while.
	breakerFailureRate = 0.6
	breakerMinCalls    = 20
	breakerWindow      = 10 * time.Second
	breakerPause       = 2 * time.Second
)

// guarded is a gateway that is called with bounded patience: each call has a time of its own, and one that keeps
// failing is left alone for a while.
type guarded struct {
	gateway.Gateway
	timeout time.Duration
	breaker failsafe.Executor[any]
}

var _ gateway.Gateway = (*guarded)(nil)

func guard(g gateway.Gateway, timeout time.Duration, log *slog.Logger) *guarded {
	if timeout == 0 {
		timeout = defaultGatewayTimeout
	}
	breaker := circuitbreaker.NewBuilder[any]().
		HandleIf(func(_ any, err error) bool {
			return err != nil && !errors.Is(err, gateway.ErrNotFound) && !errors.Is(err, gateway.ErrRefused)
		}).
		WithFailureRateThreshold(breakerFailureRate, breakerMinCalls, breakerWindow).
		WithDelay(breakerPause).
		OnStateChanged(func(e circuitbreaker.StateChangedEvent) {
			log.Warn("the circuit to the payment gateway changed", "from", e.OldState.String(), "to", e.NewState.String())
		}).
		Build()
	return &guarded{Gateway: g, timeout: timeout, breaker: failsafe.With[any](breaker)}
}

func (g *guarded) Authorize(ctx context.Context, c gateway.Authorize) (o gateway.Outcome, err error) {
	err = g.call(ctx, func(ctx context.Context) error {
		o, err = g.Gateway.Authorize(ctx, c)
		return err
	})
	return o, err
}

func (g *guarded) Void(ctx context.Context, c gateway.Void) error {
	return g.call(ctx, func(ctx context.Context) error { return g.Gateway.Void(ctx, c) })
}

func (g *guarded) LookUp(ctx context.Context, reference string) (o gateway.Outcome, err error) {
	err = g.call(ctx, func(ctx context.Context) error {
		o, err = g.Gateway.LookUp(ctx, reference)
		return err
	})
	return o, err
}

// call makes a call unless the caller has left already. Once begun it is not given up because the caller leaves: that
// would turn an answer about to arrive into one that is lost.
func (g *guarded) call(ctx context.Context, f func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: not called: %w", gateway.ErrUnavailable, err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.timeout)
	defer cancel()
	err := g.breaker.Run(func() error { return f(ctx) })
	if errors.Is(err, circuitbreaker.ErrOpen) {
		return fmt.Errorf("%w: not called: %w", gateway.ErrUnavailable, err)
	}
	return err
}
