// Package gatewaytest is the suite that every implementation of gateway.Gateway passes.
package gatewaytest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
	"github.com/purserhq/purser/services/payment/gateway"
)

// Methods are payment methods with which the gateway under test answers in a known way, at once.
type Methods struct {
	Approved string
	Declined string
}

// concurrent is how many calls are made at once.
const concurrent = 8

// Run checks a gateway against its contract. It makes payments under references of its own.
func Run(t *testing.T, g gateway.Gateway, m Methods) {
	t.Run("Ping", func(t *testing.T) {
		if err := g.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("KeyLifetime", func(t *testing.T) {
		if g.KeyLifetime() < 4*time.Hour {
			t.Errorf("keys live for %v only", g.KeyLifetime())
		}
	})
	t.Run("Approves", func(t *testing.T) { testAnswer(t, g, m.Approved, gateway.Approved) })
	t.Run("Declines", func(t *testing.T) { testAnswer(t, g, m.Declined, gateway.Declined) })
	t.Run("DeclinesUnknownMethod", func(t *testing.T) { testAnswer(t, g, "pm_no_such_method", gateway.Declined) })
	t.Run("OneKeyOneEffect", func(t *testing.T) { testConcurrent(t, g, m) })
	t.Run("KeyOfAnotherCall", func(t *testing.T) { testReusedKey(t, g, m) })
	t.Run("LookUpNothing", func(t *testing.T) {
		if o, err := g.LookUp(t.Context(), uuid.NewString()); !errors.Is(err, gateway.ErrNotFound) {
			t.Errorf("got %+v, %v, want ErrNotFound", o, err)
		}
	})
	t.Run("LookUpPrefersTheApproval", func(t *testing.T) { testLookUpOfSeveral(t, g, m) })
	t.Run("Void", func(t *testing.T) { testVoid(t, g, m) })
	t.Run("VoidNothing", func(t *testing.T) {
		err := g.Void(t.Context(), gateway.Void{Key: uuid.NewString(), GatewayReference: uuid.NewString()})
		if !errors.Is(err, gateway.ErrRefused) {
			t.Errorf("got %v, want ErrRefused", err)
		}
	})
	t.Run("CallerGone", func(t *testing.T) { testCallerGone(t, g, m) })
}

func call(method string) gateway.Authorize {
	return gateway.Authorize{
		Key: uuid.NewString(), Reference: uuid.NewString(), Method: method,
		Amount: &typev1.Money{CurrencyCode: "EUR", AmountMinor: 1200},
	}
}

func authorize(t *testing.T, g gateway.Gateway, c gateway.Authorize) gateway.Outcome {
	t.Helper()
	o, err := g.Authorize(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func testAnswer(t *testing.T, g gateway.Gateway, method string, want gateway.Result) {
	c := call(method)
	o := authorize(t, g, c)
	if o.Result != want {
		t.Fatalf("got %+v, want %v", o, want)
	}
	if (o.GatewayReference != "") != (want == gateway.Approved) || (o.Code != "") != (want != gateway.Approved) {
		t.Errorf("an approval has a reference and a refusal a code: %+v", o)
	}
	if again := authorize(t, g, c); again != o {
		t.Errorf("again: %+v, first %+v", again, o)
	}
	if found, err := g.LookUp(t.Context(), c.Reference); err != nil || found != o {
		t.Errorf("look-up: %+v, %v, want %+v", found, err, o)
	}
}

func testConcurrent(t *testing.T, g gateway.Gateway, m Methods) {
	c := call(m.Approved)
	outcomes := make([]gateway.Outcome, concurrent)
	var wg sync.WaitGroup
	for i := range outcomes {
		wg.Go(func() {
			var err error
			if outcomes[i], err = g.Authorize(t.Context(), c); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, o := range outcomes {
		if o != outcomes[0] || o.Result != gateway.Approved {
			t.Errorf("%+v beside %+v under one key", o, outcomes[0])
		}
	}
}

func testReusedKey(t *testing.T, g gateway.Gateway, m Methods) {
	c := call(m.Approved)
	authorize(t, g, c)
	dearer, elsewhere := c, c
	dearer.Amount = &typev1.Money{CurrencyCode: "EUR", AmountMinor: 1201}
	elsewhere.Reference = uuid.NewString()
	for _, other := range []gateway.Authorize{dearer, elsewhere} {
		if o := authorize(t, g, other); o.Result != gateway.Failed {
			t.Errorf("a key used for another call gave %+v, want a failure", o)
		}
	}
}

func testLookUpOfSeveral(t *testing.T, g gateway.Gateway, m Methods) {
	approved, declined := call(m.Approved), call(m.Declined)
	declined.Reference = approved.Reference
	want := authorize(t, g, approved)
	authorize(t, g, declined)
	if o, err := g.LookUp(t.Context(), approved.Reference); err != nil || o != want {
		t.Errorf("look-up: %+v, %v, want the approval %+v", o, err, want)
	}
}

func testVoid(t *testing.T, g gateway.Gateway, m Methods) {
	c := call(m.Approved)
	approved := authorize(t, g, c)
	void := gateway.Void{Key: uuid.NewString(), GatewayReference: approved.GatewayReference}
	for range 2 {
		if err := g.Void(t.Context(), void); err != nil {
			t.Fatal(err)
		}
	}
	void.Key = uuid.NewString()
	if err := g.Void(t.Context(), void); err != nil {
		t.Errorf("a void of what is voided failed: %v", err)
	}
	if again := authorize(t, g, c); again != approved {
		t.Errorf("the key gives %+v after the void, want the first answer %+v", again, approved)
	}
	if o, err := g.LookUp(t.Context(), c.Reference); err != nil || o != approved {
		t.Errorf("look-up after the void: %+v, %v, want %+v", o, err, approved)
	}
}

// testCallerGone checks that whoever gives up is told how sure it may be that nothing happened.
func testCallerGone(t *testing.T, g gateway.Gateway, m Methods) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	c := call(m.Approved)
	o, err := g.Authorize(gone, c)
	switch {
	case errors.Is(err, gateway.ErrUnavailable):
		if o, err := g.LookUp(t.Context(), c.Reference); !errors.Is(err, gateway.ErrNotFound) {
			t.Errorf("a call that was not taken is found: %+v, %v", o, err)
		}
	case errors.Is(err, gateway.ErrOutcomeUnknown):
	default:
		t.Errorf("got %+v, %v, want ErrUnavailable or ErrOutcomeUnknown", o, err)
	}
	if o := authorize(t, g, c); o.Result != gateway.Approved {
		t.Errorf("the same call later: %+v, want an approval", o)
	}
}
