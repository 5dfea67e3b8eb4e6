package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/proto/purser"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const (
	// The circuit opens when most of a fair number of recent calls found the service down, and tries again after a while.
	breakerFailureRate = 0.6
	breakerMinCalls    = 10
	breakerWindow      = 10 * time.Second
	breakerPause       = time.Second
)

// Dial returns a connection to a service; one that is down is waited for when it is called. Errors of calls are faults.
func Dial(target, service string, log *slog.Logger, m *Metrics) (*grpc.ClientConn, error) {
	c := &caller{service: service, metrics: m, breaker: newBreaker(service, log)}
	conn, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(purser.ServiceConfig),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithChainUnaryInterceptor(c.unary),
		grpc.WithChainStreamInterceptor(c.stream),
	)
	if err != nil {
		return nil, fmt.Errorf("the address %q of the %s service: %w", target, service, err)
	}
	return conn, nil
}

func newBreaker(service string, log *slog.Logger) circuitbreaker.CircuitBreaker[any] {
	return circuitbreaker.NewBuilder[any]().
		HandleIf(func(_ any, err error) bool {
			c := status.Code(err)
			return c == codes.Unavailable || c == codes.DeadlineExceeded
		}).
		WithFailureRateThreshold(breakerFailureRate, breakerMinCalls, breakerWindow).
		WithDelay(breakerPause).
		WithSuccessThreshold(1). // half open, one answer tells
		OnStateChanged(func(e circuitbreaker.StateChangedEvent) {
			log.Warn("the circuit to a service changed", "to_service", service, "from", e.OldState.String(), "to", e.NewState.String())
		}).
		Build()
}

// caller is what the calls to one service have in common.
type caller struct {
	service string
	metrics *Metrics
	breaker circuitbreaker.CircuitBreaker[any]
}

func (c *caller) unary(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if !c.breaker.TryAcquirePermit() {
		return &fault.Fault{
			Kind: fault.Unavailable, Reason: typev1.ErrorReason_ERROR_REASON_DEPENDENCY_UNAVAILABLE,
			Message:    fmt.Sprintf("the %s service has been failing and is left alone for a moment", c.service),
			RetryAfter: max(c.breaker.RemainingDelay(), retryAfter/10),
		}
	}
	start := time.Now()
	err := invoke(withMetadata(ctx), method, req, reply, conn, opts...)
	if errors.Is(ctx.Err(), context.Canceled) {
		c.breaker.RecordSuccess() // the caller gave up, which says nothing about the service
	} else {
		c.breaker.RecordError(err)
	}
	c.metrics.client(method, status.Code(err), time.Since(start))
	if err != nil {
		return fromStatus(c.service, err)
	}
	return nil
}

func (c *caller) stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(withMetadata(ctx), desc, conn, method, opts...)
	if err != nil {
		return nil, fromStatus(c.service, err)
	}
	return &callerStream{ClientStream: s, service: c.service}, nil
}

// callerStream is a stream whose errors are faults too; those of what is sent come out when something is received.
type callerStream struct {
	grpc.ClientStream
	service string
}

func (s *callerStream) RecvMsg(m any) error {
	return fromStatus(s.service, s.ClientStream.RecvMsg(m)) // io.EOF and nil are left as they are
}
