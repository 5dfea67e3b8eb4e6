package readmodel

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/fault"
	catalogevent "github.com/purserhq/purser/proto/purser/catalog/event/v1"
	stockevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// reading is a query, with what it is asked for, and what of its answer an event changes.
type reading struct {
	name  string
	model consumer.Readable // that it answers from, or one of those
	key   string
	event proto.Message
	want  string // after the event; nothing before it is the same
	ask   func(ctx context.Context, q *Queries, after eventlog.Position) (string, error)
}

// readings are all queries, each on a key of its own, whose entity is as [existing] says.
func readings() []reading {
	confirmed := &orderevent.OrderConfirmed{}
	return []reading{
		{"GetOrder", &OrderDetails, "o-1", confirmed, "CONFIRMED",
			func(ctx context.Context, q *Queries, after eventlog.Position) (string, error) {
				o, err := q.GetOrder(ctx, "o-1", after)
				return o.State, err
			}},
		{"GetOrderByNumber", &OrderDetails, "o-2", confirmed, "CONFIRMED",
			func(ctx context.Context, q *Queries, after eventlog.Position) (string, error) {
				o, err := q.GetOrderByNumber(ctx, "number of o-2", after)
				return o.State, err
			}},
		{"ListOrders", &OrderSummaries, "o-3", confirmed, "1",
			func(ctx context.Context, q *Queries, after eventlog.Position) (string, error) {
				orders, _, err := q.ListOrders(ctx, Page{Filter: `state = CONFIRMED AND customer_id = "customer of o-3"`}, after)
				return fmt.Sprint(len(orders)), err
			}},
		{"GetOrderTimeline", &OrderTimeline, "o-4", confirmed, "2",
			func(ctx context.Context, q *Queries, after eventlog.Position) (string, error) {
				entries, err := q.GetOrderTimeline(ctx, "o-4", after)
				return fmt.Sprint(len(entries)), err
			}},
		{"RunReport", &SalesByDay, "o-5", &orderevent.OrderCancelled{}, "7",
			func(ctx context.Context, q *Queries, after eventlog.Position) (string, error) {
				_, lines, _, err := q.RunReport(ctx, "sales_by_day", Page{}, after)
				if err != nil {
					return "", err
				}
				return fmt.Sprint(lines[0][2]), nil
			}},
		{"GetPayment", &Payments, "o-6", &paymentevent.PaymentAuthorized{}, "AUTHORIZED",
			func(ctx context.Context, q *Queries, after eventlog.Position) (string, error) {
				p, err := q.GetPayment(ctx, "o-6", after)
				return p.State, err
			}},
		{"GetFulfillment", &Fulfillments, "o-7", reserved("cup"), "1",
			func(ctx context.Context, q *Queries, after eventlog.Position) (string, error) {
				f, err := q.GetFulfillment(ctx, "o-7", after)
				return fmt.Sprint(len(f.ToDo)), err
			}},
		{"ListFulfillments", &Fulfillments, "o-8", &orderevent.OrderCancellationRequested{}, "1",
			func(ctx context.Context, q *Queries, after eventlog.Position) (string, error) {
				all, _, err := q.ListFulfillments(ctx, Page{Filter: `goal = CANCEL AND customer_id = "customer of o-8"`}, after)
				return fmt.Sprint(len(all)), err
			}},
		{"GetProduct", &Products, "p-1", &catalogevent.ProductRenamed{Name: "Mug"}, "Mug",
			func(ctx context.Context, q *Queries, after eventlog.Position) (string, error) {
				p, err := q.GetProduct(ctx, "p-1", after)
				return p.Name, err
			}},
		{"ListProducts", &Products, "p-2", &catalogevent.ProductRenamed{Name: "Mug"}, "Mug",
			func(ctx context.Context, q *Queries, after eventlog.Position) (string, error) {
				products, _, err := q.ListProducts(ctx, Page{}, after)
				if err != nil {
					return "", err
				}
				return products[1].Name, nil
			}},
		{"ListStockLevels", &StockLevels, "p-5", &stockevent.StockReceived{Quantity: 5}, "1",
			func(ctx context.Context, q *Queries, after eventlog.Position) (string, error) {
				levels, _, err := q.ListStockLevels(ctx, Page{Filter: `product_id = "p-5" AND available > 0`}, after)
				return fmt.Sprint(len(levels)), err
			}},
		{"GetStockLevel, its stock", &StockLevels, "p-3", &stockevent.StockReceived{Quantity: 5}, "15",
			func(ctx context.Context, q *Queries, after eventlog.Position) (string, error) {
				l, err := q.GetStockLevel(ctx, "p-3", after)
				return fmt.Sprint(l.OnHand), err
			}},
		{"GetStockLevel, its product", &Products, "p-4", &catalogevent.ProductCreated{Name: "Cup", Price: eur(1)}, "0",
			func(ctx context.Context, q *Queries, after eventlog.Position) (string, error) {
				l, err := q.GetStockLevel(ctx, "p-4", after)
				return fmt.Sprint(l.OnHand), err
			}},
	}
}

// existing is what has happened before: p-4 is not known yet.
func existing() []consumer.Event {
	var events []consumer.Event
	for i := range 8 {
		id := fmt.Sprintf("o-%d", i+1)
		placed := placedOrder()
		placed.OrderNumber, placed.CustomerId = "number of "+id, "customer of "+id
		events = append(events, history(id, placed)...)
	}
	events = append(events, history("o-6", &paymentevent.AuthorizationRequested{Amount: eur(1)})...)
	for _, id := range []string{"p-1", "p-2", "p-3"} {
		events = append(events, history(id, &catalogevent.ProductCreated{Name: "Cup", Price: eur(1)})...)
	}
	return append(events, history("p-3", &stockevent.StockReceived{Quantity: 10})...)
}

// A query waits for the model that it reads, whatever the others have applied: as long as its deadline allows, and then
// says why it has no answer.
func TestAnswersReflectTheirTokens(t *testing.T) {
	w := newWorld(t)
	token := w.append(existing()...)
	w.settled(token, "")
	for _, r := range readings() {
		t.Run(r.name, func(t *testing.T) {
			letGo := w.hold(w.table(r.model))
			defer letGo()
			before, err := r.ask(t.Context(), w.Queries, 0)
			if before == r.want && err == nil {
				t.Fatalf("answered %s before the event", before)
			}
			token := w.append(history(r.key, r.event)...)
			held := r.model
			if held == &SalesByDay {
				held = &OrderSummaries // they move together
			}
			w.settled(token, w.table(held))
			lags(t, w.Queries, r, token)

			// Only when the query has seen again and again that it has to wait, or has read the row without that.
			statements := 0
			w.asked.set(func() {
				if statements++; statements == 3 {
					letGo()
				}
			})
			defer w.asked.set(nil)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if got, err := r.ask(ctx, w.Queries, token); err != nil || got != r.want {
				t.Errorf("answered %q, %v, want %q", got, err, r.want)
			}
		})
	}

	w.stop()
	token = w.append(history("o-9", placedOrder())...)
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, r := range readings() {
		wg.Go(func() { lags(t, w.Queries, r, token) })
	}
}

func lags(t *testing.T, q *Queries, r reading, token eventlog.Position) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if got, err := r.ask(ctx, q, token); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_PROJECTION_LAG) {
		t.Errorf("%s: while it lags: answered %q, %v", r.name, got, err)
	}
}

// What is asked for by its key is not answered from a row that is known to be behind.
func TestParkedKeys(t *testing.T) {
	w := newWorld(t)
	w.append(existing()...)
	poisoned := map[string]string{
		"GetOrder": "order", "GetOrderByNumber": "fulfillment", "GetOrderTimeline": "fulfillment", "GetPayment": "payment",
		"GetFulfillment": "order",
		"GetProduct":     "product", "GetStockLevel, its stock": "stock", "GetStockLevel, its product": "product",
	}
	var token eventlog.Position
	for _, r := range readings() {
		if category, ok := poisoned[r.name]; ok {
			token = w.poison(category, r.key)
		}
	}
	for _, r := range readings() {
		_, parked := poisoned[r.name]
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		got, err := r.ask(ctx, w.Queries, token)
		cancel()
		if fault.Is(err, typev1.ErrorReason_ERROR_REASON_ENTITY_PARKED) != parked {
			t.Errorf("%s: parked %t: answered %q, %v", r.name, parked, got, err)
		}
	}
	o, err := w.GetOrder(t.Context(), "o-3", token)
	if err != nil || o.State != placed {
		t.Errorf("another key: %q, %v", o.State, err)
	}
	_, err = w.GetOrderByNumber(t.Context(), "no order's", token)
	isMissing(t, err, typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND)
	token = w.poison("order", "o-unseen")
	if o, err := w.GetOrderByNumber(t.Context(), "maybe its", token); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_ENTITY_PARKED) {
		t.Errorf("an order of which only that it is parked is known: %+v, %v", o, err)
	}
}

// The answer that a model lags is given while somebody still waits for it.
func TestAwaitingEndsBeforeTheDeadline(t *testing.T) {
	for left, reserved := range map[time.Duration]time.Duration{time.Second: 100 * time.Millisecond, time.Hour: 200 * time.Millisecond} {
		deadline := time.Now().Add(left)
		ctx, cancel := context.WithDeadline(t.Context(), deadline)
		defer cancel()
		sooner, cancel := consumer.Sooner(ctx)
		defer cancel()
		until, _ := sooner.Deadline()
		// What is reserved is a part of what is left by then, which is a little less.
		if got := deadline.Sub(until); got < reserved/2 || got > reserved {
			t.Errorf("%s are kept of %s, want %s", got, left, reserved)
		}
	}
}
