package saga

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/fault"
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
		CausationID: "cause", CorrelationID: "correlation", Traceparent: "trace", Since: time.Now().Add(-time.Minute),
	}}
}

func rejected(context.Context, aggregate.Command) (proto.Message, error) {
	return &inventoryv1.ReserveStockResponse{Outcome: inventoryv1.ReservationOutcome_RESERVATION_OUTCOME_REJECTED, Requested: 2, Available: 1}, nil
}

func failing(err error) func(context.Context, aggregate.Command) (proto.Message, error) {
	return func(context.Context, aggregate.Command) (proto.Message, error) { return nil, err }
}

// fine is what each service replies where a step is done.
func fine(_ context.Context, req aggregate.Command) (proto.Message, error) {
	switch req := req.(type) {
	case *inventoryv1.ReserveStockRequest:
		return &inventoryv1.ReserveStockResponse{Outcome: inventoryv1.ReservationOutcome_RESERVATION_OUTCOME_RESERVED, Requested: req.GetQuantity()}, nil
	case *inventoryv1.ReleaseReservationRequest:
		return &inventoryv1.ReleaseReservationResponse{ProductId: req.GetProductId(), OrderId: req.GetOrderId()}, nil
	case *paymentv1.AuthorizePaymentRequest:
		return &paymentv1.AuthorizePaymentResponse{State: typev1.PaymentState_PAYMENT_STATE_AUTHORIZED}, nil
	case *paymentv1.ReconcilePaymentRequest:
		return &paymentv1.ReconcilePaymentResponse{State: typev1.PaymentState_PAYMENT_STATE_AUTHORIZED}, nil
	case *paymentv1.VoidPaymentRequest:
		return &paymentv1.VoidPaymentResponse{State: typev1.PaymentState_PAYMENT_STATE_VOIDED}, nil
	case *orderv1.ConfirmOrderRequest:
		return &orderv1.ConfirmOrderResponse{State: typev1.OrderState_ORDER_STATE_CONFIRMED}, nil
	case *orderv1.RejectOrderRequest:
		return &orderv1.RejectOrderResponse{State: typev1.OrderState_ORDER_STATE_REJECTED}, nil
	case *orderv1.MarkCancelledRequest:
		return &orderv1.MarkCancelledResponse{State: typev1.OrderState_ORDER_STATE_CANCELLED}, nil
	}
	return nil, fmt.Errorf("no service takes a %T", req)
}

// meaningless is a reply whose outcome this build does not know.
func meaningless(o inventoryv1.ReservationOutcome) func(context.Context, aggregate.Command) (proto.Message, error) {
	return func(context.Context, aggregate.Command) (proto.Message, error) {
		return &inventoryv1.ReserveStockResponse{Outcome: o}, nil
	}
}

func down() error {
	return fault.Down(typev1.ErrorReason_ERROR_REASON_DEPENDENCY_UNAVAILABLE, "the store is down", nil)
}

// What may be cured by another attempt is tried again under the same request id; nothing is recorded meanwhile.
func TestFailureIsTriedAgain(t *testing.T) {
	for name, script := range map[string]func(context.Context, aggregate.Command) (proto.Message, error){
		"unavailable":                 failing(down()),
		"aborted":                     failing(&fault.Fault{Kind: fault.Aborted, Reason: typev1.ErrorReason_ERROR_REASON_CONTENTION, Message: "busy"}),
		"deadline":                    failing(&fault.Fault{Kind: fault.DeadlineExceeded, Reason: typev1.ErrorReason_ERROR_REASON_DEADLINE_EXCEEDED, Message: "late"}),
		"internal":                    failing(fmt.Errorf("a bug")),
		"expired":                     failing(fault.Refused(typev1.ErrorReason_ERROR_REASON_ATTEMPT_EXPIRED, "too late")),
		"a clock that is ahead":       failing(fault.InvalidField("valid_until", "must be at most 5m0s ahead")),
		"no outcome":                  meaningless(inventoryv1.ReservationOutcome_RESERVATION_OUTCOME_UNSPECIFIED),
		"an outcome of a newer build": meaningless(99),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.peers.answer(script)
			it := item("RESERVE_STOCK", "mug")
			w.add(it)
			w.start()
			w.until("the note of the failure", func() bool {
				got, _ := w.listed(it.key())
				return got.Attempts >= 1 && got.LastError != "" && !got.NextTry.IsZero()
			})
			if events := w.recorded("7"); len(events) > 0 {
				t.Fatalf("recorded %v", events[0].Messages)
			}
			w.peers.answer(fine)
			w.until("the event", func() bool {
				w.clock.advance(time.Second) // over the pauses, and whatever the circuit breaker makes of it
				return len(w.recorded("7")) == 1
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
			w.until("the event", func() bool {
				w.clock.advance(settle)
				return len(w.recorded("7")) > 0
			})
			want := &fulfillmentevent.StepRefused{
				OrderId: "7", Step: fulfillmentevent.Step_STEP_RESERVE_STOCK, ProductId: "mug", Reason: reason,
			}
			if events := w.recorded("7"); len(events) != 1 || !proto.Equal(events[0].Messages[0], want) {
				t.Errorf("recorded %v, want %v", events, want)
			}
		})
	}
}

// A step that comes after its undo leaves the list by itself.
func TestAnOvertakenStepIsNotRefusedAtOnce(t *testing.T) {
	w := newWorld(t)
	w.peers.answer(failing(fault.Refused(typev1.ErrorReason_ERROR_REASON_RESERVATION_ENDED, "ended")))
	it := item("RESERVE_STOCK", "mug")
	w.add(it)
	w.start()
	w.until("the note", func() bool { got, _ := w.listed(it.key()); return got.Attempts > 0 })
	if events := w.recorded("7"); len(events) != 0 {
		t.Errorf("recorded %v", events)
	}
}

// A step that was refused and is carried out after all has both answers on record.
func TestAnswerAfterRefusal(t *testing.T) {
	w := newWorld(t)
	w.peers.answer(failing(fault.Missing(typev1.ErrorReason_ERROR_REASON_PRODUCT_NOT_FOUND, "product", "mug")))
	w.add(item("RESERVE_STOCK", "mug"))
	w.start()
	w.until("the refusal", func() bool { return len(w.recorded("7")) == 1 })
	w.peers.answer(fine)
	w.until("the reservation", func() bool {
		w.clock.advance(settle)
		return len(w.recorded("7")) == 2
	})
	if _, ok := w.recorded("7")[1].Messages[0].(*fulfillmentevent.LineReserved); !ok {
		t.Errorf("recorded %v", w.recorded("7")[1].Messages)
	}
}

// An answer that could not be recorded is asked for again.
func TestLogIsDown(t *testing.T) {
	w := newWorld(t)
	w.log.SetDown(true)
	it := item("RELEASE_STOCK", "mug")
	w.add(it)
	w.start()
	w.until("the note of the failure", func() bool { got, _ := w.listed(it.key()); return got.Attempts > 0 })
	w.log.SetDown(false)
	w.until("the event", func() bool {
		w.clock.advance(time.Second)
		return len(w.recorded("7")) == 1
	})
}

// A process that dies in the middle of a call leaves nothing behind that another could not take up.
func TestProcessDies(t *testing.T) {
	w := newWorld(t)
	gate := make(chan struct{})
	w.peers.answer(func(ctx context.Context, req aggregate.Command) (proto.Message, error) {
		select {
		case <-gate:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return fine(ctx, req)
	})
	it := item("RESERVE_STOCK", "mug")
	w.add(it)
	stop := w.start()
	w.until("the first call", func() bool { return w.peers.count() == 1 })
	stop()
	if got, ok := w.listed(it.key()); !ok || got.Attempts != 0 || len(w.recorded("7")) != 0 {
		t.Fatalf("left behind: %+v, %v", got, w.recorded("7"))
	}
	close(gate)
	w.start()
	w.until("the event", func() bool { return len(w.recorded("7")) == 1 })
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
			return nil, ctx.Err()
		}
		return fine(ctx, req)
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
