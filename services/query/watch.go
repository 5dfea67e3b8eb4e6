package query

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/readmodel"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
)

// firstAnswer bounds the wait for the order as it is, as other reads are bounded: a stream has no deadline unless its
// client sets one.
const firstAnswer = 10 * time.Second

func (s *server) WatchOrder(req *queryv1.WatchOrderRequest, stream queryv1.QueryService_WatchOrderServer) error {
	after, err := aggregate.ParseToken(req.GetConsistencyToken())
	if err != nil {
		return err
	}
	ctx := stream.Context()
	last, err := s.first(ctx, req.GetOrderId(), after)
	if err != nil {
		return err
	}
	watch, err := s.watches.Open(last.OrderID) // what happens to the order from the read on is seen by it
	if err != nil {
		return err
	}
	defer watch.Close()
	sent := order(last)
	for send := true; ; {
		if send {
			if err := stream.Send(&queryv1.WatchOrderResponse{Order: sent}); err != nil {
				return err
			}
		}
		o, err := watch.Next(ctx)
		if err != nil {
			return err
		}
		next := order(o)
		if send = !older(o, last) && !proto.Equal(next, sent); send {
			last, sent = o, next
		}
	}
}

func (s *server) first(ctx context.Context, id string, after eventlog.Position) (readmodel.OrderDetail, error) {
	ctx, cancel := context.WithTimeout(ctx, firstAnswer)
	defer cancel()
	return s.models.GetOrder(ctx, id, after)
}

// older tells that a state was read from a build that is being made anew, or from a replica of Postgres that lags.
func older(o, than readmodel.OrderDetail) bool {
	return o.Revision < than.Revision || o.UpdateTime.Before(than.UpdateTime)
}
