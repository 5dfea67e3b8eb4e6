package query

import (
	"context"
	"testing"

	"github.com/purserhq/purser/internal/fault"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
)

// Every read takes a consistency token, and refuses one that no command's reply gave.
func TestMalformedToken(t *testing.T) {
	const bad = "not one of ours"
	s := &server{} // the token is read before any model is asked
	for name, read := range map[string]func(context.Context) error{
		"GetOrder": func(ctx context.Context) error {
			_, err := s.GetOrder(ctx, &queryv1.GetOrderRequest{ConsistencyToken: bad})
			return err
		},
		"ListOrders": func(ctx context.Context) error {
			_, err := s.ListOrders(ctx, &queryv1.ListOrdersRequest{ConsistencyToken: bad})
			return err
		},
		"GetOrderTimeline": func(ctx context.Context) error {
			_, err := s.GetOrderTimeline(ctx, &queryv1.GetOrderTimelineRequest{ConsistencyToken: bad})
			return err
		},
		"GetProduct": func(ctx context.Context) error {
			_, err := s.GetProduct(ctx, &queryv1.GetProductRequest{ConsistencyToken: bad})
			return err
		},
		"ListProducts": func(ctx context.Context) error {
			_, err := s.ListProducts(ctx, &queryv1.ListProductsRequest{ConsistencyToken: bad})
			return err
		},
		"GetStockLevel": func(ctx context.Context) error {
			_, err := s.GetStockLevel(ctx, &queryv1.GetStockLevelRequest{ConsistencyToken: bad})
			return err
		},
		"GetPayment": func(ctx context.Context) error {
			_, err := s.GetPayment(ctx, &queryv1.GetPaymentRequest{ConsistencyToken: bad})
			return err
		},
		"RunReport": func(ctx context.Context) error {
			_, err := s.RunReport(ctx, &queryv1.RunReportRequest{ConsistencyToken: bad})
			return err
		},
	} {
		err := read(t.Context())
		if f := fault.Of(err); f == nil || f.Kind != fault.Invalid || f.Fields[0].Path != "consistency_token" {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
