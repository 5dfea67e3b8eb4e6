package payment_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/domain/payment"
	"github.com/purserhq/purser/internal/fault"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const (
	order   = "order-7"
	key     = payment.GatewayKey("order-7/r1")
	laterID = payment.GatewayKey("order-7/r2")
	voidKey = payment.GatewayKey("order-7/v1")
)

// The events that the tables speak of.
var (
	requested      = request(key, "ada", 1200)
	requestedAgain = request(laterID, "ada", 1200)
	authorized     = &paymentevent.PaymentAuthorized{OrderId: order, GatewayReference: "ch_1"}
	declined       = &paymentevent.AuthorizationDeclined{OrderId: order, DeclineCode: "card_declined"}
	failed         = &paymentevent.AuthorizationFailed{OrderId: order, FailureCode: "bad_request"}
	unknown        = &paymentevent.AuthorizationOutcomeUnknown{OrderId: order}
	voidRequested  = &paymentevent.VoidRequested{OrderId: order, GatewayKey: string(voidKey)}
	voidUnknown    = &paymentevent.VoidOutcomeUnknown{OrderId: order}
	voided         = &paymentevent.PaymentVoided{OrderId: order}
	reconciled     = &paymentevent.PaymentReconciled{
		OrderId: order, Outcome: paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_AUTHORIZED, GatewayReference: "ch_1",
	}
	reconciledDeclined = &paymentevent.PaymentReconciled{
		OrderId: order, Outcome: paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_DECLINED, DeclineCode: "card_declined",
	}
	neverHappened = &paymentevent.PaymentReconciled{
		OrderId: order, Outcome: paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_NEVER_HAPPENED,
	}
)

func request(k payment.GatewayKey, customer string, minor int64) *paymentevent.AuthorizationRequested {
	return &paymentevent.AuthorizationRequested{
		OrderId: order, CustomerId: customer, Amount: &typev1.Money{CurrencyCode: "EUR", AmountMinor: minor},
		PaymentMethod: proto.String("pm_card_visa"), GatewayKey: string(k),
	}
}

func contradiction(recorded, reported string) proto.Message {
	return &paymentevent.PaymentContradicted{OrderId: order, Recorded: recorded, Reported: reported}
}

// The commands that the tables speak of.
type command func(*payment.State) ([]proto.Message, error)

func authorize(k payment.GatewayKey, customer string, minor int64, method string) command {
	return func(s *payment.State) ([]proto.Message, error) {
		return s.RequestAuthorization(payment.RequestAuthorization{
			OrderID: order, CustomerID: customer, Amount: &typev1.Money{CurrencyCode: "EUR", AmountMinor: minor}, Method: method, Key: k,
		})
	}
}

func record(k payment.GatewayKey, o payment.Outcome) command {
	return func(s *payment.State) ([]proto.Message, error) {
		return s.RecordAuthorization(payment.RecordAuthorization{Key: k, Outcome: o})
	}
}

func recordVoid(lost bool) command {
	return func(s *payment.State) ([]proto.Message, error) {
		return s.RecordVoid(payment.RecordVoid{OrderID: order, Lost: lost})
	}
}

var (
	approve = payment.Outcome{Result: payment.Approved, Reference: "ch_1"}
	other   = payment.Outcome{Result: payment.Approved, Reference: "ch_2"}
	decline = payment.Outcome{Result: payment.RefusedCustomer, Code: "card_declined"}
	fail    = payment.Outcome{Result: payment.RefusedRequest, Code: "bad_request"}
	lost    = payment.Outcome{Result: payment.OutcomeLost}
	nothing = payment.Outcome{Result: payment.NothingAtGateway}

	ask     = authorize(key, "ada", 1200, "pm_card_visa")
	askVoid = command(func(s *payment.State) ([]proto.Message, error) {
		return s.RequestVoid(payment.RequestVoid{OrderID: order, Key: voidKey})
	})
)

type past = []proto.Message

type scenario struct {
	name  string
	given past
	when  command
	then  past
	fault typev1.ErrorReason
}

func TestAuthorize(t *testing.T) {
	run(t, []scenario{
		{name: "the intent comes first", when: ask, then: past{requested}},
		{name: "an intent on record stands", given: past{requested}, when: ask},
		{name: "asked for again under another request", given: past{requested, authorized}, when: authorize(laterID, "ada", 1200, "pm_card_visa")},
		{name: "another method makes no difference", given: past{requested, authorized}, when: authorize(laterID, "ada", 1200, "pm_other")},
		{name: "declined is an answer", given: past{requested, declined}, when: ask},
		{name: "another amount", given: past{requested}, when: authorize(laterID, "ada", 1300, "pm_card_visa"), fault: typev1.ErrorReason_ERROR_REASON_PAYMENT_DIFFERS},
		{name: "another customer", given: past{requested}, when: authorize(laterID, "bob", 1200, "pm_card_visa"), fault: typev1.ErrorReason_ERROR_REASON_PAYMENT_DIFFERS},
		{name: "late, after a void", given: past{voided}, when: ask, fault: typev1.ErrorReason_ERROR_REASON_PAYMENT_VOIDED},
		{name: "while it is being voided", given: past{requested, authorized, voidRequested}, when: ask, fault: typev1.ErrorReason_ERROR_REASON_PAYMENT_VOIDED},
		{name: "one that never happened may be asked for again", given: past{requested, unknown, neverHappened}, when: authorize(laterID, "ada", 1200, "pm_card_visa"), then: past{requestedAgain}},
		{name: "one that never happened and then did may not", given: past{requested, unknown, neverHappened, contradiction("PaymentReconciled", "PaymentAuthorized")}, when: authorize(laterID, "ada", 1200, "pm_card_visa"), fault: typev1.ErrorReason_ERROR_REASON_ILLEGAL_TRANSITION},
		{name: "contradicted", given: past{requested, declined, contradiction("AuthorizationDeclined", "PaymentAuthorized")}, when: authorize(laterID, "ada", 1200, "pm_card_visa"), fault: typev1.ErrorReason_ERROR_REASON_ILLEGAL_TRANSITION},
	})
}

func TestRecordAuthorization(t *testing.T) {
	run(t, []scenario{
		{name: "approved", given: past{requested}, when: record(key, approve), then: past{authorized}},
		{name: "declined", given: past{requested}, when: record(key, decline), then: past{declined}},
		{name: "failed", given: past{requested}, when: record(key, fail), then: past{failed}},
		{name: "answer lost", given: past{requested}, when: record(key, lost), then: past{unknown}},
		{name: "never happened", given: past{requested}, when: record(key, nothing), then: past{neverHappened}},

		{name: "approved takes the place of unknown", given: past{requested, unknown}, when: record(key, approve), then: past{reconciled}},
		{name: "declined takes the place of unknown", given: past{requested, unknown}, when: record(key, decline), then: past{reconciledDeclined}},
		{name: "failed takes the place of unknown", given: past{requested, unknown}, when: record(key, fail), then: past{failed}},
		{name: "never happened takes the place of unknown", given: past{requested, unknown}, when: record(key, nothing), then: past{neverHappened}},
		{name: "unknown again", given: past{requested, unknown}, when: record(key, lost)},

		{name: "approved again", given: past{requested, authorized}, when: record(key, approve)},
		{name: "approved again, reconciled before", given: past{requested, unknown, reconciled}, when: record(key, approve)},
		{name: "declined again", given: past{requested, declined}, when: record(key, decline)},
		{name: "failed again", given: past{requested, failed}, when: record(key, fail)},
		{name: "never happened again", given: past{requested, neverHappened}, when: record(key, nothing)},
		{name: "unknown takes no definite outcome back", given: past{requested, authorized}, when: record(key, lost)},
		{name: "approved again after the void", given: past{requested, authorized, voidRequested, voided}, when: record(key, approve)},

		{name: "authorized, then declined", given: past{requested, authorized}, when: record(key, decline), then: past{contradiction("PaymentAuthorized", "AuthorizationDeclined")}},
		{name: "declined, then approved", given: past{requested, declined}, when: record(key, approve), then: past{contradiction("AuthorizationDeclined", "PaymentAuthorized")}},
		{name: "failed, then approved", given: past{requested, failed}, when: record(key, approve), then: past{contradiction("AuthorizationFailed", "PaymentAuthorized")}},
		{name: "approved twice under two references", given: past{requested, authorized}, when: record(key, other), then: past{contradiction("PaymentAuthorized", "PaymentAuthorized")}},
		{name: "never happened, then approved", given: past{requested, neverHappened}, when: record(key, approve), then: past{contradiction("PaymentReconciled", "PaymentAuthorized")}},
		{name: "approved under a key that was given up", given: past{requested, neverHappened, requestedAgain}, when: record(key, approve), then: past{contradiction("AuthorizationRequested", "PaymentAuthorized")}},
		{name: "declined under a key that was given up", given: past{requested, neverHappened, requestedAgain}, when: record(key, decline)},
		{name: "one alarm is enough", given: past{requested, authorized, contradiction("", "")}, when: record(key, decline)},

		{name: "of something never asked for", when: record(key, approve), fault: typev1.ErrorReason_ERROR_REASON_ILLEGAL_TRANSITION},
	})
}

func TestVoid(t *testing.T) {
	run(t, []scenario{
		{name: "before any authorization leaves the mark", when: askVoid, then: past{voided}},
		{name: "of an authorization", given: past{requested, authorized}, when: askVoid, then: past{voidRequested}},
		{name: "of one with no outcome yet", given: past{requested}, when: askVoid, then: past{voidRequested}},
		{name: "of an unknown one", given: past{requested, unknown}, when: askVoid, then: past{voidRequested}},
		{name: "of one that never happened", given: past{requested, unknown, neverHappened}, when: askVoid, then: past{voided}},
		{name: "of a failed one", given: past{requested, failed}, when: askVoid, then: past{voided}},
		{name: "of a declined one is nothing to do", given: past{requested, declined}, when: askVoid},
		{name: "again", given: past{requested, authorized, voidRequested}, when: askVoid},
		{name: "again, when voided", given: past{voided}, when: askVoid},
		{name: "of a contradicted one", given: past{requested, declined, contradiction("", "")}, when: askVoid, fault: typev1.ErrorReason_ERROR_REASON_ILLEGAL_TRANSITION},
	})
}

func TestRecordVoid(t *testing.T) {
	run(t, []scenario{
		{name: "done", given: past{requested, authorized, voidRequested}, when: recordVoid(false), then: past{voided}},
		{name: "answer lost", given: past{requested, authorized, voidRequested}, when: recordVoid(true), then: past{voidUnknown}},
		{name: "done takes the place of unknown", given: past{requested, authorized, voidRequested, voidUnknown}, when: recordVoid(false), then: past{voided}},
		{name: "lost again", given: past{requested, authorized, voidRequested, voidUnknown}, when: recordVoid(true)},
		{name: "done again", given: past{requested, authorized, voidRequested, voided}, when: recordVoid(false)},
		{name: "voided is final", given: past{requested, authorized, voidRequested, voided}, when: recordVoid(true)},
		{name: "declined in the meantime", given: past{requested, voidRequested, declined}, when: recordVoid(false), then: past{voided}},
		{name: "never before the authorization is definite", given: past{requested, voidRequested}, when: recordVoid(false), fault: typev1.ErrorReason_ERROR_REASON_ILLEGAL_TRANSITION},
		{name: "nor while it is unknown", given: past{requested, unknown, voidRequested}, when: recordVoid(false), fault: typev1.ErrorReason_ERROR_REASON_ILLEGAL_TRANSITION},
		{name: "nor when contradicted", given: past{requested, declined, voidRequested, contradiction("", "")}, when: recordVoid(false), fault: typev1.ErrorReason_ERROR_REASON_ILLEGAL_TRANSITION},
		{name: "of something never asked for", given: past{requested, authorized}, when: recordVoid(false), fault: typev1.ErrorReason_ERROR_REASON_ILLEGAL_TRANSITION},
	})
}

func TestPaymentState(t *testing.T) {
	for want, pasts := range map[typev1.PaymentState][]past{
		typev1.PaymentState_PAYMENT_STATE_NONE:            {{}, {requested, unknown, neverHappened}},
		typev1.PaymentState_PAYMENT_STATE_REQUESTED:       {{requested}, {requested, voidRequested}},
		typev1.PaymentState_PAYMENT_STATE_AUTHORIZED:      {{requested, authorized}, {requested, unknown, reconciled}, {requested, authorized, voidRequested}},
		typev1.PaymentState_PAYMENT_STATE_DECLINED:        {{requested, declined}, {requested, unknown, reconciledDeclined}},
		typev1.PaymentState_PAYMENT_STATE_FAILED:          {{requested, failed}},
		typev1.PaymentState_PAYMENT_STATE_OUTCOME_UNKNOWN: {{requested, unknown}, {requested, authorized, voidRequested, voidUnknown}},
		typev1.PaymentState_PAYMENT_STATE_VOIDED:          {{voided}, {requested, authorized, voidRequested, voidUnknown, voided}},
	} {
		for _, p := range pasts {
			s := fold(p)
			if got := s.PaymentState(); got != want {
				t.Errorf("after %v: %v, want %v", p, got, want)
			}
		}
	}
}

func TestTheIntentIsRemembered(t *testing.T) {
	s := fold(past{requested, authorized, voidRequested})
	a := s.Authorization
	if a.OrderID != order || a.CustomerID != "ada" || a.Amount.GetAmountMinor() != 1200 || a.Method != "pm_card_visa" ||
		a.Key != key || !a.RequestedAt.Equal(noon) || a.Reference != "ch_1" || s.Void.Key != voidKey {
		t.Errorf("state %+v", s)
	}
}

func TestGatewayKey(t *testing.T) {
	k := payment.NewGatewayKey("a.b-c_d", "7c9e6679-7425-40de-944b-e07fc1f90ae7")
	if k != "a.b-c_d/7c9e6679-7425-40de-944b-e07fc1f90ae7" || k.RequestID() != "7c9e6679-7425-40de-944b-e07fc1f90ae7" {
		t.Errorf("key %q, request %q", k, k.RequestID())
	}
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func fold(events past) payment.State {
	var s payment.State
	for _, m := range events {
		s.Evolve(m, noon)
	}
	return s
}

func run(t *testing.T, scenarios []scenario) {
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			s := fold(sc.given)
			got, err := sc.when(&s)
			if sc.fault != 0 {
				if !fault.Is(err, sc.fault) || got != nil {
					t.Fatalf("got %v, %v, want %v", got, err, sc.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(sc.then) {
				t.Fatalf("got %v, want %v", got, sc.then)
			}
			for i := range got {
				if !proto.Equal(got[i], sc.then[i]) {
					t.Errorf("event %d is %T %v, want %T %v", i, got[i], got[i], sc.then[i], sc.then[i])
				}
			}
			// Whatever was recorded, the same command again changes nothing.
			for _, m := range got {
				s.Evolve(m, noon)
			}
			if again, err := sc.when(&s); len(again) > 0 {
				t.Errorf("done twice, it records %v (%v)", again, err)
			}
		})
	}
}
