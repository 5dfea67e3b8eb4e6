package readmodel

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventlog/memorylog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/localpostgres/pgtest"
)

// world is a log, a consumer that keeps the read models of it as the projector does, and queries on them.
type world struct {
	*Queries
	t    *testing.T
	log  *memorylog.Log
	pool *pgxpool.Pool // the consumer's
	stop func()        // the consumer
	// asked sees the statements of the queries.
	asked *observer
}

// newWorld also lets the test run beside others: most of its time is spent waiting.
func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	w := &world{t: t, log: memorylog.New(eventschema.New()), asked: &observer{}}
	url := pgtest.Database(t)
	w.pool = openPool(t, url, nil)
	w.Queries = NewQueries(openPool(t, url, w.asked), secretOf(t, "a"))
	c := consumer.New(w.pool, w.log, "projector", eventschema.Categories(), Models(), slog.New(slog.DiscardHandler),
		consumer.NewMetrics(prometheus.NewRegistry()))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the consumer: %v", err)
		}
	})
	t.Cleanup(w.stop)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if missing, err := w.Missing(ctx); err == nil && len(missing) == 0 {
			return w
		} else if time.Now().After(deadline) {
			t.Fatalf("not built: %v, %v", missing, err)
		}
	}
}

func openPool(t *testing.T, url string, tracer pgx.QueryTracer) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 20 // each model needs one, and a test may hold some up
	config.ConnConfig.Tracer = tracer
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// observer calls a function, if there is one, after each statement, and remembers the last.
type observer struct {
	mu   sync.Mutex
	then func()
	last pgx.TraceQueryStartData
}

func (o *observer) statement() (sql string, args []any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last.SQL, o.last.Args
}

func (o *observer) set(then func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.then = then
}

func (o *observer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = d
	return ctx
}

func (o *observer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.then != nil {
		o.then()
	}
}

// append appends events to their streams, and returns the token of the last.
func (w *world) append(events ...consumer.Event) (token eventlog.Position) {
	w.t.Helper()
	for _, e := range events {
		a, err := w.log.Append(w.t.Context(), e.Stream, w.last(e.Stream), []eventlog.NewEvent{{
			ID: uuid.New(), Message: e.Message, Meta: eventlog.Metadata{OccurredAt: e.OccurredAt, Actor: e.Actor},
		}})
		if err != nil {
			w.t.Fatal(err)
		}
		token = a.Position
	}
	return token
}

// poison appends an event that nothing can read.
func (w *world) poison(category, key string) (token eventlog.Position) {
	w.t.Helper()
	stream := eventlog.StreamName(category, key)
	a, err := w.log.AppendRecorded(w.t.Context(), stream, w.last(stream), []eventlog.Recorded{{
		ID: uuid.New(), Type: "OrderConfirmed", ContentType: eventschema.ContentTypeJSON, Data: []byte("["), Metadata: []byte(`{"schemaVersion":1}`),
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	return a.Position
}

func (w *world) last(stream string) eventlog.Revision {
	w.t.Helper()
	stored, err := w.log.Read(w.t.Context(), stream, 0, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return eventlog.Revision(len(stored) - 1)
}

// hold keeps one model, by its table, from moving on until it is let go, while the others do. The table can be read.
func (w *world) hold(table string) (letGo func()) {
	w.t.Helper()
	tx, err := w.pool.Begin(w.t.Context())
	if err == nil {
		_, err = tx.Exec(w.t.Context(), "LOCK TABLE "+table+" IN EXCLUSIVE MODE")
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return sync.OnceFunc(func() {
		if err := tx.Rollback(w.t.Context()); err != nil {
			w.t.Error(err)
		}
	})
}

// settled waits until every model but the one of a table has applied everything up to a position.
func (w *world) settled(token eventlog.Position, but string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	for _, model := range []consumer.Readable{&OrderSummaries, &OrderDetails, &OrderTimeline, &Products, &StockLevels, &Payments, &Fulfillments} {
		if w.table(model) == but {
			continue
		}
		if _, err := w.reader.Await(ctx, model, "", token); err != nil {
			w.t.Fatalf("%s at %d: %v", w.table(model), token, err)
		}
	}
}

// table is that of the live build.
func (w *world) table(model consumer.Readable) string {
	w.t.Helper()
	at, err := w.reader.Find(w.t.Context(), model)
	if err != nil {
		w.t.Fatal(err)
	}
	return at.Table
}
