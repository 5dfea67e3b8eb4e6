package eventstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc/codes"

	"github.com/purserhq/purser/services/eventstore/storage"
)

// Delete deletes a stream until something is appended to it.
func (s *service) Delete(ctx context.Context, req *streams.DeleteReq) (*streams.DeleteResp, error) {
	opts := req.GetOptions()
	at, err := remove(ctx, s.store.Delete, "Delete", opts.GetStreamIdentifier(), opts.GetExpectedStreamRevision())
	if err != nil {
		return nil, err
	}
	return &streams.DeleteResp{PositionOption: &streams.DeleteResp_Position_{
		Position: &streams.DeleteResp_Position{CommitPosition: at, PreparePosition: at},
	}}, nil
}

// Tombstone deletes a stream for good.
func (s *service) Tombstone(ctx context.Context, req *streams.TombstoneReq) (*streams.TombstoneResp, error) {
	opts := req.GetOptions()
	at, err := remove(ctx, s.store.Tombstone, "Tombstone", opts.GetStreamIdentifier(), opts.GetExpectedStreamRevision())
	if err != nil {
		return nil, err
	}
	return &streams.TombstoneResp{PositionOption: &streams.TombstoneResp_Position_{
		Position: &streams.TombstoneResp_Position{CommitPosition: at, PreparePosition: at},
	}}, nil
}

// deletion is one of the store's: Delete or Tombstone.
type deletion func(context.Context, string, storage.Expected) (storage.Position, error)

func remove(ctx context.Context, do deletion, name string, id *shared.StreamIdentifier, expectation any) (uint64, error) {
	stream, err := writableStream(ctx, id)
	if err != nil {
		return 0, err
	}
	expected, err := expectedRevision(expectation)
	if err != nil {
		return 0, err
	}
	at, err := do(ctx, stream, expected)
	var conflict *storage.ConflictError
	switch {
	case errors.As(err, &conflict):
		return 0, wrongVersion(ctx, name, stream, expected, conflict.Current)
	case err != nil:
		return 0, storageStatus(ctx, err)
	}
	return uint64(at), nil
}

// wrongVersion is an error here, unlike in the answer to an append.
func wrongVersion(ctx context.Context, name, stream string, expected storage.Expected, current storage.Revision) error {
	actual := ""
	if current != storage.NoRevision {
		actual = strconv.FormatInt(int64(current), 10)
	}
	message := fmt.Sprintf("%s failed due to WrongExpectedVersion. Stream: %s, Expected version: %d, Actual version: %s",
		name, stream, expected, actual)
	return refuse(ctx, codes.FailedPrecondition, message,
		"exception", "wrong-expected-version",
		"stream-name", stream,
		"expected-version", strconv.FormatInt(int64(expected), 10),
		"actual-version", actual)
}
