package daemon

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
)

// slow is a service whose one method takes as long as the test wants.
func slow(begun chan<- struct{}, finish <-chan struct{}) *grpc.ServiceDesc {
	return &grpc.ServiceDesc{ServiceName: "test.Slow", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Call",
		Handler: func(any, context.Context, func(any) error, grpc.UnaryServerInterceptor) (any, error) {
			begun <- struct{}{}
			<-finish
			return &emptypb.Empty{}, nil
		},
	}}}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func readyz(t *testing.T, addr string) int {
	t.Helper()
	resp, err := http.Get("http://" + addr + "/readyz")
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

func TestAStopSaysNotReadyWhileCallsFinish(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	s := Service{Name: "slow", GRPC: grpc.NewServer(), GRPCAddr: freeAddr(t), HTTPAddr: freeAddr(t)}
	s.GRPC.RegisterService(slow(begun, finish), struct{}{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ran := make(chan error, 1)
	go func() { ran <- Run(ctx, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), s) }()

	conn, err := grpc.NewClient(s.GRPCAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	called := make(chan error, 1)
	go func() {
		called <- conn.Invoke(t.Context(), "/test.Slow/Call", &emptypb.Empty{}, &emptypb.Empty{}, grpc.WaitForReady(true))
	}()
	<-begun
	for deadline := time.Now().Add(headerTimeout); readyz(t, s.HTTPAddr) != http.StatusOK; {
		if time.Now().After(deadline) {
			t.Fatal("never ready")
		}
	}

	cancel()
	if got := readyz(t, s.HTTPAddr); got != http.StatusServiceUnavailable {
		t.Errorf("while a call is under way /readyz answers %d, want %d", got, http.StatusServiceUnavailable)
	}
	close(finish)
	if err := <-called; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	if err := <-ran; err != nil {
		t.Errorf("Run = %v", err)
	}
}
