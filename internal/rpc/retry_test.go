package rpc

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/proto/purser"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
)

// What the published service config does for a client that uses nothing else of ours.
func TestOnlyUnavailableIsTriedAgain(t *testing.T) {
	p, addr := serve(t)
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(purser.ServiceConfig))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := inventoryv1.NewInventoryServiceClient(conn)
	for kind, code := range codeOf {
		for _, failures := range []int64{1, 100} {
			p.calls.Store(0)
			p.does(func(context.Context) error {
				if p.calls.Load() > failures {
					return nil
				}
				return of(kind, nil)
			})
			wantCode, wantCalls := code, int64(1)
			if kind == fault.Unavailable {
				wantCalls = 4
				if failures == 1 {
					wantCode, wantCalls = codes.OK, 2
				}
			} else if code != codeOf[of(kind, nil).Kind] {
				wantCode = codes.Internal // nothing of ours says it without a reason
			}
			_, err := client.ReceiveStock(t.Context(), receive())
			if status.Code(err) != wantCode || p.calls.Load() != wantCalls {
				t.Errorf("%d failures with %s: %v after %d calls, want %s after %d", failures, code, err, p.calls.Load(), wantCode, wantCalls)
			}
		}
	}
}
