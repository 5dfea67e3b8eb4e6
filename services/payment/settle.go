package payment

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/domain/payment"
	"github.com/purserhq/purser/internal/fault"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
	"github.com/purserhq/purser/services/payment/gateway"
)

const (
	// recordTimeout bounds the recording of what the gateway said.
	recordTimeout = 10 * time.Second
	// keyMargin is how far from the end of a key's life we keep: for clocks that differ, and for a call still on its way.
	keyMargin = time.Hour
)

// recording returns a context to record the gateway's answer in: that must not be lost because the caller has left.
func recording(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
}

// settle puts the outcome of an open authorization on record, as find finds it; that may be that it is unknown. The
// outcome follows its intent under the intent's request id, whoever finds it; what an unknown one turned out to be is
// recorded under the request that the key by was made from, which must be on record.
//
// If the process dies before the gateway is called, or before its answer is recorded, the authorization stays open and
// whoever comes next settles it.
func (s *server) settle(ctx context.Context, a payment.Authorization, by payment.GatewayKey, find finder) (aggregate.Done, error) {
	outcome, err := find(ctx, a)
	if err != nil {
		return aggregate.Done{}, err
	}
	if a.Status == payment.Requested {
		by = a.Key
	}
	c := payment.RecordAuthorization{Key: a.Key, Outcome: outcome}
	return s.record(ctx, a.OrderID, by, func(st *payment.State) ([]proto.Message, error) {
		if now := st.Authorization; by == a.Key && now.Key == a.Key && now.Status == payment.Unknown {
			// The intent's request is answered: what it turns out to be is another's to record.
			if outcome.Result != payment.OutcomeLost {
				s.log.WarnContext(ctx, "the gateway's answer came after its outcome was recorded as unknown", "order_id", a.OrderID,
					"approved", outcome.Result == payment.Approved, "reference", outcome.Reference, "code", outcome.Code)
			}
			return nil, nil
		}
		return st.RecordAuthorization(c)
	})
}

// resume settles an intent that was left alone. Once its outcome is unknown its request is answered, and
// ReconcilePayment or a void finds out.
func (s *server) resume(ctx context.Context, orderID string) error {
	st, _, err := s.payments.Load(ctx, orderID)
	if err != nil || st.Authorization.Status != payment.Requested {
		return err
	}
	_, err = s.settle(ctx, st.Authorization, st.Authorization.Key, s.resolve)
	return err
}

// reconcile finds out what became of an authorization whose outcome is unknown, and records it under the command's own request.
func (s *server) reconcile(ctx context.Context, req command, a payment.Authorization) (aggregate.Done, *payment.State, error) {
	outcome, err := s.resolve(ctx, a)
	if err != nil {
		return aggregate.Done{}, nil, err
	}
	ctx, cancel := recording(ctx)
	defer cancel()
	c := payment.RecordAuthorization{Key: a.Key, Outcome: outcome}
	return s.handle(ctx, admitted{req}, s.alarm(func(st *payment.State) ([]proto.Message, error) { return st.RecordAuthorization(c) }))
}

// finder finds out what became of an authorization.
type finder func(context.Context, payment.Authorization) (payment.Outcome, error)

// finishVoid takes a void that was asked for to its end, or as far as the gateway lets it: it makes the authorization
// definite, gives back what is held, and records that under the void's own request id.
//
// If the process dies on the way, the void stays open and its repeat begins here again. Giving back twice is giving
// back once.
func (s *server) finishVoid(ctx context.Context, orderID string) error {
	st, _, err := s.payments.Load(ctx, orderID)
	if err != nil {
		return err
	}
	if st.Authorization.Status.Open() {
		if _, err := s.settle(ctx, st.Authorization, st.Void.Key, s.resolve); err != nil {
			return err
		}
		if st, _, err = s.payments.Load(ctx, orderID); err != nil {
			return err
		}
	}
	if st.Authorization.Status.Open() || !st.Void.Status.Open() {
		return nil // still unknown, or somebody else was faster
	}
	c := payment.RecordVoid{OrderID: orderID}
	if st.Authorization.Status == payment.Authorized && !st.Contradicted { // contradicted: refused below
		if c.Lost, err = s.giveBack(ctx, orderID, st); err != nil {
			return err
		}
	}
	_, err = s.record(ctx, orderID, st.Void.Key, func(st *payment.State) ([]proto.Message, error) { return st.RecordVoid(c) })
	return err
}

// resolve finds out what became of an authorization that the gateway may have been asked for. What it knows by our
// reference counts. While it knows nothing but remembers our key, "not found" is no answer, for a call may be on its
// way: the same call under the same key makes it definite. Once the key is surely forgotten the call can't be made
// again, and nothing can be on its way any more. In between nobody can tell.
func (s *server) resolve(ctx context.Context, a payment.Authorization) (payment.Outcome, error) {
	found, err := s.gateway.LookUp(ctx, a.OrderID)
	switch {
	case err == nil:
		return outcome(found), nil
	case !errors.Is(err, gateway.ErrNotFound):
		return payment.Outcome{}, down(err)
	}
	age, lifetime := s.clock().Sub(a.RequestedAt), s.gateway.KeyLifetime()
	switch {
	case age > lifetime+keyMargin:
		return payment.Outcome{Result: payment.NothingAtGateway}, nil
	case age > lifetime-keyMargin, a.Method == "": // the method was personal data, and was forgotten
		return payment.Outcome{Result: payment.OutcomeLost}, nil
	}
	return s.authorize(ctx, a)
}

// authorize calls the gateway, as the intent says.
func (s *server) authorize(ctx context.Context, a payment.Authorization) (payment.Outcome, error) {
	answer, err := s.gateway.Authorize(ctx, gateway.Authorize{
		Key: string(a.Key), Reference: a.OrderID, Amount: a.Amount, Method: a.Method,
	})
	switch {
	case err == nil:
		return outcome(answer), nil
	case errors.Is(err, gateway.ErrUnavailable):
		return payment.Outcome{}, down(err)
	}
	s.log.WarnContext(ctx, "the gateway's answer to an authorization is lost", "order_id", a.OrderID, "err", err)
	return payment.Outcome{Result: payment.OutcomeLost}, nil
}

// giveBack calls the gateway to void an authorization, and tells whether the answer was lost.
func (s *server) giveBack(ctx context.Context, orderID string, st *payment.State) (lost bool, err error) {
	err = s.gateway.Void(ctx, gateway.Void{Key: string(st.Void.Key), GatewayReference: st.Authorization.Reference})
	switch {
	case err == nil:
		return false, nil
	case errors.Is(err, gateway.ErrUnavailable):
		return false, down(err)
	case errors.Is(err, gateway.ErrRefused):
		f := fault.Refused(typev1.ErrorReason_ERROR_REASON_ILLEGAL_TRANSITION, "the payment gateway will not void the payment of order %s", orderID)
		f.Err = err
		return false, f
	}
	s.log.WarnContext(ctx, "the gateway's answer to a void is lost", "order_id", orderID, "err", err)
	return true, nil
}

// record appends what the gateway said under the request that the call's key was made from.
func (s *server) record(ctx context.Context, orderID string, key payment.GatewayKey, decide aggregate.Decide[payment.State]) (aggregate.Done, error) {
	ctx, cancel := recording(ctx)
	defer cancel()
	return s.payments.Continue(ctx, orderID, key.RequestID(), s.alarm(decide))
}

// alarm makes a contradiction heard: two definite answers differ, and only a person can tell what is true.
func (s *server) alarm(decide aggregate.Decide[payment.State]) aggregate.Decide[payment.State] {
	return func(st *payment.State) ([]proto.Message, error) {
		messages, err := decide(st)
		for _, m := range messages {
			if c, ok := m.(*paymentevent.PaymentContradicted); ok {
				s.log.Error("the gateway contradicts itself", "order_id", c.GetOrderId(), "recorded", c.GetRecorded(), "reported", c.GetReported())
			}
		}
		return messages, err
	}
}

// outcome puts a gateway's answer into the words of the domain.
func outcome(o gateway.Outcome) payment.Outcome {
	switch o.Result {
	case gateway.Approved:
		return payment.Outcome{Result: payment.Approved, Reference: o.GatewayReference}
	case gateway.Declined:
		return payment.Outcome{Result: payment.RefusedCustomer, Code: o.Code}
	case gateway.Failed:
		return payment.Outcome{Result: payment.RefusedRequest, Code: o.Code}
	default: // no answer at all
		return payment.Outcome{Result: payment.OutcomeLost}
	}
}

func down(cause error) error {
	return fault.Down(typev1.ErrorReason_ERROR_REASON_GATEWAY_UNAVAILABLE, "the payment gateway is unavailable", cause)
}
