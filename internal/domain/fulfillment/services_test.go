package fulfillment_test

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/domain/fulfillment"
	"github.com/purserhq/purser/internal/domain/order"
	"github.com/purserhq/purser/internal/domain/payment"
	"github.com/purserhq/purser/internal/domain/stock"
	"github.com/purserhq/purser/internal/fault"
	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
	stockevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// deliver returns every world that the delivery of an item can lead to.
func (w world) deliver(i fulfillment.Item) []world {
	switch i.Step {
	case fulfillmentevent.Step_STEP_RESERVE_STOCK:
		return w.reserve(i)
	case fulfillmentevent.Step_STEP_RELEASE_STOCK:
		return w.release(i)
	case fulfillmentevent.Step_STEP_AUTHORIZE_PAYMENT:
		return w.authorize(i)
	case fulfillmentevent.Step_STEP_RECONCILE_PAYMENT:
		return w.resume()
	case fulfillmentevent.Step_STEP_VOID_PAYMENT:
		return w.void(i)
	default:
		return w.advance(i)
	}
}

// The executor.

// answered is the world in which an answer is recorded, unless it is no news; the other one is that it is lost.
func (w world) answered(decide func(*fulfillment.Answers) ([]proto.Message, error)) []world {
	var a fulfillment.Answers
	for _, m := range w.streams[answerStream] {
		if !w.trouble.forgetful {
			a.Evolve(m, epoch)
		}
	}
	events, err := decide(&a)
	if err != nil {
		panic(err)
	}
	events = slices.DeleteFunc(events, func(e proto.Message) bool { // a repeat, which the forgetful do not know
		return slices.ContainsFunc(w.streams[answerStream], func(m proto.Message) bool { return proto.Equal(m, e) })
	})
	return []world{w, w.record(answerStream, events...)}
}

func (w world) refused(i fulfillment.Item, err error) []world {
	if fault.Is(err, typev1.ErrorReason_ERROR_REASON_ATTEMPT_EXPIRED) {
		return []world{w} // tried again
	}
	reason := strings.TrimPrefix(fault.Of(err).Reason.String(), "ERROR_REASON_")
	return w.answered(func(a *fulfillment.Answers) ([]proto.Message, error) {
		return a.RecordStepRefused(fulfillment.RecordStepRefused{OrderID: orderID, Item: i, Reason: reason})
	})
}

// The inventory service.

func (w world) productOf(i fulfillment.Item) stream {
	return stockStream + stream(slices.Index(products[:], i.ProductID))
}

func (w world) stock(of stream) *stock.State {
	var s stock.State
	for _, m := range w.streams[of] {
		if released, ok := m.(*stockevent.ReservationReleased); ok && w.rules.noMarks && released.GetQuantity() == 0 {
			continue
		}
		s.Evolve(m, epoch)
	}
	return &s
}

func (w world) reserve(i fulfillment.Item) []world {
	at := w.productOf(i)
	events := w.asked(at)
	if len(events) == 0 {
		var err error
		events, err = w.stock(at).Reserve(stock.Reserve{Product: i.ProductID, Order: orderID, Quantity: quantity, ValidUntil: epoch, Now: epoch})
		if err != nil {
			return w.refused(i, err)
		}
		w = w.record(at, events...)
	}
	return w.answered(func(a *fulfillment.Answers) ([]proto.Message, error) {
		if r, ok := events[0].(*stockevent.StockReservationRejected); ok {
			return a.RecordRefused(fulfillment.RecordRefused{
				OrderID: orderID, ProductID: i.ProductID, Requested: r.GetRequested(), Available: r.GetAvailable(),
			})
		}
		return a.RecordReserved(fulfillment.RecordReserved{OrderID: orderID, ProductID: i.ProductID, Quantity: quantity})
	})
}

// asked is what the order's reservation recorded before: a repeat is answered from it.
func (w world) asked(at stream) []proto.Message {
	for _, m := range w.streams[at] {
		switch e := m.(type) {
		case *stockevent.StockReserved:
			if e.GetOrderId() == orderID {
				return []proto.Message{m}
			}
		case *stockevent.StockReservationRejected:
			return []proto.Message{m}
		}
	}
	return nil
}

func (w world) release(i fulfillment.Item) []world {
	at := w.productOf(i)
	repeat := slices.ContainsFunc(w.streams[at], func(m proto.Message) bool {
		e, ok := m.(*stockevent.ReservationReleased)
		return ok && e.GetOrderId() == orderID
	})
	if !repeat {
		events, err := w.stock(at).Release(stock.Release{Product: i.ProductID, Order: orderID})
		if err != nil {
			panic(err)
		}
		w = w.record(at, events...)
	}
	return w.answered(func(a *fulfillment.Answers) ([]proto.Message, error) {
		return a.RecordReleased(fulfillment.RecordReleased{OrderID: orderID, ProductID: i.ProductID})
	})
}

// The write service.

func (w world) orderState() *order.State {
	var s order.State
	for _, m := range w.streams[orderStream] {
		s.Evolve(m, epoch)
	}
	return &s
}

func (w world) advance(i fulfillment.Item) []world {
	s := w.orderState()
	var events []proto.Message
	var err error
	switch i.Step {
	case fulfillmentevent.Step_STEP_CONFIRM_ORDER:
		if _, repeat := has[*orderevent.OrderConfirmed](w, orderStream); repeat {
			return nil
		}
		events, err = s.Confirm(order.Confirm{ID: orderID})
	case fulfillmentevent.Step_STEP_REJECT_ORDER:
		events, err = s.Reject(order.Reject{ID: orderID, Reason: w.state.RejectReason})
	case fulfillmentevent.Step_STEP_MARK_CANCELLED:
		events, err = s.MarkCancelled(order.MarkCancelled{ID: orderID})
	}
	if err != nil {
		return w.refused(i, err)
	}
	return []world{w.record(orderStream, events...)}
}

// The payment service. A process can die between any two of its appends and calls.

func (w world) paymentState() *payment.State {
	var s payment.State
	for _, m := range w.streams[paymentStream] {
		if _, ok := m.(*paymentevent.PaymentVoided); ok && w.rules.noMarks && s.Void.Status == payment.NotVoided {
			continue
		}
		s.Evolve(m, epoch)
	}
	return &s
}

func (w world) authorize(i fulfillment.Item) []world {
	if w.requested(key) {
		return w.resume() // a repeat
	}
	events, err := w.paymentState().RequestAuthorization(payment.RequestAuthorization{
		OrderID: orderID, CustomerID: "ada", Amount: total, Method: "pm_card_visa", Key: key,
	})
	if err != nil {
		return w.refused(i, err)
	}
	w = w.record(paymentStream, events...)
	return append(w.resume(), w)
}

// requested tells that the intent to authorize under a key is on record.
func (w world) requested(key payment.GatewayKey) bool {
	return slices.ContainsFunc(w.streams[paymentStream], func(m proto.Message) bool {
		e, ok := m.(*paymentevent.AuthorizationRequested)
		return ok && e.GetGatewayKey() == string(key)
	})
}

// resume finds out what becomes of the authorization: the call is made again, under the same key.
func (w world) resume() []world {
	if !w.paymentState().Authorization.Status.Open() {
		return nil
	}
	if w.gateway.Outcome != "" {
		return []world{w, w.authorizationIs(w.gateway.Outcome.result())}
	}
	if w.gateway.Gone {
		return []world{w.authorizationIs(payment.NothingAtGateway)}
	}
	var worlds []world
	for _, o := range w.trouble.outcomes() {
		done := w
		done.gateway.Outcome, done.gateway.InFlight = o, false
		worlds = append(worlds, done, done.authorizationIs(payment.OutcomeLost), done.authorizationIs(o.result()))
	}
	if w.trouble.slowGateway {
		lost := w
		lost.gateway.InFlight = true
		worlds = append(worlds, lost, lost.authorizationIs(payment.OutcomeLost))
	}
	return worlds
}

func (t trouble) outcomes() []outcome {
	if t.slowGateway {
		return []outcome{approved, declined, failed}
	}
	return []outcome{approved, declined}
}

func (o outcome) result() payment.Result {
	switch o {
	case approved:
		return payment.Approved
	case declined:
		return payment.RefusedCustomer
	default:
		return payment.RefusedRequest
	}
}

func (w world) authorizationIs(r payment.Result) world {
	s := w.paymentState()
	events, err := s.RecordAuthorization(payment.RecordAuthorization{Key: s.Authorization.Key, Outcome: payment.Outcome{Result: r}})
	if err != nil {
		panic(err)
	}
	return w.record(paymentStream, events...)
}

func (w world) void(fulfillment.Item) []world {
	_, repeat := has[*paymentevent.VoidRequested](w, paymentStream)
	if _, done := has[*paymentevent.PaymentVoided](w, paymentStream); done {
		return nil
	}
	if !repeat {
		events, err := w.paymentState().RequestVoid(payment.RequestVoid{OrderID: orderID, Key: "7/v"})
		if err != nil {
			panic(err)
		}
		w = w.record(paymentStream, events...)
	}
	s := w.paymentState()
	if !s.Void.Status.Open() {
		return []world{w} // nothing was asked for, or it was declined
	}
	if !s.Authorization.Status.Open() {
		return append(w.giveUp(), w)
	}
	worlds := append(w.hasty(), w)
	definite := w.resume()
	if w.rules.noDefiniteVoid && w.gateway.Outcome == "" {
		definite = []world{w.authorizationIs(payment.NothingAtGateway)} // as a look-up would say
	}
	for _, d := range definite {
		worlds = append(worlds, d)
		if !d.paymentState().Authorization.Status.Open() {
			worlds = append(worlds, d.giveUp()...)
		}
	}
	return worlds
}

// hasty is a service that calls an authorization given up before its outcome is known; the decider keeps it from that.
func (w world) hasty() []world {
	var worlds []world
	for _, lost := range []bool{false, true} {
		if events, err := w.paymentState().RecordVoid(payment.RecordVoid{OrderID: orderID, Lost: lost}); err == nil {
			worlds = append(worlds, w.record(paymentStream, events...))
		}
	}
	return worlds
}

// giveUp gives back the money of an authorization whose outcome is on record, if it holds any.
func (w world) giveUp() []world {
	done := w
	if w.paymentState().Authorization.Status != payment.Authorized {
		return []world{done.voidIs(false)}
	}
	done.gateway.Voided = true
	return []world{done, done.voidIs(false), done.voidIs(true), w.voidIs(true)}
}

func (w world) voidIs(lost bool) world {
	events, err := w.paymentState().RecordVoid(payment.RecordVoid{OrderID: orderID, Lost: lost})
	if err != nil {
		panic(err)
	}
	return w.record(paymentStream, events...)
}

// surroundings returns every world that others can make of this one: the customer, other customers, the network.
func (w world) surroundings() []world {
	var worlds []world
	if events, err := w.orderState().Cancel(order.Cancel{ID: orderID}); err == nil && len(events) > 0 {
		worlds = append(worlds, w.record(orderStream, events...))
	}
	for i := range products {
		worlds = append(worlds, w.rival(stockStream+stream(i))...)
	}
	worlds = append(worlds, w.stranger()...)
	if w.gateway.InFlight {
		gone := w
		gone.gateway.InFlight, gone.gateway.Gone = false, true
		worlds = append(worlds, gone)
		for _, o := range w.trouble.outcomes() {
			arrived := w
			arrived.gateway.InFlight, arrived.gateway.Outcome = false, o
			worlds = append(worlds, arrived)
		}
	}
	if w.trouble.refusals > 0 {
		for _, i := range w.listed {
			strange := w
			strange.trouble.refusals--
			worlds = append(worlds, strange.refused(i, fault.Refused(typev1.ErrorReason_ERROR_REASON_STOCK_LIMIT, "strange"))...)
		}
	}
	return worlds
}

// rival is another order, which takes all that is left of a product, and gives it back, once.
func (w world) rival(at stream) []world {
	s := w.stock(at)
	product := products[at-stockStream]
	switch {
	case !w.trouble.rivals:
		return nil
	case s.Held[other] > 0:
		events, _ := s.Release(stock.Release{Product: product, Order: other})
		return []world{w.record(at, events...)}
	case s.Available() == 0:
		return nil
	}
	events, err := s.Reserve(stock.Reserve{Product: product, Order: other, Quantity: s.Available(), Now: epoch})
	switch {
	case fault.Is(err, typev1.ErrorReason_ERROR_REASON_RESERVATION_ENDED):
		return nil
	case err != nil:
		panic(fmt.Sprint("the other order: ", err))
	}
	return []world{w.record(at, events...)}
}

// stranger is somebody other than the saga, who asks for an authorization of another amount, once. Further deliveries of
// the saga's own resume it, or a void does.
func (w world) stranger() []world {
	const strangers = payment.GatewayKey("7/s")
	if !w.trouble.stranger || w.requested(strangers) {
		return nil
	}
	events, err := w.paymentState().RequestAuthorization(payment.RequestAuthorization{
		OrderID: orderID, CustomerID: "ada", Amount: &typev1.Money{CurrencyCode: "EUR", AmountMinor: 1}, Method: "pm_card_visa", Key: strangers,
	})
	if err != nil || len(events) == 0 {
		return nil // refused: it is voided, or the saga was faster
	}
	w.gateway = gateway{Foreign: true}
	w = w.record(paymentStream, events...)
	return append(w.resume(), w)
}
