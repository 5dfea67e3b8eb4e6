package consumer_test

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/localpostgres/pgtest"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// account is a row that adds up the numbers of two streams of its key. A negative number is poison.
type account struct {
	ID      string    `db:"id,key"`
	Total   int64     `db:"total"`
	Seen    []int64   `db:"seen"`
	Updated time.Time `db:"updated"`
}

func newModels() (*consumer.Fold[account], *consumer.Report[account, bracket], *consumer.List[account, wish], *consumer.Journal[entry]) {
	accounts := &consumer.Fold[account]{
		Name: "accounts", Version: 1, Categories: []string{"a", "b"},
		Evolve: func(r *account, e consumer.Event) {
			n := e.Message.(*wrapperspb.Int64Value).GetValue()
			if n < 0 {
				panic("negative")
			}
			r.Total += n
			r.Seen = append(r.Seen, n)
			r.Updated = e.OccurredAt
		},
	}
	brackets := &consumer.Report[account, bracket]{
		Name: "brackets", Version: 1, Of: accounts,
		Contribute: func(r account) []bracket {
			return []bracket{{Tens: fmt.Sprint(r.Total / 10), Accounts: 1, Sum: r.Total}}
		},
	}
	wishes := &consumer.List[account, wish]{
		Name: "wishes", Version: 1, Of: accounts,
		Entries: func(r account) []wish {
			if r.Total%2 == 0 {
				return nil
			}
			return []wish{{What: "even", Total: r.Total}}
		},
	}
	entries := &consumer.Journal[entry]{
		Name: "entries", Version: 1, Categories: []string{"a"},
		Entries: func(e consumer.Event) []entry {
			return []entry{{ID: e.Key, Revision: int64(e.Revision), N: e.Message.(*wrapperspb.Int64Value).GetValue()}}
		},
	}
	return accounts, brackets, wishes, entries
}

type bracket struct {
	Tens     string `db:"tens,key"`
	Accounts int64  `db:"accounts"`
	Sum      int64  `db:"sum"`
}

type wish struct {
	What  string `db:"what,key"`
	Total int64  `db:"total"`
	Notes string `db:"notes,local"`
}

type entry struct {
	ID       string `db:"id,key"`
	Revision int64  `db:"revision,key"`
	N        int64  `db:"n"`
}

type world struct {
	t    *testing.T
	pool *pgxpool.Pool
	log  *memoryLog

	accounts *consumer.Fold[account]
	brackets *consumer.Report[account, bracket]
	wishes   *consumer.List[account, wish]
	entries  *consumer.Journal[entry]
}

func newWorld(t *testing.T) *world {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	w := &world{t: t, pool: pool, log: newMemoryLog()}
	w.accounts, w.brackets, w.wishes, w.entries = newModels()
	return w
}

// run runs a consumer until the returned function is called, which returns what Run returned.
func (w *world) run(models ...consumer.Model) (*consumer.Consumer, func() error) {
	w.t.Helper()
	c := consumer.New(w.pool, w.log, "test", []string{"a", "b", "c"}, models, slog.New(slog.DiscardHandler), consumer.NewMetrics(prometheus.NewRegistry()))
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop := sync.OnceValue(func() error { cancel(); return <-done })
	w.t.Cleanup(func() { _ = stop() })
	return c, stop
}

func (w *world) models() []consumer.Model {
	return []consumer.Model{w.accounts.Model(w.brackets, w.wishes), w.entries.Model()}
}

func (w *world) await(name, key string, p eventlog.Position) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	if err := consumer.Await(ctx, w.pool, name, key, p); err != nil {
		w.t.Fatalf("%s %q at %d: %v", name, key, p, err)
	}
}

func query[T any](w *world, sql string) []T {
	w.t.Helper()
	rows, err := w.pool.Query(w.t.Context(), sql)
	if err != nil {
		w.t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByName[T])
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// check compares every table with what the log adds up to, but for keys that are parked.
func (w *world) check(parked ...string) {
	w.t.Helper()
	totals, seen := map[string]int64{}, map[string]int{}
	var journal []entry
	for _, r := range w.log.events {
		category, key, _ := eventlog.SplitStream(r.Stream)
		if slices.Contains(parked, key) || category == "c" {
			continue
		}
		n := w.log.numbers[r.Position]
		totals[key] += n
		seen[key]++
		if category == "a" {
			journal = append(journal, entry{key, int64(r.Revision), n})
		}
	}
	brackets, wishes := map[string]bracket{}, 0
	for _, total := range totals {
		b := brackets[fmt.Sprint(total/10)]
		brackets[fmt.Sprint(total/10)] = bracket{fmt.Sprint(total / 10), b.Accounts + 1, b.Sum + total}
		wishes += int(total % 2)
	}
	rows := query[account](w, "SELECT "+consumer.Columns[account]()+" FROM "+w.accounts.Table())
	rows = slices.DeleteFunc(rows, func(a account) bool { return slices.Contains(parked, a.ID) })
	if len(rows) != len(totals) {
		w.t.Errorf("%d rows, want %d", len(rows), len(totals))
	}
	for _, r := range rows {
		if r.Total != totals[r.ID] || len(r.Seen) != seen[r.ID] {
			w.t.Errorf("row %+v, want total %d of %d events", r, totals[r.ID], seen[r.ID])
		}
	}
	if len(parked) == 0 {
		lines := query[bracket](w, "SELECT "+consumer.Columns[bracket]()+" FROM "+w.brackets.Table())
		got := map[string]bracket{}
		for _, l := range lines {
			got[l.Tens] = l
		}
		if !reflect.DeepEqual(got, brackets) {
			w.t.Errorf("report %v, want %v", got, brackets)
		}
		if n := len(query[wish](w, "SELECT "+consumer.Columns[wish]()+" FROM "+w.wishes.Table())); n != wishes {
			w.t.Errorf("%d entries on the list, want %d", n, wishes)
		}
		if got := query[entry](w, "SELECT "+consumer.Columns[entry]()+" FROM "+w.entries.Table()); len(got) != len(journal) {
			w.t.Errorf("%d rows in the journal, want %d", len(got), len(journal))
		}
	}
}

func TestTablesAreWhatTheLogAddsUpTo(t *testing.T) {
	w := newWorld(t)
	for i := range 300 {
		w.log.append(fmt.Sprintf("%s-k%d", []string{"a", "b", "c"}[i%3], i%7), int64(i%11))
	}
	c, _ := w.run(w.models()...)
	last := eventlog.Position(0)
	for i := range 300 {
		last = w.log.append(fmt.Sprintf("%s-k%d", []string{"a", "b", "c"}[i%3], i%9), int64(i%13))
	}
	for _, name := range []string{"accounts", "brackets", "wishes", "entries"} {
		w.await(name, "", last)
	}
	w.await("accounts", "k1", last)
	if err := c.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	w.check()
}

func TestAwaitEndsWithTheDeadline(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := consumer.Await(ctx, w.pool, "accounts", "", 1) // no consumer has ever run
	if !fault.Is(err, typev1.ErrorReason_ERROR_REASON_PROJECTION_LAG) {
		t.Errorf("got %v", err)
	}
}

func TestLocalColumnsOfAListAreTheReadersOwn(t *testing.T) {
	w := newWorld(t)
	w.run(w.models()...)
	w.await("wishes", "", w.log.append("a-k", 1))
	if _, err := w.pool.Exec(t.Context(), "UPDATE "+w.wishes.Table()+" SET notes = 'mine'"); err != nil {
		t.Fatal(err)
	}
	w.await("wishes", "", w.log.append("a-k", 2))
	got := query[wish](w, "SELECT "+consumer.Columns[wish]()+" FROM "+w.wishes.Table())
	if len(got) != 1 || got[0].Notes != "mine" || got[0].Total != 3 {
		t.Errorf("%+v", got)
	}
	w.await("wishes", "", w.log.append("a-k", 1))
	if got := query[wish](w, "SELECT "+consumer.Columns[wish]()+" FROM "+w.wishes.Table()); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestPoisonParksItsKeyOnly(t *testing.T) {
	w := newWorld(t)
	w.run(w.models()...)
	w.log.append("a-good", 1)
	w.log.append("a-bad", 1)
	w.log.append("b-bad", -1)
	w.log.append("a-bad", 1)
	last := w.log.append("a-good", 1)
	w.await("accounts", "", last)
	w.check("bad")
	err := consumer.Await(t.Context(), w.pool, "accounts", "bad", last)
	if !fault.Is(err, typev1.ErrorReason_ERROR_REASON_ENTITY_PARKED) {
		t.Errorf("got %v", err)
	}
	w.await("accounts", "good", last)
}

func TestAGapIsRefoldedFromTheLog(t *testing.T) {
	w := newWorld(t)
	_, stop := w.run(w.models()...)
	w.await("accounts", "", w.log.append("a-k", 1))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// The row loses what it knows, as after a restore of an older table.
	if _, err := w.pool.Exec(t.Context(), "UPDATE "+w.accounts.Table()+` SET total = 0, seen = '[]', _revisions = '{}'`); err != nil {
		t.Fatal(err)
	}
	if _, err := w.pool.Exec(t.Context(), "UPDATE "+w.brackets.Table()+` SET sum = 0`); err != nil {
		t.Fatal(err)
	}
	if _, err := w.pool.Exec(t.Context(), "DELETE FROM "+w.wishes.Table()); err != nil {
		t.Fatal(err)
	}
	w.run(w.models()...)
	w.await("accounts", "", w.log.append("a-k", 5))
	w.await("entries", "", w.log.head())
	w.check()
}

func TestAReportThatIsAddedLaterIsFilled(t *testing.T) {
	w := newWorld(t)
	_, stop := w.run(w.accounts.Model(w.wishes), w.entries.Model())
	for i := range 50 {
		w.log.append(fmt.Sprintf("a-k%d", i), int64(i))
	}
	w.await("accounts", "", w.log.head())
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.run(w.models()...)
	w.await("accounts", "", w.log.append("a-k7", 3))
	w.await("entries", "", w.log.head())
	w.check()
}

// Every connection is cut again and again, and a second consumer waits to take over.
func TestCutConnectionsLoseAndDoubleNothing(t *testing.T) {
	w := newWorld(t)
	w.run(w.models()...)
	w.run(w.models()...)
	var appended atomic.Uint64
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 400 {
			appended.Store(uint64(w.log.append(fmt.Sprintf("%s-k%d", []string{"a", "b"}[i%2], i%5), int64(i%3))))
			time.Sleep(2 * time.Millisecond)
		}
	})
	for range 8 {
		_, _ = w.pool.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
		time.Sleep(100 * time.Millisecond)
	}
	wg.Wait()
	for _, name := range []string{"accounts", "entries"} {
		w.await(name, "", eventlog.Position(appended.Load()))
	}
	w.check()
}

func TestAZombieCantWrite(t *testing.T) {
	w := newWorld(t)
	w.run(w.accounts.Model())
	w.await("accounts", "", w.log.append("a-k", 1))
	// Somebody else takes the partitions; the one that runs must notice before it writes, and take them back.
	if _, err := w.pool.Exec(t.Context(), "UPDATE consumer.checkpoints SET owner = $1, position = position - 1", uuid.New()); err != nil {
		t.Fatal(err)
	}
	w.await("accounts", "", w.log.append("a-k", 1))
	if got := query[account](w, "SELECT "+consumer.Columns[account]()+" FROM "+w.accounts.Table()); got[0].Total != 2 {
		t.Errorf("%+v", got)
	}
}

func TestAForeignLogStopsTheConsumer(t *testing.T) {
	for name, change := range map[string]func(l *memoryLog){
		"another store":                   func(l *memoryLog) { l.identity = "another" },
		"set back":                        func(l *memoryLog) { l.events = l.events[:1] },
		"set back, and grown by the same": func(l *memoryLog) { l.events[1].ID = uuid.New() },
		"set back, and grown further": func(l *memoryLog) {
			l.events[1].ID = uuid.New()
			l.events = append(l.events, l.events[1])
			l.events[2].Position = 1000
		},
		"wiped, with nothing in it so far": func(l *memoryLog) { l.events = nil },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			_, stop := w.run(w.models()...)
			w.log.append("a-k", 1)
			w.await("accounts", "", w.log.append("a-k", 1))
			w.await("entries", "", w.log.head())
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			w.log.mu.Lock()
			change(w.log)
			w.log.mu.Unlock()
			c := consumer.New(w.pool, w.log, "test", []string{"a"}, w.models(), slog.New(slog.DiscardHandler), consumer.NewMetrics(prometheus.NewRegistry()))
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := c.Run(ctx); err == nil || !strings.Contains(err.Error(), "another event store") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// memoryLog is an event log in memory, of numbers.
type memoryLog struct {
	mu       sync.Mutex
	identity string
	events   []eventlog.Recorded
	numbers  map[eventlog.Position]int64
	grown    chan struct{}
}

func newMemoryLog() *memoryLog {
	return &memoryLog{identity: "memory", numbers: map[eventlog.Position]int64{}, grown: make(chan struct{})}
}

func (l *memoryLog) append(stream string, n int64) eventlog.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	revision := eventlog.Revision(0)
	for _, e := range l.events {
		if e.Stream == stream {
			revision++
		}
	}
	p := eventlog.Position(10 * (len(l.events) + 1))
	l.events = append(l.events, eventlog.Recorded{ID: uuid.New(), Stream: stream, Revision: revision, Position: p, Type: "Number"})
	l.numbers[p] = n
	close(l.grown)
	l.grown = make(chan struct{})
	return p
}

func (l *memoryLog) head() eventlog.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.events) == 0 {
		return 0
	}
	return l.events[len(l.events)-1].Position
}

func (l *memoryLog) Head(context.Context) (eventlog.Position, error) { return l.head(), nil }

func (l *memoryLog) Has(_ context.Context, at eventlog.Position, id uuid.UUID) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.events, func(e eventlog.Recorded) bool { return e.Position == at && e.ID == id }), nil
}

func (l *memoryLog) Identity(context.Context) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.identity, nil
}

func (l *memoryLog) Read(_ context.Context, stream string, from eventlog.Revision, _ int) ([]eventlog.Recorded, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []eventlog.Recorded
	for _, e := range l.events {
		if e.Stream == stream && e.Revision >= from {
			out = append(out, e)
		}
	}
	return out, nil
}

func (l *memoryLog) Decode(r eventlog.Recorded) (eventlog.Event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return eventlog.Event{
		Recorded: r, Meta: eventlog.Metadata{OccurredAt: time.Unix(int64(r.Position), 1).UTC()},
		Messages: []proto.Message{wrapperspb.Int64(l.numbers[r.Position])},
	}, nil
}

func (l *memoryLog) Subscribe(ctx context.Context, categories []string, after eventlog.Position, deliver func(context.Context, eventlog.Delivery) error) error {
	caughtUp := false
	for {
		l.mu.Lock()
		i := slices.IndexFunc(l.events, func(e eventlog.Recorded) bool { return e.Position > after })
		var next eventlog.Recorded
		if i >= 0 {
			next = l.events[i]
		}
		grown := l.grown
		l.mu.Unlock()
		if i < 0 {
			if !caughtUp {
				caughtUp = true
				if err := deliver(ctx, eventlog.Delivery{CaughtUp: true, Position: after}); err != nil {
					return err
				}
			}
			select {
			case <-grown:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		after = next.Position
		if category, _, _ := eventlog.SplitStream(next.Stream); !slices.Contains(categories, category) {
			continue
		}
		if err := deliver(ctx, eventlog.Delivery{Event: &next, Position: next.Position}); err != nil {
			return err
		}
	}
}
