package readmodel

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/domain/fulfillment"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/fault"
	fulfillmentv1 "github.com/purserhq/purser/proto/purser/fulfillment/v1"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// Fulfillment is how far the saga has come with one order.
type Fulfillment struct {
	OrderID          string    `db:"order_id,key"`
	CustomerID       string    `db:"customer_id"`
	Goal             string    `db:"goal"` // "": not seen to be placed yet
	FulfillmentState string    `db:"fulfillment_state"`
	NeedsAttention   bool      `db:"needs_attention"`
	Attention        string    `db:"attention"` // why, or ""
	Priority         string    `db:"priority"`
	ToDo             []ToDo    `db:"to_do"`
	WaitingSince     time.Time `db:"waiting_since"` // of the oldest item to do; notWaiting where there is none
	CreateTime       time.Time `db:"create_time"`
	UpdateTime       time.Time `db:"update_time"`
	// State is the saga's own, as in [OrderDetail].
	State fulfillment.State `db:"state"`
}

// ToDo is an item of the saga's list, and when it came onto it.
type ToDo struct {
	Step      string    `json:"step"`
	ProductID string    `json:"product_id,omitempty"` // "": the step concerns no line
	Since     time.Time `json:"since"`
}

// notWaiting is later than every time that somebody may have waited since.
var notWaiting = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// Fulfillments are the orders for those who see to it that they come to their end.
var Fulfillments = consumer.Fold[Fulfillment]{
	Name: "fulfillments", Version: 1,
	Categories: []string{eventschema.Order, eventschema.Payment, eventschema.Fulfillment},
	Indexes: []string{
		"create_time, order_id",
		"update_time, create_time, order_id",
		"waiting_since, create_time, order_id",
		"customer_id, create_time, order_id",
		"goal, create_time, order_id",
		"USING btree (create_time, order_id) WHERE needs_attention",
	},
	Evolve: func(r *Fulfillment, e consumer.Event) {
		if m, ok := e.Message.(*orderevent.OrderPlaced); ok {
			r.CustomerID, r.Priority = m.GetCustomerId(), short(m.GetPriority())
			r.CreateTime = e.OccurredAt
		}
		r.State.Evolve(e.Message, e.OccurredAt)
		r.State.Method = "" // of no use here, and personal
		r.Goal = string(r.State.Goal)
		r.FulfillmentState = fulfillmentState(r.State)
		r.Attention = r.State.Attention()
		r.NeedsAttention = r.Attention != ""
		r.ToDo = stillToDo(r.ToDo, r.State.ToDo(), e.OccurredAt)
		r.WaitingSince = notWaiting
		for _, t := range r.ToDo {
			if t.Since.Before(r.WaitingSince) {
				r.WaitingSince = t.Since
			}
		}
		r.UpdateTime = latest(r.UpdateTime, e.OccurredAt)
	},
}

// stillToDo is what is to be done after an event. What was to be done before keeps its time.
func stillToDo(before []ToDo, items []fulfillment.Item, now time.Time) []ToDo {
	after := make([]ToDo, len(items))
	for i, item := range items {
		after[i] = ToDo{short(item.Step), item.ProductID, now}
		if n := slices.IndexFunc(before, func(t ToDo) bool { return t.Step == after[i].Step && t.ProductID == item.ProductID }); n >= 0 {
			after[i] = before[n]
		}
	}
	return after
}

var fulfillmentList = list{
	name: "fulfillments", shown: "goal <> ''",
	fields: fields{
		timeField("create_time", "create_time").sorted(),
		timeField("update_time", "update_time").sorted(),
		timeField("waiting_since", "waiting_since").sorted(),
		stringField("customer_id", "customer_id"),
		enumField("goal", fulfillmentv1.Goal(0)),
		enumField("fulfillment_state", typev1.FulfillmentState(0)),
		enumField("priority", typev1.Priority(0)),
		boolField("needs_attention", "needs_attention"),
	},
	order: sorting{{"create_time", true}, {"order_id", true}},
}

// GetFulfillment returns the fulfilment of an order, or the fault ORDER_NOT_FOUND.
func (q *Queries) GetFulfillment(ctx context.Context, orderID string, after eventlog.Position) (Fulfillment, error) {
	at, err := q.at(ctx, &Fulfillments, orderID, after)
	if err != nil {
		return Fulfillment{}, err
	}
	sql := fmt.Sprintf(`SELECT %s FROM %s WHERE order_id = $1 AND goal <> ''`, consumer.Columns[Fulfillment](), at.Table)
	f, ok, err := one[Fulfillment](ctx, q, sql, orderID)
	if err != nil {
		return Fulfillment{}, fmt.Errorf("get fulfillment: %w", err)
	}
	if !ok {
		return Fulfillment{}, fault.Missing(typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND, "order", orderID)
	}
	return f, nil
}

// ListFulfillments returns a page of the fulfilments of orders, newest first unless another order is asked for, and the
// token of the next page: empty on the last.
func (q *Queries) ListFulfillments(ctx context.Context, p Page, after eventlog.Position) ([]Fulfillment, string, error) {
	return listRows(ctx, q, &Fulfillments, &fulfillmentList, p, after)
}
