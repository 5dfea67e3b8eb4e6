package saga

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/domain/fulfillment"
	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	paymentv1 "github.com/purserhq/purser/proto/purser/payment/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// attemptLife is how long an attempt at a reservation is valid, from when its item was read. Whatever is under way for
// longer has no effect any more.
const attemptLife = time.Minute

type inventoryClient interface {
	ReserveStock(context.Context, *inventoryv1.ReserveStockRequest, ...grpc.CallOption) (*inventoryv1.ReserveStockResponse, error)
	ReleaseReservation(context.Context, *inventoryv1.ReleaseReservationRequest, ...grpc.CallOption) (*inventoryv1.ReleaseReservationResponse, error)
}

type paymentClient interface {
	AuthorizePayment(context.Context, *paymentv1.AuthorizePaymentRequest, ...grpc.CallOption) (*paymentv1.AuthorizePaymentResponse, error)
	VoidPayment(context.Context, *paymentv1.VoidPaymentRequest, ...grpc.CallOption) (*paymentv1.VoidPaymentResponse, error)
	ReconcilePayment(context.Context, *paymentv1.ReconcilePaymentRequest, ...grpc.CallOption) (*paymentv1.ReconcilePaymentResponse, error)
}

type orderClient interface {
	ConfirmOrder(context.Context, *orderv1.ConfirmOrderRequest, ...grpc.CallOption) (*orderv1.ConfirmOrderResponse, error)
	RejectOrder(context.Context, *orderv1.RejectOrderRequest, ...grpc.CallOption) (*orderv1.RejectOrderResponse, error)
	MarkCancelled(context.Context, *orderv1.MarkCancelledRequest, ...grpc.CallOption) (*orderv1.MarkCancelledResponse, error)
}

// errNoMeaning says that a reply is not one that this build understands.
var errNoMeaning = errors.New("the reply says neither yes nor no")

// errStillUnknown says that a payment's outcome could not be found out yet.
var errStillUnknown = errors.New("the outcome of the payment is not known yet")

// answer is what an item's reply says that no other stream records; the zero answer is that everything is on record.
type answer struct {
	kind   string // tells the answers to one request apart
	decide aggregate.Decide[fulfillment.Answers]
}

// steps are the calls that items stand for, by service.
type steps struct {
	inventory inventoryClient
	payments  paymentClient
	orders    orderClient
}

// The steps that each service carries out.
var (
	inventorySteps = []fulfillmentevent.Step{fulfillmentevent.Step_STEP_RESERVE_STOCK, fulfillmentevent.Step_STEP_RELEASE_STOCK}
	paymentSteps   = []fulfillmentevent.Step{
		fulfillmentevent.Step_STEP_AUTHORIZE_PAYMENT, fulfillmentevent.Step_STEP_RECONCILE_PAYMENT, fulfillmentevent.Step_STEP_VOID_PAYMENT,
	}
	orderSteps = []fulfillmentevent.Step{
		fulfillmentevent.Step_STEP_CONFIRM_ORDER, fulfillmentevent.Step_STEP_REJECT_ORDER, fulfillmentevent.Step_STEP_MARK_CANCELLED,
	}
)

// request is the command that a task stands for. It is the same at every attempt, but for how long an attempt is valid.
func request(t task, read time.Time) (aggregate.Command, error) {
	id := requestID(t)
	switch t.step() {
	case fulfillmentevent.Step_STEP_RESERVE_STOCK:
		return &inventoryv1.ReserveStockRequest{
			RequestId: id, ProductId: t.ProductID, OrderId: t.OrderID, Quantity: t.Quantity,
			ValidUntil: timestamppb.New(read.Add(attemptLife)),
		}, nil
	case fulfillmentevent.Step_STEP_RELEASE_STOCK:
		return &inventoryv1.ReleaseReservationRequest{RequestId: id, ProductId: t.ProductID, OrderId: t.OrderID}, nil
	case fulfillmentevent.Step_STEP_AUTHORIZE_PAYMENT:
		return &paymentv1.AuthorizePaymentRequest{
			RequestId: id, OrderId: t.OrderID, CustomerId: t.CustomerID, Amount: t.amount(), PaymentMethod: t.PaymentMethod,
		}, nil
	case fulfillmentevent.Step_STEP_RECONCILE_PAYMENT:
		return &paymentv1.ReconcilePaymentRequest{RequestId: id, OrderId: t.OrderID}, nil
	case fulfillmentevent.Step_STEP_VOID_PAYMENT:
		return &paymentv1.VoidPaymentRequest{RequestId: id, OrderId: t.OrderID}, nil
	case fulfillmentevent.Step_STEP_CONFIRM_ORDER:
		return &orderv1.ConfirmOrderRequest{RequestId: id, OrderId: t.OrderID}, nil
	case fulfillmentevent.Step_STEP_REJECT_ORDER:
		return &orderv1.RejectOrderRequest{RequestId: id, OrderId: t.OrderID, Reason: typev1.RejectReason(t.RejectReason)}, nil
	case fulfillmentevent.Step_STEP_MARK_CANCELLED:
		return &orderv1.MarkCancelledRequest{RequestId: id, OrderId: t.OrderID}, nil
	default:
		return nil, fmt.Errorf("this build knows no step %q", t.Step)
	}
}

// call sends a request and says what its reply means.
func (s steps) call(ctx context.Context, t task, req aggregate.Command) (answer, error) {
	switch req := req.(type) {
	case *inventoryv1.ReserveStockRequest:
		reply, err := s.inventory.ReserveStock(ctx, req)
		if err != nil {
			return answer{}, err
		}
		return reserved(t, reply)
	case *inventoryv1.ReleaseReservationRequest:
		_, err := s.inventory.ReleaseReservation(ctx, req)
		return released(t), err
	case *paymentv1.AuthorizePaymentRequest:
		_, err := s.payments.AuthorizePayment(ctx, req) // an unknown outcome is another item
		return answer{}, err
	case *paymentv1.ReconcilePaymentRequest:
		reply, err := s.payments.ReconcilePayment(ctx, req)
		return answer{}, known(reply.GetState(), err)
	case *paymentv1.VoidPaymentRequest:
		reply, err := s.payments.VoidPayment(ctx, req)
		return answer{}, known(reply.GetState(), err)
	case *orderv1.ConfirmOrderRequest:
		_, err := s.orders.ConfirmOrder(ctx, req)
		return answer{}, err
	case *orderv1.RejectOrderRequest:
		_, err := s.orders.RejectOrder(ctx, req)
		return answer{}, err
	case *orderv1.MarkCancelledRequest:
		_, err := s.orders.MarkCancelled(ctx, req)
		return answer{}, err
	default:
		return answer{}, fmt.Errorf("no service takes a %T", req)
	}
}

func known(s typev1.PaymentState, err error) error {
	if err == nil && s == typev1.PaymentState_PAYMENT_STATE_OUTCOME_UNKNOWN {
		return errStillUnknown
	}
	return err
}

func reserved(t task, reply *inventoryv1.ReserveStockResponse) (answer, error) {
	switch reply.GetOutcome() {
	case inventoryv1.ReservationOutcome_RESERVATION_OUTCOME_RESERVED:
		return answer{"reserved", func(a *fulfillment.Answers) ([]proto.Message, error) {
			return a.RecordReserved(fulfillment.RecordReserved{OrderID: t.OrderID, ProductID: t.ProductID, Quantity: t.Quantity})
		}}, nil
	case inventoryv1.ReservationOutcome_RESERVATION_OUTCOME_REJECTED:
		return answer{"refused", func(a *fulfillment.Answers) ([]proto.Message, error) {
			return a.RecordRefused(fulfillment.RecordRefused{
				OrderID: t.OrderID, ProductID: t.ProductID, Requested: reply.GetRequested(), Available: reply.GetAvailable(),
			})
		}}, nil
	}
	return answer{}, errNoMeaning
}

func released(t task) answer {
	return answer{"released", func(a *fulfillment.Answers) ([]proto.Message, error) {
		return a.RecordReleased(fulfillment.RecordReleased{OrderID: t.OrderID, ProductID: t.ProductID})
	}}
}

func stepRefused(t task, reason string) answer {
	return answer{"step refused", func(a *fulfillment.Answers) ([]proto.Message, error) {
		return a.RecordStepRefused(fulfillment.RecordStepRefused{OrderID: t.OrderID, Item: t.item(), Reason: reason})
	}}
}

// itemNamespace is the UUIDv5 namespace of request ids made from items.
var itemNamespace = uuid.MustParse("0d3c4b86-6d0b-4b5c-9a44-2f6c1f0f7b52")

// requestID names an item's request: the same at every try, on every replica, after every crash. A payment that was asked for
// again has another one, because the first is answered with what became of the first intent.
func requestID(t task) string {
	name := strings.Join([]string{t.OrderID, t.Step, t.ProductID, strconv.FormatInt(t.Intent, 10)}, "\x00")
	return uuid.NewSHA1(itemNamespace, []byte(name)).String()
}

// recorded is an item's request as the command under which its answer is recorded: another request id, because one
// request may have several answers (refused first and carried out later, say).
type recorded struct {
	aggregate.Command
	requestID string
}

func (r recorded) GetRequestId() string { return r.requestID }

func (a answer) command(req aggregate.Command) recorded {
	item := uuid.MustParse(req.GetRequestId())
	return recorded{Command: req, requestID: uuid.NewSHA1(item, []byte(a.kind)).String()}
}
