package query

import (
	"context"
	"testing"
	"time"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/localpostgres/pgtest"
	"github.com/purserhq/purser/internal/postgres"
	"github.com/purserhq/purser/internal/readmodel"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// reads are all reads that take a consistency token.
func reads() map[string]func(ctx context.Context, s *server, token string) error {
	return map[string]func(ctx context.Context, s *server, token string) error{
		"GetOrder": func(ctx context.Context, s *server, token string) error {
			_, err := s.GetOrder(ctx, &queryv1.GetOrderRequest{Order: &queryv1.GetOrderRequest_OrderId{OrderId: "7"}, ConsistencyToken: token})
			return err
		},
		"GetOrder by number": func(ctx context.Context, s *server, token string) error {
			number := &queryv1.GetOrderRequest_OrderNumber{OrderNumber: "7K3M-9QXA-2TFD"}
			_, err := s.GetOrder(ctx, &queryv1.GetOrderRequest{Order: number, ConsistencyToken: token})
			return err
		},
		"WatchOrder": func(ctx context.Context, s *server, token string) error {
			return s.WatchOrder(&queryv1.WatchOrderRequest{OrderId: "7", ConsistencyToken: token}, silentStream{ctx: ctx})
		},
		"ListOrders": func(ctx context.Context, s *server, token string) error {
			_, err := s.ListOrders(ctx, &queryv1.ListOrdersRequest{ConsistencyToken: token})
			return err
		},
		"GetOrderTimeline": func(ctx context.Context, s *server, token string) error {
			_, err := s.GetOrderTimeline(ctx, &queryv1.GetOrderTimelineRequest{OrderId: "7", ConsistencyToken: token})
			return err
		},
		"GetProduct": func(ctx context.Context, s *server, token string) error {
			_, err := s.GetProduct(ctx, &queryv1.GetProductRequest{ProductId: "mug", ConsistencyToken: token})
			return err
		},
		"ListProducts": func(ctx context.Context, s *server, token string) error {
			_, err := s.ListProducts(ctx, &queryv1.ListProductsRequest{ConsistencyToken: token})
			return err
		},
		"GetStockLevel": func(ctx context.Context, s *server, token string) error {
			_, err := s.GetStockLevel(ctx, &queryv1.GetStockLevelRequest{ProductId: "mug", ConsistencyToken: token})
			return err
		},
		"ListStockLevels": func(ctx context.Context, s *server, token string) error {
			_, err := s.ListStockLevels(ctx, &queryv1.ListStockLevelsRequest{ConsistencyToken: token})
			return err
		},
		"GetPayment": func(ctx context.Context, s *server, token string) error {
			_, err := s.GetPayment(ctx, &queryv1.GetPaymentRequest{OrderId: "7", ConsistencyToken: token})
			return err
		},
		"RunReport": func(ctx context.Context, s *server, token string) error {
			_, err := s.RunReport(ctx, &queryv1.RunReportRequest{Report: "sales_by_day", ConsistencyToken: token})
			return err
		},
	}
}

// silentStream is one on which nothing is sent.
type silentStream struct {
	queryv1.QueryService_WatchOrderServer
	ctx context.Context
}

func (s silentStream) Context() context.Context { return s.ctx }

// Every read refuses a token that no command's reply gave.
func TestMalformedToken(t *testing.T) {
	s := &server{} // the token is read before any model is asked
	for name, read := range reads() {
		err := read(t.Context(), s, "not one of ours")
		if f := fault.Of(err); f == nil || f.Kind != fault.Invalid || f.Fields[0].Path != "consistency_token" {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// Every read waits for its token: here in vain, as nothing has been applied yet.
func TestTokenIsWaitedFor(t *testing.T) {
	pool, err := postgres.Open(pgtest.Database(t), "query", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	s := &server{models: readmodel.NewQueries(pool, nil)}
	for name, read := range reads() {
		if err := read(t.Context(), s, ""); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_DEPENDENCY_UNAVAILABLE) {
			t.Errorf("%s without a token: %v", name, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := read(ctx, s, aggregate.Token(1)); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_PROJECTION_LAG) {
			t.Errorf("%s with a token: %v", name, err)
		}
		cancel()
	}
}
