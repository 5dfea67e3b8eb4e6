// Package stock decides who gets how much of a product, and says how much there is.
//
// An order holds at most one reservation of a product, which ends by a release, where the goods stay, or by a commit, where
// they have left. Either is final and leaves a mark, a release even where there was nothing to release: the mark refuses a
// reservation that was asked for earlier and arrives later. An attempt may say until when it is valid; one that arrives
// after that is refused and recorded nowhere, so marks need not be kept for ever.
package stock

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/fault"
	stockevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const (
	maxOnHand      = 1_000_000_000_000_000
	maxReceived    = 1_000_000_000
	maxReservation = 9999
	// maxValidity is how long an attempt to reserve may be valid; markWindow, how long by the events' own times the end of a
	// reservation refuses later ones. The difference is for clocks that differ.
	maxValidity = 5 * time.Minute
	markWindow  = 7 * time.Minute
)

// Version is raised when events come to be folded otherwise into a state of the same shape.
const Version = 1

// OfReservation tells the events about an order's reservation, of which there is at most one of a product.
func OfReservation(m proto.Message) bool {
	_, ok := m.(interface{ GetOrderId() string })
	return ok
}

// State is what the past of one product's stock says. The zero value is a product never stocked.
type State struct {
	// Exists: something was recorded, so the product is known to exist.
	Exists bool
	OnHand int64
	// Held is how much each order holds, Reserved what that adds up to.
	Held     map[string]int64
	Reserved int64
	// Marks are those of ended reservations, in the order they were made; ended has them by their orders.
	Marks []Mark
	ended map[string]Mark
}

// Mark says that the reservation of an order was ended: released, or committed.
type Mark struct {
	Order     string
	At        time.Time
	Committed bool `json:",omitempty"`
}

// Available is what can still be reserved.
func (s *State) Available() int64 { return s.OnHand - s.Reserved }

// Evolve folds an event that occurred at a time into the state.
func (s *State) Evolve(m proto.Message, at time.Time) {
	s.Exists = true
	switch e := m.(type) {
	case *stockevent.StockReceived:
		s.OnHand += e.GetQuantity()
	case *stockevent.StockReserved:
		if s.Held == nil {
			s.Held = map[string]int64{}
		}
		s.Held[e.GetOrderId()] = e.GetQuantity()
		s.Reserved += e.GetQuantity()
	case *stockevent.ReservationReleased:
		s.end(Mark{Order: e.GetOrderId(), At: at})
	case *stockevent.ReservationCommitted:
		s.OnHand -= s.end(Mark{Order: e.GetOrderId(), At: at, Committed: true})
	}
}

// Clone returns a copy.
func (s *State) Clone() *State {
	c := *s
	c.Held, c.Marks, c.ended = maps.Clone(s.Held), slices.Clone(s.Marks), maps.Clone(s.ended)
	return &c
}

// UnmarshalJSON reads a state from what [json.Marshal] made of one.
func (s *State) UnmarshalJSON(data []byte) error {
	type fields State
	if err := json.Unmarshal(data, (*fields)(s)); err != nil {
		return err
	}
	s.ended = make(map[string]Mark, len(s.Marks))
	for _, m := range s.Marks {
		s.ended[m.Order] = m
	}
	return nil
}

// end ends a reservation, and returns how much was held.
func (s *State) end(m Mark) (held int64) {
	held = s.Held[m.Order]
	s.Reserved -= held
	delete(s.Held, m.Order)
	for len(s.Marks) > 0 && m.At.Sub(s.Marks[0].At) > markWindow {
		delete(s.ended, s.Marks[0].Order)
		s.Marks = s.Marks[1:]
	}
	if s.ended == nil {
		s.ended = map[string]Mark{}
	}
	s.ended[m.Order] = m
	s.Marks = append(s.Marks, m)
	return held
}

// Receive means that goods arrived.
type Receive struct {
	Product  string
	Quantity int64
}

// Receive adds to what is on hand, up to 10^15.
func (s *State) Receive(c Receive) ([]proto.Message, error) {
	switch {
	case c.Quantity < 1 || c.Quantity > maxReceived:
		return nil, fault.InvalidField("quantity", "must be from 1 to %d", maxReceived)
	case s.OnHand+c.Quantity > maxOnHand:
		return nil, fault.Refused(typev1.ErrorReason_ERROR_REASON_STOCK_LIMIT, "no more than %d can be on hand", int64(maxOnHand))
	}
	return events(&stockevent.StockReceived{ProductId: c.Product, Quantity: c.Quantity})
}

// Reserve means to hold a quantity for an order.
type Reserve struct {
	Product, Order string
	Quantity       int64
	// ValidUntil is when the attempt lapses; zero: never. At most five minutes after Now.
	ValidUntil time.Time
	Now        time.Time
}

// Reserve holds a quantity. Too little left is a fact worth recording, not an error. Refusals are RESERVATION_DIFFERS,
// RESERVATION_ENDED and ATTEMPT_EXPIRED.
func (s *State) Reserve(c Reserve) ([]proto.Message, error) {
	held, holds := s.Held[c.Order]
	_, ended := s.ended[c.Order]
	switch {
	case c.Quantity < 1 || c.Quantity > maxReservation:
		return nil, fault.InvalidField("quantity", "must be from 1 to %d", maxReservation)
	case c.ValidUntil.Sub(c.Now) > maxValidity:
		return nil, fault.InvalidField("valid_until", "must be at most %s ahead", maxValidity)
	case holds && held == c.Quantity:
		return nil, nil
	case holds:
		return nil, fault.Refused(typev1.ErrorReason_ERROR_REASON_RESERVATION_DIFFERS,
			"order %s holds %d of product %s", c.Order, held, c.Product)
	case ended:
		return nil, fault.Refused(typev1.ErrorReason_ERROR_REASON_RESERVATION_ENDED,
			"the reservation of product %s for order %s has ended", c.Product, c.Order)
	case !c.ValidUntil.IsZero() && c.Now.After(c.ValidUntil):
		return nil, fault.Refused(typev1.ErrorReason_ERROR_REASON_ATTEMPT_EXPIRED, "the attempt was valid until %s",
			c.ValidUntil.UTC().Format(time.RFC3339Nano))
	case c.Quantity > s.Available():
		return events(&stockevent.StockReservationRejected{
			ProductId: c.Product, OrderId: c.Order, Requested: c.Quantity, Available: s.Available(),
		})
	}
	return events(&stockevent.StockReserved{ProductId: c.Product, OrderId: c.Order, Quantity: c.Quantity})
}

// Release means that an order is to hold nothing of the product, now and later.
type Release struct {
	Product, Order string
	Reason         stockevent.ReleaseReason
}

// Release ends an order's reservation, also one that never was. Refused with RESERVATION_COMMITTED where the goods have left;
// after that is forgotten it is a release of nothing.
func (s *State) Release(c Release) ([]proto.Message, error) {
	switch mark, ended := s.ended[c.Order]; {
	case mark.Committed:
		return nil, fault.Refused(typev1.ErrorReason_ERROR_REASON_RESERVATION_COMMITTED,
			"the goods of product %s for order %s have left", c.Product, c.Order)
	case ended:
		return nil, nil
	}
	return events(&stockevent.ReservationReleased{
		ProductId: c.Product, OrderId: c.Order, Quantity: s.Held[c.Order], Reason: c.Reason,
	})
}

// Commit means that the goods of an order's reservation have left, all of them.
type Commit struct {
	Product, Order string
}

// Commit ends an order's reservation together with what is on hand for it. Refused with RESERVATION_NOT_HELD where there is
// none, whether it never was, was released, or was committed so long ago that it is not remembered.
func (s *State) Commit(c Commit) ([]proto.Message, error) {
	held, holds := s.Held[c.Order]
	switch {
	case holds:
		return events(&stockevent.ReservationCommitted{ProductId: c.Product, OrderId: c.Order, Quantity: held})
	case s.ended[c.Order].Committed:
		return nil, nil
	}
	return nil, fault.Refused(typev1.ErrorReason_ERROR_REASON_RESERVATION_NOT_HELD,
		"order %s holds nothing of product %s", c.Order, c.Product)
}

func events(m ...proto.Message) ([]proto.Message, error) { return m, nil }
