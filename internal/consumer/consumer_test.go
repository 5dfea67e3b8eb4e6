package consumer_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
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
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/fault"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

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
	w.eventually(func() bool { return c.Ready(t.Context()) == nil })
	w.check()
}

func TestAwaitEndsWithTheDeadline(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := w.reached(ctx, w.accounts, "", 1) // no consumer has ever run
	if !fault.Is(err, typev1.ErrorReason_ERROR_REASON_PROJECTION_LAG) {
		t.Errorf("got %v", err)
	}
}

func TestLocalColumnsOfAListAreTheReadersOwn(t *testing.T) {
	w := newWorld(t)
	w.run(w.models()...)
	w.await("wishes", "", w.log.append("a-k", 1))
	if _, err := w.pool.Exec(t.Context(), "UPDATE "+w.table(w.wishes)+" SET notes = 'mine'"); err != nil {
		t.Fatal(err)
	}
	w.await("wishes", "", w.log.append("a-k", 2))
	got := query[wish](w, "SELECT "+consumer.Columns[wish]()+" FROM "+w.table(w.wishes))
	if len(got) != 1 || got[0].Notes != "mine" || got[0].Total != 3 {
		t.Errorf("%+v", got)
	}
	w.await("wishes", "", w.log.append("a-k", 1))
	if got := query[wish](w, "SELECT "+consumer.Columns[wish]()+" FROM "+w.table(w.wishes)); len(got) != 0 {
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
	w.await("entries", "", last)
	w.check()
	err := w.reached(t.Context(), w.accounts, "bad", last)
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
	if _, err := w.pool.Exec(t.Context(), "UPDATE "+w.table(w.accounts)+` SET total = 0, seen = '[]', _revisions = '{}'`); err != nil {
		t.Fatal(err)
	}
	if _, err := w.pool.Exec(t.Context(), "UPDATE "+w.table(w.brackets)+` SET sum = 0`); err != nil {
		t.Fatal(err)
	}
	if _, err := w.pool.Exec(t.Context(), "DELETE FROM "+w.table(w.wishes)); err != nil {
		t.Fatal(err)
	}
	w.run(w.models()...)
	w.await("accounts", "", w.log.append("a-k", 5))
	w.await("entries", "", w.log.head())
	w.check()
}

// A row that can't be made anew, as a stream of its key was deleted, parks its key, and holds up nobody.
func TestAGapThatCantBeRefoldedParksItsKey(t *testing.T) {
	w := newWorld(t)
	_, stop := w.run(w.models()...)
	w.log.append("b-k", 1)
	w.log.append("a-other", 1)
	w.await("accounts", "", w.log.append("a-k", 1))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.pool.Exec(t.Context(), "UPDATE "+w.table(w.accounts)+` SET _revisions = '{}' WHERE id = 'k'`); err != nil {
		t.Fatal(err)
	}
	w.log.deleted = "b-k"
	w.run(w.models()...)
	gap := w.log.append("a-k", 5)
	w.await("accounts", "other", w.log.append("a-other", 5))
	if parked, want := query[parkedKey](w, "SELECT key, position FROM consumer.parked"), []parkedKey{{"k", int64(gap)}}; !slices.Equal(parked, want) {
		t.Errorf("parked %v, want %v", parked, want)
	}
}

// Nor does one with so many events that the others would wait long for it: to unpark it, it is folded beside them.
func TestAGapInALongHistoryParksItsKey(t *testing.T) {
	w := newWorld(t)
	w.accounts.Evolve = func(r *account, e consumer.Event) { r.Total += e.Message.(*wrapperspb.Int64Value).GetValue() }
	model := w.accounts.Model(w.brackets)
	_, stop := w.run(model)
	w.await("accounts", "", w.log.appendMany("a-k", 1000, 1))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.pool.Exec(t.Context(), "UPDATE "+w.table(w.accounts)+` SET _revisions = '{}'`); err != nil {
		t.Fatal(err)
	}
	c := w.consumer(model)
	c.SetLimits(time.Minute, 1000, 1000)
	w.start(c)
	gap := w.log.append("a-k", 1)
	w.await("accounts", "other", w.log.append("a-other", 1))
	if parked, want := query[parkedKey](w, "SELECT key, position FROM consumer.parked"), []parkedKey{{"k", int64(gap)}}; !slices.Equal(parked, want) {
		t.Errorf("parked %v, want %v", parked, want)
	}
	if err := w.unpark(c, "accounts", "k"); err != nil {
		t.Error(err)
	}
	if got := w.account("k"); got.Total != 1001 {
		t.Errorf("%+v", got)
	}
	w.audited(0)
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

// Somebody else takes the partitions: the one that runs must not write any more, and can't before it has taken them back.
func TestAZombieCantWrite(t *testing.T) {
	w := newWorld(t)
	w.run(w.accounts.Model(w.brackets, w.wishes))
	w.await("accounts", "", w.log.append("a-k", 1))
	noticed, goOn := make(chan struct{}), make(chan struct{})
	w.log.onIdentity(func() { noticed <- struct{}{}; <-goOn })
	if _, err := w.pool.Exec(t.Context(), "UPDATE consumer.checkpoints SET owner = $1", uuid.New()); err != nil {
		t.Fatal(err)
	}
	last := w.log.append("a-k", 1)
	select {
	case <-noticed:
	case <-time.After(20 * time.Second):
		t.Fatal("it does not notice that it lost the partitions")
	}
	if got := query[account](w, "SELECT "+consumer.Columns[account]()+" FROM "+w.table(w.accounts)); got[0].Total != 1 {
		t.Errorf("written by one who did not own it: %+v", got)
	}
	w.log.onIdentity(nil)
	close(goOn)
	w.await("accounts", "", last)
	if got := query[account](w, "SELECT "+consumer.Columns[account]()+" FROM "+w.table(w.accounts)); got[0].Total != 2 {
		t.Errorf("%+v", got)
	}
}

// A value that Postgres can't keep parks its key, and no other.
func TestAValueThatCantBeStoredParksItsKeyOnly(t *testing.T) {
	w := newWorld(t)
	for i := range 20 {
		w.log.append(fmt.Sprintf("a-k%d", i%4), int64(i))
	}
	bad := w.log.append("b-k1", tooLarge)
	w.log.append("a-k1", 1)
	w.run(w.models()...)
	w.settled()
	w.log.append("a-k2", 1)
	w.log.append("a-k1", 1)
	w.settled()
	w.check()
	parked := query[parkedKey](w, "SELECT key, position FROM consumer.parked")
	if want := []parkedKey{{"k1", int64(bad)}}; !slices.Equal(parked, want) {
		t.Errorf("parked %v, want %v", parked, want)
	}
	w.await("accounts", "k2", w.log.head())
}

// To find it takes some attempts, and not as many as there are events, each of which takes round trips to Postgres.
func TestAValueThatIsRefusedIsFoundByHalving(t *testing.T) {
	w := newWorld(t)
	const n = 1000
	for i := range n {
		w.log.append(fmt.Sprintf("a-k%d", i%300), int64(i%7))
		if i == n/3 {
			w.log.append("b-k5", tooLarge)
			w.log.append("b-k6", -1)
		}
	}
	var saved savepoints
	config := w.pool.Config()
	config.ConnConfig.Tracer = &saved
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	w.runOn(pool, w.log, w.models()...)
	w.settled()
	w.check()
	w.audited(2)
	if n := saved.n.Load(); n < 2 || n > 40 {
		t.Errorf("%d savepoints", n)
	}
}

// savepoints counts them.
type savepoints struct{ n atomic.Int64 }

func (s *savepoints) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	if strings.HasPrefix(d.SQL, "savepoint") {
		s.n.Add(1)
	}
	return ctx
}

func (*savepoints) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

type parkedKey struct {
	Key      string `db:"key"`
	Position int64  `db:"position"`
}

// What is before an event that can't be applied may turn out to be at fault as well, and then is not in the row either.
func TestAKeyIsParkedAtTheFirstOfItsFaults(t *testing.T) {
	w := newWorld(t)
	contribute := w.brackets.Contribute
	w.brackets.Contribute = func(r account) []bracket {
		if r.Total == 13 {
			panic("thirteen")
		}
		return contribute(r)
	}
	_, stop := w.run(w.models()...)
	w.log.append("a-k", 1)
	w.settled()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	first := w.log.append("a-k", 12)
	w.log.append("a-k", -1)
	w.run(w.models()...)
	w.settled()
	if parked, want := query[parkedKey](w, "SELECT key, position FROM consumer.parked"), []parkedKey{{"k", int64(first)}}; !slices.Equal(parked, want) {
		t.Errorf("parked %v, want %v", parked, want)
	}
	w.audited(1)
}

// What Postgres could not keep as a key, not even as that of a parked one, is passed over, and holds up nobody.
func TestStreamsWhoseIdsPostgresCantKeepArePassedOver(t *testing.T) {
	w := newWorld(t)
	long := make([]byte, 3500) // of nothing that could be compressed
	for i := range long {
		long[i] = "0123456789abcdef"[rand.N(16)]
	}
	unfit := []string{"a-x\x00", "a-\xff", "a-" + string(long), "a-" + string(long[:513])}
	w.log.append(unfit[0], 1)
	c, _ := w.run(w.models()...)
	for _, stream := range unfit {
		w.log.append(stream, 1)
	}
	w.log.append("a-"+string(long[:512]), 1)
	w.settled()
	if rows := query[account](w, "SELECT "+consumer.Columns[account]()+" FROM "+w.table(w.accounts)); len(rows) != 1 || len(rows[0].ID) != 512 {
		t.Errorf("rows %+v", rows)
	}
	for _, model := range []string{"accounts", "entries"} {
		if n := w.metric("purser_consumer_unkeyed_events_total", model); n < 5 {
			t.Errorf("%s: %f events are counted", model, n)
		}
	}
	w.audited(0)
	if _, _, err := w.rebuild(c, "accounts", false); err != nil {
		t.Error(err)
	}
}

// Readiness and lag say what is known now, not what once was.
func TestAnOutageIsSeenFromOutside(t *testing.T) {
	w := newWorld(t)
	reg := prometheus.NewRegistry()
	c := consumer.New(w.pool, w.log, "test", []string{"a"}, w.models(), slog.New(slog.DiscardHandler), consumer.NewMetrics(reg))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	w.await("accounts", "", w.log.append("a-k", 1))
	lag := func() float64 {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		highest := 0.0
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == "purser_consumer_lag_seconds" {
					highest = max(highest, m.GetGauge().GetValue())
				}
			}
		}
		return highest
	}
	becomes := func(ready bool) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for (c.Ready(t.Context()) == nil) != ready || (lag() == 0) != ready {
			select {
			case <-deadline:
				t.Fatalf("ready: %v, lag %f; want ready: %t", c.Ready(t.Context()), lag(), ready)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	becomes(true)
	w.log.SetDown(true)
	becomes(false)
	w.log.SetDown(false)
	becomes(true)
}

// A report that one release lacks, or has in another version, is right again in the next one.
func TestAReportThatWasAwayIsFilledAgain(t *testing.T) {
	w := newWorld(t)
	other := *w.brackets
	other.Version = 2
	other.Contribute = func(r account) []bracket { return []bracket{{Tens: "all", Accounts: 1, Sum: r.Total}} }
	for _, models := range [][]consumer.Model{
		w.models(),
		{w.accounts.Model(w.wishes), w.entries.Model()},
		w.models(),
		{w.accounts.Model(&other, w.wishes), w.entries.Model()},
		w.models(),
	} {
		_, stop := w.run(models...)
		for i := range 20 {
			w.log.append(fmt.Sprintf("a-k%d", i%5), int64(i))
		}
		w.settled()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
	w.check()
}

// A reader is told of the build and version that it reads, not of another one that has come further.
func TestTokensAreOfTheReadersOwnBuild(t *testing.T) {
	w := newWorld(t)
	_, stop := w.run(w.models()...)
	w.log.append("a-k", 1)
	w.settled()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	newer, brackets, wishes, _ := newModels()
	newer.Version = 2
	brackets.Of, wishes.Of = newer, newer
	w.run(newer.Model(brackets, wishes), w.entries.Model())
	p := w.log.append("a-k", 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := w.reached(ctx, newer, "k", p); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for what, err := range map[string]error{"fold": w.reached(short, w.accounts, "k", p), "report": w.reached(short, w.brackets, "", p)} {
		if !fault.Is(err, typev1.ErrorReason_ERROR_REASON_PROJECTION_LAG) {
			t.Errorf("the older %s: %v", what, err)
		}
	}
}

// What a model does not read can't stop it, whatever it is.
func TestEventsOfOtherCategoriesAreNotEvenDecoded(t *testing.T) {
	w := newWorld(t)
	w.run(w.models()...)
	w.log.appendNewer("c-k")
	w.await("accounts", "", w.log.append("a-k", 1))
	w.settled()
	w.check()
}

func TestAForeignLogStopsTheConsumer(t *testing.T) {
	for name, change := range map[string]func(l *numberLog, first eventlog.Position){
		"another store": func(l *numberLog, _ eventlog.Position) { l.identity = "another" },
		"set back":      func(l *numberLog, first eventlog.Position) { l.SetBack(first) },
		"set back, and grown by the same": func(l *numberLog, first eventlog.Position) {
			l.SetBack(first)
			l.append("a-k", 1)
		},
		"set back, and grown further": func(l *numberLog, first eventlog.Position) {
			l.SetBack(first)
			l.append("a-k", 1)
			l.append("a-k", 1)
		},
		"wiped, with nothing in it so far": func(l *numberLog, _ eventlog.Position) { l.SetBack(0) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			_, stop := w.run(w.models()...)
			first := w.log.append("a-k", 1)
			w.await("accounts", "", w.log.append("a-k", 1))
			w.await("entries", "", w.log.head())
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			change(w.log, first)
			c := w.consumer(w.models()...)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := c.Run(ctx); err == nil || !strings.Contains(err.Error(), "another event store") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A log was set back to behind the last event of ours, but to before the checkpoint, where only events of others were lost. What
// has been appended there since is applied.
func TestALogThatWasSetBackBehindTheLastEvent(t *testing.T) {
	w := newWorld(t)
	_, stop := w.run(w.models()...)
	last := w.log.append("a-k", 1)
	w.settled()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		w.log.append("other-x", 1)
	}
	checkpoint := w.log.head()
	_, stop = w.run(w.models()...)
	w.settled()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.log.SetBack(last)
	for w.log.append("a-new", 7); w.log.head() <= checkpoint; {
		w.log.append("other-x", 1)
	}
	w.run(w.models()...)
	w.settled()
	w.check()
}

func TestAReportThatCantBeFilledHoldsUpItsModelOnly(t *testing.T) {
	w := newWorld(t)
	_, stop := w.run(w.models()...)
	w.log.append("a-k", 1)
	w.settled()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	healthy := w.brackets.Contribute
	w.brackets.Version = 2
	w.brackets.Contribute = func(account) []bracket { panic("a bug") }
	c, stop := w.run(w.models()...)
	w.await("entries", "", w.log.append("a-k", 2))
	if err := c.Ready(t.Context()); err == nil {
		t.Error("it is ready")
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.brackets.Contribute = healthy
	w.run(w.models()...)
	w.settled()
	w.await("brackets", "", w.log.head())
	w.check()
	w.audited(0)
}

// What is there of a report while it is filled adds up to less than it should.
func TestAReportIsNotReadBeforeItIsFilled(t *testing.T) {
	w := newWorld(t)
	_, stop := w.run(w.models()...)
	w.log.append("a-k", 1)
	w.settled()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.pool.Exec(t.Context(), "DELETE FROM consumer.relations WHERE name = 'brackets' AND partition = 3"); err != nil {
		t.Fatal(err)
	}
	reader := consumer.NewReader(w.pool)
	if at, err := reader.Find(t.Context(), w.brackets); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_DEPENDENCY_UNAVAILABLE) {
		t.Errorf("it is read in %q, %v", at.Table, err)
	}
	if _, err := reader.Find(t.Context(), w.accounts); err != nil {
		t.Error(err)
	}
	if _, err := reader.FindPart(t.Context(), w.brackets); err != nil {
		t.Error(err)
	}
	w.run(w.models()...)
	w.eventually(func() bool { _, err := reader.Find(t.Context(), w.brackets); return err == nil })
}
