package saga

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/origin"
	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	paymentv1 "github.com/purserhq/purser/proto/purser/payment/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// item is a task of order 7 that came onto the list a minute ago.
func item(step, product string) task {
	return task{OrderID: "7", todoRow: todoRow{
		Step: step, ProductID: product, Quantity: 2, CustomerID: "ada", PaymentMethod: "pm_card_visa", Currency: "EUR", Total: 3200,
		RejectReason: int64(typev1.RejectReason_REJECT_REASON_OUT_OF_STOCK), Priority: 1,
		CausationID: "cause", CorrelationID: "correlation", Since: time.Now().Add(-time.Minute),
	}}
}

func rejected(context.Context, aggregate.Command) (proto.Message, error) {
	return &inventoryv1.ReserveStockResponse{Outcome: inventoryv1.ReservationOutcome_RESERVATION_OUTCOME_REJECTED, Requested: 2, Available: 1}, nil
}

func failing(err error) func(context.Context, aggregate.Command) (proto.Message, error) {
	return func(context.Context, aggregate.Command) (proto.Message, error) { return nil, err }
}

func fine(context.Context, aggregate.Command) (proto.Message, error) { return nil, nil }

func down() error {
	return fault.Down(typev1.ErrorReason_ERROR_REASON_DEPENDENCY_UNAVAILABLE, "the store is down", nil)
}

// Every step is one call, and what its reply says is on record afterwards.
func TestSteps(t *testing.T) {
	for _, c := range []struct {
		task   task
		script func(context.Context, aggregate.Command) (proto.Message, error)
		want   aggregate.Command
		event  proto.Message // in the fulfilment stream
	}{
		{
			item("RESERVE_STOCK", "mug"), fine, &inventoryv1.ReserveStockRequest{ProductId: "mug", OrderId: "7", Quantity: 2},
			&fulfillmentevent.LineReserved{OrderId: "7", ProductId: "mug", Quantity: 2},
		},
		{
			item("RESERVE_STOCK", "mug"), rejected, &inventoryv1.ReserveStockRequest{ProductId: "mug", OrderId: "7", Quantity: 2},
			&fulfillmentevent.LineRefused{OrderId: "7", ProductId: "mug", Requested: 2, Available: 1},
		},
		{
			item("RELEASE_STOCK", "mug"), fine, &inventoryv1.ReleaseReservationRequest{ProductId: "mug", OrderId: "7"},
			&fulfillmentevent.LineReleased{OrderId: "7", ProductId: "mug"},
		},
		{
			item("AUTHORIZE_PAYMENT", ""), fine, &paymentv1.AuthorizePaymentRequest{
				OrderId: "7", CustomerId: "ada", PaymentMethod: "pm_card_visa", Amount: &typev1.Money{CurrencyCode: "EUR", AmountMinor: 3200},
			}, nil,
		},
		{item("RECONCILE_PAYMENT", ""), fine, &paymentv1.ReconcilePaymentRequest{OrderId: "7"}, nil},
		{item("VOID_PAYMENT", ""), fine, &paymentv1.VoidPaymentRequest{OrderId: "7"}, nil},
		{item("CONFIRM_ORDER", ""), fine, &orderv1.ConfirmOrderRequest{OrderId: "7"}, nil},
		{item("REJECT_ORDER", ""), fine, &orderv1.RejectOrderRequest{OrderId: "7", Reason: typev1.RejectReason_REJECT_REASON_OUT_OF_STOCK}, nil},
		{item("MARK_CANCELLED", ""), fine, &orderv1.MarkCancelledRequest{OrderId: "7"}, nil},
	} {
		t.Run(c.task.Step, func(t *testing.T) {
			w := newWorld(t)
			w.peers.answer(c.script)
			w.add(c.task)
			stop := w.start()
			w.until("the call", func() bool { return w.peers.count() > 0 })
			if c.event != nil {
				w.until("the event", func() bool { return len(w.log.of("7")) > 0 })
				e := w.log.of("7")[0]
				if !proto.Equal(e.Messages[0], c.event) {
					t.Errorf("recorded %v, want %v", e.Messages[0], c.event)
				}
				if e.Meta.Actor != origin.Saga || e.Meta.CausationID != "cause" || e.Meta.CorrelationID != "correlation" {
					t.Errorf("recorded on account of %+v", e.Meta)
				}
			}
			stop()
			got := w.peers.calls[0]
			if o := got.origin; o.Actor != origin.Saga || o.CausationID != "cause" || o.CorrelationID != "correlation" {
				t.Errorf("called on account of %+v", o)
			}
			if id, err := uuid.Parse(got.req.GetRequestId()); err != nil || id.Version() != 5 {
				t.Errorf("request id %q", got.req.GetRequestId())
			}
			if r, ok := got.req.(*inventoryv1.ReserveStockRequest); ok {
				if life := time.Until(r.GetValidUntil().AsTime()); life < 30*time.Second || life > time.Minute {
					t.Errorf("valid for another %s", life)
				}
				r.ValidUntil = nil
			}
			clear := got.req.ProtoReflect()
			clear.Clear(clear.Descriptor().Fields().ByName("request_id"))
			if !proto.Equal(got.req, c.want) {
				t.Errorf("called %v, want %v", got.req, c.want)
			}
		})
	}
}

// What may be cured by another attempt is tried again under the same request id; nothing is recorded meanwhile.
func TestFailureIsTriedAgain(t *testing.T) {
	for name, err := range map[string]error{
		"unavailable": down(),
		"aborted":     &fault.Fault{Kind: fault.Aborted, Reason: typev1.ErrorReason_ERROR_REASON_CONTENTION, Message: "busy"},
		"deadline":    &fault.Fault{Kind: fault.DeadlineExceeded, Reason: typev1.ErrorReason_ERROR_REASON_DEADLINE_EXCEEDED, Message: "late"},
		"internal":    fmt.Errorf("a bug"),
		"expired":     fault.Refused(typev1.ErrorReason_ERROR_REASON_ATTEMPT_EXPIRED, "too late"),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.peers.answer(failing(err))
			it := item("RESERVE_STOCK", "mug")
			w.add(it)
			w.start()
			w.until("the note of the failure", func() bool {
				got, _ := w.listed(it.key())
				return got.Attempts >= 1 && got.LastError != "" && !got.NextTry.IsZero()
			})
			if events := w.log.of("7"); len(events) > 0 {
				t.Fatalf("recorded %v", events[0].Messages)
			}
			w.peers.answer(fine)
			w.until("the event", func() bool {
				w.clock.advance(time.Second) // over the pauses, and whatever the circuit breaker makes of it
				return len(w.log.of("7")) == 1
			})
			calls := to[*inventoryv1.ReserveStockRequest](w.peers)
			first, last := calls[0], calls[len(calls)-1]
			if first.GetRequestId() != last.GetRequestId() {
				t.Errorf("request ids %s and %s", first.GetRequestId(), last.GetRequestId())
			}
			if !last.GetValidUntil().AsTime().After(first.GetValidUntil().AsTime()) {
				t.Error("the last attempt is valid for no longer than the first")
			}
		})
	}
}

// What no attempt can cure is recorded, once, for a person to look at.
func TestRefusalIsRecorded(t *testing.T) {
	for reason, err := range map[string]error{
		"RESERVATION_ENDED": fault.Refused(typev1.ErrorReason_ERROR_REASON_RESERVATION_ENDED, "ended"),
		"PRODUCT_NOT_FOUND": fault.Missing(typev1.ErrorReason_ERROR_REASON_PRODUCT_NOT_FOUND, "product", "mug"),
		"INVALID_FIELD":     fault.InvalidField("quantity", "is odd"),
	} {
		t.Run(reason, func(t *testing.T) {
			w := newWorld(t)
			w.peers.answer(failing(err))
			it := item("RESERVE_STOCK", "mug")
			w.add(it)
			w.start()
			w.until("a second attempt", func() bool {
				w.clock.advance(settle)
				return w.peers.count() >= 2
			})
			w.until("the event", func() bool { return len(w.log.of("7")) > 0 })
			want := &fulfillmentevent.StepRefused{
				OrderId: "7", Step: fulfillmentevent.Step_STEP_RESERVE_STOCK, ProductId: "mug", Reason: reason,
			}
			if events := w.log.of("7"); len(events) != 1 || !proto.Equal(events[0].Messages[0], want) {
				t.Errorf("recorded %v, want %v", events, want)
			}
		})
	}
}

// A step that was refused and is carried out after all has both answers on record.
func TestAnswerAfterRefusal(t *testing.T) {
	w := newWorld(t)
	w.peers.answer(failing(fault.Missing(typev1.ErrorReason_ERROR_REASON_PRODUCT_NOT_FOUND, "product", "mug")))
	w.add(item("RESERVE_STOCK", "mug"))
	w.start()
	w.until("the refusal", func() bool { return len(w.log.of("7")) == 1 })
	w.peers.answer(fine)
	w.until("the reservation", func() bool {
		w.clock.advance(settle)
		return len(w.log.of("7")) == 2
	})
	if _, ok := w.log.of("7")[1].Messages[0].(*fulfillmentevent.LineReserved); !ok {
		t.Errorf("recorded %v", w.log.of("7")[1].Messages)
	}
}

// An answer that could not be recorded is asked for again.
func TestLogIsDown(t *testing.T) {
	w := newWorld(t)
	w.log.setDown(true)
	it := item("RELEASE_STOCK", "mug")
	w.add(it)
	w.start()
	w.until("the note of the failure", func() bool { got, _ := w.listed(it.key()); return got.Attempts > 0 })
	w.log.setDown(false)
	w.until("the event", func() bool {
		w.clock.advance(time.Second)
		return len(w.log.of("7")) == 1
	})
}

// A process that dies in the middle of a call leaves nothing behind that another could not take up.
func TestProcessDies(t *testing.T) {
	w := newWorld(t)
	gate := make(chan struct{})
	w.peers.answer(func(ctx context.Context, _ aggregate.Command) (proto.Message, error) {
		select {
		case <-gate:
		case <-ctx.Done():
		}
		return nil, ctx.Err()
	})
	it := item("RESERVE_STOCK", "mug")
	w.add(it)
	stop := w.start()
	w.until("the first call", func() bool { return w.peers.count() == 1 })
	stop()
	if got, ok := w.listed(it.key()); !ok || got.Attempts != 0 || len(w.log.of("7")) != 0 {
		t.Fatalf("left behind: %+v, %v", got, w.log.of("7"))
	}
	close(gate)
	w.start()
	w.until("the event", func() bool { return len(w.log.of("7")) == 1 })
	if calls := to[*inventoryv1.ReserveStockRequest](w.peers); calls[0].GetRequestId() != calls[1].GetRequestId() {
		t.Error("another request id after the crash")
	}
}

func TestNothingIsDoneBeforeTheListHasCaughtUp(t *testing.T) {
	w := newWorld(t)
	w.ready.Store(false)
	w.add(item("CONFIRM_ORDER", ""))
	stop := w.start()
	time.Sleep(3 * pollInterval) // for what must not happen
	if n := w.peers.count(); n != 0 {
		t.Errorf("%d calls", n)
	}
	w.ready.Store(true)
	w.until("the call", func() bool { return w.peers.count() == 1 })
	stop()
}

// A service that hangs holds up its own items only.
func TestLanesAreIndependent(t *testing.T) {
	w := newWorld(t)
	w.peers.answer(func(ctx context.Context, req aggregate.Command) (proto.Message, error) {
		if _, ok := req.(*paymentv1.AuthorizePaymentRequest); ok {
			<-ctx.Done()
		}
		return nil, ctx.Err()
	})
	for i := range 4 * laneWidth {
		a, r := item("AUTHORIZE_PAYMENT", ""), item("RESERVE_STOCK", "mug")
		a.OrderID, r.OrderID = fmt.Sprint(i), fmt.Sprint(i)
		w.add(a, r)
	}
	w.start()
	w.until("all reservations", func() bool { return len(to[*inventoryv1.ReserveStockRequest](w.peers)) >= 4*laneWidth })
	if n := len(to[*paymentv1.AuthorizePaymentRequest](w.peers)); n > laneWidth {
		t.Errorf("%d payments under way", n)
	}
}

// An item that was done rests, though the list still has it, and is then done again, less and less often.
func TestDoneItemsRest(t *testing.T) {
	w := newWorld(t)
	w.add(item("CONFIRM_ORDER", ""))
	w.start()
	w.until("the call", func() bool { return w.peers.count() == 1 })
	time.Sleep(3 * pollInterval) // for what must not happen
	if n := w.peers.count(); n != 1 {
		t.Fatalf("%d calls", n)
	}
	w.clock.advance(settle)
	w.until("another call", func() bool { return w.peers.count() == 2 })
	w.clock.advance(settle)
	time.Sleep(3 * pollInterval)
	if n := w.peers.count(); n != 2 {
		t.Errorf("%d calls: the item rests no longer than before", n)
	}
	calls := to[*orderv1.ConfirmOrderRequest](w.peers)
	if calls[0].GetRequestId() != calls[1].GetRequestId() {
		t.Error("another request id")
	}
}

func TestUnknownOutcomeBacksOff(t *testing.T) {
	for _, step := range []string{"RECONCILE_PAYMENT", "VOID_PAYMENT"} {
		w := newWorld(t)
		const unknown = typev1.PaymentState_PAYMENT_STATE_OUTCOME_UNKNOWN
		w.peers.answer(func(_ context.Context, req aggregate.Command) (proto.Message, error) {
			if _, ok := req.(*paymentv1.VoidPaymentRequest); ok {
				return &paymentv1.VoidPaymentResponse{State: unknown}, nil
			}
			return &paymentv1.ReconcilePaymentResponse{State: unknown}, nil
		})
		it := item(step, "")
		w.add(it)
		w.start()
		w.until("the note", func() bool { got, _ := w.listed(it.key()); return got.Attempts > 0 })
		if got, _ := w.listed(it.key()); got.LastError != errStillUnknown.Error() {
			t.Errorf("%s: noted %q", step, got.LastError)
		}
	}
}

func TestDueIsInOrder(t *testing.T) {
	w := newWorld(t)
	now := time.Now()
	add := func(order string, priority int64, age time.Duration, next time.Time) {
		it := item("RESERVE_STOCK", "mug")
		it.OrderID, it.Priority, it.Since, it.NextTry = order, priority, now.Add(-age), next
		w.add(it)
	}
	add("young", 1, time.Second, time.Time{})
	add("old", 1, time.Hour, now.Add(-time.Second))
	add("critical", 3, time.Second, time.Time{})
	add("expedited", 2, time.Minute, time.Time{})
	add("waiting", 3, time.Hour, now.Add(time.Minute))
	add("resting", 3, time.Hour, time.Time{})
	w.add(item("CONFIRM_ORDER", ""))
	resting := itemKey{"resting", "RESERVE_STOCK", "mug"}
	tasks, err := w.list.due(t.Context(), []string{"RESERVE_STOCK", "RELEASE_STOCK"}, now, []itemKey{resting}, 3)
	var got []string
	for _, task := range tasks {
		got = append(got, task.OrderID)
	}
	if want := "[critical expedited old]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("%v, %v, want %s", got, err, want)
	}
	b, err := w.list.backlogs(t.Context())
	if err != nil || len(b) != 2 {
		t.Fatalf("%v, %v", b, err)
	}
	for _, step := range b {
		if step.Step == "RESERVE_STOCK" && (step.Items != 6 || now.Sub(step.Oldest).Round(time.Minute) != time.Hour) {
			t.Errorf("%+v", step)
		}
	}
}

// What an order wants is not known while an event of its can't be applied, a cancellation, say.
func TestParkedOrdersRest(t *testing.T) {
	w := newWorld(t)
	parked, other := item("CONFIRM_ORDER", ""), item("CONFIRM_ORDER", "")
	parked.OrderID = "8"
	w.add(parked, other)
	w.exec("INSERT INTO parked VALUES ('8')")
	tasks, err := w.list.due(t.Context(), []string{"CONFIRM_ORDER"}, time.Now(), nil, 10)
	if err != nil || len(tasks) != 1 || tasks[0].OrderID != "7" {
		t.Errorf("%v, %v, want the order that is not parked", tasks, err)
	}
	w.exec("DELETE FROM parked")
	if tasks, err = w.list.due(t.Context(), []string{"CONFIRM_ORDER"}, time.Now(), nil, 10); err != nil || len(tasks) != 2 {
		t.Errorf("%v, %v, want both once it is parked no more", tasks, err)
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
	if _, err := tx.Exec(t.Context(), "LOCK TABLE todo"); err != nil {
		t.Fatal(err)
	}
	w.list.timeout = 50 * time.Millisecond
	for name, use := range map[string]func() error{
		"due": func() error {
			_, err := w.list.due(t.Context(), nil, time.Now(), nil, 1)
			return err
		},
		"failed":   func() error { return w.list.failed(t.Context(), itemKey{}, 1, time.Now(), "") },
		"backlogs": func() error { _, err := w.list.backlogs(t.Context()); return err },
	} {
		if err := use(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v, want its own deadline", name, err)
		}
	}
}

func TestPause(t *testing.T) {
	for _, failed := range []int64{0, 1, 5, 15, 16, 1000} {
		bound := maxPause
		if failed < 6 {
			bound = firstPause << failed
		}
		for range 1000 {
			if p := pause(failed); p < 0 || p >= bound {
				t.Fatalf("after %d failures %s, bound %s", failed, p, bound)
			}
		}
	}
}

func TestRequestIDs(t *testing.T) {
	base := item("RESERVE_STOCK", "mug")
	other := func(change func(*task)) task { c := base; change(&c); return c }
	ids := map[string]string{
		"base":    requestID(base, 0),
		"retry":   requestID(base, 1),
		"order":   requestID(other(func(t *task) { t.OrderID = "8" }), 0),
		"step":    requestID(other(func(t *task) { t.Step = "RELEASE_STOCK" }), 0),
		"product": requestID(other(func(t *task) { t.ProductID = "pen" }), 0),
	}
	seen := map[string]string{}
	for name, id := range ids {
		if seen[id] != "" {
			t.Errorf("%s and %s have the same request id", name, seen[id])
		}
		seen[id] = name
	}
	// Pinned: a request that one build sends is repeated by the next.
	if want := "241a4385-0b28-56a0-af9d-ae0e63c0869d"; ids["base"] != want {
		t.Errorf("request id %s, want %s", ids["base"], want)
	}
	again := other(func(t *task) { t.Attempts, t.Since, t.Priority = 7, time.Now(), 3 })
	if requestID(again, 0) != ids["base"] {
		t.Error("another attempt has another request id")
	}
}
