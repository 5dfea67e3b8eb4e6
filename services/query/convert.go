package query

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/purserhq/purser/internal/readmodel"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// each converts the elements of a list.
func each[A, B any](list []A, convert func(A) B) []B {
	out := make([]B, len(list))
	for i, a := range list {
		out[i] = convert(a)
	}
	return out
}

// page is what every request for a page says.
func page(req interface {
	GetPageSize() int32
	GetPageToken() string
	GetFilter() string
}) readmodel.Page {
	return readmodel.Page{Size: req.GetPageSize(), Token: req.GetPageToken(), Filter: req.GetFilter()}
}

// money is absent where there is no currency: nothing was said of an amount.
func money(currency string, minor int64) *typev1.Money {
	if currency == "" {
		return nil
	}
	return &typev1.Money{CurrencyCode: currency, AmountMinor: minor}
}

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// Rows hold enumerations by their short names; the empty one is unspecified.

func orderState(short string) typev1.OrderState {
	return typev1.OrderState(typev1.OrderState_value["ORDER_STATE_"+short])
}

func paymentState(short string) typev1.PaymentState {
	return typev1.PaymentState(typev1.PaymentState_value["PAYMENT_STATE_"+short])
}

func fulfillmentState(short string) typev1.FulfillmentState {
	return typev1.FulfillmentState(typev1.FulfillmentState_value["FULFILLMENT_STATE_"+short])
}

func priority(short string) typev1.Priority {
	return typev1.Priority(typev1.Priority_value["PRIORITY_"+short])
}

func rejectReason(short string) typev1.RejectReason {
	return typev1.RejectReason(typev1.RejectReason_value["REJECT_REASON_"+short])
}
