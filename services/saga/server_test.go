package saga

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/domain/fulfillment"
	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/readmodel"
	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
	fulfillmentv1 "github.com/purserhq/purser/proto/purser/fulfillment/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

func TestFulfillment(t *testing.T) {
	noon := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	got := toFulfillment(readmodel.Fulfillment{
		OrderID: "7", CustomerID: "c-1", Goal: "FULFIL", FulfillmentState: "PENDING", NeedsAttention: true, Attention: "RESERVE_STOCK pen X",
		Priority:   "CRITICAL",
		ToDo:       []readmodel.ToDo{{Step: "RESERVE_STOCK", ProductID: "cup", Since: noon}},
		CreateTime: noon, UpdateTime: noon.Add(time.Minute),
	})
	want := &fulfillmentv1.Fulfillment{
		OrderId: "7", CustomerId: "c-1", Goal: fulfillmentv1.Goal_GOAL_FULFIL,
		FulfillmentState: typev1.FulfillmentState_FULFILLMENT_STATE_PENDING, NeedsAttention: true, Attention: "RESERVE_STOCK pen X",
		Priority:   typev1.Priority_PRIORITY_CRITICAL,
		ToDo:       []*fulfillmentv1.ToDo{{Step: fulfillmentv1.Step_STEP_RESERVE_STOCK, ProductId: "cup", Since: timestamppb.New(noon)}},
		CreateTime: timestamppb.New(noon), UpdateTime: timestamppb.New(noon.Add(time.Minute)),
	}
	if !proto.Equal(got, want) {
		t.Errorf("\n got %s\nwant %s", prototext.Format(got), prototext.Format(want))
	}
}

// Clients see every step that the saga knows, and every goal, under the name that it has here.
func TestStepsAndGoalsHaveTheirNames(t *testing.T) {
	stored, shown := fulfillmentevent.Step(0).Descriptor().Values(), fulfillmentv1.Step(0).Descriptor().Values()
	for i := range stored.Len() {
		if name := stored.Get(i).Name(); shown.ByName(name) == nil {
			t.Errorf("no client sees %s", name)
		}
	}
	if stored.Len() != shown.Len() {
		t.Errorf("clients see %d steps, of which there are %d", shown.Len(), stored.Len())
	}
	for _, g := range []fulfillment.Goal{fulfillment.Fulfil, fulfillment.Reject, fulfillment.Cancel} {
		if fulfillmentv1.Goal(0).Descriptor().Values().ByName("GOAL_"+protoreflect.Name(g)) == nil {
			t.Errorf("no client sees the goal %s", g)
		}
	}
}

// Both reads refuse a token that is none, and wait for one that nothing has been applied up to.
func TestReadsTakeTokens(t *testing.T) {
	w := newWorld(t)
	s := &server{models: readmodel.NewQueries(w.list.pool, nil)}
	for name, read := range map[string]func(ctx context.Context, token string) error{
		"GetFulfillment": func(ctx context.Context, token string) error {
			_, err := s.GetFulfillment(ctx, &fulfillmentv1.GetFulfillmentRequest{OrderId: "7", ConsistencyToken: token})
			return err
		},
		"ListFulfillments": func(ctx context.Context, token string) error {
			_, err := s.ListFulfillments(ctx, &fulfillmentv1.ListFulfillmentsRequest{ConsistencyToken: token})
			return err
		},
	} {
		if f := fault.Of(read(t.Context(), "not one of ours")); f == nil || f.Kind != fault.Invalid || f.Fields[0].Path != "consistency_token" {
			t.Errorf("%s: got %v", name, f)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := read(ctx, aggregate.Token(1)); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_PROJECTION_LAG) {
			t.Errorf("%s with a token: %v", name, err)
		}
	}
}
