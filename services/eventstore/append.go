package eventstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc/codes"

	"github.com/purserhq/purser/services/eventstore/storage"
)

const (
	maxAppendBytes = 1 << 20
	maxNameBytes   = 4 << 10
	maxDrainBytes  = 64 << 20

	keyType        = "type"
	keyContentType = "content-type"
	keyCreated     = "created"

	typeJSON   = "application/json"
	typeBinary = "application/octet-stream"

	allStream = "$all"
)

// service answers the Streams service. BatchAppend is UNIMPLEMENTED.
type service struct {
	streams.UnimplementedStreamsServer
	store   *storage.Store
	metrics *metrics
	ending  <-chan struct{}
}

var _ streams.StreamsServer = (*service)(nil)

// Append takes an append whole and then writes it.
func (s *service) Append(ss streams.Streams_AppendServer) error {
	answer, err := s.append(ss)
	if err != nil {
		// A client that is still sending when the call fails reports a broken connection, not the status.
		drain(ss)
		return err
	}
	return ss.SendMsg(answer)
}

// append returns the answer, a message or a frame.
func (s *service) append(ss streams.Streams_AppendServer) (any, error) {
	var first proposal
	err := ss.RecvMsg(&first)
	if errors.Is(err, io.EOF) {
		return nil, invalid("the append has no options")
	}
	if err != nil {
		return nil, err
	}
	stream, err := writableStream(ss.Context(), first.options.GetStreamIdentifier())
	if err != nil {
		return nil, err
	}
	expected, err := expectedRevision(first.options.GetExpectedStreamRevision())
	if err != nil {
		return nil, err
	}
	events, err := receiveEvents(ss)
	if err != nil {
		return nil, err
	}
	written, err := s.store.Append(ss.Context(), stream, expected, events)
	var conflict *storage.ConflictError
	switch {
	case errors.As(err, &conflict):
		return wrongExpected(first.options, conflict.Current), nil
	case err != nil:
		return nil, storageStatus(ss.Context(), err)
	}
	return appended(written), nil
}

// streamName checks a stream's name: any UTF-8 but the empty name and that of no stream's metadata.
func streamName(id *shared.StreamIdentifier) (string, error) {
	name := id.GetStreamName()
	switch {
	case len(name) == 0:
		return "", invalid("a stream name is required")
	case len(name) > maxNameBytes:
		return "", invalid(fmt.Sprintf("a stream name has at most %d bytes", maxNameBytes))
	case string(name) == "$$" || !utf8.Valid(name):
		return "", invalid(fmt.Sprintf("%q is not a stream name", name))
	}
	return string(name), nil
}

// writableStream is the name of a stream that clients may change.
func writableStream(ctx context.Context, id *shared.StreamIdentifier) (string, error) {
	stream, err := streamName(id)
	if err == nil && stream == allStream {
		return "", refuse(ctx, codes.PermissionDenied, "write access to $all is denied", "exception", "access-denied")
	}
	return stream, err
}

// expectedRevision takes the same option of three messages.
func expectedRevision(option any) (storage.Expected, error) {
	switch e := option.(type) {
	case *streams.AppendReq_Options_Revision:
		return storage.Exactly(e.Revision), nil
	case *streams.DeleteReq_Options_Revision:
		return storage.Exactly(e.Revision), nil
	case *streams.TombstoneReq_Options_Revision:
		return storage.Exactly(e.Revision), nil
	case *streams.AppendReq_Options_NoStream, *streams.DeleteReq_Options_NoStream, *streams.TombstoneReq_Options_NoStream:
		return storage.NoStream, nil
	case *streams.AppendReq_Options_Any, *streams.DeleteReq_Options_Any, *streams.TombstoneReq_Options_Any:
		return storage.Any, nil
	case *streams.AppendReq_Options_StreamExists, *streams.DeleteReq_Options_StreamExists, *streams.TombstoneReq_Options_StreamExists:
		return storage.StreamExists, nil
	default:
		return 0, invalid("an expected stream revision is required")
	}
}

func receiveEvents(ss streams.Streams_AppendServer) ([]storage.Proposed, error) {
	var events []storage.Proposed
	size := 0
	for {
		var p proposal
		err := ss.RecvMsg(&p)
		if errors.Is(err, io.EOF) {
			return events, nil
		}
		if err != nil {
			return nil, err
		}
		e, err := p.proposed(ss.Context())
		if err != nil {
			return nil, err
		}
		if size += eventSize(e); size > maxAppendBytes {
			return nil, refuse(ss.Context(), codes.InvalidArgument, fmt.Sprintf("Maximum Append Size of %d Exceeded.", maxAppendBytes),
				"exception", "maximum-append-size-exceeded", "maximum-append-size", strconv.Itoa(maxAppendBytes))
		}
		events = append(events, e)
	}
}

// eventSize is how EventStoreDB counts: two bytes for each UTF-16 unit of the type.
func eventSize(e storage.Proposed) int { return len(e.Data) + len(e.Metadata) + 2*len(e.Type) }

// proposed checks an event.
func (p *proposal) proposed(ctx context.Context) (storage.Proposed, error) {
	switch {
	case !p.event:
		return storage.Proposed{}, invalid("the options of an append come once, before its events")
	case !p.hasType || !p.hasContentType:
		return storage.Proposed{}, refuse(ctx, codes.InvalidArgument, "Required Metadata Property is missing.",
			"exception", "missing-required-metadata-property", "required-metadata-properties", keyType+","+keyContentType)
	case p.id == storage.ID{} || p.eventType == "":
		return storage.Proposed{}, errHandler
	}
	return storage.Proposed{ID: p.id, Type: p.eventType, JSON: p.json, Metadata: p.custom, Data: p.data}, nil
}

// drain receives what the client still sends, within a bound.
func drain(ss streams.Streams_AppendServer) {
	for size := 0; size < maxDrainBytes; {
		var p proposal
		if ss.RecvMsg(&p) != nil {
			return
		}
		size += len(p.data) + len(p.custom) + 1
	}
}

// wrongExpected is an ordinary answer in this protocol. It echoes the expectation, also in the fields of old clients.
func wrongExpected(opts *streams.AppendReq_Options, current storage.Revision) *streams.AppendResp {
	empty := &shared.Empty{}
	w := &streams.AppendResp_WrongExpectedVersion{
		CurrentRevisionOption:        &streams.AppendResp_WrongExpectedVersion_CurrentNoStream{CurrentNoStream: empty},
		CurrentRevisionOption_20_6_0: &streams.AppendResp_WrongExpectedVersion_NoStream_20_6_0{NoStream_20_6_0: empty},
	}
	if current != storage.NoRevision {
		w.CurrentRevisionOption = &streams.AppendResp_WrongExpectedVersion_CurrentRevision{CurrentRevision: uint64(current)}
		w.CurrentRevisionOption_20_6_0 = &streams.AppendResp_WrongExpectedVersion_CurrentRevision_20_6_0{CurrentRevision_20_6_0: uint64(current)}
	}
	switch e := opts.GetExpectedStreamRevision().(type) {
	case *streams.AppendReq_Options_Revision:
		w.ExpectedRevisionOption = &streams.AppendResp_WrongExpectedVersion_ExpectedRevision{ExpectedRevision: e.Revision}
		w.ExpectedRevisionOption_20_6_0 = &streams.AppendResp_WrongExpectedVersion_ExpectedRevision_20_6_0{ExpectedRevision_20_6_0: e.Revision}
	case *streams.AppendReq_Options_NoStream:
		w.ExpectedRevisionOption = &streams.AppendResp_WrongExpectedVersion_ExpectedNoStream{ExpectedNoStream: empty}
		w.ExpectedRevisionOption_20_6_0 = &streams.AppendResp_WrongExpectedVersion_ExpectedRevision_20_6_0{ExpectedRevision_20_6_0: math.MaxUint64}
	case *streams.AppendReq_Options_Any:
		w.ExpectedRevisionOption = &streams.AppendResp_WrongExpectedVersion_ExpectedAny{ExpectedAny: empty}
		w.ExpectedRevisionOption_20_6_0 = &streams.AppendResp_WrongExpectedVersion_Any_20_6_0{Any_20_6_0: empty}
	case *streams.AppendReq_Options_StreamExists:
		w.ExpectedRevisionOption = &streams.AppendResp_WrongExpectedVersion_ExpectedStreamExists{ExpectedStreamExists: empty}
		w.ExpectedRevisionOption_20_6_0 = &streams.AppendResp_WrongExpectedVersion_StreamExists_20_6_0{StreamExists_20_6_0: empty}
	}
	return &streams.AppendResp{Result: &streams.AppendResp_WrongExpectedVersion_{WrongExpectedVersion: w}}
}
