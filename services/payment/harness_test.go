package payment

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/domain/payment"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/localpostgres/pgtest"
	"github.com/purserhq/purser/internal/secret"
	paymentv1 "github.com/purserhq/purser/proto/purser/payment/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
	"github.com/purserhq/purser/services/payment/gateway"
	"github.com/purserhq/purser/services/payment/simulator"
)

// world is what outlives a process of the payment service: the log, the gateway with its ledger, and time.
type world struct {
	log    *eventlog.Log
	bank   *simulator.Simulator
	secret *secret.Secret
	clock  *clock
	logged io.Writer
}

func newWorld(t *testing.T, slow time.Duration) *world {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	s, err := secret.LoadOrCreate(filepath.Join(t.TempDir(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	bank := simulator.New(pool, simulator.Config{Slow: slow})
	if err := bank.Ping(t.Context()); err != nil { // makes the ledger, as being ready does
		t.Fatal(err)
	}
	return &world{
		log: newLog(t), bank: bank, secret: s,
		clock: &clock{}, logged: t.Output(),
	}
}

// process starts the service anew, with nothing in memory, on a log and a gateway that may fail.
func (w *world) process(log aggregate.Log, gw gateway.Gateway, timeout time.Duration) *server {
	logger := slog.New(slog.NewTextHandler(w.logged, nil))
	return &server{
		payments: aggregate.New[payment.State](log, "payment", w.secret, w.clock.now),
		gateway:  guard(gw, timeout, logger),
		clock:    w.clock.now,
		log:      logger,
	}
}

// start starts the service with nothing failing.
func (w *world) start() *server { return w.process(w.log, w.bank, 0) }

// held tells whether the bank holds money for an order, and fails if it took it more than once.
func (w *world) held(t *testing.T, order string) bool {
	t.Helper()
	entries, err := w.bank.Entries(t.Context(), order)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) > 1 {
		t.Fatalf("order %s was charged %d times: %+v", order, len(entries), entries)
	}
	return len(entries) == 1 && entries[0].Held
}

// load folds what is on record, up to a revision.
func (w *world) load(t *testing.T, order string) (*payment.State, eventlog.Revision) {
	t.Helper()
	st, at, err := aggregate.New[payment.State](w.log, "payment", w.secret, w.clock.now).Load(t.Context(), order)
	if err != nil {
		t.Fatal(err)
	}
	return st, at
}

func (w *world) state(t *testing.T, order string) *payment.State {
	t.Helper()
	st, _ := w.load(t, order)
	return st
}

// agree fails unless the books of the bank and the record say the same, and the payment is in the state wanted.
func (w *world) agree(t *testing.T, order string, want typev1.PaymentState) {
	t.Helper()
	st := w.state(t, order)
	if got := st.PaymentState(); got != want || st.Contradicted {
		t.Errorf("order %s: %v (contradicted: %t), want %v", order, got, st.Contradicted, want)
	}
	if held := w.held(t, order); held != (want == typev1.PaymentState_PAYMENT_STATE_AUTHORIZED) {
		t.Errorf("order %s is %v, and money is held: %t", order, want, held)
	}
}

// clock is the time, which can be moved on.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// wrapped is a gateway with something in between.
type wrapped struct {
	gateway.Gateway
	authorize func(context.Context, gateway.Authorize) (gateway.Outcome, error)
	void      func(context.Context, gateway.Void) error
	lookUp    func(ctx context.Context, reference string) (gateway.Outcome, error)
}

func (w *wrapped) Authorize(ctx context.Context, c gateway.Authorize) (gateway.Outcome, error) {
	if w.authorize != nil {
		return w.authorize(ctx, c)
	}
	return w.Gateway.Authorize(ctx, c)
}

func (w *wrapped) Void(ctx context.Context, c gateway.Void) error {
	if w.void != nil {
		return w.void(ctx, c)
	}
	return w.Gateway.Void(ctx, c)
}

func (w *wrapped) LookUp(ctx context.Context, reference string) (gateway.Outcome, error) {
	if w.lookUp != nil {
		return w.lookUp(ctx, reference)
	}
	return w.Gateway.LookUp(ctx, reference)
}

func authorizeRequest(order, method string) *paymentv1.AuthorizePaymentRequest {
	return &paymentv1.AuthorizePaymentRequest{
		RequestId: uuid.NewString(), OrderId: order, CustomerId: "ada", PaymentMethod: method,
		Amount: &typev1.Money{CurrencyCode: "EUR", AmountMinor: 1200},
	}
}

func voidRequest(order string) *paymentv1.VoidPaymentRequest {
	return &paymentv1.VoidPaymentRequest{RequestId: uuid.NewString(), OrderId: order}
}

func reconcileRequest(order string) *paymentv1.ReconcilePaymentRequest {
	return &paymentv1.ReconcilePaymentRequest{RequestId: uuid.NewString(), OrderId: order}
}

const (
	none       = typev1.PaymentState_PAYMENT_STATE_NONE
	requested  = typev1.PaymentState_PAYMENT_STATE_REQUESTED
	authorized = typev1.PaymentState_PAYMENT_STATE_AUTHORIZED
	declined   = typev1.PaymentState_PAYMENT_STATE_DECLINED
	unknown    = typev1.PaymentState_PAYMENT_STATE_OUTCOME_UNKNOWN
	voided     = typev1.PaymentState_PAYMENT_STATE_VOIDED
)
