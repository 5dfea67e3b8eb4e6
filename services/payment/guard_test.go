package payment

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"

	"github.com/purserhq/purser/services/payment/gateway"
	"github.com/purserhq/purser/services/payment/gateway/gatewaytest"
)

func testLogger(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// A guarded gateway is a gateway.
func TestGuardedContract(t *testing.T) {
	w := newWorld(t, 0)
	gatewaytest.Run(t, guard(w.bank, 0, testLogger(t)), gatewaytest.Methods{Approved: "pm_card_visa", Declined: "pm_card_chargeDeclined"})
}

func TestAGatewayThatKeepsFailingIsLeftAlone(t *testing.T) {
	for name, failure := range map[string]error{"down": gateway.ErrUnavailable, "mute": gateway.ErrOutcomeUnknown} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			g := guard(&wrapped{authorize: func(context.Context, gateway.Authorize) (gateway.Outcome, error) {
				calls++
				return gateway.Outcome{}, failure
			}}, 0, testLogger(t))
			for range breakerMinCalls {
				if _, err := g.Authorize(t.Context(), gateway.Authorize{}); !errors.Is(err, failure) {
					t.Fatalf("call %d: %v", calls, err)
				}
			}
			_, err := g.Authorize(t.Context(), gateway.Authorize{})
			if !errors.Is(err, gateway.ErrUnavailable) || !errors.Is(err, circuitbreaker.ErrOpen) || calls != breakerMinCalls {
				t.Errorf("after %d calls: %v, want the circuit open and none further", calls, err)
			}
		})
	}
}

func TestAnAnswerIsNoFailure(t *testing.T) {
	g := guard(&wrapped{Gateway: nothingThere{}}, 0, testLogger(t))
	for range 2 * breakerMinCalls {
		if _, err := g.LookUp(t.Context(), "order-7"); !errors.Is(err, gateway.ErrNotFound) {
			t.Fatalf("look-up: %v", err)
		}
		if err := g.Void(t.Context(), gateway.Void{}); !errors.Is(err, gateway.ErrRefused) {
			t.Fatalf("void: %v", err)
		}
	}
}

type nothingThere struct{ gateway.Gateway }

func (nothingThere) LookUp(context.Context, string) (gateway.Outcome, error) {
	return gateway.Outcome{}, gateway.ErrNotFound
}
func (nothingThere) Void(context.Context, gateway.Void) error { return gateway.ErrRefused }

func TestACallIsBoundedInTime(t *testing.T) {
	g := guard(&wrapped{authorize: func(ctx context.Context, _ gateway.Authorize) (gateway.Outcome, error) {
		<-ctx.Done()
		return gateway.Outcome{}, ctx.Err()
	}}, time.Millisecond, testLogger(t))
	if _, err := g.Authorize(t.Context(), gateway.Authorize{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the call to be given up", err)
	}
}
