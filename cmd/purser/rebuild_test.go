package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/purserhq/purser/internal/bench"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
)

// A read model is rebuilt while orders keep arriving and queries keep being answered: none fails, is empty, or lacks what its
// token says, and a rebuild that is killed goes on. With PURSER_TEST_SOAK, over more than a million events.
func TestARebuildBesideOrdersAndQueries(t *testing.T) {
	orders, patience, killAt := 500, time.Minute, 1 // the first that is told of it: it has just begun
	if os.Getenv("PURSER_TEST_SOAK") != "" {
		orders, patience, killAt = 200_000, 15*time.Minute, 8
	}
	i := newInstance(t)
	i.patience = patience
	i.fill(t, orders)
	product := i.stocked(t, 1_000_000)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := i.listed(ctx, i.placeOne(ctx, t, product)); err != nil { // all before it is in the read models
		t.Fatal(err)
	}

	t.Run("killed", func(t *testing.T) {
		command := i.rebuild("--json")
		out, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		for lines, n := bufio.NewScanner(out), 0; lines.Scan(); {
			if n++; n == killAt {
				i.kill()
			}
		}
		if command.Wait() == nil {
			t.Fatal("the rebuild was done before the process was killed")
		}
		i.start()
		i.clients = i.dial()
		said, err := i.rebuild().Output()
		if err != nil || !strings.HasPrefix(string(said), "order_summaries_v2_b2: ") {
			t.Fatalf("%v: %s", err, said)
		}
		t.Logf("killed and taken up again: %s", said)
		if _, err := runCommand(t, "projection", "drop", "order_summaries_v2_b1", "--projector-addr", i.addr(projectorPorts)); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("under load", func(t *testing.T) {
		running, stop := context.WithCancel(t.Context())
		var load sync.WaitGroup
		defer load.Wait()
		defer stop()
		var placed, asked atomic.Int64
		for n := range 4 {
			load.Go(func() {
				if err := i.buyAndLook(running, orderOf(product, 1, "pm_card_visa"), fmt.Sprintf("buyer-%d", n), &placed); err != nil {
					t.Error(err)
				}
			})
		}
		load.Go(func() {
			for running.Err() == nil {
				list, err := i.query.ListOrders(running, &queryv1.ListOrdersRequest{PageSize: 20})
				if running.Err() == nil && (err != nil || len(list.GetOrders()) != 20) {
					t.Errorf("a page of %d orders, %v", len(list.GetOrders()), err)
					return
				}
				asked.Add(1)
			}
		})
		said, err := i.rebuild().Output()
		if err != nil || !strings.Contains(string(said), "queries are answered from it") {
			t.Fatalf("%v: %s", err, said)
		}
		time.Sleep(2 * time.Second) // in which the readers move over
		stop()
		load.Wait()
		t.Logf("%s%d orders placed and looked up meanwhile, %d pages read", said, placed.Load(), asked.Load())
	})

	eventually(t, patience, func() error {
		if out, err := runCommand(t, "audit", "--model", "order_summaries", "--data-dir", i.dir, "--port-offset", strconv.Itoa(i.offset)); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// fill appends the past of so many orders.
func (i *instance) fill(t *testing.T, orders int) {
	t.Helper()
	log, err := eventlog.Open(urlOf(i.addr(eventstorePorts)), eventschema.New(), quiet(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := bench.FillOrders(t.Context(), log, orders); err != nil {
		t.Fatal(err)
	}
}

func (i *instance) rebuild(args ...string) *exec.Cmd {
	return purser(context.Background(), append([]string{"projection", "rebuild", "order_summaries", "--projector-addr", i.addr(projectorPorts), "--log-level", "error"}, args...)...)
}

func (i *instance) placeOne(ctx context.Context, t *testing.T, product string) *orderv1.PlaceOrderResponse {
	t.Helper()
	reply, err := i.orders.PlaceOrder(ctx, orderOf(product, 1, "pm_card_visa"))
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// listed looks an order up in the list, as it is once the list has its token.
func (i *instance) listed(ctx context.Context, placed *orderv1.PlaceOrderResponse) (*queryv1.OrderSummary, error) {
	for {
		list, err := i.query.ListOrders(ctx, &queryv1.ListOrdersRequest{
			PageSize: 20, Filter: `customer_id = "c-1"`, ConsistencyToken: placed.GetConsistencyToken(),
		})
		if status.Code(err) == codes.Unavailable && ctx.Err() == nil { // behind, in the beginning
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, o := range list.GetOrders() {
			if o.GetOrderId() == placed.GetOrderId() {
				return o, nil
			}
		}
		return nil, fmt.Errorf("order %s is not among the latest %d of its customer", placed.GetOrderId(), len(list.GetOrders()))
	}
}

// buyAndLook places orders of a customer, one after the other, and looks each up with its token.
func (i *instance) buyAndLook(ctx context.Context, order *orderv1.PlaceOrderRequest, customer string, placed *atomic.Int64) error {
	order.CustomerId = customer
	for ctx.Err() == nil {
		order.RequestId = uuid.NewString()
		reply, err := i.orders.PlaceOrder(ctx, order)
		if err == nil {
			var list *queryv1.ListOrdersResponse
			list, err = i.query.ListOrders(ctx, &queryv1.ListOrdersRequest{
				PageSize: 1, Filter: fmt.Sprintf("customer_id = %q", customer), ConsistencyToken: reply.GetConsistencyToken(),
			})
			if err == nil && (len(list.GetOrders()) != 1 || list.GetOrders()[0].GetOrderId() != reply.GetOrderId()) {
				err = fmt.Errorf("order %s was placed, and the latest of %s is %v", reply.GetOrderId(), customer, list.GetOrders())
			}
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
		placed.Add(1)
	}
	return nil
}
