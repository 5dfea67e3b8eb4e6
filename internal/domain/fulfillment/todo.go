package fulfillment

import (
	"slices"
	"strings"

	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// Item is one thing to do for an order.
type Item struct {
	Step fulfillmentevent.Step `json:"step"`
	// ProductID is set for the steps that concern one line.
	ProductID string `json:"product_id,omitempty"`
}

// ToDo is what would bring the facts to the goal, and nothing once they are there. Its items are independent of each
// other: they may be done in any order, at the same time, and more than once.
//
//	goal            facts                                                     to do
//	Fulfil          a line with no answer yet                                 reserve the line
//	Fulfil          all lines held, payment none or only intended             authorize the payment
//	Fulfil          payment outcome unknown                                   reconcile the payment
//	Fulfil          all lines held, payment authorized, order PLACED          confirm the order
//	Reject, Cancel  a line not at its end                                     release the line
//	Reject, Cancel  payment ever asked and not at its end                     void the payment
//	Reject          every line and the payment at their end, order PLACED     reject the order
//	Cancel          every line and the payment at their end, order CANCELLING mark it cancelled
//
// At its end is a line refused or released, and a payment never asked, declined or voided. A refused item is not on the
// list, and neither is one on a payment that is contradicted, nor one that would use a payment of another amount or
// customer than the order's: they wait for a person (see [State.Attention]).
func (s *State) ToDo() []Item {
	return slices.DeleteFunc(s.wanted(), func(i Item) bool { return s.refusal(i) != nil })
}

// wanted is the list without regard to refusals.
func (s *State) wanted() []Item {
	var (
		fulfil  = s.Goal == Fulfil
		undo    = s.Goal == Reject || s.Goal == Cancel
		held    = !s.anyLine(func(l Line) bool { return l.Fact != Held })
		undone  = s.Payment.atEnd() && !s.anyLine(func(l Line) bool { return !l.atEnd() })
		payment = s.Payment
		payable = fulfil && !payment.Contradicted && s.unusable() == ""
	)
	var items []Item
	for _, l := range s.Lines {
		switch {
		case fulfil && l.Fact == NoAnswer:
			items = append(items, Item{fulfillmentevent.Step_STEP_RESERVE_STOCK, l.ProductID})
		case undo && !l.atEnd():
			items = append(items, Item{fulfillmentevent.Step_STEP_RELEASE_STOCK, l.ProductID})
		}
	}
	for _, rule := range []struct {
		holds bool
		step  fulfillmentevent.Step
	}{
		{payable && held && (payment.Authorization == Unasked || payment.Authorization == Requested), fulfillmentevent.Step_STEP_AUTHORIZE_PAYMENT},
		{payable && payment.Authorization == Unknown, fulfillmentevent.Step_STEP_RECONCILE_PAYMENT},
		{payable && held && payment.Authorization == Authorized && s.Order == typev1.OrderState_ORDER_STATE_PLACED, fulfillmentevent.Step_STEP_CONFIRM_ORDER},
		{undo && !payment.atEnd() && !payment.Contradicted, fulfillmentevent.Step_STEP_VOID_PAYMENT},
		{s.Goal == Reject && undone && s.Order == typev1.OrderState_ORDER_STATE_PLACED, fulfillmentevent.Step_STEP_REJECT_ORDER},
		{s.Goal == Cancel && undone && s.Order == typev1.OrderState_ORDER_STATE_CANCELLING, fulfillmentevent.Step_STEP_MARK_CANCELLED},
	} {
		if rule.holds {
			items = append(items, Item{Step: rule.step})
		}
	}
	return items
}

func (s *State) refusal(i Item) *Refusal {
	n := slices.IndexFunc(s.Refusals, func(r Refusal) bool { return r.Item == i })
	if n < 0 {
		return nil
	}
	return &s.Refusals[n]
}

// NeedsAttention tells that the order can't reach its goal unless a person helps.
func (s *State) NeedsAttention() bool { return s.Attention() != "" }

// Attention is why a person has to look at the order: the first reason there is, or "".
func (s *State) Attention() string {
	if s.Payment.Contradicted {
		return "PAYMENT_CONTRADICTED"
	}
	for _, i := range s.wanted() {
		if r := s.refusal(i); r != nil {
			words := []string{strings.TrimPrefix(i.Step.String(), "STEP_"), i.ProductID, r.Reason}
			return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " ")
		}
	}
	if s.Goal != Fulfil {
		return ""
	}
	if s.anyLine(Line.atEnd) {
		return "LINE_NOT_HELD" // of an order that somebody confirmed all the same
	}
	return s.unusable()
}
