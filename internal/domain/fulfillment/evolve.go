package fulfillment

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// Evolve folds an event of the order, its payment or its fulfilment. Each stream must come in its own order; the
// streams may be interleaved in any way.
func (s *State) Evolve(m proto.Message, _ time.Time) {
	s.evolveOrder(m)
	s.Payment.evolve(m)
	s.evolveAnswers(m)
	s.decideGoal()
	// From here on an executor may ask for the authorization at any time, and nobody may ever hear of it.
	if slices.Contains(s.ToDo(), Item{Step: fulfillmentevent.Step_STEP_AUTHORIZE_PAYMENT}) {
		s.Payment.Asked = true
	}
}

func (s *State) evolveOrder(m proto.Message) {
	switch e := m.(type) {
	case *orderevent.OrderPlaced:
		s.Goal, s.Order = Fulfil, typev1.OrderState_ORDER_STATE_PLACED
		s.CustomerID, s.Method, s.Priority = e.GetCustomerId(), e.GetPaymentMethod(), e.GetPriority()
		s.Currency, s.Total = e.GetTotal().GetCurrencyCode(), e.GetTotal().GetAmountMinor()
		for _, l := range e.GetLines() {
			s.line(l.GetProductId()).Quantity = l.GetQuantity()
		}
	case *orderevent.OrderConfirmed:
		s.Order = typev1.OrderState_ORDER_STATE_CONFIRMED
	case *orderevent.OrderRejected:
		// Also where somebody else rejected it: whatever is held is undone all the same.
		s.Goal, s.RejectReason, s.Order = Reject, e.GetReason(), typev1.OrderState_ORDER_STATE_REJECTED
	case *orderevent.OrderCancellationRequested:
		s.Goal, s.Order = Cancel, typev1.OrderState_ORDER_STATE_CANCELLING
	case *orderevent.OrderCancelled:
		s.Goal, s.Order = Cancel, typev1.OrderState_ORDER_STATE_CANCELLED
	}
}

func (p *Payment) evolve(m proto.Message) {
	switch e := m.(type) {
	case *paymentevent.AuthorizationRequested:
		p.Asked, p.Authorization = true, Requested
		p.CustomerID, p.Currency, p.Amount = e.GetCustomerId(), e.GetAmount().GetCurrencyCode(), e.GetAmount().GetAmountMinor()
	case *paymentevent.PaymentAuthorized:
		p.Authorization = Authorized
	case *paymentevent.AuthorizationDeclined:
		p.Authorization = Declined
	case *paymentevent.AuthorizationFailed:
		p.Authorization = Failed
	case *paymentevent.AuthorizationOutcomeUnknown:
		p.Authorization = Unknown
	case *paymentevent.PaymentReconciled:
		switch e.GetOutcome() {
		case paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_AUTHORIZED:
			p.Authorization = Authorized
		case paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_DECLINED:
			p.Authorization = Declined
		case paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_NEVER_HAPPENED:
			p.Authorization = NeverHappened
		}
	case *paymentevent.VoidRequested, *paymentevent.VoidOutcomeUnknown:
		p.Void = Voiding
	case *paymentevent.PaymentVoided:
		p.Void = Voided
	case *paymentevent.PaymentContradicted:
		p.Contradicted = true
	}
}

func (s *State) evolveAnswers(m proto.Message) {
	switch e := m.(type) {
	case *fulfillmentevent.LineReserved:
		s.learn(e.GetProductId(), Held)
	case *fulfillmentevent.LineRefused:
		s.learn(e.GetProductId(), Refused)
	case *fulfillmentevent.LineReleased:
		s.learn(e.GetProductId(), Released)
	case *fulfillmentevent.StepRefused:
		// One that is no longer asked for was refused because things had moved on.
		item := Item{Step: e.GetStep(), ProductID: e.GetProductId()}
		if slices.Contains(s.ToDo(), item) {
			s.Refusals = append(s.Refusals, Refusal{Item: item, Reason: e.GetReason()})
		}
	}
}

func (s *State) learn(productID string, f LineFact) {
	l := s.line(productID)
	l.Fact = max(l.Fact, f)
}

// line returns the line of a product, which is made where it is not known yet.
func (s *State) line(productID string) *Line {
	i := slices.IndexFunc(s.Lines, func(l Line) bool { return l.ProductID == productID })
	if i < 0 {
		s.Lines = append(s.Lines, Line{ProductID: productID})
		i = len(s.Lines) - 1
	}
	return &s.Lines[i]
}

// decideGoal gives up an order that can't be fulfilled. A confirmed one is not given up without a person.
func (s *State) decideGoal() {
	if s.Goal != Fulfil || s.Order != typev1.OrderState_ORDER_STATE_PLACED {
		return
	}
	switch {
	case s.anyLine(func(l Line) bool { return l.Fact == Refused }):
		s.Goal, s.RejectReason = Reject, typev1.RejectReason_REJECT_REASON_OUT_OF_STOCK
	case s.Payment.Authorization == Declined && !s.paymentDiffers():
		s.Goal, s.RejectReason = Reject, typev1.RejectReason_REJECT_REASON_PAYMENT_DECLINED
	}
}

func (s *State) anyLine(is func(Line) bool) bool { return slices.ContainsFunc(s.Lines, is) }
