package query

import (
	"errors"
	"testing"
	"time"

	"buf.build/go/protovalidate"
	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventlog/memorylog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/readmodel"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

func asOf(at *timestamppb.Timestamp) *queryv1.GetOrderRequest {
	return &queryv1.GetOrderRequest{
		Order: &queryv1.GetOrderRequest_OrderId{OrderId: "7"}, At: &queryv1.GetOrderRequest_AsOf{AsOf: at},
	}
}

func asOfRevision(r int64) *queryv1.GetOrderRequest {
	return &queryv1.GetOrderRequest{
		Order: &queryv1.GetOrderRequest_OrderId{OrderId: "7"}, At: &queryv1.GetOrderRequest_AsOfRevision{AsOfRevision: r},
	}
}

// A time that has not come yet, or is none, and a revision below the first are refused by the rules of the request.
func TestRulesOfThePast(t *testing.T) {
	for name, c := range map[string]struct {
		req  *queryv1.GetOrderRequest
		path string
	}{
		"now":               {asOf(timestamppb.New(time.Now().Add(-time.Millisecond))), ""},
		"the future":        {asOf(timestamppb.New(time.Now().Add(time.Minute))), "as_of"},
		"no time at all":    {asOf(&timestamppb.Timestamp{Seconds: 1 << 60}), "as_of"},
		"the first":         {asOfRevision(0), ""},
		"before the first":  {asOfRevision(-1), "as_of_revision"},
		"neither, but live": {&queryv1.GetOrderRequest{Order: &queryv1.GetOrderRequest_OrderId{OrderId: "7"}}, ""},
	} {
		err := protovalidate.Validate(c.req)
		var invalid *protovalidate.ValidationError
		switch {
		case c.path == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.path == "":
		case !errors.As(err, &invalid) || protovalidate.FieldPathString(invalid.Violations[0].Proto.GetField()) != c.path:
			t.Errorf("%s: %v, want a violation of %s", name, err, c.path)
		}
	}
}

// The past is answered from the log: neither the read models nor a token of what they have not applied yet is waited for.
func TestThePastNeedsNoReadModel(t *testing.T) {
	log := memorylog.New(eventschema.New())
	noon := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for r, m := range []eventlog.NewEvent{
		{Message: &orderevent.OrderPlaced{OrderId: "7", CustomerId: "c-1"}, Meta: eventlog.Metadata{OccurredAt: noon}},
		{Message: &orderevent.OrderConfirmed{OrderId: "7"}, Meta: eventlog.Metadata{OccurredAt: noon.Add(time.Minute)}},
	} {
		m.ID = uuid.New()
		if _, err := log.Append(t.Context(), "order-7", eventlog.Revision(r-1), []eventlog.NewEvent{m}); err != nil {
			t.Fatal(err)
		}
	}
	s := &server{past: readmodel.NewPastOrders(log)}
	for want, req := range map[typev1.OrderState][]*queryv1.GetOrderRequest{
		typev1.OrderState_ORDER_STATE_PLACED:    {asOfRevision(0), asOf(timestamppb.New(noon))},
		typev1.OrderState_ORDER_STATE_CONFIRMED: {asOfRevision(1), asOf(timestamppb.New(noon.Add(time.Hour)))},
	} {
		for _, req := range req {
			req.ConsistencyToken = "MTo5"
			reply, err := s.GetOrder(t.Context(), req)
			if err != nil || reply.GetOrder().GetState() != want {
				t.Errorf("%v: %v, %v", req, reply.GetOrder().GetState(), err)
			}
		}
	}
}
