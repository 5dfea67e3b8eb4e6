package write

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/domain/order"
	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/ordernumber"
	"github.com/purserhq/purser/internal/secret"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// orderNamespace is the UUIDv5 namespace of order ids made from request ids.
var orderNamespace = uuid.MustParse("5b0c0a52-6c41-4a86-9d0e-3c8f5f8f6d11")

type orderServer struct {
	orderv1.UnimplementedOrderServiceServer
	orders *aggregate.Handler[order.State]
	prices *prices
	secret *secret.Secret
}

func (s *orderServer) PlaceOrder(ctx context.Context, req *orderv1.PlaceOrderRequest) (*orderv1.PlaceOrderResponse, error) {
	id := req.GetOrderId()
	if id == "" {
		id = uuid.NewSHA1(orderNamespace, []byte(req.GetRequestId())).String()
	}
	c := order.Place{
		ID: id, Number: ordernumber.Of(s.secret, id), CustomerID: req.GetCustomerId(),
		Address: req.GetDeliveryAddress(), PaymentMethod: req.GetPaymentMethod(), Priority: req.GetPriority(),
	}
	done, err := s.orders.Create(ctx, id, req, func(st *order.State) ([]proto.Message, error) {
		// Priced only here: a repeat is answered from its events, whatever has become of the catalogue since.
		lines, err := s.price(ctx, req.GetLines())
		if err != nil {
			return nil, err
		}
		c.Lines = lines
		return st.Place(c)
	})
	if err != nil {
		return nil, err
	}
	placed, ok := done.Messages[0].(*orderevent.OrderPlaced)
	if !ok {
		return nil, fmt.Errorf("request %s recorded no OrderPlaced", req.GetRequestId())
	}
	return &orderv1.PlaceOrderResponse{
		OrderId: id, OrderNumber: ordernumber.Grouped(placed.GetOrderNumber()), State: typev1.OrderState_ORDER_STATE_PLACED,
		Total: placed.GetTotal(), Etag: done.Etag(), ConsistencyToken: done.Token(),
	}, nil
}

// price makes the lines of an order from the catalogue.
func (s *orderServer) price(ctx context.Context, lines []*orderv1.OrderLineRequest) ([]order.Line, error) {
	out := make([]order.Line, len(lines))
	for i, l := range lines {
		p, err := s.prices.product(ctx, l.GetProductId())
		if err != nil {
			return nil, err
		}
		switch {
		case !p.Exists:
			return nil, fault.Missing(typev1.ErrorReason_ERROR_REASON_PRODUCT_NOT_FOUND, "product", l.GetProductId())
		case p.Discontinued:
			return nil, fault.Refused(typev1.ErrorReason_ERROR_REASON_PRODUCT_DISCONTINUED, "product %q is discontinued", l.GetProductId())
		}
		out[i] = order.Line{ProductID: l.GetProductId(), Name: p.Name, Quantity: l.GetQuantity(), UnitPrice: p.Price}
	}
	return out, nil
}

func (s *orderServer) ChangeDeliveryAddress(ctx context.Context, req *orderv1.ChangeDeliveryAddressRequest) (*orderv1.ChangeDeliveryAddressResponse, error) {
	done, err := s.orders.Handle(ctx, req.GetOrderId(), req, func(st *order.State) ([]proto.Message, error) {
		return st.ChangeAddress(order.ChangeAddress{ID: req.GetOrderId(), Address: req.GetDeliveryAddress()})
	})
	if err != nil {
		return nil, err
	}
	return &orderv1.ChangeDeliveryAddressResponse{OrderId: req.GetOrderId(), Etag: done.Etag(), ConsistencyToken: done.Token()}, nil
}

func (s *orderServer) CancelOrder(ctx context.Context, req *orderv1.CancelOrderRequest) (*orderv1.CancelOrderResponse, error) {
	c := order.Cancel{ID: req.GetOrderId(), Reason: req.GetReason()}
	done, state, err := s.advance(ctx, req, func(st *order.State) ([]proto.Message, error) { return st.Cancel(c) })
	if err != nil {
		return nil, err
	}
	return &orderv1.CancelOrderResponse{OrderId: req.GetOrderId(), State: state, Etag: done.Etag(), ConsistencyToken: done.Token()}, nil
}

func (s *orderServer) ConfirmOrder(ctx context.Context, req *orderv1.ConfirmOrderRequest) (*orderv1.ConfirmOrderResponse, error) {
	c := order.Confirm{ID: req.GetOrderId()}
	done, state, err := s.advance(ctx, req, func(st *order.State) ([]proto.Message, error) { return st.Confirm(c) })
	if err != nil {
		return nil, err
	}
	return &orderv1.ConfirmOrderResponse{OrderId: req.GetOrderId(), State: state, Etag: done.Etag(), ConsistencyToken: done.Token()}, nil
}

func (s *orderServer) RejectOrder(ctx context.Context, req *orderv1.RejectOrderRequest) (*orderv1.RejectOrderResponse, error) {
	c := order.Reject{ID: req.GetOrderId(), Reason: req.GetReason()}
	done, state, err := s.advance(ctx, req, func(st *order.State) ([]proto.Message, error) { return st.Reject(c) })
	if err != nil {
		return nil, err
	}
	return &orderv1.RejectOrderResponse{OrderId: req.GetOrderId(), State: state, Etag: done.Etag(), ConsistencyToken: done.Token()}, nil
}

func (s *orderServer) MarkCancelled(ctx context.Context, req *orderv1.MarkCancelledRequest) (*orderv1.MarkCancelledResponse, error) {
	c := order.MarkCancelled{ID: req.GetOrderId()}
	done, state, err := s.advance(ctx, req, func(st *order.State) ([]proto.Message, error) { return st.MarkCancelled(c) })
	if err != nil {
		return nil, err
	}
	return &orderv1.MarkCancelledResponse{OrderId: req.GetOrderId(), State: state, Etag: done.Etag(), ConsistencyToken: done.Token()}, nil
}

// advance carries out a command that moves an order to another state, and returns the state it left it in: that of the
// command's own event, so that a repeat is answered as the first time, or the current one where there was nothing to do.
func (s *orderServer) advance(ctx context.Context, req interface {
	aggregate.Command
	GetOrderId() string
}, decide aggregate.Decide[order.State]) (aggregate.Done, typev1.OrderState, error) {
	var current typev1.OrderState
	done, err := s.orders.Handle(ctx, req.GetOrderId(), req, func(st *order.State) ([]proto.Message, error) {
		current = st.State
		return decide(st)
	})
	if err != nil {
		return aggregate.Done{}, 0, err
	}
	if len(done.Messages) > 0 {
		var after order.State
		after.Evolve(done.Messages[len(done.Messages)-1], time.Time{})
		return done, after.State, nil
	}
	return done, current, nil
}
