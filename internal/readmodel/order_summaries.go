package readmodel

import (
	"context"
	"fmt"
	"time"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// OrderSummary is one line of an order list.
type OrderSummary struct {
	OrderID      string    `db:"order_id,key"`
	OrderNumber  string    `db:"order_number"`
	CustomerID   string    `db:"customer_id"`
	State        string    `db:"state"` // "": not seen to be placed yet
	PaymentState string    `db:"payment_state"`
	Priority     string    `db:"priority"`
	RejectReason string    `db:"reject_reason"` // "": not rejected
	Currency     string    `db:"currency"`
	Total        int64     `db:"total_minor"`
	CreateTime   time.Time `db:"create_time"`
	UpdateTime   time.Time `db:"update_time"`
}

// OrderSummaries are the orders for lists and reports.
var OrderSummaries = consumer.Fold[OrderSummary]{
	Name: "order_summaries", Version: 1,
	Categories: []string{eventschema.Order, eventschema.Payment},
	// A list is always newest first, whatever it is filtered by.
	Indexes: []string{
		"create_time, order_id",
		"customer_id, create_time, order_id",
		"state, create_time, order_id",
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
		r.State = orderState(r.State, e.Message)
		r.PaymentState = paymentState(r.PaymentState, e.Message)
		r.UpdateTime = latest(r.UpdateTime, e.OccurredAt)
	},
}

// orderFilter is what order lists can be filtered by.
var orderFilter = mustFilter(
	enumField("state", typev1.OrderState(0)),
	stringField("customer_id"),
)

type orderCursor struct {
	CreateTime time.Time
	OrderID    string
}

// beforeAllOrders is the place before the newest order.
var beforeAllOrders = orderCursor{CreateTime: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)}

// ListOrders returns a page of the orders that match the filter, newest first, and the token of the next page: empty on
// the last. An order that is placed while pages are read never moves the others between pages.
func (q *Queries) ListOrders(ctx context.Context, filter string, p Page, after eventlog.Position) ([]OrderSummary, string, error) {
	list := listing{"orders", filter}
	cursor := beforeAllOrders
	limit, err := q.begin(list, p, &cursor)
	if err != nil {
		return nil, "", err
	}
	where, err := orderFilter.translate(filter)
	if err != nil {
		return nil, "", err
	}
	if err := q.await(ctx, OrderSummaries.Await, "", after); err != nil {
		return nil, "", err
	}
	n := len(where.args)
	sql := fmt.Sprintf(`SELECT %s FROM %s
		WHERE state <> '' AND %s AND (create_time, order_id) < ($%d, $%d)
		ORDER BY create_time DESC, order_id DESC LIMIT $%d`,
		consumer.Columns[OrderSummary](), OrderSummaries.Table(), where.sql, n+1, n+2, n+3)
	orders, err := many[OrderSummary](ctx, q, sql, append(where.args, cursor.CreateTime, cursor.OrderID, limit+1)...)
	if err != nil {
		return nil, "", fmt.Errorf("list orders: %w", err)
	}
	return endPage(q, list, orders, limit, func(o OrderSummary) any { return orderCursor{o.CreateTime, o.OrderID} })
}
