// Package fulfillment is the saga of an order: what the order is meant to become, what is known so far, and what is
// still to be done. Nothing here acts; package saga works the list off.
//
// [State] folds the order's events, its payment's and the answers recorded in its own stream, and [State.ToDo] derives
// from it what would bring the facts to the goal. Nothing is remembered but facts, so a message that is lost, late or
// repeated, or sent by a process thought dead, is at worst a fact that does not fit the goal, and its undoing is on the
// list. Five rules make that safe:
//
//  1. Whatever may ever have been asked is undone, not only what was seen to happen.
//  2. An undo leaves a mark where there is nothing to undo, and the mark refuses the late action (packages stock and payment).
//  3. Released and voided are final: what is heard of a line or a payment afterwards changes nothing.
//  4. A void first makes an authorization that is under way definite (package payment).
//  5. An order is ended only when every line and the payment are at their end. Races between confirming, rejecting and
//     cancelling are settled by the order's own decider (package order).
//
// The package's tests explore every reachable state of an order with two lines, and fail when one of these is left out.
package fulfillment

import (
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// State is one order's goal and facts. The zero value is an order that was not placed. It is plain data and survives
// encoding/json unchanged.
type State struct {
	Goal Goal `json:"goal,omitempty"`
	// RejectReason is why the goal is Reject.
	RejectReason typev1.RejectReason `json:"reject_reason,omitempty"`
	Order        typev1.OrderState   `json:"order,omitempty"`
	Lines        []Line              `json:"lines,omitempty"`
	Payment      Payment             `json:"payment"`
	// Refusals are the items that were refused for reasons that no rule here covers. They stay off the list.
	Refusals []Refusal `json:"refusals,omitempty"`

	CustomerID string `json:"customer_id,omitempty"`
	// Method is the token of the payment method: personal data.
	Method   string          `json:"method,omitempty"`
	Currency string          `json:"currency,omitempty"`
	Total    int64           `json:"total_minor,omitempty"` // minor units
	Priority typev1.Priority `json:"priority,omitempty"`
}

// Goal is what an order is meant to become.
type Goal string

const (
	Fulfil Goal = "FULFIL"
	Reject Goal = "REJECT" // it can't be fulfilled; from Fulfil only
	Cancel Goal = "CANCEL" // the customer wants it no more; final
)

// Line is one product of an order.
type Line struct {
	ProductID string   `json:"product_id"`
	Quantity  int64    `json:"quantity"`
	Fact      LineFact `json:"fact"`
}

// LineFact is what is known of a line's reservation. Facts only ever replace lesser ones, whatever the order in which
// they arrive: a release is final, and a reservation that is held outweighs an earlier refusal, because it has to be undone.
type LineFact uint8

const (
	NoAnswer LineFact = iota
	Refused
	Held
	Released
)

// atEnd tells that nothing is held for the line, and nothing will be.
func (l Line) atEnd() bool { return l.Fact == Refused || l.Fact == Released }

// Payment is what is known of an order's payment.
type Payment struct {
	// Asked: an authorization may have been asked for, as it has been on the list.
	Asked         bool          `json:"asked,omitempty"`
	Authorization Authorization `json:"authorization,omitempty"`
	Void          Void          `json:"void,omitempty"`
	// What the authorization was asked for, by whoever asked.
	CustomerID string `json:"customer_id,omitempty"`
	Currency   string `json:"currency,omitempty"`
	Amount     int64  `json:"amount_minor,omitempty"` // minor units
	// Contradicted: the gateway gave two different answers; only a person can tell what is true.
	Contradicted bool `json:"contradicted,omitempty"`
}

// Authorization is what is known of the call that holds the money.
type Authorization string

const (
	Unasked       Authorization = ""
	Requested     Authorization = "REQUESTED"       // the intent is on record, the outcome is not
	Unknown       Authorization = "OUTCOME_UNKNOWN" // the answer was lost
	Authorized    Authorization = "AUTHORIZED"
	Declined      Authorization = "DECLINED"
	Failed        Authorization = "FAILED"         // refused to us, not to the customer; no retry cures it
	NeverHappened Authorization = "NEVER_HAPPENED" // the call never arrived and can't any more
)

// Void is what is known of the call that gives the money back.
type Void string

const (
	NotVoided Void = ""
	Voiding   Void = "VOIDING" // asked for, and not known to be done
	Voided    Void = "VOIDED"
)

// atEnd tells that no money is held, and none will be.
func (p Payment) atEnd() bool {
	switch {
	case p.Contradicted:
		return false // money may be held, whatever the record says
	case p.Void == Voided:
		return true
	default:
		return !p.Asked || p.Authorization == Declined
	}
}

// unusable is why an order that is to be fulfilled can't be paid, where no rule says what becomes of it then; else "".
//
// An authorization that failed, or never happened, is our fault or the gateway's: to reject the order would make the
// customer pay for it. One that was voided, or declined after the order was confirmed, is somebody else's doing. In
// each case a person decides; cancelling the order is always possible. So it is with an authorization that is not of
// this order's total and customer: others than the saga can ask for one, and then the order's own is refused.
func (s *State) unusable() string {
	p := s.Payment
	switch {
	case p.Void != NotVoided:
		return "PAYMENT_VOIDED"
	case s.paymentDiffers():
		return "PAYMENT_DIFFERS"
	case p.Authorization == Failed:
		return "AUTHORIZATION_FAILED"
	case p.Authorization == NeverHappened:
		return "AUTHORIZATION_NEVER_HAPPENED"
	case p.Authorization == Declined:
		return "PAYMENT_DECLINED"
	}
	return ""
}

// paymentDiffers tells that what was asked for is not what the order comes to.
func (s *State) paymentDiffers() bool {
	p := s.Payment
	return p.Authorization != Unasked && (p.CustomerID != s.CustomerID || p.Currency != s.Currency || p.Amount != s.Total)
}

// Refusal is an item that was refused, and why.
type Refusal struct {
	Item
	Reason string `json:"reason"`
}
