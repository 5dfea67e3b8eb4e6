package eventstore

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/purserhq/purser/services/eventstore/storage"
)

var (
	// errHandler is EventStoreDB's answer to what it doesn't check, and then can't do.
	errHandler = status.Error(codes.Unknown, "Exception was thrown by handler.")

	errEnding = status.Error(codes.Unavailable, "the server is shutting down")
)

func invalid(message string) error { return status.Error(codes.InvalidArgument, message) }

// refuse is an error that clients tell by its trailers: pairs of key and value, of which "exception" names the kind.
func refuse(ctx context.Context, code codes.Code, message string, trailers ...string) error {
	_ = grpc.SetTrailer(ctx, metadata.Pairs(trailers...)) // fails only outside of a call
	return status.Error(code, message)
}

// storageStatus is the status of what the store answers, or of what went wrong in it.
func storageStatus(ctx context.Context, err error) error {
	var deleted *storage.DeletedError
	switch {
	case errors.As(err, &deleted):
		return refuse(ctx, codes.FailedPrecondition, fmt.Sprintf("Event stream '%s' is deleted.", deleted.Stream),
			"exception", "stream-deleted", "stream-name", deleted.Stream)
	case errors.Is(err, storage.ErrClosed):
		return errEnding
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	default:
		return status.Error(codes.Internal, err.Error())
	}
}
