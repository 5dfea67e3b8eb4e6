package payment

import (
	"google.golang.org/protobuf/proto"

	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
)

// RequestVoid means to give up the authorization of an order.
type RequestVoid struct {
	OrderID string
	Key     GatewayKey
}

// RequestVoid records the intent where the gateway has, or may have, anything to give up. Where it never had, the
// payment is voided at once, and the mark refuses a late authorization. A declined payment needs no void.
func (s *State) RequestVoid(c RequestVoid) ([]proto.Message, error) {
	switch {
	case s.Void.Status != NotVoided:
		return nil, nil
	case s.Contradicted:
		return nil, contradicted()
	case s.Authorization.Status == Declined:
		return nil, nil
	case s.Authorization.Status.Open(), s.Authorization.Status == Authorized:
		return events(&paymentevent.VoidRequested{OrderId: c.OrderID, GatewayKey: string(c.Key)})
	}
	return events(&paymentevent.PaymentVoided{OrderId: c.OrderID}) // not requested, never happened, failed
}

// RecordVoid says what became of a void. With Lost the gateway was called and its answer did not arrive; without it,
// nothing is held.
type RecordVoid struct {
	OrderID string
	Lost    bool
}

// RecordVoid records how a void ended. Every void that was asked for ends with PaymentVoided, also where the
// authorization turned out to be declined: nothing is held, and nothing will be.
func (s *State) RecordVoid(c RecordVoid) ([]proto.Message, error) {
	switch {
	case s.Void.Status == Voided, s.Void.Status == VoidUnknown && c.Lost:
		return nil, nil
	case s.Void.Status == NotVoided:
		return nil, illegal("no void was asked for", "VoidPayment")
	case s.Contradicted:
		return nil, contradicted()
	case s.Authorization.Status.Open():
		// Otherwise a call that is still on its way would take the money after it was given up.
		return nil, illegal("the outcome of the authorization is not known yet", "ReconcilePayment")
	case c.Lost:
		return events(&paymentevent.VoidOutcomeUnknown{OrderId: c.OrderID})
	}
	return events(&paymentevent.PaymentVoided{OrderId: c.OrderID})
}

func contradicted() error {
	return illegal("the gateway gave two different answers for this payment; an operator has to look")
}
