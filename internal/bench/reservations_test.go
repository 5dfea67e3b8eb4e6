package bench

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	stockevent "github.com/purserhq/purser/proto/purser/inventory/event/v1"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
	"github.com/purserhq/purser/services/eventstore/eventstoretest"
)

// shop is an inventory service of one product. It promises more than there is on hand, by so many.
type shop struct {
	inventoryv1.InventoryServiceClient
	mu           sync.Mutex
	onHand, more int64
	requests     map[string]bool
	repeated     bool
}

func (s *shop) ReserveStock(_ context.Context, req *inventoryv1.ReserveStockRequest, _ ...grpc.CallOption) (*inventoryv1.ReserveStockResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range []string{req.GetRequestId(), req.GetOrderId()} {
		s.repeated = s.repeated || s.requests[id]
		s.requests[id] = true
	}
	reply := &inventoryv1.ReserveStockResponse{
		ProductId: req.GetProductId(), OrderId: req.GetOrderId(), Requested: req.GetQuantity(), Outcome: reserved, Etag: `"1"`, ConsistencyToken: "t",
	}
	if available := s.onHand + s.more; req.GetQuantity() > available {
		reply.Outcome, reply.Available = rejected, available
		return reply, nil
	}
	s.onHand -= req.GetQuantity()
	return reply, nil
}

func TestSellingOut(t *testing.T) {
	for name, c := range map[string]struct {
		more int64
		fail bool
	}{"as much as there is": {0, false}, "more than there is": {1, true}, "less than there is": {-1, true}} {
		t.Run(name, func(t *testing.T) {
			s := &shop{onHand: 100, more: c.more, requests: map[string]bool{}}
			r := NewReservations("scarce", nil, 8, []string{"mug"})
			r.client = s
			if err := r.SellOut(t.Context(), 100); (err != nil) != c.fail {
				t.Errorf("got %v", err)
			}
			if s.repeated || len(s.requests) < 2*(100/maxQuantity) {
				t.Errorf("ids were used twice, or few: %d", len(s.requests))
			}
		})
	}
}

func TestAReplyThatCantBeRightIsNoticed(t *testing.T) {
	req := &inventoryv1.ReserveStockRequest{ProductId: "mug", OrderId: "7", Quantity: 2}
	good := func() *inventoryv1.ReserveStockResponse {
		return &inventoryv1.ReserveStockResponse{ProductId: "mug", OrderId: "7", Requested: 2, Outcome: rejected, Available: 1, Etag: `"1"`, ConsistencyToken: "t"}
	}
	if err := checkReserved(req, good()); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*inventoryv1.ReserveStockResponse){
		"of another order":          func(r *inventoryv1.ReserveStockResponse) { r.OrderId = "8" },
		"rejected though available": func(r *inventoryv1.ReserveStockResponse) { r.Available = 2 },
		"less than nothing left":    func(r *inventoryv1.ReserveStockResponse) { r.Available = -1 },
		"no outcome":                func(r *inventoryv1.ReserveStockResponse) { r.Outcome = 0 },
		"no token":                  func(r *inventoryv1.ReserveStockResponse) { r.ConsistencyToken = "" },
	} {
		r := good()
		spoil(r)
		if checkReserved(req, r) == nil {
			t.Errorf("%s: %v passes", name, r)
		}
	}
}

func TestAnswersAreHeldAgainstTheLog(t *testing.T) {
	log, err := eventlog.Open(eventstoretest.Start(t), eventschema.New(), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(log.Close)
	received := func(n int64) proto.Message { return &stockevent.StockReceived{Quantity: n} }
	reserved := func(n int64) proto.Message { return &stockevent.StockReserved{Quantity: n} }
	refused := &stockevent.StockReservationRejected{Requested: 9}
	for name, c := range map[string]struct {
		recorded []proto.Message
		answered int64
		want     string
	}{
		"all":                         {[]proto.Message{received(5), reserved(3), refused, reserved(2)}, 5, ""},
		"nothing":                     {nil, 0, ""},
		"oversold":                    {[]proto.Message{received(5), reserved(3), reserved(3)}, 6, "oversold: 6 of product"},
		"oversold until more came":    {[]proto.Message{received(5), reserved(6), received(5)}, 6, "at revision 1, and 5 on hand"},
		"promised but not recorded":   {[]proto.Message{received(5), reserved(3)}, 5, "5 of product"},
		"recorded but never promised": {[]proto.Message{received(5), reserved(3)}, 2, "3 are recorded"},
	} {
		t.Run(name, func(t *testing.T) {
			product := strings.ReplaceAll(name, " ", "-")
			var events []eventlog.NewEvent
			for _, m := range c.recorded {
				events = append(events, eventlog.NewEvent{ID: uuid.New(), Message: m})
			}
			if len(events) > 0 {
				if _, err := log.Append(t.Context(), eventlog.StreamName(eventschema.Stock, product), eventlog.NoStream, events); err != nil {
					t.Fatal(err)
				}
			}
			r := NewReservations("hot", nil, 2, []string{product})
			r.callers[1].reserved[product] = c.answered
			err := r.Check(t.Context(), log)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
