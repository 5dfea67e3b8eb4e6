package consumer_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/localpostgres/pgtest"
)

// account is a row that adds up the numbers of two streams of its key. A negative number is poison.
type account struct {
	ID      string    `db:"id,key"`
	Name    string    `db:"name"`
	Total   int64     `db:"total"`
	Seen    []int64   `db:"seen"`
	Updated time.Time `db:"updated"`
}

// tooLarge is a number that folds, and can't be stored.
const tooLarge = 999_999

func newModels() (*consumer.Fold[account], *consumer.Report[account, bracket], *consumer.List[account, wish], *consumer.Journal[entry]) {
	accounts := &consumer.Fold[account]{
		Name: "accounts", Version: 1, Categories: []string{"a", "b"},
		Evolve: func(r *account, e consumer.Event) {
			n := e.Message.(*wrapperspb.Int64Value).GetValue()
			if n < 0 {
				panic("negative")
			}
			if n == tooLarge {
				r.Name = "\x00" // which Postgres can't keep
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
	log  *numberLog
	reg  *prometheus.Registry // of the consumer that was made last

	reader *consumer.Reader

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
	w := &world{t: t, pool: pool, log: newNumberLog(t), reader: consumer.NewReader(pool)}
	w.accounts, w.brackets, w.wishes, w.entries = newModels()
	return w
}

// consumer returns a new one, as of another process.
func (w *world) consumer(models ...consumer.Model) *consumer.Consumer {
	return w.consumerOn(w.pool, w.log, models...)
}

func (w *world) consumerOn(pool *pgxpool.Pool, log consumer.Log, models ...consumer.Model) *consumer.Consumer {
	w.reg = prometheus.NewRegistry()
	return consumer.New(pool, log, "test", []string{"a", "b", "c"}, models, slog.New(slog.DiscardHandler), consumer.NewMetrics(w.reg))
}

// run runs a consumer until the returned function is called, which returns what Run returned.
func (w *world) run(models ...consumer.Model) (*consumer.Consumer, func() error) {
	w.t.Helper()
	return w.runOn(w.pool, w.log, models...)
}

func (w *world) runOn(pool *pgxpool.Pool, log consumer.Log, models ...consumer.Model) (*consumer.Consumer, func() error) {
	w.t.Helper()
	c := w.consumerOn(pool, log, models...)
	return c, w.start(c)
}

// start runs a consumer as run does.
func (w *world) start(c *consumer.Consumer) (stop func() error) {
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	w.t.Cleanup(func() { _ = stop() })
	return stop
}

// metric is what the consumer that was made last shows of a model: a gauge, a counter or the sum of a histogram, of all other
// labels together. It is 0 where there is none.
func (w *world) metric(name, model string) (value float64) {
	w.t.Helper()
	families, err := w.reg.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetName() == "model" && l.GetValue() == model {
					value += m.GetGauge().GetValue() + m.GetCounter().GetValue() + m.GetHistogram().GetSampleSum()
				}
			}
		}
	}
	return value
}

// place is where something lies in the live build.
func (w *world) place(r consumer.Readable) consumer.Place {
	w.t.Helper()
	p, err := consumer.NewReader(w.pool).Find(w.t.Context(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (w *world) table(r consumer.Readable) string { w.t.Helper(); return w.place(r).Table }

// reached waits until everything up to a position is applied.
func (w *world) reached(ctx context.Context, r consumer.Readable, key string, p eventlog.Position) error {
	_, err := w.reader.Await(ctx, r, key, p)
	return err
}

func (w *world) models() []consumer.Model {
	return []consumer.Model{w.accounts.Model(w.brackets, w.wishes), w.entries.Model()}
}

// await waits until a model, by its name, has applied everything up to a position.
func (w *world) await(name, key string, p eventlog.Position) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	var err error
	switch name {
	case "accounts":
		err = w.reached(ctx, w.accounts, key, p)
	case "entries":
		err = w.reached(ctx, w.entries, key, p)
	case "brackets":
		err = w.reached(ctx, w.brackets, "", p)
	case "wishes":
		err = w.reached(ctx, w.wishes, "", p)
	}
	if err != nil {
		w.t.Fatalf("%s %q at %d: %v", name, key, p, err)
	}
}

// settled waits until every model has applied the whole log.
func (w *world) settled() {
	w.t.Helper()
	for _, name := range []string{"accounts", "entries"} {
		w.await(name, "", w.log.head())
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

// check compares every table with what the log adds up to: of each key, up to the first event that can't be applied.
func (w *world) check() {
	w.t.Helper()
	totals, seen, parked := map[string]int64{}, map[string]int{}, map[string]bool{}
	var journal []entry
	for _, r := range w.log.Events() {
		category, key, _ := eventlog.SplitStream(r.Stream)
		if category != "a" && category != "b" {
			continue
		}
		n := w.log.number(r)
		if parked[key] = parked[key] || n < 0 || n == tooLarge; parked[key] {
			if category == "a" && n >= 0 { // the journal takes every number
				journal = append(journal, entry{key, int64(r.Revision), n})
			}
			continue
		}
		totals[key] += n
		seen[key]++
		if category == "a" {
			journal = append(journal, entry{key, int64(r.Revision), n})
		}
	}
	brackets, wishes := map[string]bracket{}, map[string]wish{}
	for key, total := range totals {
		b := brackets[fmt.Sprint(total/10)]
		brackets[fmt.Sprint(total/10)] = bracket{fmt.Sprint(total / 10), b.Accounts + 1, b.Sum + total}
		if total%2 != 0 {
			wishes[key] = wish{What: "even", Total: total}
		}
	}
	rows := query[account](w, "SELECT "+consumer.Columns[account]()+" FROM "+w.table(w.accounts))
	if len(rows) != len(totals) {
		w.t.Errorf("%d rows, want %d", len(rows), len(totals))
	}
	for _, r := range rows {
		if r.Total != totals[r.ID] || len(r.Seen) != seen[r.ID] {
			w.t.Errorf("row %+v, want total %d of %d events", r, totals[r.ID], seen[r.ID])
		}
	}
	lines := map[string]bracket{}
	for _, l := range query[bracket](w, "SELECT "+consumer.Columns[bracket]()+" FROM ("+w.brackets.Lines(w.place(w.brackets))+") AS b") {
		lines[l.Tens] = l
	}
	if !reflect.DeepEqual(lines, brackets) {
		w.t.Errorf("report %v, want %v", lines, brackets)
	}
	listed := map[string]wish{}
	for _, l := range query[listedWish](w, "SELECT key, what, total, notes FROM "+w.table(w.wishes)) {
		listed[l.Key] = wish{l.What, l.Total, l.Notes}
	}
	if !reflect.DeepEqual(listed, wishes) {
		w.t.Errorf("list %v, want %v", listed, wishes)
	}
	entries := query[entry](w, "SELECT "+consumer.Columns[entry]()+" FROM "+w.table(w.entries))
	less := func(a, b entry) int {
		return cmp.Or(strings.Compare(a.ID, b.ID), cmp.Compare(a.Revision, b.Revision))
	}
	slices.SortFunc(entries, less)
	slices.SortFunc(journal, less)
	if !slices.Equal(entries, journal) {
		w.t.Errorf("journal %v, want %v", entries, journal)
	}
}

type listedWish struct {
	Key   string `db:"key"`
	What  string `db:"what"`
	Total int64  `db:"total"`
	Notes string `db:"notes"`
}
