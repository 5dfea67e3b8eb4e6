package consumer

import (
	"time"

	"github.com/google/uuid"
	"github.com/purserhq/purser/internal/eventlog"
	"google.golang.org/protobuf/proto"
)

// Event is one message of a stored event, as a fold sees it.
type Event struct {
	ID uuid.UUID
	// Key is the id part of the stream's name, Category the part before.
	Key, Category string
	Stream        string
	Revision      eventlog.Revision
	Position      eventlog.Position
	Type          string // the name of Message, whatever the event was stored as
	// Part tells apart the messages that one stored event of an old version reads as; usually there is one, number 0.
	Part          int
	Message       proto.Message
	OccurredAt    time.Time
	Actor         string
	CausationID   string
	CorrelationID string
	Traceparent   string
}

// Fold keeps one row per key: what the events of the key's streams add up to. It is a pure function of them.
//
// R is a flat struct whose fields have a `db:"column"` tag. The field of the key is tagged `db:"column,key"`
// and is filled by the runtime; fields that are structs, slices or maps are stored as jsonb; a field tagged
// `db:"column,index"` gets an index. The zero R is what is known of a key without events.
type Fold[R any] struct {
	// Name is snake_case and names the consumer, its tables and its metrics.
	Name string
	// Version is raised when the row or Evolve changes in a way that old rows do not show.
	Version int
	// Categories are the streams of a key that the fold reads. Facts of different streams arrive in any order.
	Categories []string
	// Indexes are further indexes of the table, each a list of columns: "customer_id, create_time"; or, for other kinds of
	// index, all from USING on: "USING gin (tags)".
	Indexes []string
	Evolve  func(row *R, e Event)
}

// Report sums up what the rows of a fold contribute. The fields of C tagged `db:"column,key"` say to which line
// a contribution belongs; all others are int64 and are added up. A line to which nothing contributes does not exist.
type Report[R, C any] struct {
	Name       string
	Version    int
	Of         *Fold[R]
	Contribute func(row R) []C
}

// List is the union of the entries that the rows of a fold ask for, such as a to-do list. An entry exists exactly as
// long as its row wants it. Fields of E tagged `db:"column,key"` tell the entries of one row apart (the row's key is added by
// the runtime, as column "key"); fields tagged `db:"column,local"` are set when the entry appears and are the reader's own afterwards.
type List[R, E any] struct {
	Name    string
	Version int
	Of      *Fold[R]
	// Indexes are further indexes of the table, as those of a fold.
	Indexes []string
	Entries func(row R) []E
}

// Journal writes rows for single events, never changed afterwards. J's fields are tagged as a fold's row, its key being
// one or more fields that tell the rows apart. The first of them is the event's key, by which the rows of a key are found.
type Journal[J any] struct {
	Name       string
	Version    int
	Categories []string
	Entries    func(e Event) []J
}
