package readmodel

import (
	"context"
	"fmt"
	"time"

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
	// the version of this model.
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
	return q.order(ctx, at, "order_id", id)
}

// GetOrderByNumber returns an order by its number without separators, or the fault ORDER_NOT_FOUND.
func (q *Queries) GetOrderByNumber(ctx context.Context, number string, after eventlog.Position) (OrderDetail, error) {
	at, err := q.at(ctx, &OrderDetails, "", after)
	if err != nil {
		return OrderDetail{}, err
	}
	o, err := q.order(ctx, at, "order_number", number)
	if err != nil {
		return OrderDetail{}, err
	}
	// Now that its key is known: one that is parked has not applied everything.
	_, err = q.at(ctx, &OrderDetails, o.OrderID, after)
	return o, err
}

func (q *Queries) order(ctx context.Context, at consumer.Place, column, value string) (OrderDetail, error) {
	sql := fmt.Sprintf(`SELECT %s FROM %s WHERE %s = $1 AND state <> ''`,
		consumer.Columns[OrderDetail](), at.Table, column)
	o, ok, err := one[OrderDetail](ctx, q, sql, value)
	if err != nil {
		return OrderDetail{}, fmt.Errorf("get order: %w", err)
	}
	if !ok {
		return OrderDetail{}, fault.Missing(typev1.ErrorReason_ERROR_REASON_ORDER_NOT_FOUND, "order", value)
	}
	return o, nil
}
