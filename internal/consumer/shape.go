package consumer

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/purserhq/purser/internal/eventlog"
)

// Model is what the runtime keeps up to date: a fold with what is derived from it, or a journal. It has tables of its
// own, in a Postgres schema of its own, and a checkpoint for each partition.
type Model struct {
	name       string
	version    int
	categories []string
	derived    []string // the names of its reports and lists
	open       func(build string) shape
}

// Name is that of the fold or journal.
func (m Model) Name() string { return m.name }

// shape is how events become rows.
type shape interface {
	// relations are the tables, the model's own first.
	relations() []relation
	// apply writes what the events of a batch add up to.
	apply(ctx context.Context, b *batch) error
	// backfill fills a partition of a derived table, by its name, from the rows that are there.
	backfill(ctx context.Context, tx pgx.Tx, name string, partition int) error
	// anew begins to fold a key anew.
	anew(h *history) refolding
	// auditor compares what is stored with what the log adds up to.
	auditor(a *audit) auditor
}

// relation is a table by the name that readers know.
type relation struct {
	name    string
	version int
	table   *table
}

// newTable is a table of a build; extra columns are the runtime's own.
func newTable(build, name string, columns []column, extra ...column) *table {
	at := pgx.Identifier{build, name}
	return &table{at: at, name: at.Sanitize(), columns: columns, extra: extra}
}

// derivedName names the table of a report or list, which has a version of its own within the build of its fold.
func derivedName(name string, version int) string { return fmt.Sprintf("%s_v%d", name, version) }

// batch is some events, in the order of the log, and the transaction in which they are applied.
type batch struct {
	tx     pgx.Tx
	log    Log
	limits limits
	events []decoded
	// unknown are the types of the events that this build does not know: all it makes of them is a note that they were there.
	unknown []string
	// unkeyed is how many events are passed over because they have no key.
	unkeyed int
	// end is the position up to which the batch goes.
	end eventlog.Position
	// last is the last event up to there.
	last anchor
	// writes are sent together, with the checkpoint, at the end of the transaction.
	writes *pgx.Batch
	// poisoned are the keys whose events can't be applied, with the first one that can't and why.
	poisoned map[string]poison
	// passed are how many events of each partition there are, those included that are not for the model.
	passed [partitions]int
	// filling: the build has no readers and no indexes yet.
	filling bool
	observe func(eventType string, handle func())
}

// decoded is an event of the model's categories.
type decoded struct {
	eventlog.Event
	category, key string
	// err: it can't be read, and its key is to be parked.
	err error
}

type poison struct {
	position eventlog.Position
	cause    string
}

// park notes that a key's events can't be applied from one on: the first one that has a fault, in whatever order they are found.
func (b *batch) park(key string, at eventlog.Position, cause error) {
	if p, ok := b.poisoned[key]; !ok || at < p.position {
		b.poisoned[key] = poison{at, cause.Error()}
	}
}

// messages are the events of a stored one as folds see them: of today's types, whatever it was stored as.
func (d decoded) messages() []Event {
	events := make([]Event, len(d.Messages))
	for i, m := range d.Messages {
		events[i] = Event{
			ID: d.ID, Key: d.key, Category: d.category, Stream: d.Stream, Revision: d.Revision, Position: d.Position,
			Type: string(m.ProtoReflect().Descriptor().Name()), Part: i, Message: m,
			OccurredAt: d.Meta.OccurredAt.UTC().Truncate(postgresTick), Actor: d.Meta.Actor,
			CausationID: d.Meta.CausationID, CorrelationID: d.Meta.CorrelationID, Traceparent: d.Meta.Traceparent,
		}
	}
	return events
}

// guarded turns a panic of a pure function into an error: one bad event must not stop the rest.
func guarded(f func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	f()
	return nil
}

// reads tells whether a model reads a category.
func (m Model) reads(category string) bool { return slices.Contains(m.categories, category) }
