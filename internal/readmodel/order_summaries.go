package readmodel

import (
	"context"
	"time"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/domain/fulfillment"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// OrderSummary is one line of an order list.
type OrderSummary struct {
	OrderID          string    `db:"order_id,key"`
	OrderNumber      string    `db:"order_number"`
	CustomerID       string    `db:"customer_id"`
	State            string    `db:"state"` // "": not seen to be placed yet
	PaymentState     string    `db:"payment_state"`
	FulfillmentState string    `db:"fulfillment_state"`
	Priority         string    `db:"priority"`
	RejectReason     string    `db:"reject_reason"` // "": not rejected
	NeedsAttention   bool      `db:"needs_attention"`
	Currency         string    `db:"currency"`
	Total            int64     `db:"total_minor"`
	CreateTime       time.Time `db:"create_time"`
	UpdateTime       time.Time `db:"update_time"`
	// Fulfillment is the saga's own fold, as in [OrderDetail]: whether an order needs attention follows from all its facts.
	Fulfillment fulfillment.State `db:"fulfillment"`
}

// OrderSummaries are the orders for lists and reports.
var OrderSummaries = consumer.Fold[OrderSummary]{
	Name: "order_summaries", Version: 2,
	Categories: []string{eventschema.Order, eventschema.Payment, eventschema.Fulfillment},
	// Each serves both those who filter by its first column and those who order by it: equals are in the order of the list.
	Indexes: []string{
		"create_time, order_id",
		"customer_id, create_time, order_id",
		"state, create_time, order_id",
		"payment_state, create_time, order_id",
		"fulfillment_state, create_time, order_id",
		"priority, create_time, order_id",
		"total_minor, create_time, order_id",
		"update_time, create_time, order_id",
		"USING btree (create_time, order_id) WHERE needs_attention",
	},
	Evolve: func(r *OrderSummary, e consumer.Event) {
		switch m := e.Message.(type) {
		case *orderevent.OrderPlaced:
			r.OrderNumber, r.CustomerID = m.GetOrderNumber(), m.GetCustomerId()
			r.Priority = short(m.GetPriority())
			r.Currency, r.Total = m.GetTotal().GetCurrencyCode(), m.GetTotal().GetAmountMinor()
			r.CreateTime = e.OccurredAt
		case *orderevent.OrderRejected:
			r.RejectReason = short(m.GetReason())
		}
		r.Fulfillment.Evolve(e.Message, e.OccurredAt)
		r.Fulfillment.Method = "" // of no use here, and personal
		r.State = orderState(r.State, e.Message)
		r.PaymentState = paymentState(r.PaymentState, e.Message)
		r.FulfillmentState = fulfillmentState(r.Fulfillment)
		r.NeedsAttention = r.Fulfillment.NeedsAttention()
		r.UpdateTime = latest(r.UpdateTime, e.OccurredAt)
	},
}

var orderList = list{
	name: "orders", shown: "state <> ''",
	fields: fields{
		timeField("create_time", "create_time").sorted(),
		timeField("update_time", "update_time").sorted(),
		stringField("customer_id", "customer_id").sorted(),
		enumField("state", typev1.OrderState(0)).sorted(),
		enumField("payment_state", typev1.PaymentState(0)).sorted(),
		enumField("fulfillment_state", typev1.FulfillmentState(0)).sorted(),
		enumField("priority", typev1.Priority(0)).sorted(),
		enumField("reject_reason", typev1.RejectReason(0)),
		boolField("needs_attention", "needs_attention"),
		intField("total", "total_minor").sorted(), // shorter, and clear enough where there is one currency
		intField("total.amount_minor", "total_minor").sorted(),
		stringField("total.currency_code", "currency"),
	},
	order: sorting{{"create_time", true}, {"order_id", true}},
}

// ListOrders returns a page of the orders, newest first unless another order is asked for, and the token of the next
// page: empty on the last. An order that is placed while pages are read never moves the others between pages.
func (q *Queries) ListOrders(ctx context.Context, p Page, after eventlog.Position) ([]OrderSummary, string, error) {
	return listRows(ctx, q, &OrderSummaries, &orderList, p, after)
}
