package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// NullStore is an event store that stores nothing: it acknowledges appends at once, answers reads with as many copies as
// asked for of one event that was encoded before, and answers the health check. It is gRPC as it comes, without options of
// its own; what a client reaches with it is what the client and gRPC allow.
type NullStore struct {
	lis    net.Listener
	server *grpc.Server
}

// ListenNull makes a null store on a free port of this machine. Serve must be called once.
func ListenNull() (*NullStore, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("the null event store can't listen: %w", err)
	}
	s := grpc.NewServer(grpc.WaitForHandlers(true))
	streams.RegisterStreamsServer(s, null{})
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	return &NullStore{lis, s}, nil
}

// Addr is the host:port that the store listens on.
func (n *NullStore) Addr() string { return n.lis.Addr().String() }

// Serve serves until ctx ends.
func (n *NullStore) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, n.server.Stop)
	defer stop()
	if err := n.server.Serve(n.lis); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve the null event store: %w", err)
	}
	return nil
}

type null struct {
	streams.UnimplementedStreamsServer
}

func (null) Append(ss streams.Streams_AppendServer) error {
	for {
		if _, err := ss.Recv(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
	}
	return ss.SendAndClose(&streams.AppendResp{Result: &streams.AppendResp_Success_{Success: &streams.AppendResp_Success{
		CurrentRevisionOption: &streams.AppendResp_Success_CurrentRevision{CurrentRevision: 1},
		PositionOption:        &streams.AppendResp_Success_Position{Position: &streams.AppendResp_Position{CommitPosition: 1, PreparePosition: 1}},
	}}})
}

func (null) Read(req *streams.ReadReq, ss streams.Streams_ReadServer) error {
	e := newEvents(0).next()
	var prepared grpc.PreparedMsg
	if err := prepared.Encode(ss, &streams.ReadResp{Content: &streams.ReadResp_Event{Event: &streams.ReadResp_ReadEvent{
		Event: &streams.ReadResp_ReadEvent_RecordedEvent{
			Id:               &shared.UUID{Value: &shared.UUID_Structured_{Structured: &shared.UUID_Structured{MostSignificantBits: 1, LeastSignificantBits: 2}}},
			StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte(streamOf(1))},
			StreamRevision:   1000,
			CommitPosition:   100_000,
			PreparePosition:  100_000,
			Metadata:         map[string]string{"type": e.EventType, "content-type": "application/json", "created": "17000000000000000"},
			CustomMetadata:   e.Metadata,
			Data:             e.Data,
		},
		Position: &streams.ReadResp_ReadEvent_CommitPosition{CommitPosition: 100_000},
	}}}); err != nil {
		return err
	}
	for range req.GetOptions().GetCount() {
		if err := ss.SendMsg(&prepared); err != nil {
			return err
		}
	}
	return nil
}
