package main

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// past asks for an order as it was.
func (c clients) past(ctx context.Context, req *queryv1.GetOrderRequest) (*queryv1.Order, error) {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	reply, err := c.query.GetOrder(ctx, req)
	return reply.GetOrder(), err
}

func byID(id string) *queryv1.GetOrderRequest_OrderId {
	return &queryv1.GetOrderRequest_OrderId{OrderId: id}
}

func asOf(at time.Time) *queryv1.GetOrderRequest_AsOf {
	return &queryv1.GetOrderRequest_AsOf{AsOf: timestamppb.New(at)}
}

func atRevision(r int64) *queryv1.GetOrderRequest_AsOfRevision {
	return &queryv1.GetOrderRequest_AsOfRevision{AsOfRevision: r}
}

// An order can be asked for as it was, by revision and by time, and its last revision is what it is now. While the event
// store is away, its past can't be told, and its present can.
func TestTimeTravel(t *testing.T) {
	store := startStore(t, t.TempDir(), "127.0.0.1:0")
	i := newInstance(t, "--eventstore-url", "esdb://"+store.addr+"?tls=false")
	placed, err := i.orders.PlaceOrder(t.Context(), orderOf(i.stocked(t, 5), 2, "pm_card_visa"))
	if err != nil {
		t.Fatal(err)
	}
	id := placed.GetOrderId()
	confirmed := i.reaches(t, id, typev1.OrderState_ORDER_STATE_CONFIRMED)
	if _, err := i.orders.CancelOrder(t.Context(), &orderv1.CancelOrderRequest{RequestId: uuid.NewString(), OrderId: id}); err != nil {
		t.Fatal(err)
	}
	now := i.reaches(t, id, typev1.OrderState_ORDER_STATE_CANCELLED)

	number := &queryv1.GetOrderRequest_OrderNumber{OrderNumber: now.GetOrderNumber()}
	for name, c := range map[string]struct {
		req  *queryv1.GetOrderRequest
		want *queryv1.Order
	}{
		"the last revision":           {&queryv1.GetOrderRequest{Order: byID(id), At: atRevision(3)}, now},
		"the last, by number":         {&queryv1.GetOrderRequest{Order: number, At: atRevision(3)}, now},
		"the time of the last change": {&queryv1.GetOrderRequest{Order: byID(id), At: asOf(now.GetUpdateTime().AsTime())}, now},
		"a revision before":           {&queryv1.GetOrderRequest{Order: byID(id), At: atRevision(1)}, confirmed},
		"a time before":               {&queryv1.GetOrderRequest{Order: number, At: asOf(confirmed.GetUpdateTime().AsTime())}, confirmed},
	} {
		if got, err := i.past(t.Context(), c.req); err != nil || !proto.Equal(got, c.want) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, c.want)
		}
	}
	atFirst, err := i.past(t.Context(), &queryv1.GetOrderRequest{Order: byID(id), At: asOf(now.GetCreateTime().AsTime())})
	if err != nil || atFirst.GetState() != typev1.OrderState_ORDER_STATE_PLACED || atFirst.GetPaymentState() != typev1.PaymentState_PAYMENT_STATE_NONE {
		t.Errorf("when it was placed: %v, %v", atFirst, err)
	}

	for name, c := range map[string]struct {
		req    *queryv1.GetOrderRequest
		code   codes.Code
		reason string
	}{
		"before it existed":   {&queryv1.GetOrderRequest{Order: byID(id), At: asOf(now.GetCreateTime().AsTime().Add(-time.Hour))}, codes.NotFound, "ORDER_NOT_FOUND"},
		"no order":            {&queryv1.GetOrderRequest{Order: byID("none"), At: atRevision(0)}, codes.NotFound, "ORDER_NOT_FOUND"},
		"the future":          {&queryv1.GetOrderRequest{Order: byID(id), At: asOf(time.Now().Add(time.Hour))}, codes.InvalidArgument, "INVALID_FIELD"},
		"beyond the last":     {&queryv1.GetOrderRequest{Order: byID(id), At: atRevision(4)}, codes.InvalidArgument, "INVALID_FIELD"},
		"a negative revision": {&queryv1.GetOrderRequest{Order: byID(id), At: atRevision(-1)}, codes.InvalidArgument, "INVALID_FIELD"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := i.past(t.Context(), c.req)
			wantError(t, err, c.code, c.reason)
		})
	}

	store.stop(t)
	_, err = i.past(t.Context(), &queryv1.GetOrderRequest{Order: byID(id), At: atRevision(0)})
	wantError(t, err, codes.Unavailable, "DEPENDENCY_UNAVAILABLE")
	if live, err := i.get(t.Context(), id, ""); err != nil || !proto.Equal(live, now) {
		t.Errorf("the present, while the event store is away: %v, %v", live, err)
	}
	if err := isReady(t.Context(), i.httpAddr(queryPorts)); err != nil {
		t.Errorf("the query service, while the event store is away: %v", err)
	}
}

func isReady(ctx context.Context, addr string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return err
	}
	reply, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return fmt.Errorf("answers %s", reply.Status)
	}
	return nil
}
