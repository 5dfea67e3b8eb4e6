package inventory

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/domain/catalog"
	"github.com/purserhq/purser/internal/domain/stock"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventlog/memorylog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/secret"
	catalogevent "github.com/purserhq/purser/proto/purser/catalog/event/v1"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
)

// What a product remembers depends on how fast it is sold, not on how often it was.
func TestAProductForgetsTheOrdersItWasSoldTo(t *testing.T) {
	const (
		orders  = 20_000
		clients = 256
		// perWindow is how many orders are begun within the seven minutes that a mark lasts: one in a second.
		perWindow = 7 * 60
	)
	log := memorylog.New(eventschema.New())
	if _, err := log.Append(t.Context(), "product-mug", eventlog.NoStream, []eventlog.NewEvent{{
		ID: uuid.New(), Message: &catalogevent.ProductCreated{ProductId: "mug", Name: "Mug"},
	}}); err != nil {
		t.Fatal(err)
	}
	key, err := secret.LoadOrCreate(filepath.Join(t.TempDir(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	var begun atomic.Int64
	clock := func() time.Time { return noon.Add(time.Duration(begun.Load()) * time.Second) }
	var warned bytes.Buffer
	s := &server{
		stock:    aggregate.NewLong[stock.State](log, eventschema.Stock, key, clock, long(slog.New(slog.NewTextHandler(&warned, nil)))),
		products: aggregate.New[catalog.State](log, eventschema.Product, key, clock),
		clock:    clock,
	}
	if _, err := s.ReceiveStock(t.Context(), &inventoryv1.ReceiveStockRequest{RequestId: uuid.NewString(), ProductId: "mug", Quantity: orders + 5}); err != nil {
		t.Fatal(err)
	}

	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for n := begun.Add(1); n <= orders; n = begun.Add(1) {
				order := fmt.Sprintf("order-%030d", n)
				if reply, err := s.ReserveStock(t.Context(), reservation(order, 1)); err != nil || reply.GetOutcome() != inventoryv1.ReservationOutcome_RESERVATION_OUTCOME_RESERVED {
					t.Errorf("%s: %v, %v", order, reply, err)
					return
				}
				if _, err := s.CommitReservation(t.Context(), commit(order)); err != nil {
					t.Errorf("%s: %v", order, err)
					return
				}
			}
		})
	}
	wg.Wait()

	st, revision, err := s.stock.Load(t.Context(), "mug")
	if err != nil || revision != 2*orders || st.OnHand != 5 || st.Reserved != 0 || len(st.Held) != 0 {
		t.Errorf("%d on hand, %d reserved, %d orders hold some at revision %d, %v", st.OnHand, st.Reserved, len(st.Held), revision, err)
	}
	if n := len(st.Marks); n < perWindow/2 || n > perWindow+clients {
		t.Errorf("%d marks are kept", n)
	}
	latest, exists, err := log.Latest(t.Context(), "snapshot_stock-mug")
	if err != nil || !exists {
		t.Fatal("no snapshot", err)
	}
	var stored struct {
		State    stock.State
		Revision eventlog.Revision
	}
	packed, err := gzip.NewReader(bytes.NewReader(latest.Data))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(packed).Decode(&stored); err != nil {
		t.Fatal(err)
	}
	if len(stored.State.Held) > clients || len(stored.State.Marks) > perWindow+clients || stored.Revision < 2*orders-3*snapshotEvery {
		t.Errorf("a snapshot of revision %d with %d reservations and %d marks", stored.Revision, len(stored.State.Held), len(stored.State.Marks))
	}
	if size := len(latest.Data); size > 150<<10 {
		t.Errorf("a snapshot of %d bytes", size)
	}
	if warned.Len() > 0 {
		t.Errorf("logged %s", warned.String())
	}
}
