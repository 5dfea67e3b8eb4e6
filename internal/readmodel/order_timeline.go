package readmodel

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/fault"
	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// TimelineEntry is one event in the history of an order.
type TimelineEntry struct {
	OrderID   string    `db:"order_id,key"`
	Position  int64     `db:"position,key"`
	Part      int       `db:"part,key"`
	Time      time.Time `db:"occurred_at"`
	EventID   string    `db:"event_id"`
	EventType string    `db:"event_type"`
	Summary   string    `db:"summary"`
	Actor     string    `db:"actor"`
	Cause     string    `db:"cause"` // the id of an event, or "": asked for from outside
	// Correlation is shared by all that followed from one request from outside.
	Correlation string            `db:"correlation"`
	Stream      string            `db:"stream"`
	Revision    eventlog.Revision `db:"revision"`
}

// OrderTimeline is everything that happened to orders, their payments and their fulfilment.
var OrderTimeline = consumer.Journal[TimelineEntry]{
	Name: "order_timeline", Version: 2,
	Categories: []string{eventschema.Order, eventschema.Payment, eventschema.Fulfillment},
	Entries: func(e consumer.Event) []TimelineEntry {
		return []TimelineEntry{{
			OrderID: e.Key, Position: int64(e.Position), Part: e.Part, Time: e.OccurredAt,
			EventID: e.ID.String(), EventType: e.Type, Summary: summary(e.Message),
			Actor: e.Actor, Cause: e.CausationID, Correlation: e.CorrelationID, Stream: e.Stream, Revision: e.Revision,
		}}
	},
}

// summary tells an event in words. What is personal has no place in it.
func summary(m proto.Message) string {
	switch m := m.(type) {
	case *orderevent.OrderPlaced:
		return fmt.Sprintf("Order placed, number of lines: %d", len(m.GetLines()))
	case *orderevent.DeliveryAddressChanged:
		return "Delivery address changed"
	case *orderevent.OrderConfirmed:
		return "Order confirmed"
	case *orderevent.OrderRejected:
		return "Order rejected: " + words(short(m.GetReason()))
	case *orderevent.OrderCancellationRequested:
		return "Cancellation requested"
	case *orderevent.OrderCancelled:
		return "Order cancelled"
	}
	if s := paymentSummary(m); s != "" {
		return s
	}
	return fulfillmentSummary(m)
}

func paymentSummary(m proto.Message) string {
	switch m := m.(type) {
	case *paymentevent.AuthorizationRequested:
		return "Payment requested"
	case *paymentevent.PaymentAuthorized:
		return "Payment authorized"
	case *paymentevent.AuthorizationDeclined:
		return "Payment declined: " + words(m.GetDeclineCode())
	case *paymentevent.AuthorizationFailed:
		return "Payment failed: " + words(m.GetFailureCode())
	case *paymentevent.AuthorizationOutcomeUnknown:
		return "Payment sent to the gateway, whose answer was lost"
	case *paymentevent.VoidRequested:
		return "Void of the payment requested"
	case *paymentevent.PaymentVoided:
		return "Payment voided"
	case *paymentevent.VoidOutcomeUnknown:
		return "Void sent to the gateway, whose answer was lost"
	case *paymentevent.PaymentReconciled:
		return "Payment looked up at the gateway: " + words(short(m.GetOutcome()))
	case *paymentevent.PaymentContradicted:
		return fmt.Sprintf("The gateway contradicts itself: %s before, %s now", m.GetRecorded(), m.GetReported())
	}
	return ""
}

func fulfillmentSummary(m proto.Message) string {
	switch m := m.(type) {
	case *fulfillmentevent.LineReserved:
		return fmt.Sprintf("Stock reserved: %d of %s", m.GetQuantity(), m.GetProductId())
	case *fulfillmentevent.LineRefused:
		return fmt.Sprintf("Stock refused: %d of %s asked for, %d available", m.GetRequested(), m.GetProductId(), m.GetAvailable())
	case *fulfillmentevent.LineReleased:
		return "Stock released: " + m.GetProductId()
	case *fulfillmentevent.StepRefused:
		return strings.TrimSpace(fmt.Sprintf("Needs attention: %s was refused: %s %s",
			words(short(m.GetStep())), words(m.GetReason()), m.GetProductId()))
	}
	return ""
}

// words makes a name like OUT_OF_STOCK or insufficient_funds readable.
func words(name string) string {
	if name == "" {
		return "no reason given"
	}
	return strings.ToLower(strings.ReplaceAll(name, "_", " "))
}

// GetOrderTimeline returns what happened to an order, oldest first, or the fault ORDER_NOT_FOUND where nothing did.
func (q *Queries) GetOrderTimeline(ctx context.Context, orderID string, after eventlog.Position) ([]TimelineEntry, error) {
	at, err := q.at(ctx, &OrderTimeline, orderID, after)
	if err != nil {
		return nil, err
	}
	sql := fmt.Sprintf(`SELECT %s FROM %s WHERE order_id = $1 ORDER BY position, part`,
		consumer.Columns[TimelineEntry](), at.Table)
	entries, err := many[TimelineEntry](ctx, q, sql, orderID)
	if err != nil {
		return nil, fmt.Errorf("get order timeline: %w", err)
	}
	if len(entries) == 0 {
		return nil, fault.Missing(typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND, "order", orderID)
	}
	return entries, nil
}
