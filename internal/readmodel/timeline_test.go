package readmodel

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

func TestTimelineEntry(t *testing.T) {
	e := history("7", placedOrder(), &orderevent.OrderConfirmed{})[1]
	e.ID, e.CausationID, e.CorrelationID = uuid.MustParse("5b0f1c52-6d0e-4d3f-9c55-0d9f3f3a7f11"), "3f0e", "c0de"
	equal(t, OrderTimeline.Entries(e), []TimelineEntry{{
		OrderID: "7", Position: 101, Time: at(1), EventID: e.ID.String(), EventType: "OrderConfirmed", Summary: "Order confirmed",
		Actor: "alice", Cause: "3f0e", Correlation: "c0de", Stream: "order-7", Revision: 1,
	}})
}

func TestSummaries(t *testing.T) {
	for want, m := range map[string]proto.Message{
		"Order placed, number of lines: 2":                                                    placedOrder(),
		"Order rejected: out of stock":                                                        rejectedOrder(),
		"Payment declined: insufficient funds":                                                &paymentevent.AuthorizationDeclined{DeclineCode: "insufficient_funds"},
		"Payment looked up at the gateway: never happened":                                    &paymentevent.PaymentReconciled{Outcome: paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_NEVER_HAPPENED},
		"Stock refused: 2 of cup asked for, 1 available":                                      refusedLine("cup"),
		"Needs attention: reserve stock was refused: product not found cup":                   &fulfillmentevent.StepRefused{Step: fulfillmentevent.Step_STEP_RESERVE_STOCK, ProductId: "cup", Reason: "PRODUCT_NOT_FOUND"},
		"The gateway contradicts itself: AuthorizationDeclined before, PaymentAuthorized now": &paymentevent.PaymentContradicted{Recorded: "AuthorizationDeclined", Reported: "PaymentAuthorized"},
	} {
		equal(t, summary(m), want)
	}
}

// Every event of an order has words, and none of them tells anything personal.
func TestEveryEventHasWordsAndNoneIsPersonal(t *testing.T) {
	var told int
	for _, file := range []protoreflect.FileDescriptor{
		orderevent.File_purser_order_event_v1_events_proto,
		paymentevent.File_purser_payment_event_v1_events_proto,
		fulfillmentevent.File_purser_fulfillment_event_v1_events_proto,
	} {
		for i := range file.Messages().Len() {
			d := file.Messages().Get(i)
			if d.Name() == "OrderLine" {
				continue // a part of OrderPlaced
			}
			mt, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
			if err != nil {
				t.Fatal(err)
			}
			m := mt.New()
			personal := fillPersonal(m)
			s := summary(m.Interface())
			if s == "" {
				t.Errorf("%s: no summary", d.Name())
			}
			if strings.Contains(s, "secret") {
				t.Errorf("%s: the summary tells something personal: %s", d.Name(), s)
			}
			told += personal
		}
	}
	if told == 0 {
		t.Error("no personal field was found in any event")
	}
}

// fillPersonal sets every personal field of a message, and says how many there are.
func fillPersonal(m protoreflect.Message) (n int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case proto.GetExtension(f.Options(), typev1.E_Personal).(bool):
			m.Set(f, protoreflect.ValueOfString("secret"))
			n++
		case f.Kind() == protoreflect.MessageKind && !f.IsList():
			n += fillPersonal(m.Mutable(f).Message())
		}
	}
	return n
}
