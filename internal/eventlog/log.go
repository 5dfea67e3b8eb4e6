// Package eventlog is the log of typed events, over the official EventStoreDB client.
//
// It promises that no call outlasts its context; that an append is stored whole, at exactly the revision named, or not at
// all, and may be repeated; and that a subscription delivers every event once and in order until its context ends, over any
// number of outages. An outage never has to be repaired by hand: clients that have died are replaced.
package eventlog

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
)

// Log is a connection to an event store. It is safe for concurrent use.
type Log struct {
	store    *supervisor
	schema   Schema
	log      *slog.Logger
	metrics  *metrics
	silence  time.Duration // of a subscription, before it is looked after
	patience time.Duration // with one attempt to read
}

// Open returns a log over the store that a connection string names. It fails only for a string that can't be read; a
// store that is down is waited for when it is used. reg may be nil.
func Open(url string, schema Schema, log *slog.Logger, reg prometheus.Registerer) (*Log, error) {
	m := newMetrics(reg)
	s, err := newSupervisor(url, log, m)
	if err != nil {
		return nil, err
	}
	return &Log{store: s, schema: schema, log: log, metrics: m, silence: defaultSilence, patience: defaultPatience}, nil
}

// Close ends the connection. Subscriptions should have ended before.
func (l *Log) Close() { l.store.close() }

// Ping returns nil when the store answers.
func (l *Log) Ping(ctx context.Context) error {
	_, err := l.head(ctx)
	return err
}

// Head is the position of the last event of the whole log, of whatever category; 0 when there is none.
func (l *Log) Head(ctx context.Context) (Position, error) {
	return retryRead(ctx, l, l.head)
}

func (l *Log) head(ctx context.Context) (Position, error) {
	return call(ctx, l.store, func(ctx context.Context, c *esdb.Client) (Position, error) {
		s, err := c.ReadAll(ctx, esdb.ReadAllOptions{Direction: esdb.Backwards, From: esdb.End{}}, 1)
		if err != nil {
			return 0, fmt.Errorf("read the head: %w", err)
		}
		defer s.Close()
		events, err := collect(s)
		if err != nil || len(events) == 0 {
			return 0, err
		}
		return events[0].Position, nil
	})
}

// Has tells whether the event with an id is at a position of the log. One that was deleted since counts as being there.
func (l *Log) Has(ctx context.Context, at Position, id uuid.UUID) (bool, error) {
	return retryRead(ctx, l, func(ctx context.Context) (bool, error) {
		return call(ctx, l.store, func(ctx context.Context, c *esdb.Client) (bool, error) {
			s, err := c.ReadAll(ctx, esdb.ReadAllOptions{Direction: esdb.Forwards, From: esdb.Position{Commit: uint64(at), Prepare: uint64(at)}}, 1)
			if err != nil {
				return false, fmt.Errorf("read position %d: %w", at, err)
			}
			defer s.Close()
			events, err := collect(s)
			if err != nil || len(events) == 0 {
				return false, err
			}
			return events[0].Position > at || events[0].ID == id, nil
		})
	})
}

const (
	identityStream = "purserstore-identity"
	identityType   = "StoreIdentified"
)

// Identity names this store for good: it differs from that of every other store, also of one that was wiped. It is made
// when it is first asked for.
func (l *Log) Identity(ctx context.Context) (string, error) {
	for {
		events, err := l.Read(ctx, identityStream, 0, 1)
		if err != nil {
			return "", err
		}
		if len(events) > 0 {
			return events[0].ID.String(), nil
		}
		// Of several that try at once, the first one wins and all read it.
		_, err = l.appendRaw(ctx, identityStream, NoStream, []esdb.EventData{{
			EventID: uuid.New(), EventType: identityType, ContentType: esdb.ContentTypeJson, Data: []byte("{}"),
		}})
		if _, conflict := err.(*ConflictError); err != nil && !conflict {
			return "", err
		}
	}
}

// Decode reads a stored event through the current schema. Of a type that is not ours nothing else is looked at.
func (l *Log) Decode(r Recorded) (Event, error) { return Decode(l.schema, r) }

// lenient takes what other writers may have made of metadata, as the store's own readers do. The package is used because
// metadata is read of every event, and it takes a third of the standard one's time.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// Decode reads an event that was stored in some log through a schema, as [Log.Decode] does.
func Decode(schema Schema, r Recorded) (Event, error) {
	e := Event{Recorded: r}
	if !schema.Knows(r.Type) {
		return Event{}, fmt.Errorf("%s@%d: %w: %s", r.Stream, r.Revision, ErrUnknownType, r.Type)
	}
	if err := json.Unmarshal(r.Metadata, &e.Meta, lenient); err != nil {
		return Event{}, fmt.Errorf("metadata of %s@%d: %w", r.Stream, r.Revision, err)
	}
	messages, err := schema.Decode(r.Type, e.Meta.SchemaVersion, r.ContentType, r.Data)
	if err != nil {
		return Event{}, fmt.Errorf("%s@%d: %w", r.Stream, r.Revision, err)
	}
	e.Messages = messages
	return e, nil
}

// recorded converts an event of the client.
func recorded(e *esdb.RecordedEvent) Recorded {
	return Recorded{
		ID: e.EventID, Stream: e.StreamID, Revision: Revision(min(e.EventNumber, math.MaxInt64)), Position: Position(e.Position.Commit),
		Type: e.EventType, ContentType: e.ContentType, Data: e.Data, Metadata: e.UserMetadata, Created: e.CreatedDate,
	}
}
