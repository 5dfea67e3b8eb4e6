package write

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/secret"
	catalogv1 "github.com/purserhq/purser/proto/purser/catalog/v1"
	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	"github.com/purserhq/purser/services/eventstore/eventstoretest"
)

// newReplicas are several processes on one event store, each with a connection and a memory of its own.
func newReplicas(t *testing.T, n int) (replicas []services, log *eventlog.Log) {
	t.Helper()
	url := eventstoretest.Start(t)
	s, err := secret.LoadOrCreate(filepath.Join(t.TempDir(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		log, err = eventlog.Open(url, eventschema.New(), slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(log.Close)
		replicas = append(replicas, servicesOn(t, log, s))
	}
	return replicas, log
}

// A thousand copies of one command reach two replicas, and the price changes while they do: there is one order, at one of
// the prices, and everybody is told the same.
func TestAThousandCopiesAreOneOrder(t *testing.T) {
	replicas, log := newReplicas(t, 2)
	replicas[0].create(t, "mug", eur(1450))
	req := placing("mug")
	req.OrderId = "7"
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	const copies = 1000
	replies := make([]*orderv1.PlaceOrderResponse, copies)
	send := func(wg *sync.WaitGroup, from, to int) {
		for i := from; i < to; i++ {
			wg.Go(func() {
				reply, err := replicas[i%2].orders.PlaceOrder(ctx, proto.CloneOf(req))
				if err != nil {
					t.Errorf("copy %d: %v", i, err)
				}
				replies[i] = reply
			})
		}
	}
	var wg sync.WaitGroup
	send(&wg, 0, copies/2)
	wg.Go(func() {
		change := &catalogv1.ChangePriceRequest{RequestId: "change", ProductId: "mug", Price: eur(1600)}
		if _, err := replicas[1].catalog.ChangePrice(ctx, change); err != nil {
			t.Error(err)
		}
	})
	send(&wg, copies/2, copies-10)
	wg.Wait()
	send(&wg, copies-10, copies) // these come when the price has changed for sure
	wg.Wait()
	if t.Failed() {
		return
	}

	events, err := log.Read(ctx, "order-7", 0, 0)
	if err != nil || len(events) != 1 {
		t.Fatalf("%d events of the order, %v", len(events), err)
	}
	first := replies[0]
	if total := first.GetTotal().GetAmountMinor(); total != 2*1450 && total != 2*1600 || first.GetEtag() != `"0"` {
		t.Errorf("placed for neither price: %v", first)
	}
	for i, reply := range replies {
		if at, err := aggregate.ParseToken(reply.GetConsistencyToken()); err != nil || at < events[0].Position {
			t.Errorf("copy %d: the token is of %d, %v, before the order at %d", i, at, err, events[0].Position)
		}
		reply.ConsistencyToken = first.GetConsistencyToken()
		if !proto.Equal(reply, first) {
			t.Errorf("copy %d was answered %v, the first %v", i, reply, first)
		}
	}
}

// As above, of a command on what is there already, between others.
func TestAThousandCopiesAreOneCancellation(t *testing.T) {
	replicas, log := newReplicas(t, 2)
	replicas[0].create(t, "mug", eur(1450))
	placed := replicas[0].place(t, placing("mug"))
	req := &orderv1.CancelOrderRequest{RequestId: "cancel", OrderId: placed.GetOrderId()}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	replies := make([]*orderv1.CancelOrderResponse, 1000)
	var wg sync.WaitGroup
	for i := range replies {
		wg.Go(func() {
			reply, err := replicas[i%2].orders.CancelOrder(ctx, proto.CloneOf(req))
			if err != nil {
				t.Errorf("copy %d: %v", i, err)
			}
			replies[i] = reply
		})
		if i == len(replies)/2 {
			wg.Go(func() {
				mark := &orderv1.MarkCancelledRequest{RequestId: "mark", OrderId: placed.GetOrderId()}
				for ctx.Err() == nil {
					if _, err := replicas[0].orders.MarkCancelled(ctx, mark); err == nil {
						return // it was refused until the first copy was carried out
					}
				}
			})
		}
	}
	wg.Wait()
	if events, err := log.Read(ctx, "order-"+placed.GetOrderId(), 0, 0); err != nil || len(events) != 3 {
		t.Errorf("%d events of the order, %v, want it placed, cancelled, and marked so", len(events), err)
	}
	for i, reply := range replies {
		if reply.GetState() != replies[0].GetState() || reply.GetEtag() != `"1"` {
			t.Errorf("copy %d was answered %v, the first %v", i, reply, replies[0])
		}
	}
}
