package saga

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/readmodel"
	fulfillmentv1 "github.com/purserhq/purser/proto/purser/fulfillment/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// server shows operators the fulfilments, from the read model: the saga's own tables are made for its work, not to be looked
// through.
type server struct {
	fulfillmentv1.UnimplementedFulfillmentServiceServer
	models *readmodel.Queries
}

func (s *server) GetFulfillment(ctx context.Context, req *fulfillmentv1.GetFulfillmentRequest) (*fulfillmentv1.GetFulfillmentResponse, error) {
	after, err := aggregate.ParseToken(req.GetConsistencyToken())
	if err != nil {
		return nil, err
	}
	f, err := s.models.GetFulfillment(ctx, req.GetOrderId(), after)
	if err != nil {
		return nil, err
	}
	return &fulfillmentv1.GetFulfillmentResponse{Fulfillment: toFulfillment(f)}, nil
}

func (s *server) ListFulfillments(ctx context.Context, req *fulfillmentv1.ListFulfillmentsRequest) (*fulfillmentv1.ListFulfillmentsResponse, error) {
	after, err := aggregate.ParseToken(req.GetConsistencyToken())
	if err != nil {
		return nil, err
	}
	fulfillments, next, err := s.models.ListFulfillments(ctx, readmodel.Page{
		Size: req.GetPageSize(), Token: req.GetPageToken(), Filter: req.GetFilter(), OrderBy: req.GetOrderBy(),
	}, after)
	if err != nil {
		return nil, err
	}
	reply := &fulfillmentv1.ListFulfillmentsResponse{NextPageToken: next}
	for _, f := range fulfillments {
		reply.Fulfillments = append(reply.Fulfillments, toFulfillment(f))
	}
	return reply, nil
}

// toFulfillment is a row as clients see it. Rows hold enumerations by their short names.
func toFulfillment(f readmodel.Fulfillment) *fulfillmentv1.Fulfillment {
	reply := &fulfillmentv1.Fulfillment{
		OrderId: f.OrderID, CustomerId: f.CustomerID,
		Goal:             fulfillmentv1.Goal(fulfillmentv1.Goal_value["GOAL_"+f.Goal]),
		FulfillmentState: typev1.FulfillmentState(typev1.FulfillmentState_value["FULFILLMENT_STATE_"+f.FulfillmentState]),
		NeedsAttention:   f.NeedsAttention, Attention: f.Attention,
		Priority:   typev1.Priority(typev1.Priority_value["PRIORITY_"+f.Priority]),
		CreateTime: timestamppb.New(f.CreateTime), UpdateTime: timestamppb.New(f.UpdateTime),
	}
	for _, t := range f.ToDo {
		reply.ToDo = append(reply.ToDo, &fulfillmentv1.ToDo{
			Step: fulfillmentv1.Step(fulfillmentv1.Step_value[stepPrefix+t.Step]), ProductId: t.ProductID, Since: timestamppb.New(t.Since),
		})
	}
	return reply
}
