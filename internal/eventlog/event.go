package eventlog

import (
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
)

// Revision is the number of an event in its stream, from 0.
type Revision int64

// NoStream is the revision of a stream without events.
const NoStream Revision = -1

// Position is a place in the log of all events; later events have larger ones. 0 is before the first event.
type Position uint64

// Metadata is what is known of how an event came about. Keys with a "$" are EventStoreDB's own conventions.
type Metadata struct {
	CorrelationID string `json:"$correlationId,omitempty"`
	CausationID   string `json:"$causationId,omitempty"`
	// RequestID names the command that caused the event, RequestHash what it asked for.
	RequestID   string `json:"requestId,omitempty"`
	RequestHash string `json:"requestHash,omitempty"`
	Actor       string `json:"actor,omitempty"`
	// OccurredAt is the time by the handler's clock; timelines and reports go by it.
	OccurredAt    time.Time `json:"occurredAt"`
	SchemaVersion int       `json:"schemaVersion"`
	Traceparent   string    `json:"traceparent,omitempty"`
}

// Recorded is an event as it is stored.
type Recorded struct {
	ID          uuid.UUID
	Stream      string
	Revision    Revision
	Position    Position
	Type        string
	ContentType string
	Data        []byte
	// Metadata is the JSON of a [Metadata].
	Metadata []byte
	// Created is the store's own clock, rewritten by an import or a restore.
	Created time.Time
}

// Event is a recorded event, read through the current schema.
type Event struct {
	Recorded
	Meta Metadata
	// Messages is usually one; an upcaster may split an event of an old version into several, applied as one unit.
	Messages []proto.Message
}

// NewEvent is an event to be appended.
type NewEvent struct {
	// ID makes a repeated append recognisable: the same event always has the same id.
	ID      uuid.UUID
	Message proto.Message
	// Meta without SchemaVersion, which the schema sets.
	Meta Metadata
}

// Schema says how messages are stored. Package eventschema has the one of Purser.
type Schema interface {
	// Encode returns what is stored for a message of the current version.
	Encode(m proto.Message) (Encoded, error)
	// Knows tells whether an event type is one of ours, in whatever version.
	Knows(eventType string) bool
	// Decode returns the current messages that a stored event of any known version reads as.
	// It fails with [ErrUnknownType] or [ErrNewerVersion] for what this build does not know.
	Decode(eventType string, version int, contentType string, data []byte) ([]proto.Message, error)
}

// Encoded is a message as it is stored.
type Encoded struct {
	Type        string
	Version     int
	ContentType string
	Data        []byte
}

// StreamName is the stream of an entity: category-id.
func StreamName(category, id string) string { return category + "-" + id }

// SplitStream is the inverse of [StreamName]. The category ends at the first "-", so ids may contain more.
func SplitStream(stream string) (category, id string, ok bool) {
	return strings.Cut(stream, "-")
}
