package fulfillment_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/purserhq/purser/internal/domain/fulfillment"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// maxWorlds bounds an exploration, so that a mistake in the model is an error and no endless loop.
const maxWorlds = 400_000

// exploration is every world that can be reached from the first.
type exploration struct {
	worlds []world
	index  map[string]int
	// before are the worlds from which an item on the list leads to a world.
	before [][]int
	wrong  []string
}

func explore(first world) *exploration {
	x := &exploration{index: map[string]int{}}
	x.add(first)
	for n := 0; n < len(x.worlds) && len(x.wrong) == 0; n++ {
		if len(x.worlds) > maxWorlds {
			x.complain("more than %d worlds", maxWorlds)
			break
		}
		w := x.worlds[n]
		for _, i := range w.listed {
			for _, next := range w.deliver(i) {
				to := x.follow(w, next)
				if slices.Contains(w.todo, i) {
					x.before[to] = append(x.before[to], n)
				}
			}
		}
		for _, next := range w.surroundings() {
			x.follow(w, next)
		}
	}
	if len(x.wrong) == 0 {
		x.findStuck()
	}
	return x
}

func (x *exploration) complain(format string, args ...any) {
	x.wrong = append(x.wrong, fmt.Sprintf(format, args...))
}

func (x *exploration) add(w world) int {
	k := w.key()
	n, ok := x.index[k]
	if !ok {
		n = len(x.worlds)
		x.index[k] = n
		x.worlds = append(x.worlds, w)
		x.before = append(x.before, nil)
		if p := w.problem(); p != "" {
			x.complain("%s:\n%s", p, w)
		}
	}
	return n
}

func (x *exploration) follow(from, to world) int {
	for _, i := range to.todo {
		// Before an order's end a stranger's payment may come in between, once, and has to be voided first.
		between := to.gateway.Foreign && (i == item(mark) || i == item(reject))
		if slices.Contains(from.listed, i) && !slices.Contains(from.todo, i) && !between {
			x.complain("%v is back on the list:\n%s", i, to)
		}
	}
	return x.add(to)
}

// problem is what must never be, in any world, at any moment.
func (w world) problem() string {
	var held int
	for i := range products {
		s := w.stock(stockStream + stream(i))
		if s.Available() < 0 {
			return "stock is oversold"
		}
		if s.Held[orderID] > 0 {
			held++
		}
	}
	switch s := w.orderState().State; {
	case s == typev1.OrderState_ORDER_STATE_REJECTED, s == typev1.OrderState_ORDER_STATE_CANCELLED:
		if held > 0 {
			return "stock is held for a dead order"
		}
		// A stranger's money may come after the order's end; it is on its way back then.
		if w.gateway.holds() && !(w.gateway.Foreign && slices.Contains(w.todo, item(void))) {
			return "money is held for a dead order"
		}
	case s == typev1.OrderState_ORDER_STATE_CONFIRMED:
		if held < len(products) || !w.gateway.holds() || w.gateway.Foreign {
			return "confirmed without all stock and its own money"
		}
	}
	troubled := w.gateway.Outcome == failed || w.gateway.Gone || w.gateway.Foreign || len(w.state.Refusals) > 0
	if w.state.NeedsAttention() && !troubled {
		return "attention for nothing: " + w.state.Attention()
	}
	return ""
}

// ended tells that the order has come to a good end, or that it waits for a person and says so.
func (w world) ended() bool {
	if len(w.todo) > 0 {
		return false
	}
	switch w.orderState().State {
	case typev1.OrderState_ORDER_STATE_CONFIRMED, typev1.OrderState_ORDER_STATE_REJECTED, typev1.OrderState_ORDER_STATE_CANCELLED:
		return true
	}
	return w.state.NeedsAttention()
}

// findStuck goes back from all the ends: from every world one must be in reach by working off the list alone.
func (x *exploration) findStuck() {
	reaches := make([]bool, len(x.worlds))
	var queue []int
	for n, w := range x.worlds {
		if w.ended() {
			reaches[n] = true
			queue = append(queue, n)
		}
	}
	for len(queue) > 0 {
		n := queue[0]
		queue = queue[1:]
		for _, b := range x.before[n] {
			if !reaches[b] {
				reaches[b] = true
				queue = append(queue, b)
			}
		}
	}
	if n := slices.Index(reaches, false); n >= 0 {
		x.complain("no end can be reached from:\n%s", x.worlds[n])
	}
}

// outcomes counts the ends.
func (x *exploration) outcomes() map[string]int {
	ends := map[string]int{}
	for _, w := range x.worlds {
		if w.ended() {
			name := w.orderState().State.String()
			if w.state.NeedsAttention() {
				name = "NEEDS_ATTENTION"
			} else if w.state.Goal == fulfillment.Reject {
				name = w.state.RejectReason.String()
			}
			ends[name]++
		}
	}
	return ends
}

func TestEveryReachableState(t *testing.T) {
	t.Parallel()
	x := explore(newWorld(rules{}, trouble{rivals: true, slowGateway: true}))
	ends := x.outcomes()
	t.Logf("%d worlds, ends: %v", len(x.worlds), ends)
	for _, wrong := range x.wrong {
		t.Error(wrong)
	}
	for _, end := range []string{
		"ORDER_STATE_CONFIRMED", "ORDER_STATE_CANCELLED", "REJECT_REASON_OUT_OF_STOCK", "REJECT_REASON_PAYMENT_DECLINED", "NEEDS_ATTENTION",
	} {
		if ends[end] == 0 {
			t.Errorf("no world ends with %s: the exploration is not what it seems", end)
		}
	}
}

// Somebody else can authorize a payment for the order: it is never confirmed on that, and can be cancelled.
func TestEveryStateWithAForeignAuthorization(t *testing.T) {
	t.Parallel()
	x := explore(newWorld(rules{}, trouble{stranger: true, slowGateway: true}))
	ends := x.outcomes()
	t.Logf("%d worlds, ends: %v", len(x.worlds), ends)
	for _, wrong := range x.wrong {
		t.Error(wrong)
	}
	var foreign, cancelled bool
	for _, w := range x.worlds {
		foreign = foreign || w.ended() && w.gateway.Foreign && w.state.Attention() == "PAYMENT_DIFFERS"
		cancelled = cancelled || w.gateway.Foreign && w.gateway.Voided && w.orderState().State == typev1.OrderState_ORDER_STATE_CANCELLED
	}
	if !foreign || !cancelled {
		t.Errorf("a foreign authorization was noticed: %t, and voided with the order: %t", foreign, cancelled)
	}
}

// The fold alone keeps what is final from being taken back: a list that flaps would do things again.
func TestEveryStateWithLateAnswers(t *testing.T) {
	t.Parallel()
	x := explore(newWorld(rules{}, trouble{forgetful: true, rivals: true}))
	t.Logf("%d worlds, ends: %v", len(x.worlds), x.outcomes())
	for _, wrong := range x.wrong {
		t.Error(wrong)
	}
}

// Whatever is refused for a reason that nobody thought of, the rest goes on and no dead order holds anything.
func TestEveryStateWithARefusal(t *testing.T) {
	t.Parallel()
	x := explore(newWorld(rules{}, trouble{refusals: 1}))
	t.Logf("%d worlds, ends: %v", len(x.worlds), x.outcomes())
	for _, wrong := range x.wrong {
		t.Error(wrong)
	}
}

// Every rule is needed: without it the exploration finds what it keeps from happening. Rule 3, and the part of rule 4 that
// is in RecordVoid, are seen by the explorations above: these try to break them.
func TestWithoutARule(t *testing.T) {
	for name, r := range map[string]rules{
		"1: undo whatever stock may have been asked for": {noUndoOfUnseenStock: true},
		"1: undo a payment that may have been asked for": {noUndoOfUnseenPayment: true},
		"2: an undo leaves a mark":                       {noMarks: true},
		"4: a void first makes the intent definite":      {noDefiniteVoid: true},
		"5: an order is ended when everything is undone": {noWaiting: true},
	} {
		t.Run(name, func(t *testing.T) {
			x := explore(newWorld(r, trouble{slowGateway: true}))
			if len(x.wrong) == 0 {
				t.Fatalf("nothing goes wrong in %d worlds", len(x.worlds))
			}
			t.Logf("after %d worlds: %s", len(x.worlds), x.wrong[0])
		})
	}
}
