// Package payment decides what may become of an order's payment, and says what is true of it now.
//
// Money moves in two steps, each on record before the next is taken: the intent to call the gateway, then what the
// gateway said. So whatever is lost in between, the log tells what may have been asked, under which key it can be asked
// again without a second effect, and whether the answer is known. Three rules keep the money right:
//
//   - A definite outcome takes the place of an unknown one. Of two definite outcomes that differ, neither is chosen: the
//     payment is contradicted and a person has to look.
//   - An authorization is voided only once its outcome is definite. A void that finds nothing asked for leaves its mark
//     all the same, and the mark refuses an authorization that comes late.
//   - Voided is final.
package payment

import (
	"time"

	"google.golang.org/protobuf/proto"

	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// State is what the past of one order's payment says. The zero value is a payment that nobody asked for.
type State struct {
	Authorization Authorization
	Void          Void
	// Contradicted: two definite outcomes differ. Only a person can tell what is true.
	Contradicted bool
}

// Authorization is the call that holds the money, as it was meant and as far as its outcome is known.
type Authorization struct {
	Status     AuthorizationStatus
	OrderID    string
	CustomerID string
	Amount     *typev1.Money
	// Method is personal data: passed on, never decided on. Empty where it was forgotten.
	Method      string
	Key         GatewayKey
	RequestedAt time.Time
	// Reference is the gateway's own name for the payment; where authorized.
	Reference string
	// Code is the gateway's reason; where declined or failed.
	Code string
}

// Void is the call that gives the money back before it was taken.
type Void struct {
	Status VoidStatus
	Key    GatewayKey
}

// AuthorizationStatus is what is known of an authorization.
type AuthorizationStatus uint8

const (
	NotRequested  AuthorizationStatus = iota
	Requested                         // the intent is on record, the outcome is not
	Unknown                           // the gateway was called and its answer was lost
	Authorized                        // the money is held
	Declined                          // refused to the customer
	Failed                            // refused to us, for a reason that no retry cures
	NeverHappened                     // the call never arrived, and can't take effect any more
)

// Open tells that the gateway may have been asked and that its answer is not on record.
func (s AuthorizationStatus) Open() bool { return s == Requested || s == Unknown }

// VoidStatus is what is known of a void.
type VoidStatus uint8

const (
	NotVoided     VoidStatus = iota
	VoidRequested            // the intent is on record, the outcome is not
	VoidUnknown              // the gateway was called and its answer was lost
	Voided                   // no money is held, and none will be
)

// Open tells that a void was asked for and is not done.
func (s VoidStatus) Open() bool { return s == VoidRequested || s == VoidUnknown }

// Clone returns a copy.
func (s *State) Clone() *State {
	c := *s // what it points to is never changed
	return &c
}

// Evolve folds an event into the state. Deciders record no event that would take a definite outcome back, so that each
// event simply says what is known from then on.
func (s *State) Evolve(m proto.Message, at time.Time) {
	a := &s.Authorization
	switch e := m.(type) {
	case *paymentevent.AuthorizationRequested:
		*a = Authorization{
			Status: Requested, OrderID: e.GetOrderId(), CustomerID: e.GetCustomerId(), Amount: e.GetAmount(),
			Method: e.GetPaymentMethod(), Key: GatewayKey(e.GetGatewayKey()), RequestedAt: at,
		}
	case *paymentevent.PaymentAuthorized:
		a.Status, a.Reference = Authorized, e.GetGatewayReference()
	case *paymentevent.AuthorizationDeclined:
		a.Status, a.Code = Declined, e.GetDeclineCode()
	case *paymentevent.AuthorizationFailed:
		a.Status, a.Code = Failed, e.GetFailureCode()
	case *paymentevent.AuthorizationOutcomeUnknown:
		a.Status = Unknown
	case *paymentevent.PaymentReconciled:
		a.Reference, a.Code = e.GetGatewayReference(), e.GetDeclineCode()
		switch e.GetOutcome() {
		case paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_AUTHORIZED:
			a.Status = Authorized
		case paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_DECLINED:
			a.Status = Declined
		case paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_NEVER_HAPPENED:
			a.Status = NeverHappened
		}
	case *paymentevent.VoidRequested:
		s.Void = Void{Status: VoidRequested, Key: GatewayKey(e.GetGatewayKey())}
	case *paymentevent.VoidOutcomeUnknown:
		s.Void.Status = VoidUnknown
	case *paymentevent.PaymentVoided:
		s.Void.Status = Voided
	case *paymentevent.PaymentContradicted:
		s.Contradicted = true
	}
}

// PaymentState is the state in the words of the API.
func (s *State) PaymentState() typev1.PaymentState {
	switch s.Void.Status {
	case Voided:
		return typev1.PaymentState_PAYMENT_STATE_VOIDED
	case VoidUnknown:
		return typev1.PaymentState_PAYMENT_STATE_OUTCOME_UNKNOWN
	}
	switch s.Authorization.Status {
	case Requested:
		return typev1.PaymentState_PAYMENT_STATE_REQUESTED
	case Unknown:
		return typev1.PaymentState_PAYMENT_STATE_OUTCOME_UNKNOWN
	case Authorized:
		return typev1.PaymentState_PAYMENT_STATE_AUTHORIZED
	case Declined:
		return typev1.PaymentState_PAYMENT_STATE_DECLINED
	case Failed:
		return typev1.PaymentState_PAYMENT_STATE_FAILED
	default: // not requested, or never happened
		return typev1.PaymentState_PAYMENT_STATE_NONE
	}
}
