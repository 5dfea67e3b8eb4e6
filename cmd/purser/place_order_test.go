package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// The client that others are to copy, as a process of its own.
func TestPlaceOrderExample(t *testing.T) {
	program := buildExample(t, "place-order")
	i := newInstance(t)
	product := i.stocked(t, 10)
	example := func(args ...string) *exec.Cmd {
		return exec.CommandContext(t.Context(), program,
			append([]string{"--write", i.addr(writePorts), "--query", i.addr(queryPorts), "--product", product}, args...)...)
	}

	for name, c := range map[string]struct {
		args   []string
		says   string
		orders int
	}{
		"confirmed":      {[]string{"--quantity", "2"}, `^order \S+ is placed: 2900 minor units of EUR\norder \S+ is CONFIRMED\n$`, 1},
		"out of stock":   {[]string{"--quantity", "50"}, `\norder \S+ is REJECTED: OUT_OF_STOCK\n$`, 1},
		"declined":       {[]string{"--payment-method", "pm_card_chargeDeclined"}, `\norder \S+ is REJECTED: PAYMENT_DECLINED\n$`, 1},
		"cancelled":      {[]string{"--cancel"}, `\norder \S+ is CONFIRMED\norder \S+ is CANCELLED\n$`, 1},
		"nothing to buy": {[]string{"--product", "nothing"}, `product nothing is not for sale\n$`, 0},
		"a bad request":  {[]string{"--quantity", "0"}, `place the order: .*lines\[0\]\.quantity: .*\n$`, 0},
		"not a flag":     {[]string{"nothing"}, `^"nothing" is no flag\n$`, 0},
	} {
		t.Run(name, func(t *testing.T) {
			customer := newCustomer()
			out, err := example(append([]string{"--customer", customer}, c.args...)...).Output()
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
				out = exit.Stderr
			}
			if (err == nil) != (c.orders > 0) || !regexp.MustCompile(c.says).Match(out) {
				t.Errorf("%v: it says %s", err, out)
			}
			if orders := i.ordersOf(t, customer); len(orders) != c.orders {
				t.Errorf("placed %v", orders)
			}
		})
	}

	t.Run("a repeat is answered as the first time", func(t *testing.T) {
		customer, id := newCustomer(), uuid.NewString()
		first, err := example("--customer", customer, "--request-id", id).Output()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := example("--customer", customer, "--request-id", id).Output(); err != nil || string(again) != string(first) {
			t.Errorf("first %s, then %s, %v", first, again, err)
		}
		i.placedOnce(t, customer)
	})

	t.Run("replies that are lost", func(t *testing.T) {
		customer := newCustomer()
		lossy := &lossyOrders{to: i.orders, lose: 6} // more than the service config tries
		cmd := example("--customer", customer, "--write", serveOrders(t, lossy))
		var log lockedBuffer
		cmd.Stderr = &log
		if out, err := cmd.Output(); err != nil || !strings.Contains(string(out), "is CONFIRMED") {
			t.Fatalf("%v: %s%s", err, out, &log)
		}
		if lossy.calls.Load() != lossy.lose+1 {
			t.Errorf("%d attempts, of which the last was answered", lossy.calls.Load())
		}
		if n := strings.Count(log.String(), "trying again"); n != 1 {
			t.Errorf("%d attempts of its own after those of the service config: %s", n+1, &log)
		}
		i.placedOnce(t, customer)
	})

	t.Run("a service that is not there yet", func(t *testing.T) {
		customer := newCustomer()
		i.stop()
		var out, log lockedBuffer
		cmd := example("--customer", customer)
		cmd.Stdout, cmd.Stderr = &out, &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, settle, func() error {
			if strings.Count(log.String(), "trying again") < 2 {
				return fmt.Errorf("it says only %s", &log)
			}
			return nil
		})
		i.start()
		if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "is CONFIRMED") {
			t.Fatalf("%v: %s%s", err, &out, &log)
		}
		i.placedOnce(t, customer)
	})
}

func buildExample(t *testing.T, name string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./examples/"+name)
	cmd.Dir = repositoryRoot(t)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the example %s: %v\n%s", name, err, out)
	}
	return program
}

func newCustomer() string { return "c-" + uuid.NewString()[:8] }

func (c clients) ordersOf(t *testing.T, customer string) []*queryv1.OrderSummary {
	t.Helper()
	reply, err := c.query.ListOrders(t.Context(), &queryv1.ListOrdersRequest{Filter: fmt.Sprintf("customer_id = %q", customer)})
	if err != nil {
		t.Fatal(err)
	}
	return reply.GetOrders()
}

// placedOnce checks that a customer has one order, which was confirmed, and that what happened to it happened once.
func (c clients) placedOnce(t *testing.T, customer string) {
	t.Helper()
	orders := c.ordersOf(t, customer)
	if len(orders) != 1 || orders[0].GetState() != typev1.OrderState_ORDER_STATE_CONFIRMED {
		t.Fatalf("placed %v", orders)
	}
	timeline, err := c.query.GetOrderTimeline(t.Context(), &queryv1.GetOrderTimelineRequest{OrderId: orders[0].GetOrderId()})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, e := range timeline.GetEntries() {
		seen[e.GetEventType()]++
		if e.GetEventType() == "OrderPlaced" && e.GetActor() != "place-order" {
			t.Errorf("placed by %q", e.GetActor())
		}
	}
	if seen["OrderPlaced"] != 1 || seen["PaymentAuthorized"] != 1 || seen["OrderConfirmed"] != 1 {
		t.Errorf("in the timeline: %v", seen)
	}
}

// lossyOrders passes orders on to a service and loses its first answers.
type lossyOrders struct {
	orderv1.UnimplementedOrderServiceServer
	to    orderv1.OrderServiceClient
	calls atomic.Int64
	lose  int64
}

func (l *lossyOrders) PlaceOrder(ctx context.Context, req *orderv1.PlaceOrderRequest) (*orderv1.PlaceOrderResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	reply, err := l.to.PlaceOrder(metadata.NewOutgoingContext(ctx, metadata.Pairs("purser-actor", md.Get("purser-actor")[0])), req)
	if err == nil && l.calls.Add(1) <= l.lose {
		return nil, status.Error(codes.Unavailable, "the answer is lost")
	}
	return reply, err
}

func serveOrders(t *testing.T, s orderv1.OrderServiceServer) string {
	t.Helper()
	g := grpc.NewServer()
	orderv1.RegisterOrderServiceServer(g, s)
	l, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := g.Serve(l); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() { g.Stop(); serving.Wait() })
	return l.Addr().String()
}
