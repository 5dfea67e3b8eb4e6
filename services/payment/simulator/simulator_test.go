package simulator_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/purserhq/purser/internal/localpostgres/pgtest"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
	"github.com/purserhq/purser/services/payment/gateway"
	"github.com/purserhq/purser/services/payment/gateway/gatewaytest"
	"github.com/purserhq/purser/services/payment/simulator"
)

// slow is long enough to look at what is not in effect yet, and short enough to wait for.
const slow = 300 * time.Millisecond

func newPool(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func newSimulator(t *testing.T) *simulator.Simulator {
	t.Helper()
	s := simulator.New(newPool(t, pgtest.Database(t)), simulator.Config{Slow: slow})
	if err := s.Ping(t.Context()); err != nil { // makes the ledger, which is not to count against a call's deadline
		t.Fatal(err)
	}
	return s
}

func call(method string) gateway.Authorize {
	return gateway.Authorize{
		Key: uuid.NewString(), Reference: uuid.NewString(), Method: method,
		Amount: &typev1.Money{CurrencyCode: "EUR", AmountMinor: 1200},
	}
}

func TestContract(t *testing.T) {
	gatewaytest.Run(t, newSimulator(t), gatewaytest.Methods{Approved: "pm_card_visa", Declined: "pm_card_chargeDeclined"})
}

func TestMethods(t *testing.T) {
	s := newSimulator(t)
	approved := gateway.Outcome{Result: gateway.Approved}
	declined := func(code string) gateway.Outcome { return gateway.Outcome{Result: gateway.Declined, Code: code} }
	for _, tt := range []struct {
		method string
		errs   []error // of the first calls
		want   gateway.Outcome
		held   bool
	}{
		{method: "pm_card_visa", want: approved, held: true},
		{method: "pm_card_chargeDeclined", want: declined("generic_decline")},
		{method: "pm_card_chargeDeclinedInsufficientFunds", want: declined("insufficient_funds")},
		{method: "pm_sim_unavailable", errs: []error{gateway.ErrUnavailable, gateway.ErrUnavailable, gateway.ErrUnavailable}, want: approved, held: true},
		{method: "pm_sim_timeout", errs: []error{gateway.ErrOutcomeUnknown}, want: approved, held: true},
		{method: "pm_sim_timeout_declined", errs: []error{gateway.ErrOutcomeUnknown}, want: declined("generic_decline")},
		{method: "pm_sim_slow", want: approved, held: true},
		{method: "pm_nobody_knows", want: declined("invalid_payment_method")},
	} {
		t.Run(tt.method, func(t *testing.T) {
			c := call(tt.method)
			for i, want := range tt.errs {
				if o, err := s.Authorize(t.Context(), c); !errors.Is(err, want) {
					t.Fatalf("call %d: %+v, %v, want %v", i, o, err, want)
				}
				o, err := s.LookUp(t.Context(), c.Reference)
				if lost := errors.Is(want, gateway.ErrOutcomeUnknown); lost != (err == nil) || (!lost && !errors.Is(err, gateway.ErrNotFound)) {
					t.Fatalf("look-up after call %d: %+v, %v", i, o, err)
				}
			}
			o, err := s.Authorize(t.Context(), c)
			if err != nil || o.Result != tt.want.Result || o.Code != tt.want.Code {
				t.Fatalf("got %+v, %v, want %+v", o, err, tt.want)
			}
			entries, err := s.Entries(t.Context(), c.Reference)
			if err != nil || len(entries) != 1 || entries[0].Held != tt.held || entries[0].AmountMinor != 1200 || entries[0].CurrencyCode != "EUR" {
				t.Errorf("ledger: %+v, %v, want one entry, held: %t", entries, err, tt.held)
			}
		})
	}
}

// A bank that is slow takes the money although the caller has left, and until then nobody finds anything.
func TestSlowTakesEffectWithoutItsCaller(t *testing.T) {
	s := newSimulator(t)
	c := call("pm_sim_slow")
	ctx, cancel := context.WithTimeout(t.Context(), slow/3)
	defer cancel()
	if o, err := s.Authorize(ctx, c); !errors.Is(err, gateway.ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %+v, %v, want the outcome unknown", o, err)
	}
	if o, err := s.LookUp(t.Context(), c.Reference); !errors.Is(err, gateway.ErrNotFound) {
		t.Fatalf("found before it took effect: %+v, %v", o, err)
	}
	// The same call under the same key waits for the first one's effect.
	again, err := s.Authorize(t.Context(), c)
	if err != nil || again.Result != gateway.Approved {
		t.Fatalf("the same call: %+v, %v", again, err)
	}
	if o, err := s.LookUp(t.Context(), c.Reference); err != nil || o != again {
		t.Errorf("look-up in the end: %+v, %v, want %+v", o, err, again)
	}
}

func TestVoidedMoneyIsNotHeld(t *testing.T) {
	s := newSimulator(t)
	c := call("pm_card_visa")
	o, err := s.Authorize(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Void(t.Context(), gateway.Void{Key: uuid.NewString(), GatewayReference: o.GatewayReference}); err != nil {
		t.Fatal(err)
	}
	if entries, err := s.Entries(t.Context(), c.Reference); err != nil || len(entries) != 1 || entries[0].Held {
		t.Errorf("ledger: %+v, %v", entries, err)
	}
}

// Replicas that start together on an empty database share one ledger, and what one took another knows.
func TestReplicasShareTheLedger(t *testing.T) {
	url := pgtest.Database(t)
	c := call("pm_card_visa")
	outcomes := make([]gateway.Outcome, 4)
	var wg sync.WaitGroup
	for i := range outcomes {
		s := simulator.New(newPool(t, url), simulator.Config{})
		wg.Go(func() {
			var err error
			if outcomes[i], err = s.Authorize(t.Context(), c); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, o := range outcomes {
		if o != outcomes[0] || o.Result != gateway.Approved {
			t.Errorf("outcomes %+v", outcomes)
		}
	}
	later := simulator.New(newPool(t, url), simulator.Config{})
	if o, err := later.LookUp(t.Context(), c.Reference); err != nil || o != outcomes[0] {
		t.Errorf("after a restart: %+v, %v, want %+v", o, err, outcomes[0])
	}
}

func TestTheLedgerDown(t *testing.T) {
	pool := newPool(t, "postgres://purser@127.0.0.1:1/purser?connect_timeout=1")
	s := simulator.New(pool, simulator.Config{})
	_, authorized := s.Authorize(t.Context(), call("pm_card_visa"))
	_, found := s.LookUp(t.Context(), "order-7")
	for what, err := range map[string]error{
		"authorize": authorized,
		"look up":   found,
		"void":      s.Void(t.Context(), gateway.Void{Key: "k", GatewayReference: "r"}),
		"ping":      s.Ping(t.Context()),
	} {
		if !errors.Is(err, gateway.ErrUnavailable) {
			t.Errorf("%s: %v, want ErrUnavailable", what, err)
		}
	}
}
