package query

import (
	"context"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/ordernumber"
	"github.com/purserhq/purser/internal/readmodel"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

func (s *server) GetOrder(ctx context.Context, req *queryv1.GetOrderRequest) (*queryv1.GetOrderResponse, error) {
	after, err := aggregate.ParseToken(req.GetConsistencyToken())
	if err != nil {
		return nil, err
	}
	find := s.find
	if req.GetAt() != nil {
		find = s.findPast
	}
	o, err := find(ctx, req, after)
	if err != nil {
		return nil, err
	}
	return &queryv1.GetOrderResponse{Order: order(o)}, nil
}

func (s *server) find(ctx context.Context, req *queryv1.GetOrderRequest, after eventlog.Position) (readmodel.OrderDetail, error) {
	if _, ok := req.GetOrder().(*queryv1.GetOrderRequest_OrderId); ok {
		return s.models.GetOrder(ctx, req.GetOrderId(), after)
	}
	number, err := ordernumber.Parse(req.GetOrderNumber())
	if err != nil {
		return readmodel.OrderDetail{}, err
	}
	return s.models.GetOrderByNumber(ctx, number, after)
}

// findPast answers from the log alone, unless it has to learn first which order has a number.
func (s *server) findPast(ctx context.Context, req *queryv1.GetOrderRequest, after eventlog.Position) (readmodel.OrderDetail, error) {
	id := req.GetOrderId()
	if id == "" {
		o, err := s.find(ctx, req, after)
		if err != nil {
			return readmodel.OrderDetail{}, err
		}
		id = o.OrderID
	}
	if at := req.GetAsOf(); at != nil {
		return s.past.AsOf(ctx, id, at.AsTime())
	}
	return s.past.AsOfRevision(ctx, id, eventlog.Revision(req.GetAsOfRevision()))
}

func (s *server) ListOrders(ctx context.Context, req *queryv1.ListOrdersRequest) (*queryv1.ListOrdersResponse, error) {
	after, err := aggregate.ParseToken(req.GetConsistencyToken())
	if err != nil {
		return nil, err
	}
	p := page(req)
	p.OrderBy = req.GetOrderBy()
	orders, next, err := s.models.ListOrders(ctx, p, after)
	if err != nil {
		return nil, err
	}
	return &queryv1.ListOrdersResponse{Orders: each(orders, orderSummary), NextPageToken: next}, nil
}

func (s *server) GetOrderTimeline(ctx context.Context, req *queryv1.GetOrderTimelineRequest) (*queryv1.GetOrderTimelineResponse, error) {
	after, err := aggregate.ParseToken(req.GetConsistencyToken())
	if err != nil {
		return nil, err
	}
	entries, err := s.models.GetOrderTimeline(ctx, req.GetOrderId(), after)
	if err != nil {
		return nil, err
	}
	return &queryv1.GetOrderTimelineResponse{Entries: each(entries, timelineEntry)}, nil
}

func (s *server) GetPayment(ctx context.Context, req *queryv1.GetPaymentRequest) (*queryv1.GetPaymentResponse, error) {
	after, err := aggregate.ParseToken(req.GetConsistencyToken())
	if err != nil {
		return nil, err
	}
	p, err := s.models.GetPayment(ctx, req.GetOrderId(), after)
	if err != nil {
		return nil, err
	}
	return &queryv1.GetPaymentResponse{Payment: payment(p)}, nil
}

func order(o readmodel.OrderDetail) *queryv1.Order {
	return &queryv1.Order{
		OrderId: o.OrderID, OrderNumber: ordernumber.Grouped(o.OrderNumber), CustomerId: o.CustomerID,
		State:            orderState(o.State),
		PaymentState:     paymentState(o.PaymentState),
		FulfillmentState: fulfillmentState(o.FulfillmentState),
		Priority:         priority(o.Priority),
		Lines:            each(o.Lines, orderLine),
		Total:            money(o.Currency, o.Total),
		DeliveryAddress:  address(o.Address),
		RejectReason:     rejectReason(o.RejectReason),
		NeedsAttention:   o.NeedsAttention,
		Etag:             aggregate.Etag(o.Revision),
		CreateTime:       timestamp(o.CreateTime), UpdateTime: timestamp(o.UpdateTime),
	}
}

func orderLine(l readmodel.Line) *queryv1.OrderLine {
	return &queryv1.OrderLine{
		ProductId: l.ProductID, Name: l.Name, Quantity: l.Quantity, UnitPrice: money(l.Currency, l.UnitPrice),
	}
}

func address(a readmodel.Address) *typev1.Address {
	return &typev1.Address{
		Recipient: optional(a.Recipient), Line1: optional(a.Line1), Line2: optional(a.Line2), City: optional(a.City),
		Region: a.Region, PostalCode: a.PostalCode, CountryCode: a.CountryCode,
	}
}

func orderSummary(o readmodel.OrderSummary) *queryv1.OrderSummary {
	return &queryv1.OrderSummary{
		OrderId: o.OrderID, OrderNumber: ordernumber.Grouped(o.OrderNumber), CustomerId: o.CustomerID,
		State: orderState(o.State), PaymentState: paymentState(o.PaymentState), FulfillmentState: fulfillmentState(o.FulfillmentState),
		Priority: priority(o.Priority), Total: money(o.Currency, o.Total), RejectReason: rejectReason(o.RejectReason),
		NeedsAttention: o.NeedsAttention,
		CreateTime:     timestamp(o.CreateTime), UpdateTime: timestamp(o.UpdateTime),
	}
}

func timelineEntry(e readmodel.TimelineEntry) *queryv1.TimelineEntry {
	return &queryv1.TimelineEntry{
		Time: timestamp(e.Time), EventType: e.EventType, Summary: e.Summary, Actor: e.Actor, Cause: e.Cause,
		Stream: e.Stream, Revision: int64(e.Revision), EventId: e.EventID, CorrelationId: e.Correlation,
	}
}

func payment(p readmodel.Payment) *queryv1.Payment {
	return &queryv1.Payment{
		OrderId: p.OrderID, CustomerId: p.CustomerID, State: paymentState(p.State), Amount: money(p.Currency, p.Amount),
		GatewayReference: p.GatewayReference, DeclineCode: p.DeclineCode, NeedsAttention: p.NeedsAttention,
		Etag: aggregate.Etag(p.Revision), CreateTime: timestamp(p.CreateTime), UpdateTime: timestamp(p.UpdateTime),
	}
}
