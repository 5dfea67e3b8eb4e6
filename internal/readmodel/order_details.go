package readmodel

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/domain/fulfillment"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/fault"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// OrderDetail is everything about one order that its customer or a clerk asks for.
type OrderDetail struct {
	OrderID          string  `db:"order_id,key"`
	OrderNumber      string  `db:"order_number,index"`
	CustomerID       string  `db:"customer_id"`
	State            string  `db:"state"` // "": not seen to be placed yet
	PaymentState     string  `db:"payment_state"`
	FulfillmentState string  `db:"fulfillment_state"`
	Priority         string  `db:"priority"`
	RejectReason     string  `db:"reject_reason"` // "": not rejected
	NeedsAttention   bool    `db:"needs_attention"`
	Lines            []Line  `db:"lines"`
	Address          Address `db:"delivery_address"`
	Currency         string  `db:"currency"`
	Total            int64   `db:"total_minor"`
	// Revision is the last of the order's own stream, as commands on the order are given it.
	Revision   eventlog.Revision `db:"order_revision"`
	CreateTime time.Time         `db:"create_time"`
	UpdateTime time.Time         `db:"update_time"`
	// Fulfillment is the saga's own fold, so that the two can't tell different stories. Where its shape changes, so does
	// the version of this model. Queries leave it out: what it says is in the columns above.
	Fulfillment fulfillment.State `db:"fulfillment"`
}

// Line is one line of an order, at the name and price it was placed with.
type Line struct {
	ProductID string `json:"productId"`
	Name      string `json:"name"`
	Quantity  int64  `json:"quantity"`
	Currency  string `json:"currency"`
	UnitPrice int64  `json:"unitPriceMinor"`
}

// Address is where an order goes. It is personal data.
type Address struct {
	Recipient   string `json:"recipient,omitempty"`
	Line1       string `json:"line1,omitempty"`
	Line2       string `json:"line2,omitempty"`
	City        string `json:"city,omitempty"`
	Region      string `json:"region,omitempty"`
	PostalCode  string `json:"postalCode,omitempty"`
	CountryCode string `json:"countryCode,omitempty"`
}

// OrderDetails are the orders for those who ask for one.
var OrderDetails = consumer.Fold[OrderDetail]{
	Name: "order_details", Version: 1,
	Categories: []string{eventschema.Order, eventschema.Payment, eventschema.Fulfillment},
	Evolve: func(r *OrderDetail, e consumer.Event) {
		switch m := e.Message.(type) {
		case *orderevent.OrderPlaced:
			r.place(m)
			r.CreateTime = e.OccurredAt
		case *orderevent.DeliveryAddressChanged:
			r.Address = address(m.GetDeliveryAddress())
		case *orderevent.OrderRejected:
			r.RejectReason = short(m.GetReason())
		}
		r.Fulfillment.Evolve(e.Message, e.OccurredAt)
		r.Fulfillment.Method = "" // of no use here, and personal
		r.State = orderState(r.State, e.Message)
		r.PaymentState = paymentState(r.PaymentState, e.Message)
		r.FulfillmentState = fulfillmentState(r.Fulfillment)
		r.NeedsAttention = r.Fulfillment.NeedsAttention()
		if e.Category == eventschema.Order {
			r.Revision = e.Revision
		}
		r.UpdateTime = latest(r.UpdateTime, e.OccurredAt)
	},
}

func (r *OrderDetail) place(m *orderevent.OrderPlaced) {
	r.OrderNumber, r.CustomerID = m.GetOrderNumber(), m.GetCustomerId()
	r.Priority = short(m.GetPriority())
	r.Currency, r.Total = m.GetTotal().GetCurrencyCode(), m.GetTotal().GetAmountMinor()
	r.Address = address(m.GetDeliveryAddress())
	r.Lines = make([]Line, len(m.GetLines()))
	for i, l := range m.GetLines() {
		r.Lines[i] = Line{
			ProductID: l.GetProductId(), Name: l.GetName(), Quantity: l.GetQuantity(),
			Currency: l.GetUnitPrice().GetCurrencyCode(), UnitPrice: l.GetUnitPrice().GetAmountMinor(),
		}
	}
}

func address(a *typev1.Address) Address {
	return Address{
		Recipient: a.GetRecipient(), Line1: a.GetLine1(), Line2: a.GetLine2(), City: a.GetCity(),
		Region: a.GetRegion(), PostalCode: a.GetPostalCode(), CountryCode: a.GetCountryCode(),
	}
}

// fulfillmentState is RESERVED while every line is held, and RELEASED once none is or ever will be.
func fulfillmentState(s fulfillment.State) string {
	facts := map[fulfillment.LineFact]int{}
	for _, l := range s.Lines {
		facts[l.Fact]++
	}
	switch len(s.Lines) {
	case 0:
		return goodsPending
	case facts[fulfillment.Held]:
		return goodsReserved
	case facts[fulfillment.Refused] + facts[fulfillment.Released]:
		return goodsReleased
	}
	return goodsPending
}

// GetOrder returns an order, or the fault ORDER_NOT_FOUND.
func (q *Queries) GetOrder(ctx context.Context, id string, after eventlog.Position) (OrderDetail, error) {
	at, err := q.at(ctx, &OrderDetails, id, after)
	if err != nil {
		return OrderDetail{}, err
	}
	o, err := q.ordersAt(at).one(ctx, id)
	return found(o, err, id)
}

// GetOrderByNumber returns an order by its number without separators, or the fault ORDER_NOT_FOUND.
func (q *Queries) GetOrderByNumber(ctx context.Context, number string, after eventlog.Position) (OrderDetail, error) {
	at, err := q.at(ctx, &OrderDetails, "", after)
	if err != nil {
		return OrderDetail{}, err
	}
	orders, err := q.readOrders(ctx, at, "order_number = $1", number)
	var first *OrderDetail
	switch {
	case len(orders) > 0:
		first = &orders[0]
	case err == nil && after > 0:
		err = q.noneUnseen(ctx, at)
	}
	o, err := found(first, err, number)
	if err != nil {
		return OrderDetail{}, err
	}
	// Now that its key is known: one that is parked has not applied everything.
	_, err = q.at(ctx, &OrderDetails, o.OrderID, after)
	return o, err
}

// noneUnseen fails with ENTITY_PARKED where there is an order of which no event could be applied, so that its number is not known.
func (q *Queries) noneUnseen(ctx context.Context, at consumer.Place) error {
	unseen, _, err := one[struct{ Any bool }](ctx, q, fmt.Sprintf(
		`SELECT EXISTS (SELECT FROM (%s) AS parked WHERE NOT EXISTS (SELECT FROM %s WHERE order_id = key)) AS any`, at.Parked(), at.Table))
	if err == nil && unseen.Any {
		return fault.Down(typev1.ErrorReason_ERROR_REASON_ENTITY_PARKED,
			"events of an order could not be applied that may be the one with this number; an operator is needed", nil)
	}
	return err
}

// found is an order that was looked for by its name, or the fault that says why there is none.
func found(o *OrderDetail, err error, name string) (OrderDetail, error) {
	switch {
	case err != nil:
		return OrderDetail{}, fmt.Errorf("get order: %w", err)
	case o == nil:
		return OrderDetail{}, fault.Missing(typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND, "order", name)
	}
	return *o, nil
}

// answeredColumns are what is answered of orders: all but the column that the fold has for itself.
var answeredColumns = strings.Replace(consumer.Columns[OrderDetail](), `, "fulfillment"`, "", 1)

func selectOrders(at consumer.Place, condition string) string {
	return fmt.Sprintf(`SELECT %s FROM %s WHERE %s AND state <> ''`, answeredColumns, at.Table, condition)
}

// SelectOrder is the statement that reads the order with the id $1, for a bench to measure.
func (q *Queries) SelectOrder(ctx context.Context) (string, error) {
	at, err := q.at(ctx, &OrderDetails, "", 0)
	return selectOrders(at, "order_id = $1"), err
}

func (q *Queries) readOrders(ctx context.Context, at consumer.Place, condition string, names any) ([]OrderDetail, error) {
	return collect(ctx, q, pgx.RowToStructByNameLax[OrderDetail], selectOrders(at, condition), names)
}

// ordersAt gathers those who read orders of a build at the same time.
func (q *Queries) ordersAt(at consumer.Place) *gathering[OrderDetail] {
	if g, ok := q.orders.Load(at.Build); ok {
		return g.(*gathering[OrderDetail])
	}
	g, _ := q.orders.LoadOrStore(at.Build, &gathering[OrderDetail]{
		read: func(ctx context.Context, ids []string) ([]OrderDetail, error) {
			return q.readOrders(ctx, at, "order_id = ANY ($1)", ids)
		},
		key:  func(o *OrderDetail) string { return o.OrderID },
		most: max(1, int(q.pool.Config().MaxConns)/4), // the others are for other queries
	})
	return g.(*gathering[OrderDetail])
}
