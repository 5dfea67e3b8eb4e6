package fulfillment_test

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/domain/fulfillment"
	"github.com/purserhq/purser/internal/domain/payment"
	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
	stockevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// world is one order with two lines: the streams that the services write, decided by the real deciders, what the gateway
// knows, and the saga that folds the log. It is a value: every step returns other worlds and changes nothing.
//
// What crashes, slow networks and repeats can do is covered like this: any item that ever stood on the list can be
// delivered at any later time, any number of times, to its end or only up to one of its appends, and its answer can be
// lost. A late answer is the answer to a late repeat, because a repeat is answered from the events of the first time.
type world struct {
	rules   rules
	streams [streamCount][]proto.Message
	gateway gateway
	*saga
	listed  []fulfillment.Item // all that ever stood on the list
	trouble trouble
	digests [streamCount][]uint64 // of the events
}

// saga is what the saga makes of the log. It is the same for many worlds, so each is folded once.
type saga struct {
	state fulfillment.State
	row   []byte // the state as it is stored
	todo  []fulfillment.Item
	next  map[uint64]*saga // by the digest of the next event
}

type stream int

const (
	orderStream stream = iota
	paymentStream
	answerStream
	stockStream // of the first product; that of the second follows
	streamCount = stockStream + 2
)

// gateway is what happened to the money, whoever heard of it. Every call to authorize carries the same key.
type gateway struct {
	InFlight bool // a call may yet arrive
	Outcome  outcome
	Gone     bool // whatever was sent is lost for good and the key is forgotten
	Voided   bool
	Foreign  bool // it is somebody else's call, under another key: the saga's own, if there was one, never happened
}

type outcome string

const (
	approved outcome = "approved"
	declined outcome = "declined"
	failed   outcome = "failed"
)

func (g gateway) holds() bool { return g.Outcome == approved && !g.Voided }

// rules are those of the package that a test leaves out.
type rules struct{ noUndoOfUnseenStock, noUndoOfUnseenPayment, noMarks, noDefiniteVoid, noWaiting bool }

// trouble is what may still happen to a world.
type trouble struct {
	rivals      bool // other orders take the goods and give them back
	slowGateway bool // calls arrive late or never, answers get lost, the gateway refuses us
	forgetful   bool // answers are recorded whatever is known already, late ones after those that replaced them
	stranger    bool // somebody else asks for an authorization, of another amount
	refusals    int  // as many items may be refused for reasons that nobody thought of
}

const (
	orderID  = "7"
	other    = "8" // another order, which wants the same goods
	quantity = 2
	key      = payment.GatewayKey("7/r")
)

var (
	products = [2]string{"mug", "pen"}
	epoch    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	total    = &typev1.Money{CurrencyCode: "EUR", AmountMinor: 3200}
)

func orderPlaced() *orderevent.OrderPlaced {
	return &orderevent.OrderPlaced{
		OrderId: orderID, CustomerId: "ada", Total: total, PaymentMethod: proto.String("pm_card_visa"),
		Priority: typev1.Priority_PRIORITY_EXPEDITED,
		Lines: []*orderevent.OrderLine{
			{ProductId: products[0], Quantity: quantity}, {ProductId: products[1], Quantity: quantity},
		},
	}
}

// newWorld is the world right after the order was placed, with enough of both products on hand.
func newWorld(r rules, t trouble) world {
	w := world{rules: r, trouble: t, saga: &saga{next: map[uint64]*saga{}}}
	for i, p := range products {
		w = w.record(stockStream+stream(i), &stockevent.StockReceived{ProductId: p, Quantity: quantity})
	}
	return w.record(orderStream, orderPlaced())
}

// record appends events to a stream. The saga folds them at once, and what it lists may be done from then on.
func (w world) record(to stream, events ...proto.Message) world {
	if len(events) == 0 {
		return w
	}
	w.streams[to] = append(slices.Clip(w.streams[to]), events...)
	w.digests[to] = slices.Clip(w.digests[to])
	w.listed = slices.Clone(w.listed)
	for _, m := range events {
		d := digest(m)
		w.digests[to] = append(w.digests[to], d)
		if to >= stockStream {
			continue // the saga reads no stock
		}
		w.saga = w.saga.fold(m, d, w.rules)
		for _, i := range w.todo {
			if !slices.Contains(w.listed, i) {
				w.listed = append(w.listed, i)
			}
		}
	}
	slices.SortFunc(w.listed, func(a, b fulfillment.Item) int {
		return cmp.Or(cmp.Compare(a.Step, b.Step), strings.Compare(a.ProductID, b.ProductID))
	})
	return w
}

// fold is the saga after an event. The state goes through its row every time, as in the service.
func (s *saga) fold(m proto.Message, d uint64, r rules) *saga {
	if next, ok := s.next[d]; ok {
		return next
	}
	state := restored(s.row)
	state.Evolve(m, epoch)
	next := &saga{state: state, row: stored(state), todo: r.list(restored(stored(state))), next: map[uint64]*saga{}}
	s.next[d] = next
	return next
}

var seed = maphash.MakeSeed()

func digest(m proto.Message) uint64 { return maphash.String(seed, described(m)) }

func described(m proto.Message) string {
	return fmt.Sprintf("%s{%v}", m.ProtoReflect().Descriptor().Name(), m)
}

// stored and restored are what happens to a state in a row.
func stored(s fulfillment.State) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return b
}

func restored(b []byte) fulfillment.State {
	var s fulfillment.State
	if len(b) > 0 {
		if err := json.Unmarshal(b, &s); err != nil {
			panic(err)
		}
	}
	return s
}

// list is what is to be done in a state, without the rules that are left out.
func (r rules) list(s fulfillment.State) []fulfillment.Item {
	undo := s.Goal == fulfillment.Reject || s.Goal == fulfillment.Cancel
	if r.noUndoOfUnseenStock && undo {
		for i := range s.Lines {
			if s.Lines[i].Fact == fulfillment.NoAnswer {
				s.Lines[i].Fact = fulfillment.Released
			}
		}
	}
	if r.noUndoOfUnseenPayment && undo {
		s.Payment.Asked = s.Payment.Authorization != fulfillment.Unasked
	}
	items := s.ToDo()
	if r.noWaiting && undo {
		last := fulfillment.Item{Step: fulfillmentevent.Step_STEP_REJECT_ORDER}
		if s.Goal == fulfillment.Cancel {
			last.Step = fulfillmentevent.Step_STEP_MARK_CANCELLED
		}
		ended := s.Order == typev1.OrderState_ORDER_STATE_REJECTED || s.Order == typev1.OrderState_ORDER_STATE_CANCELLED
		if !ended && !slices.Contains(items, last) {
			items = append(items, last)
		}
	}
	return items
}

// key tells worlds apart that may have different futures. The answers are a set: their order makes no difference.
func (w world) key() string {
	var b []byte
	for i, digests := range w.digests {
		if stream(i) == answerStream {
			digests = slices.Sorted(slices.Values(digests))
		}
		for _, d := range digests {
			b = binary.BigEndian.AppendUint64(b, d)
		}
		b = append(b, '\n')
	}
	b = fmt.Appendf(b, "%v %d ", w.gateway, w.trouble.refusals)
	for _, i := range w.listed {
		b = append(append(b, byte('0'+i.Step)), i.ProductID...)
	}
	return string(append(b, w.row...))
}

func (w world) String() string {
	var b strings.Builder
	for _, events := range w.streams {
		for _, m := range events {
			fmt.Fprintln(&b, described(m))
		}
	}
	fmt.Fprintf(&b, "gateway %+v\nsaga %s\nlisted %v, ever %v\n", w.gateway, w.row, w.todo, w.listed)
	return b.String()
}

// has returns the first event of a type in a stream.
func has[M proto.Message](w world, in stream) (M, bool) {
	for _, m := range w.streams[in] {
		if e, ok := m.(M); ok {
			return e, true
		}
	}
	var none M
	return none, false
}
