package readmodel

import (
	"context"
	"fmt"
	"time"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/fault"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// Payment is the payment of one order. One that was voided before it was ever asked for has no amount.
type Payment struct {
	OrderID          string            `db:"order_id,key"`
	CustomerID       string            `db:"customer_id"`
	State            string            `db:"state"`
	Currency         string            `db:"currency"` // "": never asked for
	Amount           int64             `db:"amount_minor"`
	GatewayReference string            `db:"gateway_reference"`
	DeclineCode      string            `db:"decline_code"`
	NeedsAttention   bool              `db:"needs_attention"` // the gateway's answers contradict each other
	Revision         eventlog.Revision `db:"payment_revision"`
	CreateTime       time.Time         `db:"create_time"`
	UpdateTime       time.Time         `db:"update_time"`
}

// Payments are the orders' payments.
var Payments = consumer.Fold[Payment]{
	Name: "payments", Version: 1,
	Categories: []string{eventschema.Payment},
	Evolve: func(r *Payment, e consumer.Event) {
		switch m := e.Message.(type) {
		case *paymentevent.AuthorizationRequested:
			r.CustomerID = m.GetCustomerId()
			r.Currency, r.Amount = m.GetAmount().GetCurrencyCode(), m.GetAmount().GetAmountMinor()
		case *paymentevent.PaymentAuthorized:
			r.GatewayReference = m.GetGatewayReference()
		case *paymentevent.AuthorizationDeclined:
			r.DeclineCode = m.GetDeclineCode()
		case *paymentevent.PaymentReconciled:
			r.GatewayReference, r.DeclineCode = m.GetGatewayReference(), m.GetDeclineCode()
		case *paymentevent.PaymentContradicted:
			r.NeedsAttention = true
		}
		if r.CreateTime.IsZero() {
			r.CreateTime = e.OccurredAt
		}
		r.State = paymentState(r.State, e.Message)
		r.Revision = e.Revision
		r.UpdateTime = latest(r.UpdateTime, e.OccurredAt)
	},
}

// GetPayment returns the payment of an order, or the fault PAYMENT_NOT_FOUND where nothing was asked of it yet.
func (q *Queries) GetPayment(ctx context.Context, orderID string, after eventlog.Position) (Payment, error) {
	at, err := q.at(ctx, &Payments, orderID, after)
	if err != nil {
		return Payment{}, err
	}
	sql := fmt.Sprintf(`SELECT %s FROM %s WHERE order_id = $1`, consumer.Columns[Payment](), at.Table)
	p, ok, err := one[Payment](ctx, q, sql, orderID)
	if err != nil {
		return Payment{}, fmt.Errorf("get payment: %w", err)
	}
	if !ok {
		return Payment{}, fault.Missing(typev1.ErrorReason_ERROR_REASON_PAYMENT_NOT_FOUND, "payment", orderID)
	}
	return p, nil
}
