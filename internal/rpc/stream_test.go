package rpc

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/purserhq/purser/internal/fault"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// A stream goes on for as long as its client wants: it gets no deadline that it did not ask for, and is not logged as slow or
// failed when it is over.
func TestStreamsHaveTheirOwnTime(t *testing.T) {
	var logged bytes.Buffer
	s := NewServer("test", slog.New(slog.NewTextHandler(&logged, nil)), NewMetrics(prometheus.NewRegistry()))
	deadlines := make(chan bool, 2)
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "test.Long", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
		StreamName: "Watch", ServerStreams: true,
		Handler: func(_ any, stream grpc.ServerStream) error {
			_, has := stream.Context().Deadline()
			deadlines <- has
			if err := stream.SendMsg(&emptypb.Empty{}); err != nil {
				return err
			}
			<-stream.Context().Done()
			return stream.Context().Err()
		},
	}}}, struct{}{})
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(lis) }()
	conn := stranger(t, lis.Addr().String())
	open := func(ctx context.Context) grpc.ClientStream {
		t.Helper()
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/test.Long/Watch")
		if err == nil {
			err = stream.CloseSend()
		}
		if err == nil {
			err = stream.RecvMsg(&emptypb.Empty{})
		}
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}

	ctx, cancel := context.WithCancel(t.Context())
	open(ctx)
	if <-deadlines {
		t.Error("a stream without a deadline was given one")
	}
	cancel()
	ctx, cancel = context.WithTimeout(t.Context(), slowCall+500*time.Millisecond)
	defer cancel()
	if err := open(ctx).RecvMsg(&emptypb.Empty{}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("after its deadline: %v", err)
	}
	if !<-deadlines {
		t.Error("a stream has not the deadline that its client set")
	}
	s.GracefulStop() // waits for the handlers
	if err := <-served; err != nil {
		t.Error(err)
	}
	if logged.Len() > 0 {
		t.Errorf("logged %s", &logged)
	}
}

// What a stream ends with is a fault on our side of it, as the error of any call is.
func TestTheEndOfAStreamIsAFault(t *testing.T) {
	s := NewServer("test", slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry()))
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "test.Short", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{
		{StreamName: "Refuse", ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
			if err := stream.SendMsg(&emptypb.Empty{}); err != nil {
				return err
			}
			return fault.Missing(typev1.ErrorReason_ERROR_REASON_BUILD_NOT_FOUND, "build", "b2")
		}},
		{StreamName: "End", ServerStreams: true, Handler: func(any, grpc.ServerStream) error { return nil }},
	}}, struct{}{})
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(lis) }()
	conn, err := Dial(lis.Addr().String(), "test", slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry()))
	if err != nil {
		t.Fatal(err)
	}
	open := func(method string) grpc.ClientStream {
		t.Helper()
		stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, method)
		if err == nil {
			err = stream.CloseSend()
		}
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}
	refused := open("/test.Short/Refuse")
	if err := refused.RecvMsg(&emptypb.Empty{}); err != nil {
		t.Errorf("before its end: %v", err)
	}
	err = refused.RecvMsg(&emptypb.Empty{})
	if !fault.Is(err, typev1.ErrorReason_ERROR_REASON_BUILD_NOT_FOUND) || fault.Of(err).Message != `build "b2" does not exist` {
		t.Errorf("at its end: %v", err)
	}
	if err := open("/test.Short/End").RecvMsg(&emptypb.Empty{}); err != io.EOF {
		t.Errorf("a stream that is over ends with %v", err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	s.Stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
