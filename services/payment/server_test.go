package payment

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/fault"
	paymentv1 "github.com/purserhq/purser/proto/purser/payment/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
	"github.com/purserhq/purser/services/payment/gateway"
)

func mustAuthorize(t *testing.T, s *server, req *paymentv1.AuthorizePaymentRequest, want typev1.PaymentState) *paymentv1.AuthorizePaymentResponse {
	t.Helper()
	r, err := s.AuthorizePayment(t.Context(), req)
	if err != nil || r.GetState() != want {
		t.Fatalf("authorize: %v, %v, want %v", r, err, want)
	}
	return r
}

func mustVoid(t *testing.T, s *server, req *paymentv1.VoidPaymentRequest, want typev1.PaymentState) *paymentv1.VoidPaymentResponse {
	t.Helper()
	r, err := s.VoidPayment(t.Context(), req)
	if err != nil || r.GetState() != want {
		t.Fatalf("void: %v, %v, want %v", r, err, want)
	}
	return r
}

func mustReconcile(t *testing.T, s *server, req *paymentv1.ReconcilePaymentRequest, want typev1.PaymentState) *paymentv1.ReconcilePaymentResponse {
	t.Helper()
	r, err := s.ReconcilePayment(t.Context(), req)
	if err != nil || r.GetState() != want {
		t.Fatalf("reconcile: %v, %v, want %v", r, err, want)
	}
	return r
}

func wantFault(t *testing.T, err error, want typev1.ErrorReason) {
	t.Helper()
	if !fault.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

func TestEveryMethodAnswersAsItShould(t *testing.T) {
	w := newWorld(t, 10*time.Millisecond)
	s := w.start()
	for method, want := range map[string]struct {
		state typev1.PaymentState
		code  string
	}{
		"pm_card_visa":                            {state: authorized},
		"pm_card_chargeDeclined":                  {state: declined, code: "generic_decline"},
		"pm_card_chargeDeclinedInsufficientFunds": {state: declined, code: "insufficient_funds"},
		"pm_sim_timeout":                          {state: unknown},
		"pm_sim_timeout_declined":                 {state: unknown},
		"pm_sim_slow":                             {state: authorized},
		"pm_nobody_knows":                         {state: declined, code: "invalid_payment_method"},
	} {
		r := mustAuthorize(t, s, authorizeRequest(uuid.NewString(), method), want.state)
		if r.GetDeclineCode() != want.code {
			t.Errorf("%s: decline code %q, want %q", method, r.GetDeclineCode(), want.code)
		}
	}
}

func TestABankThatIsDownRecordsNoOutcome(t *testing.T) {
	w := newWorld(t, 0)
	s := w.start()
	req := authorizeRequest(uuid.NewString(), "pm_sim_unavailable")
	for range 3 {
		_, err := s.AuthorizePayment(t.Context(), req)
		wantFault(t, err, typev1.ErrorReason_ERROR_REASON_GATEWAY_UNAVAILABLE)
		w.agree(t, req.GetOrderId(), requested)
	}
	mustAuthorize(t, s, req, authorized)
	w.agree(t, req.GetOrderId(), authorized)
}

// A repeat is answered as the first time, whatever has become of the payment since.
func TestARepeatAnswersTheSame(t *testing.T) {
	w := newWorld(t, 0)
	s := w.start()
	same := func(what string, first, again proto.Message) {
		t.Helper()
		if !proto.Equal(first, again) {
			t.Errorf("%s: first %v, then %v", what, first, again)
		}
	}
	for method, want := range map[string]typev1.PaymentState{"pm_card_visa": authorized, "pm_sim_timeout": unknown} {
		order := uuid.NewString()
		authorize, reconcile, void := authorizeRequest(order, method), reconcileRequest(order), voidRequest(order)
		a := mustAuthorize(t, s, authorize, want)
		same("authorize at once", a, mustAuthorize(t, w.start(), authorize, want))
		r := mustReconcile(t, s, reconcile, authorized)
		v := mustVoid(t, s, void, voided)
		for _, s := range []*server{s, w.start()} {
			same("authorize", a, mustAuthorize(t, s, authorize, want))
			if want == unknown { // otherwise it recorded nothing, and is answered anew
				same("reconcile", r, mustReconcile(t, s, reconcile, authorized))
			}
			same("void", v, mustVoid(t, s, void, voided))
		}
		w.agree(t, order, voided)
	}
}

// So it is where the repeat comes while the first call is on its way, and finds out more than that one did.
func TestARepeatDuringTheCallAnswersTheSame(t *testing.T) {
	w := newWorld(t, 0)
	order := uuid.NewString()
	req := authorizeRequest(order, "pm_sim_timeout")
	called, waiting := make(chan struct{}), make(chan struct{})
	slow := w.process(w.log, &wrapped{Gateway: w.bank, authorize: func(ctx context.Context, c gateway.Authorize) (gateway.Outcome, error) {
		close(called)
		<-waiting
		return w.bank.Authorize(ctx, c)
	}}, 0)
	type answer struct {
		reply *paymentv1.AuthorizePaymentResponse
		err   error
	}
	first := make(chan answer, 1)
	go func() {
		r, err := slow.AuthorizePayment(context.Background(), proto.CloneOf(req))
		first <- answer{r, err}
	}()
	<-called
	var was answer
	again := mustAuthorize(t, w.process(w.log, &wrapped{Gateway: w.bank, lookUp: func(ctx context.Context, reference string) (gateway.Outcome, error) {
		close(waiting)
		was = <-first
		return w.bank.LookUp(ctx, reference)
	}}, 0), req, unknown)
	if was.err != nil || !proto.Equal(was.reply, again) {
		t.Errorf("first %v, %v, then %v", was.reply, was.err, again)
	}
	mustReconcile(t, w.start(), reconcileRequest(order), authorized)
	if late := mustAuthorize(t, w.start(), req, unknown); !proto.Equal(late, again) {
		t.Errorf("then %v, later %v", again, late)
	}
	w.agree(t, order, authorized)
}

func TestAnotherRequestFindsTheEffectThere(t *testing.T) {
	w := newWorld(t, 0)
	s := w.start()
	order := uuid.NewString()
	mustAuthorize(t, s, authorizeRequest(order, "pm_card_visa"), authorized)
	mustAuthorize(t, s, authorizeRequest(order, "pm_card_chargeDeclined"), authorized)
	dearer := authorizeRequest(order, "pm_card_visa")
	dearer.Amount.AmountMinor++
	_, err := s.AuthorizePayment(t.Context(), dearer)
	wantFault(t, err, typev1.ErrorReason_ERROR_REASON_PAYMENT_DIFFERS)
	mustVoid(t, s, voidRequest(order), voided)
	mustVoid(t, s, voidRequest(order), voided)
	w.agree(t, order, voided)
}

// An intent that another request left behind is resumed under that request.
func TestAnotherRequestResumesTheIntent(t *testing.T) {
	w := newWorld(t, 0)
	order := uuid.NewString()
	dead := newClient(w, &saboteur{mishap: dieAfter, n: 1}, "pm_card_visa")
	dead.authorize.OrderId = order
	if r, err := dead.try(dead.authorizing); r != nil || err != nil {
		t.Fatalf("the process did not die: %v, %v", r, err)
	}
	s := w.start()
	mustAuthorize(t, s, authorizeRequest(order, "pm_card_visa"), authorized)
	mustAuthorize(t, s, dead.authorize, authorized)
	w.agree(t, order, authorized)
}

func TestVoidBeforeAuthorize(t *testing.T) {
	w := newWorld(t, 0)
	s := w.start()
	order := uuid.NewString()
	mustVoid(t, s, voidRequest(order), voided)
	_, err := s.AuthorizePayment(t.Context(), authorizeRequest(order, "pm_card_visa"))
	wantFault(t, err, typev1.ErrorReason_ERROR_REASON_PAYMENT_VOIDED)
	w.agree(t, order, voided)
}

func TestVoidOfADeclinedPayment(t *testing.T) {
	w := newWorld(t, 0)
	s := w.start()
	order := uuid.NewString()
	mustAuthorize(t, s, authorizeRequest(order, "pm_card_chargeDeclined"), declined)
	mustVoid(t, s, voidRequest(order), declined)
	w.agree(t, order, declined)
}

// A void does not take "not found" for an answer while the slow call is on its way.
func TestVoidOvertakesASlowAuthorization(t *testing.T) {
	w := newWorld(t, 300*time.Millisecond)
	impatient := w.process(w.log, w.bank, 100*time.Millisecond)
	order := uuid.NewString()
	mustAuthorize(t, impatient, authorizeRequest(order, "pm_sim_slow"), unknown)
	void := voidRequest(order)
	mustVoid(t, impatient, void, unknown) // the bank has not moved yet, and was not waited for
	mustVoid(t, w.start(), void, voided)
	w.agree(t, order, voided)
}

func TestReconcile(t *testing.T) {
	w := newWorld(t, 0)
	s := w.start()
	_, err := s.ReconcilePayment(t.Context(), reconcileRequest(uuid.NewString()))
	wantFault(t, err, typev1.ErrorReason_ERROR_REASON_PAYMENT_NOT_FOUND)
	for method, want := range map[string]typev1.PaymentState{
		"pm_card_visa": authorized, "pm_card_chargeDeclined": declined, "pm_sim_timeout": authorized, "pm_sim_timeout_declined": declined,
	} {
		order := uuid.NewString()
		if _, err := s.AuthorizePayment(t.Context(), authorizeRequest(order, method)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			mustReconcile(t, s, reconcileRequest(order), want)
		}
		w.agree(t, order, want)
	}
}

// Once the gateway has forgotten the key nothing is called again, and what it does not know never happened.
func TestAKeyThatIsForgotten(t *testing.T) {
	w := newWorld(t, 0)
	vanishing := newClient(w, &saboteur{mishap: vanish, n: 2}, "pm_card_visa")
	mustAuthorize(t, vanishing.process, vanishing.authorize, unknown)
	order := vanishing.authorize.GetOrderId()
	noCalls := &wrapped{Gateway: w.bank, authorize: func(context.Context, gateway.Authorize) (gateway.Outcome, error) {
		t.Error("called under a key that may be forgotten")
		return gateway.Outcome{}, gateway.ErrUnavailable
	}}
	s := w.process(w.log, noCalls, 0)

	w.clock.advance(w.bank.KeyLifetime())
	mustReconcile(t, s, reconcileRequest(order), unknown) // nobody can tell
	w.clock.advance(2 * keyMargin)
	mustReconcile(t, s, reconcileRequest(order), none)
	w.agree(t, order, none)

	mustAuthorize(t, w.start(), authorizeRequest(order, "pm_card_visa"), authorized)
	w.agree(t, order, authorized)
}

// What was asked for again is another payment: its outcome is found out by requests of its own, and those before are answered as
// they were.
func TestAPaymentThatIsAskedForAgain(t *testing.T) {
	for name, second := range map[string]struct {
		leave  func(*testing.T, *world, *paymentv1.AuthorizePaymentRequest)
		finish func(t *testing.T, s *server, order string)
	}{
		"outcome unknown": {
			func(t *testing.T, w *world, req *paymentv1.AuthorizePaymentRequest) {
				req.PaymentMethod = "pm_sim_timeout"
				mustAuthorize(t, w.start(), req, unknown)
			},
			func(t *testing.T, s *server, order string) { mustReconcile(t, s, reconcileRequest(order), authorized) },
		},
		"intent alone": {
			func(t *testing.T, w *world, req *paymentv1.AuthorizePaymentRequest) {
				_, err := w.process(w.log, &wrapped{Gateway: w.bank, authorize: func(context.Context, gateway.Authorize) (gateway.Outcome, error) {
					return gateway.Outcome{}, gateway.ErrUnavailable
				}}, 0).AuthorizePayment(t.Context(), req)
				wantFault(t, err, typev1.ErrorReason_ERROR_REASON_GATEWAY_UNAVAILABLE)
			},
			func(t *testing.T, s *server, order string) {
				mustAuthorize(t, s, authorizeRequest(order, "pm_card_visa"), authorized)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 0)
			vanishing := newClient(w, &saboteur{mishap: vanish, n: 2}, "pm_card_visa")
			order := vanishing.authorize.GetOrderId()
			mustAuthorize(t, vanishing.process, vanishing.authorize, unknown)
			w.clock.advance(w.bank.KeyLifetime() + 2*keyMargin)
			mustReconcile(t, w.start(), vanishing.reconcile, none)

			second.leave(t, w, authorizeRequest(order, "pm_card_visa"))
			s := w.start()
			second.finish(t, s, order)
			w.agree(t, order, authorized)
			mustAuthorize(t, s, vanishing.authorize, unknown)
			mustReconcile(t, s, vanishing.reconcile, none)
		})
	}
}

// The answer of the gateway is recorded although the caller has left while it was on its way.
func TestAnAnswerOutlivesItsCaller(t *testing.T) {
	w := newWorld(t, 0)
	ctx, leave := context.WithCancel(t.Context())
	s := w.process(w.log, &wrapped{Gateway: w.bank, authorize: func(ctx context.Context, c gateway.Authorize) (gateway.Outcome, error) {
		leave()
		return w.bank.Authorize(ctx, c)
	}}, 0)
	req := authorizeRequest(uuid.NewString(), "pm_card_visa")
	_, _ = s.AuthorizePayment(ctx, req) // nobody hears the reply
	w.agree(t, req.GetOrderId(), authorized)
}

func TestAContradictionIsHeardAndNotChosenFrom(t *testing.T) {
	w := newWorld(t, 0)
	var logged bytes.Buffer
	w.logged = &logged
	req := authorizeRequest(uuid.NewString(), "pm_card_visa")
	says := func(o gateway.Outcome) *wrapped {
		return &wrapped{Gateway: w.bank, authorize: func(context.Context, gateway.Authorize) (gateway.Outcome, error) { return o, nil }}
	}
	declining := w.process(w.log, says(gateway.Outcome{Result: gateway.Declined, Code: "no"}), 0)
	// While this replica's call is on its way, another resumes the intent and gets another answer.
	approving := says(gateway.Outcome{})
	approving.authorize = func(context.Context, gateway.Authorize) (gateway.Outcome, error) {
		mustAuthorize(t, declining, req, declined)
		return gateway.Outcome{Result: gateway.Approved, GatewayReference: "ch_1"}, nil
	}
	mustAuthorize(t, w.process(w.log, approving, 0), req, declined)

	if st := w.state(t, req.GetOrderId()); !st.Contradicted {
		t.Errorf("state %+v, want it contradicted", st)
	}
	if !bytes.Contains(logged.Bytes(), []byte("contradicts itself")) {
		t.Errorf("nothing was heard of it: %s", &logged)
	}
	_, err := w.start().VoidPayment(t.Context(), voidRequest(req.GetOrderId()))
	wantFault(t, err, typev1.ErrorReason_ERROR_REASON_ILLEGAL_TRANSITION)
}

func TestAnEtagOfThePastIsRefused(t *testing.T) {
	w := newWorld(t, 0)
	s := w.start()
	order := uuid.NewString()
	r := mustAuthorize(t, s, authorizeRequest(order, "pm_card_visa"), authorized)
	void := voidRequest(order)
	void.Etag = `"0"`
	_, err := s.VoidPayment(t.Context(), void)
	wantFault(t, err, typev1.ErrorReason_ERROR_REASON_ETAG_MISMATCH)
	void.Etag = r.GetEtag()
	mustVoid(t, s, void, voided)
	w.agree(t, order, voided)
}

// A command that finishes what another left open moves the payment on itself, which its etag does not speak of.
func TestAnEtagIsComparedOnce(t *testing.T) {
	w := newWorld(t, 0)
	unavailable := &wrapped{
		Gateway: w.bank,
		authorize: func(context.Context, gateway.Authorize) (gateway.Outcome, error) {
			return gateway.Outcome{}, gateway.ErrUnavailable
		},
		void: func(context.Context, gateway.Void) error { return gateway.ErrUnavailable },
	}
	mute := &wrapped{Gateway: w.bank, void: func(context.Context, gateway.Void) error { return gateway.ErrOutcomeUnknown }}
	for name, c := range map[string]struct {
		open func(order string)
		call func(s *server, order, etag string) (interface{ GetEtag() string }, error)
		want typev1.PaymentState
	}{
		"authorize, of an intent": {
			func(order string) {
				_, err := w.process(w.log, unavailable, 0).AuthorizePayment(t.Context(), authorizeRequest(order, "pm_card_visa"))
				wantFault(t, err, typev1.ErrorReason_ERROR_REASON_GATEWAY_UNAVAILABLE)
			},
			func(s *server, order, etag string) (interface{ GetEtag() string }, error) {
				req := authorizeRequest(order, "pm_card_visa")
				req.Etag = etag
				return s.AuthorizePayment(t.Context(), req)
			},
			authorized,
		},
		"void, of a void": {
			func(order string) {
				mustAuthorize(t, w.start(), authorizeRequest(order, "pm_card_visa"), authorized)
				_, err := w.process(w.log, unavailable, 0).VoidPayment(t.Context(), voidRequest(order))
				wantFault(t, err, typev1.ErrorReason_ERROR_REASON_GATEWAY_UNAVAILABLE)
			},
			func(s *server, order, etag string) (interface{ GetEtag() string }, error) {
				req := voidRequest(order)
				req.Etag = etag
				return s.VoidPayment(t.Context(), req)
			},
			voided,
		},
		"reconcile, of a void": {
			func(order string) {
				mustAuthorize(t, w.start(), authorizeRequest(order, "pm_card_visa"), authorized)
				mustVoid(t, w.process(w.log, mute, 0), voidRequest(order), unknown)
			},
			func(s *server, order, etag string) (interface{ GetEtag() string }, error) {
				req := reconcileRequest(order)
				req.Etag = etag
				return s.ReconcilePayment(t.Context(), req)
			},
			voided,
		},
		"reconcile, of an authorization": {
			func(order string) { mustAuthorize(t, w.start(), authorizeRequest(order, "pm_sim_timeout"), unknown) },
			func(s *server, order, etag string) (interface{ GetEtag() string }, error) {
				req := reconcileRequest(order)
				req.Etag = etag
				return s.ReconcilePayment(t.Context(), req)
			},
			authorized,
		},
	} {
		t.Run(name, func(t *testing.T) {
			order := uuid.NewString()
			c.open(order)
			_, at := w.load(t, order)
			_, err := c.call(w.start(), order, aggregate.Etag(at-1))
			wantFault(t, err, typev1.ErrorReason_ERROR_REASON_ETAG_MISMATCH)
			if _, now := w.load(t, order); now != at {
				t.Fatalf("refused, and from %d at %d", at, now)
			}
			r, err := c.call(w.start(), order, aggregate.Etag(at))
			if err != nil || r.GetEtag() != aggregate.Etag(at+1) {
				t.Errorf("answered %v, %v", r, err)
			}
			w.agree(t, order, c.want)
		})
	}
}

// A call that the caller no longer waits for is not begun.
func TestACallerGoneBeforeTheCall(t *testing.T) {
	g := guard(&wrapped{authorize: func(context.Context, gateway.Authorize) (gateway.Outcome, error) {
		t.Error("called")
		return gateway.Outcome{}, nil
	}}, 0, testLogger(t))
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := g.Authorize(gone, gateway.Authorize{}); !errors.Is(err, gateway.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}
