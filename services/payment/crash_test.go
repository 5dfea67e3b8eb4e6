package payment

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/fault"
	paymentv1 "github.com/purserhq/purser/proto/purser/payment/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
	"github.com/purserhq/purser/services/payment/gateway"
)

// mishap is what goes wrong at one append or one call to the gateway.
type mishap string

const (
	dieBefore mishap = "the process dies before it"
	dieAfter  mishap = "the process dies after it"
	refuse    mishap = "it is not taken"
	lose      mishap = "its answer is lost"
	vanish    mishap = "it is lost itself"
	delay     mishap = "it is thought lost, and arrives when all is over"
)

// saboteur counts the appends and the calls to the gateway of all processes, and makes the n-th go wrong.
type saboteur struct {
	mishap mishap
	n      int
	count  int
	struck bool
	died   chan struct{} // receives once for a death
	late   func(context.Context) error
}

// around does an operation, or what the mishap makes of it. Nothing after a death runs: the goroutine ends there, and
// whoever waits for it does so in vain.
func (s *saboteur) around(ctx context.Context, operation func(context.Context) error, refused, lost error) error {
	s.count++
	if s.count != s.n {
		return operation(ctx)
	}
	s.struck = true
	switch s.mishap {
	case refuse:
		return refused
	case vanish:
		return lost
	case delay:
		s.late = operation
		return lost
	case dieBefore:
		s.die()
	}
	if err := operation(ctx); err != nil {
		return err // nothing to lose
	}
	if s.mishap == dieAfter {
		s.die()
	}
	return lost
}

func (s *saboteur) die() {
	s.died <- struct{}{}
	runtime.Goexit()
}

// deliver lets what was delayed arrive.
func (s *saboteur) deliver(ctx context.Context) {
	if s.late != nil {
		_ = s.late(ctx) // nobody waits for the answer any more
	}
}

type sabotagedLog struct {
	aggregate.Log
	by *saboteur
}

func (l *sabotagedLog) Append(ctx context.Context, stream string, expected eventlog.Revision, events []eventlog.NewEvent) (a eventlog.Appended, err error) {
	err = l.by.around(ctx, func(ctx context.Context) error {
		a, err = l.Log.Append(ctx, stream, expected, events)
		return err
	}, eventlog.ErrUnavailable, eventlog.ErrUnavailable)
	return a, err
}

type sabotagedGateway struct {
	gateway.Gateway
	by *saboteur
}

func (g *sabotagedGateway) Authorize(ctx context.Context, c gateway.Authorize) (o gateway.Outcome, err error) {
	err = g.by.around(ctx, func(ctx context.Context) error {
		o, err = g.Gateway.Authorize(ctx, c)
		return err
	}, gateway.ErrUnavailable, gateway.ErrOutcomeUnknown)
	return o, err
}

func (g *sabotagedGateway) Void(ctx context.Context, c gateway.Void) error {
	return g.by.around(ctx, func(ctx context.Context) error { return g.Gateway.Void(ctx, c) }, gateway.ErrUnavailable, gateway.ErrOutcomeUnknown)
}

func (g *sabotagedGateway) LookUp(ctx context.Context, reference string) (o gateway.Outcome, err error) {
	err = g.by.around(ctx, func(ctx context.Context) error {
		o, err = g.Gateway.LookUp(ctx, reference)
		return err
	}, gateway.ErrUnavailable, gateway.ErrUnavailable)
	return o, err
}

// client drives the service as the saga does: the same request again until it is answered for good, starting the
// process anew whenever it has died.
type client struct {
	world     *world
	saboteur  *saboteur
	process   *server
	authorize *paymentv1.AuthorizePaymentRequest
	void      *paymentv1.VoidPaymentRequest
	reconcile *paymentv1.ReconcilePaymentRequest
}

func newClient(w *world, s *saboteur, method string) *client {
	s.died = make(chan struct{}, 1)
	order := uuid.NewString()
	c := &client{world: w, saboteur: s, authorize: authorizeRequest(order, method), void: voidRequest(order), reconcile: reconcileRequest(order)}
	c.restart()
	return c
}

func (c *client) restart() {
	c.process = c.world.process(&sabotagedLog{c.world.log, c.saboteur}, &sabotagedGateway{c.world.bank, c.saboteur}, 0)
}

type reply interface{ GetState() typev1.PaymentState }

// try makes one attempt; no reply and no error where the process dies of it.
func (c *client) try(call func(*server) (reply, error)) (reply, error) {
	type result struct {
		reply reply
		err   error
	}
	done := make(chan result, 1)
	go func() {
		r, err := call(c.process)
		done <- result{r, err}
	}()
	select {
	case r := <-done:
		return r.reply, r.err
	case <-c.saboteur.died:
		c.restart()
		return nil, nil
	}
}

// maxTries is more than one mishap and a bank that is down three times call for.
const maxTries = 12

func (c *client) until(t *testing.T, call func(*server) (reply, error), final ...typev1.PaymentState) {
	t.Helper()
	var last string
	for range maxTries {
		r, err := c.try(call)
		if f := fault.Of(err); f != nil && f.Kind == fault.Precondition {
			return // refused for good
		}
		if err == nil && r != nil {
			for _, s := range final {
				if r.GetState() == s {
					return
				}
			}
			last = r.GetState().String()
		} else {
			last = fmt.Sprint(err)
		}
	}
	t.Fatalf("no end after %d tries, last: %s", maxTries, last)
}

func (c *client) authorizing(s *server) (reply, error) {
	return s.AuthorizePayment(context.Background(), c.authorize)
}
func (c *client) voiding(s *server) (reply, error) {
	return s.VoidPayment(context.Background(), c.void)
}
func (c *client) reconciling(s *server) (reply, error) {
	return s.ReconcilePayment(context.Background(), c.reconcile)
}

// fulfil wants the money: authorize, and where the outcome is unknown reconcile.
func (c *client) fulfil(t *testing.T) {
	c.until(t, c.authorizing, authorized, declined, unknown)
	c.until(t, c.reconciling, authorized, declined)
}

// cancel wants none of it.
func (c *client) cancel(t *testing.T) { c.until(t, c.voiding, voided, declined) }

// No mishap at any point of any story takes money twice, or makes the bank's books and the record disagree.
func TestEveryMishapAtEveryPoint(t *testing.T) {
	w := newWorld(t, 15*time.Millisecond)
	stories := map[string]func(*testing.T, *client) (approved typev1.PaymentState){
		"fulfil": func(t *testing.T, c *client) typev1.PaymentState {
			c.fulfil(t)
			return authorized
		},
		"fulfil, then cancel": func(t *testing.T, c *client) typev1.PaymentState {
			c.fulfil(t)
			c.cancel(t)
			return voided
		},
		"cancel after one attempt": func(t *testing.T, c *client) typev1.PaymentState {
			_, _ = c.try(c.authorizing) // however it ends
			c.cancel(t)
			c.until(t, c.authorizing, authorized, declined, unknown) // comes late: answered as it was, or refused
			return voided
		},
		"cancel, then authorize": func(t *testing.T, c *client) typev1.PaymentState {
			c.cancel(t)
			c.until(t, c.authorizing)
			return voided
		},
	}
	for _, method := range []string{
		"pm_card_visa", "pm_card_chargeDeclined", "pm_sim_unavailable", "pm_sim_timeout", "pm_sim_timeout_declined", "pm_sim_slow",
	} {
		for name, story := range stories {
			for _, m := range []mishap{dieBefore, dieAfter, refuse, lose, vanish, delay} {
				t.Run(fmt.Sprintf("%s/%s/%s", method, name, m), func(t *testing.T) {
					t.Parallel()
					for n := 1; ; n++ {
						c := newClient(w, &saboteur{mishap: m, n: n}, method)
						approved := story(t, c)
						c.saboteur.deliver(t.Context())
						w.settled(t, c.authorize.GetOrderId(), approved)
						if t.Failed() {
							t.Fatalf("at operation %d", n)
						}
						if !c.saboteur.struck {
							return // the story has fewer operations
						}
					}
				})
			}
		}
	}
}

// settled fails unless the books agree and the payment has come to the end that an approval leads to, or was declined.
func (w *world) settled(t *testing.T, order string, approved typev1.PaymentState) {
	t.Helper()
	want := approved
	if a := w.state(t, order); a.PaymentState() == declined {
		want = declined
	}
	entries, err := w.bank.Entries(t.Context(), order)
	if err != nil {
		t.Fatal(err)
	}
	if want == declined && (len(entries) != 1 || !entries[0].Declined) {
		t.Errorf("order %s is declined, and the bank says %+v", order, entries)
	}
	w.agree(t, order, want)
}

// Two replicas that authorize, void and reconcile at once, through a bank that is slow, come to the same end.
func TestAllAtOnce(t *testing.T) {
	w := newWorld(t, 10*time.Millisecond)
	for _, method := range []string{"pm_card_visa", "pm_sim_slow", "pm_sim_timeout", "pm_sim_unavailable", "pm_sim_timeout_declined"} {
		t.Run(method, func(t *testing.T) {
			for range 10 {
				a := newClient(w, &saboteur{}, method)
				calls := []func(*server) (reply, error){a.authorizing, a.voiding, a.reconciling}
				var wg sync.WaitGroup
				for range 2 {
					replica := w.start()
					for _, call := range calls {
						wg.Go(func() { _, _ = call(replica) }) // however it ends
					}
				}
				wg.Wait()
				a.cancel(t)
				w.settled(t, a.authorize.GetOrderId(), voided)
			}
		})
	}
}
