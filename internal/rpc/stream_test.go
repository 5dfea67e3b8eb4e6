package rpc

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
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
