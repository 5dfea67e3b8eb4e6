package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"

	paymentv1 "github.com/purserhq/purser/proto/purser/payment/v1"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// What a seller looks for is found by a list: among orders in every state, one of which waits for a person.
func TestLists(t *testing.T) {
	i := newInstance(t)
	mug := i.stocked(t, 10)
	ids := map[string]string{}
	for _, o := range []struct {
		name, method string
		quantity     int64
		state        typev1.OrderState
	}{
		{"small", "pm_card_visa", 1, typev1.OrderState_ORDER_STATE_CONFIRMED},
		{"large", "pm_card_visa", 5, typev1.OrderState_ORDER_STATE_CONFIRMED},
		{"declined", "pm_card_chargeDeclined", 2, typev1.OrderState_ORDER_STATE_REJECTED},
		{"too large", "pm_card_visa", 50, typev1.OrderState_ORDER_STATE_REJECTED},
	} {
		placed, err := i.orders.PlaceOrder(t.Context(), orderOf(mug, o.quantity, o.method))
		if err != nil {
			t.Fatal(err)
		}
		ids[placed.GetOrderId()] = o.name
		i.reaches(t, placed.GetOrderId(), o.state)
	}
	// A payment of another amount than the order's is there first, which is for a person to look at.
	stuck := orderOf(mug, 1, "pm_card_visa")
	stuck.OrderId, stuck.Priority = "stuck", typev1.Priority_PRIORITY_CRITICAL
	ids["stuck"] = "stuck"
	if _, err := i.payment.AuthorizePayment(t.Context(), &paymentv1.AuthorizePaymentRequest{
		RequestId: uuid.NewString(), OrderId: "stuck", CustomerId: "c-1", PaymentMethod: "pm_card_visa",
		Amount: &typev1.Money{CurrencyCode: "EUR", AmountMinor: 1},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := i.orders.PlaceOrder(t.Context(), stuck); err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct{ filter, orderBy, want string }{
		{``, "", "stuck, too large, declined, large, small"},
		{`state = CONFIRMED`, "", "large, small"},
		{`state = REJECTED AND reject_reason = OUT_OF_STOCK`, "", "too large"},
		{`payment_state = DECLINED`, "", "declined"},
		{`fulfillment_state = RESERVED`, "total", "small, stuck, large"},
		{`needs_attention`, "", "stuck"},
		{`priority = CRITICAL AND customer_id = "c-1"`, "", "stuck"},
		{fmt.Sprintf("total > %d", price), "total", "declined, large, too large"},
		{`create_time < "2020-01-01T00:00:00Z"`, "", ""},
		{`NOT needs_attention`, "create_time", "small, large, declined, too large"},
	} {
		eventually(t, settle, func() error {
			req := &queryv1.ListOrdersRequest{Filter: c.filter, OrderBy: c.orderBy, PageSize: 2}
			var names []string
			for {
				page, err := i.query.ListOrders(t.Context(), req)
				if err != nil {
					return err
				}
				for _, o := range page.GetOrders() {
					names = append(names, ids[o.GetOrderId()])
				}
				if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
					break
				}
			}
			if got := strings.Join(names, ", "); got != c.want {
				return fmt.Errorf("%s by %s: %s, want %s", c.filter, c.orderBy, got, c.want)
			}
			return nil
		})
	}

	eventually(t, settle, func() error {
		levels, err := i.query.ListStockLevels(t.Context(), &queryv1.ListStockLevelsRequest{Filter: "available < 5", OrderBy: "available desc"})
		if err == nil && (len(levels.GetStockLevels()) != 1 || levels.GetStockLevels()[0].GetAvailable() != 10-1-5-1) {
			err = fmt.Errorf("stock %v", levels)
		}
		return err
	})
	products, err := i.query.ListProducts(t.Context(), &queryv1.ListProductsRequest{Query: "MU", Filter: "NOT discontinued", OrderBy: "price"})
	if err != nil || len(products.GetProducts()) != 1 || products.GetProducts()[0].GetProductId() != mug {
		t.Errorf("products %v, %v", products, err)
	}
	report, err := i.query.RunReport(t.Context(), &queryv1.RunReportRequest{Report: "product_sales", Filter: fmt.Sprintf("product_id = %q", mug)})
	if err != nil || len(report.GetRows()) != 1 || report.GetRows()[0].GetCells()[3].GetNumber() != 1+5+1 {
		t.Errorf("sold %v, %v", report, err)
	}
}

// What no list can be filtered or ordered by is refused, with the field at fault; and so is a token of another query.
func TestListsRefuse(t *testing.T) {
	i := newInstance(t)
	for range 2 {
		i.stocked(t, 1)
	}
	var token string
	eventually(t, settle, func() error {
		page, err := i.query.ListProducts(t.Context(), &queryv1.ListProductsRequest{PageSize: 1})
		if token = page.GetNextPageToken(); err == nil && token == "" {
			err = fmt.Errorf("one page: %v", page)
		}
		return err
	})
	for field, requests := range map[string][]any{
		"filter": {
			&queryv1.ListOrdersRequest{Filter: "state = SHINY"}, &queryv1.ListProductsRequest{Filter: "state = PLACED"},
			&queryv1.ListStockLevelsRequest{Filter: `available < "5"`}, &queryv1.RunReportRequest{Report: "customer_totals", Filter: "day = 5"},
		},
		"order_by": {
			&queryv1.ListOrdersRequest{OrderBy: "lines"}, &queryv1.ListProductsRequest{OrderBy: "price up"},
			&queryv1.ListStockLevelsRequest{OrderBy: "reserved"},
		},
		"page_token": {
			&queryv1.ListProductsRequest{PageToken: token, Query: "mug"}, &queryv1.ListProductsRequest{PageToken: token, OrderBy: "price"},
			&queryv1.ListProductsRequest{PageToken: token, Filter: "price > 1"}, &queryv1.ListStockLevelsRequest{PageToken: token},
		},
		"query":     {&queryv1.ListProductsRequest{Query: strings.Repeat("mug ", 100)}},
		"page_size": {&queryv1.ListStockLevelsRequest{PageSize: -1}},
	} {
		for _, request := range requests {
			var err error
			switch r := request.(type) {
			case *queryv1.ListOrdersRequest:
				_, err = i.query.ListOrders(t.Context(), r)
			case *queryv1.ListProductsRequest:
				_, err = i.query.ListProducts(t.Context(), r)
			case *queryv1.ListStockLevelsRequest:
				_, err = i.query.ListStockLevels(t.Context(), r)
			case *queryv1.RunReportRequest:
				_, err = i.query.RunReport(t.Context(), r)
			}
			s := wantError(t, err, codes.InvalidArgument, "INVALID_FIELD")
			var fields []string
			for _, d := range s.Details() {
				if bad, ok := d.(*errdetails.BadRequest); ok {
					fields = append(fields, bad.GetFieldViolations()[0].GetField())
				}
			}
			if len(fields) != 1 || fields[0] != field {
				t.Errorf("%v: the violations are of %v, want %s", request, fields, field)
			}
		}
	}
}
