package eventlog

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
)

// What follows takes events as they are stored, whatever they mean: for tools.

// IsSystem tells the streams that are the store's own, which say nothing of the business.
func IsSystem(stream string) bool {
	return stream == identityStream || len(stream) > 0 && stream[0] == '$'
}

// IsTombstone tells the mark that the store leaves, at a revision out of order, of a stream that was deleted for good.
func (r *Recorded) IsTombstone() bool { return r.Type == "$streamDeleted" }

// All returns every event of the log in its order, up to the one that is the last when it begins. Events of streams that
// were deleted or truncated are among them until the store has discarded them. It reads on over short outages; an error,
// also of a store that does not answer for pageTimeout, is the last thing it returns.
func (l *Log) All(ctx context.Context) iter.Seq2[Recorded, error] {
	return func(yield func(Recorded, error) bool) {
		head, err := l.Head(ctx)
		for after := Position(0); err == nil && after < head; {
			var page []Recorded
			page, err = l.readAllPatiently(ctx, after)
			if len(page) == 0 {
				break
			}
			for _, e := range page {
				if e.Position > head || !yield(e, nil) {
					return
				}
			}
			after = page[len(page)-1].Position
		}
		if err != nil {
			yield(Recorded{}, fmt.Errorf("read the log: %w", err))
		}
	}
}

// pageTimeout is how long a tool waits for one page: an outage is waited for, but not for ever without a word.
const pageTimeout = 30 * time.Second

func (l *Log) readAllPatiently(ctx context.Context, after Position) ([]Recorded, error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	return retryRead(ctx, l, func(ctx context.Context) ([]Recorded, error) { return l.readAllPage(ctx, after) })
}

func (l *Log) readPatiently(ctx context.Context, stream string, from Revision) ([]Recorded, error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	return l.Read(ctx, stream, from, pageSize)
}

// readAllPage reads the events after a position.
func (l *Log) readAllPage(ctx context.Context, after Position) ([]Recorded, error) {
	return call(ctx, l.store, func(ctx context.Context, c *esdb.Client) ([]Recorded, error) {
		opts := esdb.ReadAllOptions{Direction: esdb.Forwards, From: esdb.Start{}}
		if after > 0 {
			opts.From = esdb.Position{Commit: uint64(after), Prepare: uint64(after)}
		}
		s, err := c.ReadAll(ctx, opts, pageSize)
		if err != nil {
			return nil, err
		}
		defer s.Close()
		page, err := collect(s)
		if err == nil && len(page) > 0 && page[0].Position == after {
			page = page[1:] // the store begins with the event at the position
		}
		return page, err
	})
}

// Stream returns the events of a stream from a revision on, in order, as [Log.Read] does but page by page. An error is
// the last thing it returns.
func (l *Log) Stream(ctx context.Context, stream string, from Revision) iter.Seq2[Recorded, error] {
	return func(yield func(Recorded, error) bool) {
		for {
			page, err := l.readPatiently(ctx, stream, from)
			if err != nil {
				yield(Recorded{}, err)
				return
			}
			for _, e := range page {
				if !yield(e, nil) {
					return
				}
			}
			if len(page) < pageSize {
				return
			}
			from = page[len(page)-1].Revision + 1
		}
	}
}

// AppendRecorded is [Log.Append] for events as they are stored: it keeps their ids, types, content types, data and
// metadata, and nothing else of them. It leaves it to the store to say what is too large.
func (l *Log) AppendRecorded(ctx context.Context, stream string, expected Revision, events []Recorded) (Appended, error) {
	data := make([]esdb.EventData, len(events))
	for i, e := range events {
		data[i] = esdb.EventData{EventID: e.ID, EventType: e.Type, Data: e.Data, Metadata: e.Metadata}
		switch e.ContentType {
		case "application/json":
			data[i].ContentType = esdb.ContentTypeJson
		case "application/octet-stream":
			data[i].ContentType = esdb.ContentTypeBinary
		default:
			return Appended{}, fmt.Errorf("append to %s: the store has no content type %q", stream, e.ContentType)
		}
	}
	return l.appendRaw(ctx, stream, expected, data)
}

// TruncatedBefore is the revision before which the events of a stream were truncated: where it was deleted and may be
// written again, a revision out of reach; 0 where nothing was truncated.
func (l *Log) TruncatedBefore(ctx context.Context, stream string) (Revision, error) {
	latest, err := l.Read(ctx, "$$"+stream, 0, 1)
	if err != nil || len(latest) == 0 {
		return 0, err
	}
	var metadata struct {
		TruncateBefore Revision `json:"$tb"`
	}
	if err := json.Unmarshal(latest[0].Data, &metadata); err != nil {
		return 0, nil // the store ignores such metadata as well
	}
	return metadata.TruncateBefore, nil
}
