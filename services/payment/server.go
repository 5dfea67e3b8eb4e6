package payment

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/domain/payment"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/fault"
	paymentv1 "github.com/purserhq/purser/proto/purser/payment/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
	"github.com/purserhq/purser/services/payment/gateway"
)

type server struct {
	paymentv1.UnimplementedPaymentServiceServer
	payments *aggregate.Handler[payment.State]
	gateway  gateway.Gateway
	clock    func() time.Time
	log      *slog.Logger
}

func (s *server) AuthorizePayment(ctx context.Context, req *paymentv1.AuthorizePaymentRequest) (*paymentv1.AuthorizePaymentResponse, error) {
	c := payment.RequestAuthorization{
		OrderID: req.GetOrderId(), CustomerID: req.GetCustomerId(), Amount: req.GetAmount(), Method: req.GetPaymentMethod(),
		Key: payment.NewGatewayKey(req.GetOrderId(), req.GetRequestId()),
	}
	done, st, err := s.handle(ctx, req, func(st *payment.State) ([]proto.Message, error) { return st.RequestAuthorization(c) })
	switch {
	case err != nil:
	case st.Authorization.Status != payment.Requested: // answered before
	case len(done.Messages) > 0 && !done.Repeat: // the intent is new, so there is nothing to look up yet
		if done, err = s.settle(ctx, st.Authorization, c.Key, s.authorize); err == nil {
			st, err = s.made(ctx, req.GetOrderId(), done)
		}
	default: // an intent was left alone, or its call is on its way at this moment
		if err = s.resume(ctx, req.GetOrderId()); err == nil {
			done, st, err = s.look(ctx, req)
		}
	}
	if err != nil {
		return nil, err
	}
	reply := &paymentv1.AuthorizePaymentResponse{
		OrderId: req.GetOrderId(), State: st.PaymentState(), Etag: done.Etag(), ConsistencyToken: done.Token(),
	}
	if st.Authorization.Status == payment.Declined {
		reply.DeclineCode = st.Authorization.Code
	}
	return reply, nil
}

func (s *server) VoidPayment(ctx context.Context, req *paymentv1.VoidPaymentRequest) (*paymentv1.VoidPaymentResponse, error) {
	c := payment.RequestVoid{OrderID: req.GetOrderId(), Key: payment.NewGatewayKey(req.GetOrderId(), req.GetRequestId())}
	done, st, err := s.handle(ctx, req, func(st *payment.State) ([]proto.Message, error) { return st.RequestVoid(c) })
	if err == nil && st.Void.Status.Open() {
		if err = s.finishVoid(ctx, req.GetOrderId()); err == nil {
			done, st, err = s.look(ctx, req)
		}
	}
	if err != nil {
		return nil, err
	}
	reply := &paymentv1.VoidPaymentResponse{
		OrderId: req.GetOrderId(), State: st.PaymentState(), Etag: done.Etag(), ConsistencyToken: done.Token(),
	}
	if st.Void.Status.Open() {
		reply.State = typev1.PaymentState_PAYMENT_STATE_OUTCOME_UNKNOWN // a repeat tries again
	}
	return reply, nil
}

func (s *server) ReconcilePayment(ctx context.Context, req *paymentv1.ReconcilePaymentRequest) (*paymentv1.ReconcilePaymentResponse, error) {
	done, st, err := s.handle(ctx, req, nothing)
	switch {
	case err != nil:
	case done.Revision == eventlog.NoStream:
		err = fault.Missing(typev1.ErrorReason_ERROR_REASON_PAYMENT_NOT_FOUND, "payment", req.GetOrderId())
	case len(done.Messages) > 0: // answered before
	case st.Void.Status == payment.VoidUnknown:
		if err = s.finishVoid(ctx, req.GetOrderId()); err == nil {
			done, st, err = s.look(ctx, req)
		}
	case st.Authorization.Status == payment.Unknown:
		done, st, err = s.reconcile(ctx, req, st.Authorization)
	}
	if err != nil {
		return nil, err
	}
	return &paymentv1.ReconcilePaymentResponse{
		OrderId: req.GetOrderId(), State: st.PaymentState(), Etag: done.Etag(), ConsistencyToken: done.Token(),
	}, nil
}

// command is a command on the payment of one order.
type command interface {
	aggregate.Command
	GetOrderId() string
}

// admitted is a command whose etag was compared. It is not compared again: the command itself may have moved the payment
// on since.
type admitted struct{ command }

func (admitted) GetEtag() string { return "" }

// handle carries out a command, and returns what it made of the payment: the fold of its own events, so that a repeat
// is answered as the first time, or the current state where there was nothing to do.
func (s *server) handle(ctx context.Context, req command, decide aggregate.Decide[payment.State]) (aggregate.Done, *payment.State, error) {
	var current payment.State
	done, err := s.payments.Handle(ctx, req.GetOrderId(), req, func(st *payment.State) ([]proto.Message, error) {
		current = *st
		return decide(st)
	})
	if err != nil || len(done.Messages) == 0 {
		return done, &current, err
	}
	own, err := s.made(ctx, req.GetOrderId(), done)
	return done, own, err
}

// look is the answer to a command that was carried out, once what it found open is finished.
func (s *server) look(ctx context.Context, req command) (aggregate.Done, *payment.State, error) {
	return s.handle(ctx, admitted{req}, nothing)
}

func nothing(*payment.State) ([]proto.Message, error) { return nil, nil }

// made is what a command's own events made of the payment.
func (s *server) made(ctx context.Context, orderID string, done aggregate.Done) (*payment.State, error) {
	var own payment.State
	for _, m := range done.Messages {
		own.Evolve(m, time.Time{})
	}
	if own.Contradicted { // that leaves the state as it was, which these events need not tell
		st, _, err := s.payments.Load(ctx, orderID)
		return st, err
	}
	return &own, nil
}
