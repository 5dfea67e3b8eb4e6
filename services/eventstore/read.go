package eventstore

import (
	"errors"
	"math"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/streams"

	"github.com/purserhq/purser/services/eventstore/storage"
)

// query is a read or a subscription, checked. An offset is a position where all events are asked for, and else a revision.
type query struct {
	stream    string // empty for $all
	start     bool   // from before the first event
	from      uint64 // offset; 0 with start; atEnd for the end
	direction storage.Direction
	subscribe bool
	count     uint64  // of a read
	filter    *filter // nil takes all
	resolve   bool    // links
	stringIDs bool
}

// atEnd is how the protocol writes the end as an offset.
const atEnd = math.MaxUint64

func parseQuery(opts *streams.ReadReq_Options) (q query, err error) {
	q.resolve = opts.GetResolveLinks()
	if opts.GetReadDirection() == streams.ReadReq_Options_Backwards {
		q.direction = storage.Backwards
	}
	switch o := opts.GetStreamOption().(type) {
	case *streams.ReadReq_Options_Stream:
		err = q.parseStream(o.Stream)
	case *streams.ReadReq_Options_All:
		err = q.parseAll(o.All)
	default:
		err = invalid("a read needs a stream or $all")
	}
	if err != nil {
		return q, err
	}
	switch o := opts.GetCountOption().(type) {
	case *streams.ReadReq_Options_Count:
		if q.count = o.Count; q.count == 0 {
			return q, errHandler
		}
	case *streams.ReadReq_Options_Subscription:
		if q.subscribe = true; q.direction == storage.Backwards {
			return q, invalid("a subscription goes forwards")
		}
	default:
		return q, invalid("a read needs a count or a subscription")
	}
	switch opts.GetUuidOption().GetContent().(type) {
	case *streams.ReadReq_Options_UUIDOption_Structured:
	case *streams.ReadReq_Options_UUIDOption_String_:
		q.stringIDs = true
	default:
		return q, invalid("a read needs a UUID option")
	}
	return q, q.parseFilter(opts)
}

func (q *query) parseFilter(opts *streams.ReadReq_Options) (err error) {
	switch o := opts.GetFilterOption().(type) {
	case *streams.ReadReq_Options_NoFilter:
	case *streams.ReadReq_Options_Filter:
		if q.stream != "" {
			return invalid("only reads of $all take a filter")
		}
		if q.filter, err = parseFilter(o.Filter); err != nil {
			return err
		}
		if q.subscribe && q.filter.interval == 0 {
			return invalid("a filtered subscription needs a window and a checkpoint interval above zero")
		}
	default:
		return invalid("a read needs a filter option")
	}
	return nil
}

func (q *query) parseStream(opts *streams.ReadReq_Options_StreamOptions) (err error) {
	if q.stream, err = streamName(opts.GetStreamIdentifier()); err != nil {
		return err
	}
	switch o := opts.GetRevisionOption().(type) {
	case *streams.ReadReq_Options_StreamOptions_Revision:
		q.from = o.Revision
	case *streams.ReadReq_Options_StreamOptions_Start:
		q.start = true
	case *streams.ReadReq_Options_StreamOptions_End:
		q.from = atEnd
	default:
		return invalid("a read of a stream needs a revision")
	}
	return nil
}

func (q *query) parseAll(opts *streams.ReadReq_Options_AllOptions) error {
	switch o := opts.GetAllOption().(type) {
	case *streams.ReadReq_Options_AllOptions_Position:
		if o.Position.GetCommitPosition() < o.Position.GetPreparePosition() {
			return invalid("the commit position is before the prepare position")
		}
		q.from = o.Position.GetCommitPosition()
	case *streams.ReadReq_Options_AllOptions_Start:
		q.start = true
	case *streams.ReadReq_Options_AllOptions_End:
		q.from = atEnd
	default:
		return invalid("a read of $all needs a position")
	}
	return nil
}

// Read answers reads and subscriptions.
func (s *service) Read(req *streams.ReadReq, ss streams.Streams_ReadServer) error {
	q, err := parseQuery(req.GetOptions())
	if err != nil {
		return err
	}
	if q.subscribe {
		return s.subscribe(q, ss)
	}
	return s.read(q, ss)
}

func (s *service) read(q query, ss streams.Streams_ReadServer) error {
	c := readCursor(s.store, q)
	for left := q.count; left > 0; {
		p, err := c.page(left, math.MaxInt)
		switch {
		case errors.Is(err, storage.ErrNoStream) && left == q.count:
			return ss.Send(notFound(q.stream))
		case errors.Is(err, storage.ErrNoStream): // it was deleted while it was read
			return nil
		case err != nil:
			return storageStatus(ss.Context(), err)
		}
		if err := sendFrames(ss, p.frames); err != nil {
			return err
		}
		left -= uint64(len(p.frames))
		if p.end {
			break
		}
		if err := s.interrupted(ss); err != nil {
			return err
		}
	}
	return nil
}

// interrupted says why a read that has found nothing to send for a while should stop.
func (s *service) interrupted(ss streams.Streams_ReadServer) error {
	select {
	case <-s.ending:
		return errEnding
	case <-ss.Context().Done():
		return storageStatus(ss.Context(), ss.Context().Err())
	default:
		return nil
	}
}

func sendFrames(ss streams.Streams_ReadServer, frames []frame) error {
	for _, f := range frames {
		if err := ss.SendMsg(f); err != nil {
			return err
		}
	}
	return nil
}

func notFound(stream string) *streams.ReadResp {
	return &streams.ReadResp{Content: &streams.ReadResp_StreamNotFound_{StreamNotFound: &streams.ReadResp_StreamNotFound{
		StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte(stream)},
	}}}
}
