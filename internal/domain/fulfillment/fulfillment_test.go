package fulfillment_test

import (
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/domain/fulfillment"
	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const (
	reserve   = fulfillmentevent.Step_STEP_RESERVE_STOCK
	release   = fulfillmentevent.Step_STEP_RELEASE_STOCK
	authorize = fulfillmentevent.Step_STEP_AUTHORIZE_PAYMENT
	reconcile = fulfillmentevent.Step_STEP_RECONCILE_PAYMENT
	void      = fulfillmentevent.Step_STEP_VOID_PAYMENT
	confirm   = fulfillmentevent.Step_STEP_CONFIRM_ORDER
	reject    = fulfillmentevent.Step_STEP_REJECT_ORDER
	mark      = fulfillmentevent.Step_STEP_MARK_CANCELLED

	noStock  = typev1.RejectReason_REJECT_REASON_OUT_OF_STOCK
	noCredit = typev1.RejectReason_REJECT_REASON_PAYMENT_DECLINED
)

// The events that the tables speak of.
var (
	placed       = orderPlaced()
	confirmed    = &orderevent.OrderConfirmed{OrderId: orderID}
	rejected     = &orderevent.OrderRejected{OrderId: orderID, Reason: noStock}
	cancelling   = &orderevent.OrderCancellationRequested{OrderId: orderID}
	cancelled    = &orderevent.OrderCancelled{OrderId: orderID}
	requested    = asked("ada", total)
	authorized   = &paymentevent.PaymentAuthorized{OrderId: orderID}
	creditNo     = &paymentevent.AuthorizationDeclined{OrderId: orderID}
	failure      = &paymentevent.AuthorizationFailed{OrderId: orderID}
	unknown      = &paymentevent.AuthorizationOutcomeUnknown{OrderId: orderID}
	voiding      = &paymentevent.VoidRequested{OrderId: orderID}
	voidUnknown  = &paymentevent.VoidOutcomeUnknown{OrderId: orderID}
	voided       = &paymentevent.PaymentVoided{OrderId: orderID}
	foreign      = asked("ada", &typev1.Money{CurrencyCode: "EUR", AmountMinor: 1})
	contradicted = &paymentevent.PaymentContradicted{OrderId: orderID}
)

func asked(customer string, amount *typev1.Money) proto.Message {
	return &paymentevent.AuthorizationRequested{OrderId: orderID, CustomerId: customer, Amount: amount}
}

func reconciled(o paymentevent.ReconciledOutcome) proto.Message {
	return &paymentevent.PaymentReconciled{OrderId: orderID, Outcome: o}
}

var (
	wasAuthorized = reconciled(paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_AUTHORIZED)
	wasDeclined   = reconciled(paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_DECLINED)
	neverHappened = reconciled(paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_NEVER_HAPPENED)
)

func held(i int) proto.Message {
	return &fulfillmentevent.LineReserved{OrderId: orderID, ProductId: products[i], Quantity: quantity}
}

func refused(i int) proto.Message {
	return &fulfillmentevent.LineRefused{OrderId: orderID, ProductId: products[i], Requested: quantity}
}

func released(i int) proto.Message {
	return &fulfillmentevent.LineReleased{OrderId: orderID, ProductId: products[i]}
}

func stepRefused(s fulfillmentevent.Step, product string) proto.Message {
	return &fulfillmentevent.StepRefused{OrderId: orderID, Step: s, ProductId: product, Reason: "WHY"}
}

func item(s fulfillmentevent.Step) fulfillment.Item { return fulfillment.Item{Step: s} }

func line(s fulfillmentevent.Step, i int) fulfillment.Item {
	return fulfillment.Item{Step: s, ProductID: products[i]}
}

func fold(past ...proto.Message) fulfillment.State {
	var s fulfillment.State
	for _, m := range past {
		s.Evolve(m, epoch)
	}
	return s
}

func TestToDo(t *testing.T) {
	type past = []proto.Message
	type list = []fulfillment.Item
	ready := past{placed, held(0), held(1)}
	after := func(p past, more ...proto.Message) past { return append(slices.Clone(p), more...) }
	for _, c := range []struct {
		name      string
		given     past
		todo      list
		attention string
	}{
		{"nothing", nil, nil, ""},
		{"a payment without an order", past{requested, authorized}, nil, ""},
		{"placed", past{placed}, list{line(reserve, 0), line(reserve, 1)}, ""},
		{"one line held", past{placed, held(1)}, list{line(reserve, 0)}, ""},
		{"both held", ready, list{item(authorize)}, ""},
		{"intended", after(ready, requested), list{item(authorize)}, ""},
		{"outcome unknown", after(ready, requested, unknown), list{item(reconcile)}, ""},
		{"authorized", after(ready, requested, authorized), list{item(confirm)}, ""},
		{"reconciled", after(ready, requested, unknown, wasAuthorized), list{item(confirm)}, ""},
		{"confirmed", after(ready, requested, authorized, confirmed), nil, ""},

		{"one line refused", past{placed, refused(0)}, list{line(release, 1)}, ""},
		{"one refused, one held", past{placed, held(1), refused(0)}, list{line(release, 1)}, ""},
		{"one refused, one released", past{placed, refused(0), released(1)}, list{item(reject)}, ""},
		{"both refused", past{placed, refused(0), refused(1)}, list{item(reject)}, ""},
		{"rejected", past{placed, refused(0), refused(1), rejected}, nil, ""},
		{"declined", after(ready, requested, creditNo), list{line(release, 0), line(release, 1)}, ""},
		{"declined after all", after(ready, requested, unknown, wasDeclined), list{line(release, 0), line(release, 1)}, ""},
		{"declined, all released", after(ready, requested, creditNo, released(0), released(1)), list{item(reject)}, ""},

		{"cancelled at once", past{placed, cancelling}, list{line(release, 0), line(release, 1)}, ""},
		{"cancelled with a line held", past{placed, held(0), cancelling}, list{line(release, 0), line(release, 1)}, ""},
		{"cancelled with a line refused", past{placed, refused(0), cancelling}, list{line(release, 1)}, ""},
		{"cancelled when a payment may be asked for", after(ready, cancelling), list{line(release, 0), line(release, 1), item(void)}, ""},
		{"cancelled when it was", after(ready, requested, cancelling), list{line(release, 0), line(release, 1), item(void)}, ""},
		{"cancelled, outcome unknown", after(ready, requested, unknown, cancelling), list{line(release, 0), line(release, 1), item(void)}, ""},
		{"cancelled after confirmation", after(ready, requested, authorized, confirmed, cancelling), list{line(release, 0), line(release, 1), item(void)}, ""},
		{"cancelled, declined", after(ready, requested, cancelling, creditNo), list{line(release, 0), line(release, 1)}, ""},
		{"cancelled, void under way", after(ready, requested, cancelling, voiding, authorized, voidUnknown, released(0)), list{line(release, 1), item(void)}, ""},
		{"cancelled, voided", after(ready, requested, authorized, cancelling, voided), list{line(release, 0), line(release, 1)}, ""},
		{"cancelled, all undone", after(ready, requested, authorized, cancelling, voided, released(0), released(1)), list{item(mark)}, ""},
		{"cancelled, all undone, late facts", after(ready, requested, cancelling, voided, released(0), released(1), authorized, held(0)), list{item(mark)}, ""},
		{"cancelled and marked", past{placed, cancelling, released(0), released(1), cancelled}, nil, ""},
		{"cancelled while being rejected", past{placed, refused(0), cancelling, released(1)}, list{item(mark)}, ""},

		{"held after it was refused", past{placed, refused(0), held(0), released(1)}, list{line(release, 0)}, ""},
		{"rejected by somebody else", past{placed, held(0), rejected}, list{line(release, 0), line(release, 1)}, ""},
		{"confirmed by somebody else", past{placed, confirmed}, list{line(reserve, 0), line(reserve, 1)}, ""},
		{"confirmed by somebody else, refused", past{placed, confirmed, refused(0)}, list{line(reserve, 1)}, "LINE_NOT_HELD"},
		{"voided by somebody else", after(ready, requested, authorized, voiding), nil, "PAYMENT_VOIDED"},
		{"voided by somebody else, cancelled", after(ready, voided, cancelling, released(0), released(1)), list{item(mark)}, ""},

		{"failed", after(ready, requested, failure), nil, "AUTHORIZATION_FAILED"},
		{"failed, cancelled", after(ready, requested, failure, cancelling), list{line(release, 0), line(release, 1), item(void)}, ""},
		{"never happened", after(ready, requested, unknown, neverHappened), nil, "AUTHORIZATION_NEVER_HAPPENED"},
		{"never happened, cancelled", after(ready, requested, unknown, neverHappened, cancelling), list{line(release, 0), line(release, 1), item(void)}, ""},
		{"contradicted", after(ready, requested, authorized, contradicted), nil, "PAYMENT_CONTRADICTED"},
		{"contradicted, cancelled", after(ready, requested, creditNo, contradicted, cancelling, released(0)), list{line(release, 1)}, "PAYMENT_CONTRADICTED"},

		{"another customer's, authorized", after(ready, asked("eve", total), authorized), nil, "PAYMENT_DIFFERS"},
		{"of another amount, authorized before the order was placed", past{foreign, authorized, placed, held(0), held(1)}, nil, "PAYMENT_DIFFERS"},
		{"of another currency, outcome unknown", after(ready, asked("ada", &typev1.Money{CurrencyCode: "USD", AmountMinor: total.GetAmountMinor()}), unknown), nil, "PAYMENT_DIFFERS"},
		{"of another amount, intended", past{placed, foreign}, list{line(reserve, 0), line(reserve, 1)}, "PAYMENT_DIFFERS"},
		{"of another amount, declined", after(ready, foreign, creditNo), nil, "PAYMENT_DIFFERS"},
		{"of another amount, voided", after(ready, foreign, authorized, voiding, voided), nil, "PAYMENT_VOIDED"},
		{"of another amount, confirmed by somebody else", after(ready, foreign, authorized, confirmed), nil, "PAYMENT_DIFFERS"},
		{"of another amount, cancelled", after(ready, foreign, authorized, cancelling), list{line(release, 0), line(release, 1), item(void)}, ""},
		{"of another amount, out of stock", past{placed, foreign, authorized, refused(0), refused(1)}, list{item(void)}, ""},
		{"of another amount, and ours was refused for it", after(ready, stepRefused(authorize, ""), foreign, authorized), nil, "PAYMENT_DIFFERS"},

		{"a step refused", past{placed, stepRefused(reserve, "mug")}, list{line(reserve, 1)}, "RESERVE_STOCK mug WHY"},
		{"a step refused, cancelled", past{placed, stepRefused(reserve, "mug"), cancelling}, list{line(release, 0), line(release, 1)}, ""},
		{"a step refused that is not on the list", past{placed, cancelling, stepRefused(reserve, "mug")}, list{line(release, 0), line(release, 1)}, ""},
		{"an undo refused", past{placed, cancelling, stepRefused(release, "mug"), released(1)}, nil, "RELEASE_STOCK mug WHY"},
		{"the payment refused", after(ready, stepRefused(authorize, "")), nil, "AUTHORIZE_PAYMENT WHY"},
		{"the payment refused, cancelled", after(ready, stepRefused(authorize, ""), cancelling, released(0), released(1)), list{item(void)}, ""},
	} {
		s := fold(c.given...)
		if got := s.ToDo(); !slices.Equal(got, c.todo) {
			t.Errorf("%s: to do %v, want %v", c.name, got, c.todo)
		}
		if got := s.Attention(); got != c.attention || s.NeedsAttention() != (got != "") {
			t.Errorf("%s: attention %q, want %q", c.name, got, c.attention)
		}
		if again := restored(stored(s)); !reflect.DeepEqual(again, s) {
			t.Errorf("%s: stored as %+v, read as %+v", c.name, s, again)
		}
	}
}

func TestEvolveKeepsWhatStepsNeed(t *testing.T) {
	s := fold(placed, refused(1))
	if s.CustomerID != "ada" || s.Method != "pm_card_visa" || s.Currency != "EUR" || s.Total != 3200 ||
		s.Priority != typev1.Priority_PRIORITY_EXPEDITED || s.RejectReason != noStock || s.Lines[0].Quantity != quantity {
		t.Errorf("%+v", s)
	}
	if s := fold(placed, held(0), held(1), requested, creditNo); s.RejectReason != noCredit {
		t.Errorf("reason %v", s.RejectReason)
	}
}

// However three streams are interleaved, they come to the same.
func TestAnyInterleaving(t *testing.T) {
	streams := [3][]proto.Message{
		{placed, cancelling, cancelled},
		{requested, unknown, wasAuthorized, voiding, voided},
		{held(0), released(0), released(1)},
	}
	var merged int
	var merge func(past []proto.Message, rest [3][]proto.Message)
	want := fold(slices.Concat(streams[0], streams[1], streams[2])...)
	want.Payment.Asked = true
	slices.SortFunc(want.Lines, byProduct)
	merge = func(past []proto.Message, rest [3][]proto.Message) {
		done := true
		for i, r := range rest {
			if len(r) > 0 {
				done = false
				next := rest
				next[i] = r[1:]
				merge(append(slices.Clip(past), r[0]), next)
			}
		}
		if !done {
			return
		}
		merged++
		got := fold(past...)
		slices.SortFunc(got.Lines, byProduct)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%v\nfolds to %+v\nnot to    %+v", past, got, want)
		}
	}
	merge(nil, streams)
	if merged != 9240 { // 11! / (3! 5! 3!)
		t.Errorf("%d interleavings", merged)
	}
}

func byProduct(a, b fulfillment.Line) int {
	if a.ProductID < b.ProductID {
		return -1
	}
	return 1
}

func TestAnswers(t *testing.T) {
	type past = []proto.Message
	type decide = func(*fulfillment.Answers) ([]proto.Message, error)
	holds := func(a *fulfillment.Answers) ([]proto.Message, error) {
		return a.RecordReserved(fulfillment.RecordReserved{OrderID: orderID, ProductID: "mug", Quantity: quantity})
	}
	tooFew := func(a *fulfillment.Answers) ([]proto.Message, error) {
		return a.RecordRefused(fulfillment.RecordRefused{OrderID: orderID, ProductID: "mug", Requested: quantity})
	}
	ends := func(a *fulfillment.Answers) ([]proto.Message, error) {
		return a.RecordReleased(fulfillment.RecordReleased{OrderID: orderID, ProductID: "mug"})
	}
	strange := func(a *fulfillment.Answers) ([]proto.Message, error) {
		return a.RecordStepRefused(fulfillment.RecordStepRefused{OrderID: orderID, Item: line(reserve, 0), Reason: "WHY"})
	}
	for _, c := range []struct {
		name  string
		given past
		when  decide
		then  proto.Message
	}{
		{"reserved", nil, holds, held(0)},
		{"reserved again", past{held(0)}, holds, nil},
		{"reserved, the other line", past{held(1)}, holds, held(0)},
		{"reserved after it was refused", past{refused(0)}, holds, held(0)},
		{"reserved after it was released", past{released(0)}, holds, nil},
		{"refused", nil, tooFew, refused(0)},
		{"refused again", past{refused(0)}, tooFew, nil},
		{"refused while held", past{held(0)}, tooFew, nil},
		{"refused after it was released", past{released(0)}, tooFew, nil},
		{"released", past{held(0)}, ends, released(0)},
		{"released first", nil, ends, released(0)},
		{"released again", past{released(0), held(0)}, ends, nil},
		{"step refused", past{stepRefused(release, "mug"), stepRefused(reserve, "pen")}, strange, stepRefused(reserve, "mug")},
		{"step refused again", past{stepRefused(reserve, "mug")}, strange, nil},
	} {
		var a fulfillment.Answers
		for _, m := range c.given {
			a.Evolve(m, epoch)
		}
		got, err := c.when(&a)
		if err != nil || c.then == nil && len(got) != 0 || c.then != nil && (len(got) != 1 || !proto.Equal(got[0], c.then)) {
			t.Errorf("%s: %v, %v, want %v", c.name, got, err, c.then)
		}
	}
}
