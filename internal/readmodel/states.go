package readmodel

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
)

// States by their short names, as rows hold them.
const (
	placed     = "PLACED"
	confirmed  = "CONFIRMED"
	cancelling = "CANCELLING"
	cancelled  = "CANCELLED"
	rejected   = "REJECTED"

	paymentNone       = "NONE"
	paymentRequested  = "REQUESTED"
	paymentAuthorized = "AUTHORIZED"
	paymentDeclined   = "DECLINED"
	paymentFailed     = "FAILED"
	paymentUnknown    = "OUTCOME_UNKNOWN"
	paymentVoided     = "VOIDED"

	goodsPending  = "PENDING"
	goodsReserved = "RESERVED"
	goodsReleased = "RELEASED"
)

// short is the name of an enum's value without the enum's prefix; empty for the unspecified one.
func short(e protoreflect.Enum) string {
	if e.Number() == 0 {
		return ""
	}
	v := e.Descriptor().Values().ByNumber(e.Number())
	if v == nil {
		return "" // written by a newer build; the schema version says so before it comes to this
	}
	return strings.TrimPrefix(string(v.Name()), prefix(e.Descriptor()))
}

// shorts are the short names of an enum's values, without the unspecified one.
func shorts(d protoreflect.EnumDescriptor) []string {
	var names []string
	for i := range d.Values().Len() {
		if v := d.Values().Get(i); v.Number() != 0 {
			names = append(names, strings.TrimPrefix(string(v.Name()), prefix(d)))
		}
	}
	return names
}

// prefix of an enum's values: the zero value is always <PREFIX>UNSPECIFIED.
func prefix(d protoreflect.EnumDescriptor) string {
	return strings.TrimSuffix(string(d.Values().ByNumber(0).Name()), "UNSPECIFIED")
}

// orderState is an order's state after an event.
func orderState(state string, m proto.Message) string {
	switch m.(type) {
	case *orderevent.OrderPlaced:
		return placed
	case *orderevent.OrderConfirmed:
		return confirmed
	case *orderevent.OrderRejected:
		return rejected
	case *orderevent.OrderCancellationRequested:
		return cancelling
	case *orderevent.OrderCancelled:
		return cancelled
	}
	return state
}

// sold tells that an order counts as a sale, as far as is known: it was placed, and neither rejected nor cancelled.
func sold(state string) bool { return state != "" && state != rejected && state != cancelled }

// paymentState is a payment's state after an event. Voided is final.
func paymentState(state string, m proto.Message) string {
	if state == paymentVoided {
		return state
	}
	switch m := m.(type) {
	case *paymentevent.AuthorizationRequested:
		return paymentRequested
	case *paymentevent.PaymentAuthorized:
		return paymentAuthorized
	case *paymentevent.AuthorizationDeclined:
		return paymentDeclined
	case *paymentevent.AuthorizationFailed:
		return paymentFailed
	case *paymentevent.AuthorizationOutcomeUnknown, *paymentevent.VoidOutcomeUnknown:
		return paymentUnknown
	case *paymentevent.PaymentVoided:
		return paymentVoided
	case *paymentevent.PaymentReconciled:
		switch m.GetOutcome() {
		case paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_AUTHORIZED:
			return paymentAuthorized
		case paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_DECLINED:
			return paymentDeclined
		case paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_NEVER_HAPPENED:
			return paymentNone
		}
	}
	if state == "" {
		return paymentNone
	}
	return state
}
