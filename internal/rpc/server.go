// Package rpc makes gRPC servers and clients that behave alike in every service.
//
// A server gives every call a deadline, except to a stream, which goes on for as long as its client wants. It knows who asks
// ([origin.Origin]), refuses messages that break the rules stated in the .proto files or hold U+0000 anywhere, counts and
// times calls, and turns whatever a handler returns into a status with exactly one google.rpc.ErrorInfo. A client passes on the origin, tries again what is UNAVAILABLE, leaves a service that keeps failing
// alone for a while, and turns statuses back into faults. The mapping both ways is in status.go, and nowhere else.
package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/origin"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const (
	// maxMessage is what a request may measure, in bytes. The transport takes more, so that a request that is somewhat
	// too large gets an error that says so.
	maxMessage   = 1 << 20
	maxTransport = 16 << 20
	// defaultDeadline is given to a call that has none, unless it is a stream.
	defaultDeadline = 10 * time.Second
	// slowCall is how long a call may take without being logged, unless it is a stream.
	slowCall = time.Second
	// streamWorkers is how many calls at once find a goroutine whose stack has grown before; the others make one.
	streamWorkers = 64
)

// NewServer returns a server for a service's handlers to be registered on, with reflection. Handlers return faults,
// errors of package eventlog, of contexts and of pgx; anything else is INTERNAL and logged.
func NewServer(service string, log *slog.Logger, m *Metrics) *grpc.Server {
	i := &interceptor{log: log.With("service", service), metrics: m}
	s := grpc.NewServer(
		grpc.ChainUnaryInterceptor(i.observeUnary, i.prepareUnary),
		grpc.ChainStreamInterceptor(i.observeStream, i.prepareStream),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			method, _ := grpc.MethodFromServerStream(stream)
			return &fault.Fault{
				Kind: fault.Unimplemented, Reason: typev1.ErrorReason_ERROR_REASON_UNIMPLEMENTED,
				Message: fmt.Sprintf("there is no method %s here", method),
			}
		}),
		grpc.MaxRecvMsgSize(maxTransport),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		// Connections end now and then, so that clients find replicas that were added.
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 10 * time.Minute, MaxConnectionAgeGrace: time.Minute, Time: 30 * time.Second}),
	)
	reflection.Register(s)
	return s
}

type interceptor struct {
	log     *slog.Logger
	metrics *Metrics
}

// observeUnary sees a call as a whole: its outcome, how long it took, and that it did not panic.
func (i *interceptor) observeUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (_ any, err error) {
	ctx, cancel := withDeadline(withOrigin(ctx))
	defer cancel()
	var resp any
	err = i.observe(ctx, info.FullMethod, false, func() (err error) {
		resp, err = handler(ctx, req)
		return err
	})
	return resp, err
}

func (i *interceptor) observeStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	s := &contextStream{ServerStream: stream, ctx: withOrigin(stream.Context())}
	return i.observe(s.ctx, info.FullMethod, true, func() error { return handler(srv, s) })
}

func (i *interceptor) observe(ctx context.Context, method string, streams bool, call func() error) error {
	start := time.Now()
	cause := recovered(call)
	took := time.Since(start)
	var err error
	code, reason := codes.OK, ""
	if cause != nil {
		s := toStatus(ctx, cause)
		err, code, reason = s.Err(), s.Code(), reasonOf(s)
	}
	i.metrics.server(method, code, reason, took)
	i.logCall(ctx, method, code, took, streams, cause)
	return err
}

// logCall writes one line for a call that failed by our fault or was slow. Requests are never logged: they hold
// personal data.
func (i *interceptor) logCall(ctx context.Context, method string, code codes.Code, took time.Duration, streams bool, cause error) {
	level, message := slog.LevelDebug, "call"
	switch {
	case code == codes.Internal, code == codes.Unknown, code == codes.DataLoss:
		level, message = slog.LevelError, "call failed"
	case streams: // ends in no other way than by its deadline, or because the server stops
	case code == codes.Unavailable, code == codes.DeadlineExceeded:
		level, message = slog.LevelWarn, "call failed"
	case took > slowCall:
		level, message = slog.LevelInfo, "slow call"
	}
	if !i.log.Enabled(ctx, level) {
		return
	}
	o := origin.From(ctx)
	attrs := []any{"method", method, "code", code.String(), "took", took.String(), "actor", o.Actor, "correlation_id", o.CorrelationID}
	if cause != nil {
		attrs = append(attrs, "err", cause)
	}
	i.log.Log(ctx, level, message, attrs...)
}

// prepareUnary refuses what breaks a rule before a handler sees it.
func (i *interceptor) prepareUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := origin.From(ctx).Check(); err != nil {
		return nil, err
	}
	if m, ok := req.(proto.Message); ok {
		if err := check(m); err != nil {
			return nil, err
		}
	}
	return handler(ctx, req)
}

func (i *interceptor) prepareStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := origin.From(stream.Context()).Check(); err != nil {
		return err
	}
	return handler(srv, &checkedStream{stream})
}

// contextStream is a stream with another context.
type contextStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *contextStream) Context() context.Context { return s.ctx }

// checkedStream refuses received messages that break a rule.
type checkedStream struct{ grpc.ServerStream }

func (s *checkedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	if p, ok := m.(proto.Message); ok {
		return check(p)
	}
	return nil
}

func withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, defaultDeadline)
}

// recovered calls f and turns a panic into an error.
func recovered(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = status.Error(codes.Internal, fmt.Sprintf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	return f()
}
