package payment

import (
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/domain/money"
	"github.com/purserhq/purser/internal/fault"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// RequestAuthorization means to hold the money of an order.
type RequestAuthorization struct {
	OrderID    string
	CustomerID string
	Amount     *typev1.Money
	Method     string
	Key        GatewayKey
}

// RequestAuthorization records the intent. A payment has one authorization: where it was asked for before, there is
// nothing to do, unless it was for another amount or customer, or turned out never to have happened. One that is
// contradicted is not asked for again.
func (s *State) RequestAuthorization(c RequestAuthorization) ([]proto.Message, error) {
	a := s.Authorization
	switch {
	case s.Contradicted: // money may be held already, whatever the record says
		return nil, contradicted()
	case s.Void.Status != NotVoided:
		return nil, fault.Refused(typev1.ErrorReason_ERROR_REASON_PAYMENT_VOIDED, "the payment of order %s was given up", c.OrderID)
	case a.Status == NotRequested, a.Status == NeverHappened:
		return events(&paymentevent.AuthorizationRequested{
			OrderId: c.OrderID, CustomerId: c.CustomerID, Amount: c.Amount,
			PaymentMethod: proto.String(c.Method), GatewayKey: string(c.Key),
		})
	// The method is personal data and may have been forgotten, so it makes no difference here.
	case a.CustomerID != c.CustomerID, !money.Equal(a.Amount, c.Amount):
		return nil, fault.Refused(typev1.ErrorReason_ERROR_REASON_PAYMENT_DIFFERS,
			"the payment of order %s was asked for another amount or customer", c.OrderID)
	}
	return nil, nil
}

// Outcome is what became of a call to authorize.
type Outcome struct {
	Result Result
	// Reference is the gateway's own name for the payment; where approved.
	Reference string
	// Code is the gateway's reason; where refused.
	Code string
}

// Result is the kind of an outcome.
type Result uint8

const (
	OutcomeLost      Result = iota // the answer did not arrive
	Approved                       // the money is held
	RefusedCustomer                // declined: the customer may try another method
	RefusedRequest                 // the request itself is refused, and always will be
	NothingAtGateway               // the gateway knows nothing of it, and can't act on it any more
)

// RecordAuthorization says what became of the call under a key.
type RecordAuthorization struct {
	Key     GatewayKey
	Outcome Outcome
}

// RecordAuthorization records an outcome, unless it, or a more definite one, is on record.
func (s *State) RecordAuthorization(c RecordAuthorization) ([]proto.Message, error) {
	a, o := s.Authorization, c.Outcome
	switch {
	case a.Status == NotRequested:
		return nil, illegal("no authorization was asked for", "AuthorizePayment")
	case c.Key != a.Key && o.Result == Approved:
		return s.contradict(o) // money is held under a key that was given up
	case c.Key != a.Key:
		return nil, nil
	case a.Status == Requested:
		return events(o.event(a.OrderID))
	case o.Result == OutcomeLost, a.records(o):
		return nil, nil
	case a.Status == Unknown:
		return events(o.reconciled(a.OrderID))
	}
	return s.contradict(o)
}

// records tells whether the outcome is the one on record.
func (a Authorization) records(o Outcome) bool {
	switch a.Status {
	case Authorized:
		return o.Result == Approved && o.Reference == a.Reference
	case Declined:
		return o.Result == RefusedCustomer
	case Failed:
		return o.Result == RefusedRequest
	case NeverHappened:
		return o.Result == NothingAtGateway
	}
	return false
}

// contradict raises the alarm, once.
func (s *State) contradict(o Outcome) ([]proto.Message, error) {
	if s.Contradicted {
		return nil, nil
	}
	a := s.Authorization
	return events(&paymentevent.PaymentContradicted{
		OrderId: a.OrderID, Recorded: eventType(a.event()), Reported: eventType(o.event(a.OrderID)),
	})
}

// event is what the outcome is recorded as, right after its intent.
func (o Outcome) event(orderID string) proto.Message {
	switch o.Result {
	case Approved:
		return &paymentevent.PaymentAuthorized{OrderId: orderID, GatewayReference: o.Reference}
	case RefusedCustomer:
		return &paymentevent.AuthorizationDeclined{OrderId: orderID, DeclineCode: o.Code}
	case RefusedRequest:
		return &paymentevent.AuthorizationFailed{OrderId: orderID, FailureCode: o.Code}
	case NothingAtGateway:
		return o.reconciled(orderID)
	default:
		return &paymentevent.AuthorizationOutcomeUnknown{OrderId: orderID}
	}
}

// reconciled is what the outcome is recorded as where it was unknown before.
func (o Outcome) reconciled(orderID string) proto.Message {
	e := &paymentevent.PaymentReconciled{OrderId: orderID, GatewayReference: o.Reference, DeclineCode: o.Code}
	switch o.Result {
	case Approved:
		e.Outcome = paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_AUTHORIZED
	case RefusedCustomer:
		e.Outcome = paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_DECLINED
	case NothingAtGateway:
		e.Outcome = paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_NEVER_HAPPENED
	default: // a refused request has an event of its own, whenever it is found out
		return o.event(orderID)
	}
	return e
}

// event is the outcome on record, as the event that first says it.
func (a Authorization) event() proto.Message {
	switch a.Status {
	case Authorized:
		return Outcome{Result: Approved}.event(a.OrderID)
	case Declined:
		return Outcome{Result: RefusedCustomer}.event(a.OrderID)
	case Failed:
		return Outcome{Result: RefusedRequest}.event(a.OrderID)
	case NeverHappened:
		return Outcome{Result: NothingAtGateway}.event(a.OrderID)
	case Unknown:
		return Outcome{Result: OutcomeLost}.event(a.OrderID)
	default:
		return &paymentevent.AuthorizationRequested{}
	}
}

func eventType(m proto.Message) string { return string(m.ProtoReflect().Descriptor().Name()) }

func events(m ...proto.Message) ([]proto.Message, error) { return m, nil }

func illegal(message string, allowed ...string) error {
	f := fault.Refused(typev1.ErrorReason_ERROR_REASON_ILLEGAL_TRANSITION, "%s", message)
	f.Allowed = allowed
	return f
}
