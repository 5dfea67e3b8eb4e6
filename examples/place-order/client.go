package main

import (
	"context"
	"log"
	"math/rand/v2"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/purserhq/purser/proto/purser"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// dial returns a connection, which is made when it is first used.
func dial(target string) (*grpc.ClientConn, error) {
	return grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(purser.ServiceConfig),
		// A connection that has died unheard is noticed, and a service that is back is found within seconds.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
	)
}

// insist sends a request until it has an answer, or one that another attempt would not change, or ctx ends. Each attempt
// is the same request, so a command among them takes effect once.
func insist[Request, Reply any](ctx context.Context, call func(context.Context, Request, ...grpc.CallOption) (Reply, error), req Request) (Reply, error) {
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		reply, err := call(ctx, req)
		again := status.Code(err) == codes.Unavailable || status.Code(err) == codes.DeadlineExceeded ||
			reason(err) == typev1.ErrorReason_ERROR_REASON_CONTENTION
		if !again || ctx.Err() != nil {
			return reply, err
		}
		wait := max(pause/2+rand.N(pause), retryDelay(err))
		log.Printf("trying again in %s: %v", wait.Round(time.Millisecond), err)
		if pass(ctx, wait) != nil {
			return reply, err
		}
	}
}

// pass lets some time pass.
func pass(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// reason is the reason that Purser gives for an error; unspecified for nil, and where something else speaks.
func reason(err error) typev1.ErrorReason {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == "purser" {
			return typev1.ErrorReason(typev1.ErrorReason_value["ERROR_REASON_"+info.GetReason()])
		}
	}
	return typev1.ErrorReason_ERROR_REASON_UNSPECIFIED
}

// retryDelay is how long Purser asks to be left alone.
func retryDelay(err error) time.Duration {
	for _, d := range status.Convert(err).Details() {
		if retry, ok := d.(*errdetails.RetryInfo); ok {
			return retry.GetRetryDelay().AsDuration()
		}
	}
	return 0
}
