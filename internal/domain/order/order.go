// Package order decides what may become of an order, and says what is true of it now.
//
// An order is PLACED and becomes CONFIRMED or REJECTED; a placed or confirmed one can be cancelled: it is CANCELLING
// until all that was held for it is undone, then CANCELLED. Whichever of two steps that race for an order is recorded
// first wins, and the other is refused: that is all that settles a cancellation against a confirmation.
package order

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/fault"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const (
	none       = typev1.OrderState_ORDER_STATE_UNSPECIFIED
	placed     = typev1.OrderState_ORDER_STATE_PLACED
	confirmed  = typev1.OrderState_ORDER_STATE_CONFIRMED
	cancelling = typev1.OrderState_ORDER_STATE_CANCELLING
	cancelled  = typev1.OrderState_ORDER_STATE_CANCELLED
	rejected   = typev1.OrderState_ORDER_STATE_REJECTED
)

// The steps of an order, by the names that clients know them by.
const (
	changeAddress = "ChangeDeliveryAddress"
	confirm       = "ConfirmOrder"
	reject        = "RejectOrder"
	cancel        = "CancelOrder"
	markCancelled = "MarkCancelled"
)

// steps are the legal next steps from a state.
func steps(s typev1.OrderState) []string {
	switch s {
	case placed:
		return []string{changeAddress, confirm, reject, cancel}
	case confirmed:
		return []string{changeAddress, cancel}
	case cancelling:
		return []string{markCancelled}
	default:
		return nil
	}
}

// State is what the past of one order says. The zero value is an order that was never placed.
type State struct {
	State      typev1.OrderState
	CustomerID string
	Address    *typev1.Address
}

// Evolve folds an event into the state.
func (s *State) Evolve(m proto.Message, _ time.Time) {
	switch e := m.(type) {
	case *orderevent.OrderPlaced:
		s.State, s.CustomerID, s.Address = placed, e.GetCustomerId(), e.GetDeliveryAddress()
	case *orderevent.DeliveryAddressChanged:
		s.Address = e.GetDeliveryAddress()
	case *orderevent.OrderConfirmed:
		s.State = confirmed
	case *orderevent.OrderRejected:
		s.State = rejected
	case *orderevent.OrderCancellationRequested:
		s.State = cancelling
	case *orderevent.OrderCancelled:
		s.State = cancelled
	}
}

// Clone returns a copy.
func (s *State) Clone() *State {
	c := *s // what it points to is never changed
	return &c
}

// ChangeAddress means to send an order elsewhere.
type ChangeAddress struct {
	ID      string
	Address *typev1.Address
}

// ChangeAddress changes the address of an order that is neither ended nor being cancelled.
func (s *State) ChangeAddress(c ChangeAddress) ([]proto.Message, error) {
	if err := s.allows(changeAddress, c.ID); err != nil {
		return nil, err
	}
	if err := checkAddress(c.Address); err != nil {
		return nil, err
	}
	if proto.Equal(s.Address, c.Address) {
		return nil, nil
	}
	return events(&orderevent.DeliveryAddressChanged{OrderId: c.ID, CustomerId: s.CustomerID, DeliveryAddress: c.Address})
}

// Confirm means that stock is reserved and the payment authorized.
type Confirm struct{ ID string }

// Confirm confirms a placed order.
func (s *State) Confirm(c Confirm) ([]proto.Message, error) {
	if s.State == confirmed {
		return nil, nil
	}
	if err := s.allows(confirm, c.ID); err != nil {
		return nil, err
	}
	return events(&orderevent.OrderConfirmed{OrderId: c.ID})
}

// Reject means that an order can't be fulfilled and that nothing is held for it any more.
type Reject struct {
	ID     string
	Reason typev1.RejectReason
}

// Reject rejects a placed order.
func (s *State) Reject(c Reject) ([]proto.Message, error) {
	if s.State == rejected {
		return nil, nil
	}
	if err := s.allows(reject, c.ID); err != nil {
		return nil, err
	}
	if c.Reason == typev1.RejectReason_REJECT_REASON_UNSPECIFIED {
		return nil, fault.InvalidField("reason", "must be given")
	}
	return events(&orderevent.OrderRejected{OrderId: c.ID, Reason: c.Reason})
}

// Cancel means that the customer wants an order no more.
type Cancel struct {
	ID string
	// Reason is in the customer's words; may be empty.
	Reason string
}

// Cancel asks for the cancellation of a placed or confirmed order.
func (s *State) Cancel(c Cancel) ([]proto.Message, error) {
	if s.State == cancelling || s.State == cancelled {
		return nil, nil
	}
	if err := s.allows(cancel, c.ID); err != nil {
		return nil, err
	}
	e := &orderevent.OrderCancellationRequested{OrderId: c.ID, CustomerId: s.CustomerID}
	if c.Reason != "" {
		e.Reason = proto.String(c.Reason)
	}
	return events(e)
}

// MarkCancelled means that nothing is held for a cancelled order any more.
type MarkCancelled struct{ ID string }

// MarkCancelled ends a cancellation.
func (s *State) MarkCancelled(c MarkCancelled) ([]proto.Message, error) {
	if s.State == cancelled {
		return nil, nil
	}
	if err := s.allows(markCancelled, c.ID); err != nil {
		return nil, err
	}
	return events(&orderevent.OrderCancelled{OrderId: c.ID})
}

// allows says why a step may not be taken now, if so.
func (s *State) allows(step, id string) error {
	if s.State == none {
		return fault.Missing(typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND, "order", id)
	}
	legal := steps(s.State)
	if slices.Contains(legal, step) {
		return nil
	}
	f := fault.Refused(typev1.ErrorReason_ERROR_REASON_ILLEGAL_TRANSITION, "%s is not possible: the order is %s", step, words(s.State))
	f.Allowed = legal
	return f
}

func words(s typev1.OrderState) string {
	switch s {
	case placed:
		return "placed"
	case confirmed:
		return "confirmed"
	case cancelling:
		return "being cancelled"
	case cancelled:
		return "cancelled"
	default:
		return "rejected"
	}
}

func events(m ...proto.Message) ([]proto.Message, error) { return m, nil }
