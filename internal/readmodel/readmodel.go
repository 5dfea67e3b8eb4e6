// Package readmodel keeps what queries are answered from: tables in Postgres that are folded from the event log and can
// be rebuilt from it at any time.
//
// Each read model is one file with its row, the pure function that folds events into the row, and the SQL that reads it,
// so that who writes a column and who reads it can't drift apart. A report is one file too: what each row of a fold
// contributes. [Models] is what the projector runs, [Queries] what the query service asks, and the saga for
// its operators; both come from one catalogue, where a new model or report is one line.
//
// Enumerations are stored by their short names: CONFIRMED for ORDER_STATE_CONFIRMED. A row may exist before the event
// that opens its entity was seen, because facts of different streams arrive in any order; queries do not show it.
package readmodel

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/secret"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// newCatalogue lists every read model, and with each fold the reports derived from it.
func newCatalogue() *catalogue {
	c := &catalogue{reports: map[string]report{}}
	addFold(c, &OrderSummaries,
		reportOf(&SalesByDay),
		reportOf(&CustomerTotals),
	)
	addFold(c, &OrderDetails,
		reportOf(&ProductSales),
	)
	addFold(c, &Products)
	addFold(c, &StockLevels)
	addFold(c, &Payments)
	addFold(c, &Fulfillments)
	addJournal(c, &OrderTimeline)
	return c
}

// Models is everything the projector runs.
func Models() []consumer.Model { return newCatalogue().models }

// Replays is every fold, report and journal, for looking at one key event by event.
func Replays() []consumer.Replay { return newCatalogue().replays }

type catalogue struct {
	models  []consumer.Model
	replays []consumer.Replay
	all     []consumer.Readable
	reports map[string]report
}

func addFold[R any](c *catalogue, f *consumer.Fold[R], reports ...derivedReport[R]) {
	derived := make([]consumer.Derived[R], len(reports))
	c.replays = append(c.replays, f.Replay())
	for i, r := range reports {
		derived[i] = r.derived
		c.reports[r.Name] = r.report
		c.all = append(c.all, r.of)
		c.replays = append(c.replays, r.replay)
	}
	c.models = append(c.models, f.Model(derived...))
	c.all = append(c.all, f)
}

func addJournal[J any](c *catalogue, j *consumer.Journal[J]) {
	c.models = append(c.models, j.Model())
	c.replays = append(c.replays, j.Replay())
	c.all = append(c.all, j)
}

// Queries reads the read models. It is safe for concurrent use.
//
// Every query takes a position of the log and answers only when what it reads has applied everything up to there; it
// waits at most until ctx ends. Position 0 waits for nothing. Errors are faults, or come from ctx or Postgres.
type Queries struct {
	pool    *pgxpool.Pool
	reader  *consumer.Reader
	secret  *secret.Secret
	all     []consumer.Readable
	reports map[string]report
	orders  sync.Map // gatherings of [OrderDetail], by build
}

// NewQueries returns queries on the pool. Page tokens are made under the secret.
func NewQueries(pool *pgxpool.Pool, s *secret.Secret) *Queries {
	c := newCatalogue()
	return &Queries{pool: pool, reader: consumer.NewReader(pool), secret: s, all: c.all, reports: c.reports}
}

// Missing names what has no live build that is filled yet.
func (q *Queries) Missing(ctx context.Context) ([]string, error) {
	return q.reader.Missing(ctx, q.all...)
}

// at is where a model lies, once it has applied everything up to pos: in the partition of key, or in all of them where key is
// "". It gives up a little before ctx does, so that the answer that says why can still reach the client.
func (q *Queries) at(ctx context.Context, model consumer.Readable, key string, pos eventlog.Position) (consumer.Place, error) {
	if pos == 0 {
		return q.reader.Find(ctx, model)
	}
	ctx, cancel := consumer.Sooner(ctx)
	defer cancel()
	return q.reader.Await(ctx, model, key, pos)
}

// one returns the row that a query finds, and whether it found one.
func one[R any](ctx context.Context, q *Queries, sql string, args ...any) (R, bool, error) {
	rows, err := many[R](ctx, q, sql, args...)
	if err != nil || len(rows) == 0 {
		var none R
		return none, false, err
	}
	return rows[0], true, nil
}

func many[R any](ctx context.Context, q *Queries, sql string, args ...any) ([]R, error) {
	return collect(ctx, q, pgx.RowToStructByName[R], sql, args...)
}

func collect[R any](ctx context.Context, q *Queries, scan pgx.RowToFunc[R], sql string, args ...any) ([]R, error) {
	rows, err := q.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, answer(err)
	}
	list, err := pgx.CollectRows(rows, scan)
	return list, answer(err)
}

// answer turns those of Postgres's errors into faults that are no bug of ours.
func answer(err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return err
	}
	switch pg.Code {
	case stateUndefinedTable, stateInvalidSchema:
		return fault.Down(typev1.ErrorReason_ERROR_REASON_DEPENDENCY_UNAVAILABLE, "the read models are not built yet", err)
	case stateQueryCanceled: // by the statement timeout; where ctx has ended, pgx says that instead
		return &fault.Fault{
			Kind: fault.DeadlineExceeded, Reason: typev1.ErrorReason_ERROR_REASON_DEADLINE_EXCEEDED,
			Message: "the query took too long", Err: err,
		}
	}
	return err
}

// SQLSTATEs, as Postgres's manual lists them.
const (
	stateUndefinedTable = "42P01"
	stateInvalidSchema  = "3F000"
	stateQueryCanceled  = "57014"
)

// latest is the later of two times: what a row was last changed at, whatever the order in which its events arrive.
func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
