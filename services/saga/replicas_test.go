package saga

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/domain/fulfillment"
	"github.com/purserhq/purser/internal/eventschema"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	paymentv1 "github.com/purserhq/purser/proto/purser/payment/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// replica is a saga with services of its own, by which it is told what it does.
type replica struct {
	peers *peers
	level func() []int
	stop  func()
}

// replica starts a whole saga, as it is in a process.
func (w *world) replica() *replica {
	w.t.Helper()
	r := &replica{peers: newPeers()}
	conn := serve(w.t, r.peers)
	c := consumer.New(w.list.pool, w.log, "saga", eventschema.Categories(), []consumer.Model{states.Model(&todo)},
		slog.New(slog.DiscardHandler), consumer.NewMetrics(prometheus.NewRegistry()))
	r.level = func() []int { return c.Level(states.Name) }
	e := &executor{
		list: w.list, clock: w.clock.now, lanes: newLanes(), level: r.level, changed: c.Changed(),
		steps: steps{
			inventory: inventoryv1.NewInventoryServiceClient(conn), payments: paymentv1.NewPaymentServiceClient(conn), orders: orderv1.NewOrderServiceClient(conn),
		},
		answers: aggregate.New[fulfillment.Answers](w.log, "fulfillment", w.secret, w.clock.now),
		log:     slog.New(slog.DiscardHandler), metrics: newMetrics(prometheus.NewRegistry()),
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{c.Run, e.run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				w.t.Error(err)
			}
		})
	}
	r.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	w.t.Cleanup(r.stop)
	return r
}

// records has a replica's services record what they do, as the real ones do: a repeat has no second effect.
func (w *world) records(r *replica, mu *sync.Mutex, confirmed map[string]bool) {
	r.peers.answer(func(ctx context.Context, req aggregate.Command) (proto.Message, error) {
		mu.Lock()
		defer mu.Unlock()
		switch req := req.(type) {
		case *paymentv1.AuthorizePaymentRequest:
			if id := req.GetOrderId(); w.last("payment-"+id) < 0 {
				w.append(id, time.Now(), &paymentevent.AuthorizationRequested{OrderId: id, CustomerId: "ada", Amount: req.GetAmount()},
					&paymentevent.PaymentAuthorized{OrderId: id})
			}
		case *orderv1.ConfirmOrderRequest:
			if id := req.GetOrderId(); !confirmed[id] {
				confirmed[id] = true
				w.append(id, time.Now(), &orderevent.OrderConfirmed{OrderId: id})
			}
		}
		return fine(ctx, req)
	})
}

// Two replicas share the orders: while both are there each step is done once, by one of them. When one stops, the other does
// the rest.
func TestReplicasShareTheOrders(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	confirmed := map[string]bool{}
	both := []*replica{w.replica(), w.replica()}
	for _, r := range both {
		w.records(r, &mu, confirmed)
	}
	w.until("each has its share", func() bool { return len(both[0].level()) == 8 && len(both[1].level()) == 8 })
	place := func(from, to int) {
		mu.Lock()
		defer mu.Unlock()
		for n := from; n < to; n++ {
			id := fmt.Sprint("o", n)
			w.append(id, time.Now(), placedWith(id, typev1.Priority_PRIORITY_STANDARD))
		}
	}
	done := func(n int) func() bool {
		return func() bool { mu.Lock(); defer mu.Unlock(); return len(confirmed) == n }
	}
	place(0, 40)
	w.until("all are confirmed", done(40))
	var all []string
	for i, r := range both {
		ids := r.peers.requestIDs()
		if len(ids) < 3*5 {
			t.Errorf("replica %d has done %d steps", i, len(ids))
		}
		all = append(all, ids...)
	}
	if slices.Sort(all); len(all) != 3*40 || len(slices.Compact(all)) != 3*40 {
		t.Errorf("%d steps were done for 40 orders of three steps", len(all))
	}

	place(40, 60)
	both[0].stop()
	place(60, 80)
	w.until("all are confirmed", done(80))
	all = append(both[0].peers.requestIDs(), both[1].peers.requestIDs()...)
	if slices.Sort(all); len(slices.Compact(all)) != 3*80 {
		t.Errorf("%d steps for 80 orders of three steps", len(slices.Compact(all)))
	}
}

// requestIDs are those of the requests so far.
func (p *peers) requestIDs() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var ids []string
	for _, c := range p.calls {
		ids = append(ids, c.req.GetRequestId())
	}
	return ids
}
