package rpc

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/origin"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// peer is a service whose one method does what a test says.
type peer struct {
	inventoryv1.UnimplementedInventoryServiceServer
	calls atomic.Int64
	do    atomic.Pointer[func(context.Context) error]
}

func (p *peer) ReceiveStock(ctx context.Context, _ *inventoryv1.ReceiveStockRequest) (*inventoryv1.ReceiveStockResponse, error) {
	p.calls.Add(1)
	return &inventoryv1.ReceiveStockResponse{}, (*p.do.Load())(ctx)
}

func (p *peer) does(f func(context.Context) error) { p.do.Store(&f) }

func receive() *inventoryv1.ReceiveStockRequest {
	return &inventoryv1.ReceiveStockRequest{RequestId: "7c9e6679-7425-40de-944b-e07fc1f90ae7", ProductId: "mug", Quantity: 1}
}

// serve starts a server of ours and returns it with its address.
func serve(t *testing.T) (*peer, string) {
	t.Helper()
	p := &peer{}
	p.does(func(context.Context) error { return nil })
	s := NewServer("inventory", slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry()))
	inventoryv1.RegisterInventoryServiceServer(s, p)
	healthv1.RegisterHealthServer(s, health.NewServer())
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.Serve(lis); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() { s.Stop(); serving.Wait() })
	return p, lis.Addr().String()
}

func dial(t *testing.T, addr string) inventoryv1.InventoryServiceClient {
	t.Helper()
	conn, err := Dial(addr, "inventory", slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return inventoryv1.NewInventoryServiceClient(conn)
}

// stranger is a client that knows nothing of ours.
func stranger(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// A service that keeps being down is left alone, and taken up again once it answers.
func TestCircuitBreaker(t *testing.T) {
	p, addr := serve(t)
	c := dial(t, addr)
	p.does(func(context.Context) error {
		return fault.Down(typev1.ErrorReason_ERROR_REASON_DEPENDENCY_UNAVAILABLE, "down", nil)
	})
	fails := func() {
		var wg sync.WaitGroup
		for range breakerMinCalls {
			wg.Go(func() {
				_, err := c.ReceiveStock(t.Context(), receive())
				if f := fault.Of(err); f == nil || f.Kind != fault.Unavailable || f.Message != "down" && !leftAlone(f) {
					t.Errorf("%v, want the service's own UNAVAILABLE", err)
				}
			})
		}
		wg.Wait()
	}
	// opens waits for a call that does not go through: on a slow machine the pause may be over before the first try.
	opens := func() {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; fails() {
			before := p.calls.Load()
			_, err := c.ReceiveStock(t.Context(), receive())
			switch f := fault.Of(err); {
			case leftAlone(f) && p.calls.Load() == before && f.RetryAfter > 0 && f.RetryAfter <= breakerPause:
				return
			case leftAlone(f) || time.Now().After(deadline):
				t.Fatalf("%+v, and %d calls went through", err, p.calls.Load()-before)
			}
		}
	}
	// through waits for a call that does.
	through := func() (err error) {
		t.Helper()
		for deadline, before := time.Now().Add(20*time.Second), p.calls.Load(); p.calls.Load() == before; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the circuit stays open")
			}
			_, err = c.ReceiveStock(t.Context(), receive())
		}
		return err
	}
	fails()
	opens()
	// Half open, it lets as many calls through as it takes to open or to close it again.
	if err := through(); err == nil {
		t.Error("a call to a service that is down succeeded")
	}
	fails()
	opens()
	p.does(func(context.Context) error { return nil })
	if err := through(); err != nil {
		t.Error(err)
	}
	for range 2 * breakerMinCalls {
		if _, err := c.ReceiveStock(t.Context(), receive()); err != nil {
			t.Fatalf("closed again: %v", err)
		}
	}
}

func leftAlone(f *fault.Fault) bool { return f != nil && strings.Contains(f.Message, "left alone") }

// What a service refuses, and what its callers give up, says nothing about whether it is there.
func TestCircuitStaysClosedForAnswers(t *testing.T) {
	p, addr := serve(t)
	c := dial(t, addr)
	p.does(func(context.Context) error { return fault.InvalidField("quantity", "is odd") })
	for range 2 * breakerMinCalls {
		_, _ = c.ReceiveStock(t.Context(), receive())
	}
	p.does(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	for range 2 * breakerMinCalls {
		ctx, cancel := context.WithCancel(t.Context())
		before := p.calls.Load()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.ReceiveStock(ctx, receive()); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_CANCELLED) {
				t.Errorf("%v, want CANCELLED", err)
			}
		})
		for p.calls.Load() == before {
			time.Sleep(time.Millisecond)
		}
		cancel()
		wg.Wait()
	}
	p.does(func(context.Context) error { return nil })
	if _, err := c.ReceiveStock(t.Context(), receive()); err != nil {
		t.Error(err)
	}
}

func TestEveryCallHasADeadline(t *testing.T) {
	p, addr := serve(t)
	var seen atomic.Int64
	left := func() time.Duration { return time.Duration(seen.Load()) }
	p.does(func(ctx context.Context) error {
		deadline, ok := ctx.Deadline()
		if !ok {
			t.Error("no deadline")
		}
		seen.Store(int64(time.Until(deadline)))
		return nil
	})
	anyone := inventoryv1.NewInventoryServiceClient(stranger(t, addr))
	if _, err := anyone.ReceiveStock(t.Context(), receive()); err != nil || left() > defaultDeadline || left() < defaultDeadline-5*time.Second {
		t.Errorf("without a deadline of the caller's: %s left, %v", left(), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := anyone.ReceiveStock(ctx, receive()); err != nil || left() < 50*time.Second {
		t.Errorf("with one of a minute: %s left, %v", left(), err)
	}
	p.does(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := dial(t, addr).ReceiveStock(ctx, receive()); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_DEADLINE_EXCEEDED) || fault.Of(err).Message != "the deadline has passed" {
		t.Errorf("after a deadline: %v", err)
	}
}

// Who asks, and on account of what, goes from service to service.
func TestOriginIsPassedOn(t *testing.T) {
	p, addr := serve(t)
	var seen atomic.Pointer[origin.Origin]
	got := func() origin.Origin { return *seen.Load() }
	p.does(func(ctx context.Context) error { o := origin.From(ctx); seen.Store(&o); return nil })

	want := origin.Origin{Actor: "ann", CorrelationID: "c", CausationID: "e", Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	if _, err := dial(t, addr).ReceiveStock(origin.With(t.Context(), want), receive()); err != nil || got() != want {
		t.Errorf("%+v, %v, want %+v", got(), err, want)
	}
	anyone := inventoryv1.NewInventoryServiceClient(stranger(t, addr))
	if _, err := anyone.ReceiveStock(t.Context(), receive()); err != nil {
		t.Fatal(err)
	}
	first := got()
	if first.Actor != origin.Anonymous || first.CorrelationID == "" || first.CausationID != "" || len(first.Traceparent) != 55 {
		t.Errorf("of a stranger: %+v", first)
	}
	if _, err := anyone.ReceiveStock(t.Context(), receive()); err != nil || got().CorrelationID == first.CorrelationID || got().Traceparent == first.Traceparent {
		t.Errorf("two requests from outside have one origin: %+v, %v", got(), err)
	}
	long := metadata.AppendToOutgoingContext(t.Context(), actorKey, strings.Repeat("x", 200))
	if _, err := anyone.ReceiveStock(long, receive()); status.Code(err) != codes.InvalidArgument {
		t.Errorf("an actor of 200 bytes: %v", err)
	}
}

// What is no method of ours, and what grpc's own services say, has a reason as everything else.
func TestEveryErrorHasAReason(t *testing.T) {
	_, addr := serve(t)
	conn := stranger(t, addr)
	for name, c := range map[string]struct {
		call   func() error
		code   codes.Code
		reason string
	}{
		"health of no service": {func() error {
			_, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{Service: "nothing"})
			return err
		}, codes.NotFound, "SERVICE_NOT_FOUND"},
		"no such service": {func() error {
			return conn.Invoke(t.Context(), "/nothing.Nothing/Do", receive(), receive())
		}, codes.Unimplemented, "UNIMPLEMENTED"},
		"a method that is not made": {func() error {
			_, err := inventoryv1.NewInventoryServiceClient(conn).ReleaseReservation(t.Context(), &inventoryv1.ReleaseReservationRequest{
				RequestId: receive().GetRequestId(), ProductId: "mug", OrderId: "7",
			})
			return err
		}, codes.Unimplemented, "UNIMPLEMENTED"},
		"a broken rule": {func() error {
			_, err := inventoryv1.NewInventoryServiceClient(conn).ReceiveStock(t.Context(), &inventoryv1.ReceiveStockRequest{})
			return err
		}, codes.InvalidArgument, "INVALID_FIELD"},
	} {
		s := status.Convert(c.call())
		if s.Code() != c.code || len(infos(s)) != 1 || infos(s)[0] != c.reason {
			t.Errorf("%s: %v with %v, want %v with %s", name, s, infos(s), c.code, c.reason)
		}
	}
}
