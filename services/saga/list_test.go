package saga

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// happens appends events of an order at a time, and waits until the list shows them.
func (w *world) happens(order string, at time.Time, messages ...proto.Message) {
	w.t.Helper()
	for _, m := range messages {
		w.shows(w.append(order, at, m))
	}
}

// append appends events of an order at a time.
func (w *world) append(order string, at time.Time, messages ...proto.Message) (last eventlog.Position) {
	w.t.Helper()
	for _, m := range messages {
		// The packages of event messages are purser.<area>.event.v1, and an order's areas are its categories.
		category := string(m.ProtoReflect().Descriptor().ParentFile().Package().Parent().Parent().Name())
		stream := eventlog.StreamName(category, order)
		a, err := w.log.Append(w.t.Context(), stream, w.last(stream), []eventlog.NewEvent{{
			ID: uuid.New(), Message: m,
			Meta: eventlog.Metadata{OccurredAt: at, CorrelationID: "correlation of " + order, Traceparent: "trace of " + order},
		}})
		if err != nil {
			w.t.Fatal(err)
		}
		last = a.Position
	}
	return last
}

func (w *world) last(stream string) eventlog.Revision {
	w.t.Helper()
	stored, err := w.log.Read(w.t.Context(), stream, 0, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return eventlog.Revision(len(stored) - 1)
}

func (w *world) shows(p eventlog.Position) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	if _, err := w.list.reader.Await(ctx, &todo, "", p); err != nil {
		w.t.Fatal(err)
	}
}

func placedWith(order string, p typev1.Priority) *orderevent.OrderPlaced {
	return &orderevent.OrderPlaced{
		OrderId: order, OrderNumber: "number of " + order, CustomerId: "ada", Priority: p, PaymentMethod: new("pm_card_visa"),
		Total: &typev1.Money{CurrencyCode: "EUR", AmountMinor: 3200},
		Lines: []*orderevent.OrderLine{{ProductId: "mug", Name: "Mug", Quantity: 2, UnitPrice: &typev1.Money{CurrencyCode: "EUR", AmountMinor: 1600}}},
	}
}

// paid is all that happens before an order can be confirmed.
func paid(order string) []proto.Message {
	placed := placedWith(order, typev1.Priority_PRIORITY_STANDARD)
	return []proto.Message{
		placed,
		&fulfillmentevent.LineReserved{OrderId: order, ProductId: "mug", Quantity: 2},
		&paymentevent.AuthorizationRequested{OrderId: order, CustomerId: placed.CustomerId, Amount: placed.Total},
		&paymentevent.PaymentAuthorized{OrderId: order},
	}
}

// due reads the items of a step that are due.
func (w *world) due(step string, now time.Time, max int) []task {
	w.t.Helper()
	tasks, err := w.list.due(w.t.Context(), []string{step, "MARK_CANCELLED"}, everyPartition(), now, max)
	if err != nil {
		w.t.Fatal(err)
	}
	return tasks
}

func orders(tasks []task) string {
	ids := make([]string, len(tasks))
	for i, task := range tasks {
		ids[i] = task.OrderID
	}
	return fmt.Sprint(ids)
}

func TestDueIsInOrder(t *testing.T) {
	w := newWorld(t)
	w.consume()
	const standard, expedited, critical = typev1.Priority_PRIORITY_STANDARD, typev1.Priority_PRIORITY_EXPEDITED, typev1.Priority_PRIORITY_CRITICAL
	now := time.Now()
	for _, o := range []struct {
		order    string
		priority typev1.Priority
		age      time.Duration
	}{
		{"young", standard, time.Second}, {"old", standard, time.Hour}, {"critical", critical, time.Second}, {"expedited", expedited, time.Minute},
		{"waiting", critical, time.Hour}, {"waited", critical, time.Minute},
	} {
		w.happens(o.order, now.Add(-o.age), placedWith(o.order, o.priority))
	}
	w.happens("paid", now.Add(-2*time.Hour), paid("paid")...)
	for order, next := range map[string]time.Time{"waiting": now.Add(maxPause), "waited": now.Add(-time.Second)} {
		if err := w.list.failed(t.Context(), itemKey{order, "RESERVE_STOCK", "mug"}, 1, next, "busy"); err != nil {
			t.Fatal(err)
		}
	}
	for max, want := range map[int]string{9: "[waited critical expedited old young]", 3: "[waited critical expedited]"} {
		if got := orders(w.due("RESERVE_STOCK", now, max)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if got, want := orders(w.due("CONFIRM_ORDER", now, 9)), "[paid]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}

	b, err := w.list.backlogs(t.Context(), everyPartition())
	if err != nil || len(b) != 2 {
		t.Fatalf("%v, %v", b, err)
	}
	for _, step := range b {
		want := map[string]backlog{"RESERVE_STOCK": {Items: 6, Oldest: now.Add(-time.Hour)}, "CONFIRM_ORDER": {Items: 1, Oldest: now.Add(-2 * time.Hour)}}[step.Step]
		if step.Items != want.Items || !step.Oldest.Equal(want.Oldest.Truncate(time.Microsecond)) {
			t.Errorf("%+v, want %+v", step, want)
		}
	}
}

// An item has all that is needed to carry it out, and what it is on account of.
func TestItemsAreComplete(t *testing.T) {
	w := newWorld(t)
	w.consume()
	now := time.Now().UTC().Truncate(time.Microsecond)
	w.happens("7", now, placedWith("7", typev1.Priority_PRIORITY_EXPEDITED))
	tasks := w.due("RESERVE_STOCK", now, 9)
	if len(tasks) != 1 {
		t.Fatalf("%+v", tasks)
	}
	got := tasks[0]
	got.Since, got.NextTry = got.Since.UTC(), got.NextTry.UTC()
	want := task{OrderID: "7", todoRow: todoRow{
		Step: "RESERVE_STOCK", ProductID: "mug", Priority: 2, Quantity: 2, CustomerID: "ada", PaymentMethod: "pm_card_visa", Currency: "EUR", Total: 3200,
		CausationID: w.log.Events()[0].ID.String(), CorrelationID: "correlation of 7", Traceparent: "trace of 7", Since: now,
	}}
	if got != want {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
}

// An item's cause is the event that put it on the list, also where others were folded in the same transaction, before and
// since, and where the list is made anew.
func TestItemsKnowTheirCause(t *testing.T) {
	w := newWorld(t)
	now := time.Now().UTC().Truncate(time.Microsecond)
	w.append("7", now, placedWith("7", typev1.Priority_PRIORITY_STANDARD))
	w.append("7", now.Add(time.Second), &orderevent.DeliveryAddressChanged{OrderId: "7"})
	w.append("8", now, paid("8")...)
	last := w.append("8", now.Add(time.Second), &orderevent.DeliveryAddressChanged{OrderId: "8"})
	w.consume()
	w.shows(last)
	for _, c := range []struct{ step, eventType string }{{"RESERVE_STOCK", "OrderPlaced"}, {"CONFIRM_ORDER", "PaymentAuthorized"}} {
		tasks := w.due(c.step, now, 9)
		if len(tasks) != 1 {
			t.Fatalf("%s: %+v", c.step, tasks)
		}
		var cause eventlog.Recorded
		for _, e := range w.log.Events() {
			if e.ID.String() == tasks[0].CausationID {
				cause = e
			}
		}
		if cause.Type != c.eventType || !tasks[0].Since.Equal(now) {
			t.Errorf("%s is caused by a %s, since %s", c.step, cause.Type, tasks[0].Since)
		}
	}
}

// A payment that turned out never to have happened may be asked for again. What is done for it then are other requests, because
// repeats of the first would be answered with what became of the first intent; all else keeps its request.
func TestAPaymentThatIsAskedForAgainHasOtherRequests(t *testing.T) {
	w := newWorld(t)
	w.consume()
	now := time.Now()
	id := func(step string) string {
		t.Helper()
		tasks := w.due(step, now, 9)
		if len(tasks) != 1 {
			t.Fatalf("%s: %+v", step, tasks)
		}
		return requestID(tasks[0])
	}
	intended := &paymentevent.AuthorizationRequested{OrderId: "7", CustomerId: "ada", Amount: placedWith("7", 0).Total}
	unknown := &paymentevent.AuthorizationOutcomeUnknown{OrderId: "7"}
	turnedOut := func(o paymentevent.ReconciledOutcome) proto.Message {
		return &paymentevent.PaymentReconciled{OrderId: "7", Outcome: o}
	}
	of := func(step string, intent int64) string {
		return requestID(task{OrderID: "7", todoRow: todoRow{Step: step, Intent: intent}})
	}
	w.happens("7", now, placedWith("7", typev1.Priority_PRIORITY_STANDARD))
	for i, c := range []struct {
		past []proto.Message
		step string
		want string
	}{
		{[]proto.Message{&fulfillmentevent.LineReserved{OrderId: "7", ProductId: "mug", Quantity: 2}}, "AUTHORIZE_PAYMENT", of("AUTHORIZE_PAYMENT", 0)},
		{[]proto.Message{intended}, "AUTHORIZE_PAYMENT", of("AUTHORIZE_PAYMENT", 0)},
		{[]proto.Message{unknown}, "RECONCILE_PAYMENT", of("RECONCILE_PAYMENT", 0)},
		{[]proto.Message{turnedOut(paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_NEVER_HAPPENED), intended}, "AUTHORIZE_PAYMENT", of("AUTHORIZE_PAYMENT", 1)},
		{[]proto.Message{unknown}, "RECONCILE_PAYMENT", of("RECONCILE_PAYMENT", 1)},
		{[]proto.Message{turnedOut(paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_NEVER_HAPPENED), intended, unknown}, "RECONCILE_PAYMENT", of("RECONCILE_PAYMENT", 2)},
		{[]proto.Message{turnedOut(paymentevent.ReconciledOutcome_RECONCILED_OUTCOME_AUTHORIZED)}, "CONFIRM_ORDER", of("CONFIRM_ORDER", 0)},
	} {
		w.happens("7", now, c.past...)
		if got := id(c.step); got != c.want {
			t.Errorf("%d: %s is request %s, want %s", i, c.step, got, c.want)
		}
	}
}

// Notes on failures stay with their item while the order goes on, and go with it.
func TestNotesOnFailures(t *testing.T) {
	w := newWorld(t)
	w.consume()
	now := time.Now()
	w.happens("7", now, placedWith("7", typev1.Priority_PRIORITY_STANDARD))
	w.happens("8", now, placedWith("8", typev1.Priority_PRIORITY_STANDARD))
	mug := itemKey{"7", "RESERVE_STOCK", "mug"}
	note := func(attempts int64) {
		t.Helper()
		if err := w.list.failed(t.Context(), mug, attempts, now.Add(-time.Second), "busy"); err != nil {
			t.Fatal(err)
		}
	}
	attempts := func() string {
		all := map[string]string{}
		for _, task := range w.due("RESERVE_STOCK", now, 9) {
			all[task.OrderID] = fmt.Sprint(task.Attempts, task.LastError)
		}
		return fmt.Sprint(all)
	}
	note(1)
	note(2)
	w.happens("7", now, &orderevent.DeliveryAddressChanged{OrderId: "7"})
	if got, want := attempts(), "map[7:2busy 8:0]"; got != want {
		t.Errorf("noted %s, want %s", got, want)
	}
	for ahead, due := range map[time.Duration]int{maxPause / 2: 0, 24 * time.Hour: 1} { // the latter is of a clock that was set right since
		if err := w.list.failed(t.Context(), itemKey{"8", "RESERVE_STOCK", "mug"}, 1, now.Add(ahead), "busy"); err != nil {
			t.Fatal(err)
		}
		if got := len(w.due("RESERVE_STOCK", now, 9)); got != 1+due {
			t.Errorf("%d due while one is to be tried in %s", got, ahead)
		}
	}
	if err := w.list.failed(t.Context(), itemKey{"8", "RESERVE_STOCK", "mug"}, 0, time.Time{}, ""); err != nil {
		t.Fatal(err)
	}
	w.happens("7", now, &fulfillmentevent.LineReserved{OrderId: "7", ProductId: "mug", Quantity: 2})
	note(3) // of an attempt that was under way
	if got, want := attempts(), "map[8:0]"; got != want {
		t.Errorf("after the item was done: noted %s, want %s", got, want)
	}
}

// What an order wants is not known while an event of its can't be applied, a cancellation, say.
func TestParkedOrdersRest(t *testing.T) {
	w := newWorld(t)
	w.consume()
	now := time.Now()
	w.happens("7", now, paid("7")...)
	w.happens("8", now, paid("8")...)
	if got, want := orders(w.due("CONFIRM_ORDER", now, 9)), "[7 8]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	stream := eventlog.StreamName(eventschema.Order, "8")
	a, err := w.log.AppendRecorded(t.Context(), stream, w.last(stream), []eventlog.Recorded{{
		ID: uuid.New(), Type: "OrderCancellationRequested", ContentType: eventschema.ContentTypeJSON,
		Data: []byte("["), Metadata: []byte(`{"schemaVersion":1}`),
	}})
	if err != nil {
		t.Fatal(err)
	}
	w.shows(a.Position)
	if got, want := orders(w.due("CONFIRM_ORDER", now, 9)), "[7]"; got != want {
		t.Errorf("once the other is parked: %s, want %s", got, want)
	}
}

// A database that does not answer is waited for a moment, and then counts as one that is away.
func TestListIsBoundedInTime(t *testing.T) {
	w := newWorld(t)
	tx, err := w.list.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := tx.Exec(t.Context(), "LOCK TABLE "+w.table()); err != nil {
		t.Fatal(err)
	}
	w.list.timeout = 50 * time.Millisecond
	for name, use := range map[string]func() error{
		"due": func() error {
			_, err := w.list.due(t.Context(), nil, nil, time.Now(), 1)
			return err
		},
		"failed":   func() error { return w.list.failed(t.Context(), itemKey{}, 1, time.Now(), "") },
		"backlogs": func() error { _, err := w.list.backlogs(t.Context(), everyPartition()); return err },
	} {
		if err := use(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v, want its own deadline", name, err)
		}
	}
}
