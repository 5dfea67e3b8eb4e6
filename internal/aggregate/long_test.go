package aggregate

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/domain/stock"
	"github.com/purserhq/purser/internal/eventlog"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
)

// A product with a very long past: what a command on it costs, and what is remembered of it, have bounds. PURSER_TEST_SOAK
// makes the past ten times as long.
func TestAVeryLongPastCostsNoMore(t *testing.T) {
	reservations := 20_000
	if os.Getenv("PURSER_TEST_SOAK") != "" {
		reservations *= 10
	}
	w := newWarehouse(t)
	w.long.SnapshotEvery, w.long.Requests, w.long.KeyedRequests = 2000, 300, 400
	var plans atomic.Int64
	h := NewLong[stock.State](w.log, "stock", w.secret, func() time.Time { return w.now.Add(time.Duration(plans.Add(1)) * time.Minute) }, w.long)
	settle(t, h, "mug", receive(h, "mug", uuid.NewString(), 1_000_000))

	var wg sync.WaitGroup
	const clients = 512
	for client := range clients {
		wg.Go(func() {
			for i := client; i < reservations; i += clients {
				orderID := fmt.Sprint(i)
				if err := reserveAndRelease(t.Context(), h, orderID); err != nil {
					t.Errorf("order %s: %v", orderID, err)
					return
				}
				if i%100 != 0 {
					continue
				}
				if err := receiveOne(t.Context(), h); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()

	for e := h.entity("mug"); e.isWorking(); { // on the last snapshot
		time.Sleep(time.Millisecond)
	}
	events := w.stream(t, "stock-mug")
	if want := 1 + 2*reservations + reservations/100; len(events) != want {
		t.Fatalf("%d events, want %d", len(events), want)
	}
	snapshots := w.stream(t, "snapshot_stock-mug")
	last := &snapshots[len(snapshots)-1]
	e, read := w.caughtUp(t, pastLog{revision: eventlog.Revision(len(events) - 1), snapshot: last})
	if read > 1+1+w.long.SnapshotEvery {
		t.Errorf("a replica with an empty memory read %d events", read)
	}
	if got := int64(1_000_000 + reservations/100); e.state.OnHand != got || e.state.Reserved != 0 || len(e.state.Held) != 0 {
		t.Errorf("%d on hand, %d reserved", e.state.OnHand, e.state.Reserved)
	}
	if n := len(e.requests.plain); n != min(w.long.Requests, 1+reservations/100) {
		t.Errorf("%d requests are remembered", n)
	}
	if n := len(e.requests.keyed); n != w.long.KeyedRequests || len(e.requests.byID) != n+len(e.requests.plain) {
		t.Errorf("%d requests about reservations are remembered, %d in all", n, len(e.requests.byID))
	}
	// A quarter of an hour is 16 plans at most, and so many releases in each.
	if n := len(e.state.Marks); n > 16*maxBatch {
		t.Errorf("%d marks are kept", n)
	}
	stored, ok := w.replica(w.log).readable(*last)
	if !ok || len(stored.Requests) > w.long.Requests+w.long.KeyedRequests || len(stored.State.Marks) > 16*maxBatch {
		t.Errorf("the last snapshot has %d requests and %d marks, readable: %t", len(stored.Requests), len(stored.State.Marks), ok)
	}
	if w.warned.Len() > 0 {
		t.Errorf("logged %s", w.warned.String())
	}
}

func reserveAndRelease(ctx context.Context, h *Handler[stock.State], orderID string) error {
	reserve := &inventoryv1.ReserveStockRequest{RequestId: uuid.NewString(), ProductId: "mug", OrderId: orderID, Quantity: 1}
	if _, err := h.Handle(ctx, "mug", reserve, func(s *stock.State) ([]proto.Message, error) {
		return s.Reserve(stock.Reserve{Product: "mug", Order: orderID, Quantity: 1})
	}); err != nil {
		return err
	}
	release := &inventoryv1.ReleaseReservationRequest{RequestId: uuid.NewString(), ProductId: "mug", OrderId: orderID}
	_, err := h.Handle(ctx, "mug", release, func(s *stock.State) ([]proto.Message, error) {
		return s.Release(stock.Release{Product: "mug", Order: orderID})
	})
	return err
}

func receiveOne(ctx context.Context, h *Handler[stock.State]) error {
	receive := &inventoryv1.ReceiveStockRequest{RequestId: uuid.NewString(), ProductId: "mug", Quantity: 1}
	_, err := h.Handle(ctx, "mug", receive, func(s *stock.State) ([]proto.Message, error) {
		return s.Receive(stock.Receive{Product: "mug", Quantity: 1})
	})
	return err
}

func (e *entity[S]) isWorking() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.working
}
