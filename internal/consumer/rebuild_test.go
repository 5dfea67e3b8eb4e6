package consumer_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/fault"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// rebuild rebuilds a model and returns the phases that it went through.
func (w *world) rebuild(c *consumer.Consumer, model string, stay bool) (phases []consumer.Phase, last consumer.Progress, err error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 60*time.Second)
	defer cancel()
	err = c.Rebuild(ctx, model, stay, func(p consumer.Progress) error {
		if !slices.Contains(phases, p.Phase) {
			phases = append(phases, p.Phase)
		}
		last = p
		return nil
	})
	return phases, last, err
}

// builds are the names of a model's builds, the live one first.
func (w *world) builds(c *consumer.Consumer, model string) []string {
	w.t.Helper()
	var live, others []string
	for _, b := range w.status(c, model).Builds {
		if b.Live {
			live = append(live, b.Name)
		} else {
			others = append(others, b.Name)
		}
	}
	return append(live, others...)
}

// load appends numbers until the returned function is called.
func (w *world) load() (stop func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var appending sync.WaitGroup
	appending.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			w.log.append(fmt.Sprintf("%s-k%d", []string{"a", "b", "c"}[i%3], i%40), int64(i%11))
			time.Sleep(500 * time.Microsecond)
		}
	})
	return sync.OnceFunc(func() { cancel(); appending.Wait() })
}

func TestARebuildSwitchesReadersWithoutAGap(t *testing.T) {
	w := newWorld(t)
	c, _ := w.run(w.models()...)
	other, _ := w.run(w.models()...) // two replicas
	for i := range 500 {
		w.log.append(fmt.Sprintf("a-k%d", i%40), int64(i%7))
	}
	w.settled()
	stop := w.load()
	defer stop()

	// Readers see no empty table, no error, and nothing older than what they have seen, whatever happens.
	reading, stopReading := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	readers.Go(func() {
		for reading.Err() == nil {
			token := w.log.head()
			at, err := w.reader.Await(reading, w.accounts, "", token)
			if reading.Err() != nil {
				return
			}
			var n int
			if err == nil {
				err = w.pool.QueryRow(reading, "SELECT count(*) FROM "+at.Table).Scan(&n)
			}
			if (err != nil || n != 40) && reading.Err() == nil {
				t.Errorf("a reader found %d rows, %v", n, err)
				return
			}
			time.Sleep(time.Millisecond)
		}
	})

	phases, last, err := w.rebuild(c, "accounts", false)
	if err != nil || phases[len(phases)-1] != consumer.Done || last.Build != "accounts_v1_b2" || last.Events < 500 {
		t.Fatalf("%v %+v, %v", phases, last, err)
	}
	if got := w.builds(c, "accounts"); !slices.Equal(got, []string{"accounts_v1_b2", "accounts_v1_b1"}) {
		t.Errorf("builds %v", got)
	}
	if at := w.place(w.accounts); at.Build != "accounts_v1_b2" {
		t.Errorf("readers go to %s", at.Build)
	}
	w.audited(0)

	// Back again, by one command, and nothing is missing there: it was kept up to date.
	if s, err := other.Switch(t.Context(), "accounts", ""); err != nil || s.Build != "accounts_v1_b1" {
		t.Errorf("%+v, %v", s, err)
	}
	w.eventually(func() bool {
		at, err := w.reader.Find(t.Context(), w.accounts)
		return err == nil && at.Build == "accounts_v1_b1"
	})
	w.audited(0)

	// One more is not made while two are kept.
	if _, _, err := w.rebuild(other, "accounts", false); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_BUILD_KEPT) {
		t.Errorf("got %v", err)
	}
	if err := c.DropBuild(t.Context(), "accounts_v1_b1"); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_BUILD_IN_USE) {
		t.Errorf("got %v", err)
	}
	if err := c.DropBuild(t.Context(), "accounts_v1_b2"); err != nil {
		t.Error(err)
	}
	if err := c.DropBuild(t.Context(), "accounts_v1_b2"); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_BUILD_NOT_FOUND) {
		t.Errorf("got %v", err)
	}
	if got := w.builds(c, "accounts"); !slices.Equal(got, []string{"accounts_v1_b1"}) {
		t.Errorf("builds %v", got)
	}
	if phases, last, err = w.rebuild(other, "entries", true); err != nil || last.Build != "entries_v1_b2" {
		t.Errorf("%v %+v, %v", phases, last, err)
	}
	if at := w.place(w.entries); at.Build != "entries_v1_b1" {
		t.Errorf("readers go to %s, and were to stay", at.Build)
	}
	stopReading()
	readers.Wait()
	stop()
	w.settled()
	w.check()
	w.audited(0)
}

// Who asks for a rebuild may go away: it goes on, and asked again one is told of the same.
func TestAnInterruptedRebuildGoesOn(t *testing.T) {
	w := newWorld(t)
	c, stop := w.run(w.models()...)
	for i := range 2000 {
		w.log.append(fmt.Sprintf("a-k%d", i%40), int64(i%7))
	}
	w.settled()
	gone := errors.New("gone")
	if err := c.Rebuild(t.Context(), "accounts", false, func(consumer.Progress) error { return gone }); !errors.Is(err, gone) {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	c, _ = w.run(w.models()...)
	if _, last, err := w.rebuild(c, "accounts", false); err != nil || last.Build != "accounts_v1_b2" {
		t.Errorf("%+v, %v", last, err)
	}
	w.settled()
	w.check()
	w.audited(0)
}

// A build that is not what the log adds up to is not shown to anybody.
func TestABuildThatDiffersIsNotSwitchedTo(t *testing.T) {
	for name, tamper := range map[string]string{
		"a row":            `UPDATE accounts_v1_b2.accounts SET total = 99 WHERE id = 'k1'`,
		"a row too many":   `INSERT INTO accounts_v1_b2.accounts SELECT 'nobody', name, total, seen, updated, _revisions, 0 FROM accounts_v1_b2.accounts LIMIT 1`,
		"a row too few":    `DELETE FROM accounts_v1_b2.accounts WHERE id = 'k1'`,
		"a report":         `UPDATE accounts_v1_b2.brackets_v1 SET sum = sum + 1`,
		"a list":           `DELETE FROM accounts_v1_b2.wishes_v1`,
		"a parked key":     `INSERT INTO consumer.parked (build, key, position, cause) VALUES ('accounts_v1_b2', 'k1', 1, 'a bug')`,
		"a journal's rows": `UPDATE entries_v1_b2.entries SET n = 99 WHERE id = 'k1'`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c, _ := w.run(w.models()...)
			for i := range 100 { // so few that all are in the sample
				w.log.append(fmt.Sprintf("a-k%d", i), int64(2*i+1))
			}
			w.settled()
			model := "accounts"
			if name == "a journal's rows" {
				model = "entries"
			}
			if _, _, err := w.rebuild(c, model, true); err != nil {
				t.Fatal(err)
			}
			if _, err := w.pool.Exec(t.Context(), tamper); err != nil {
				t.Fatal(err)
			}
			if _, _, err := w.rebuild(c, model, false); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_BUILD_DIFFERS) {
				t.Errorf("got %v", err)
			}
			w.audited(0)
		})
	}
}

// The sample ends where it has had many events, so that long histories keep readers from no build.
func TestASampleOfABuildHasABoundedNumberOfEvents(t *testing.T) {
	w := newWorld(t)
	counted := newSlowLog(w.log, "")
	close(counted.free)
	c := w.consumerOn(w.pool, counted, w.models()...)
	c.SetLimits(time.Minute, 1000, 1000)
	w.start(c)
	for i := range 100 { // so few that all are in the sample
		w.log.appendMany(fmt.Sprintf("a-k%d", i), 30, 1)
	}
	w.log.appendMany("a-long", 101, 1)
	w.settled()
	for _, model := range []string{"accounts", "entries"} {
		before := counted.read.Load()
		if _, last, err := w.rebuild(c, model, false); err != nil || last.Build != model+"_v1_b2" {
			t.Errorf("%s: %+v, %v", model, last, err)
		}
		if n := counted.read.Load() - before; n < 900 || n > 1700 { // some are asked at once
			t.Errorf("%s: %d events were read", model, n)
		}
	}
}

// Who follows a rebuild is told when the model is paused meanwhile; it goes on when it is resumed.
func TestARebuildThatIsPausedSaysSo(t *testing.T) {
	w := newWorld(t)
	c, _ := w.run(w.models()...)
	w.log.append("a-k", 1)
	w.settled()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := c.Rebuild(ctx, "accounts", false, func(consumer.Progress) error {
		_, err := w.pool.Exec(ctx, "INSERT INTO consumer.paused (model) VALUES ('accounts') ON CONFLICT DO NOTHING")
		return err
	})
	if !fault.Is(err, typev1.ErrorReason_ERROR_REASON_PROJECTION_PAUSED) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Resume(ctx, "accounts"); err != nil {
		t.Fatal(err)
	}
	if _, last, err := w.rebuild(c, "accounts", false); err != nil || last.Build != "accounts_v1_b2" {
		t.Errorf("%+v, %v", last, err)
	}
}

func TestWhatCantBeRebuilt(t *testing.T) {
	w := newWorld(t)
	c, _ := w.run(w.models()...)
	w.settled()
	if _, _, err := w.rebuild(c, "nothing", false); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_PROJECTION_NOT_FOUND) {
		t.Errorf("got %v", err)
	}
	for _, to := range []string{"", "accounts_v1_b7"} {
		if _, err := c.Switch(t.Context(), "accounts", to); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_BUILD_NOT_FOUND) {
			t.Errorf("to %q: got %v", to, err)
		}
	}
	if _, err := c.Pause(t.Context(), "accounts"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.rebuild(c, "accounts", false); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_PROJECTION_PAUSED) {
		t.Errorf("got %v", err)
	}
}

// While a newer version is rolled out, the old one goes on beside it; what it leaves can be dropped once nobody runs it.
func TestVersionsRunSideBySide(t *testing.T) {
	w := newWorld(t)
	_, stopOld := w.run(w.models()...)
	for i := range 100 {
		w.log.append(fmt.Sprintf("a-k%d", i%20), int64(i))
	}
	w.settled()
	stop := w.load()
	newer, brackets, wishes, entries := newModels()
	newer.Version = 2
	brackets.Of, wishes.Of = newer, newer
	c, _ := w.run(newer.Model(brackets, wishes), entries.Model())
	w.eventually(func() bool { return w.reached(t.Context(), newer, "", 1) == nil })
	if err := c.DropBuild(t.Context(), "accounts_v1_b1"); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_BUILD_IN_USE) {
		t.Errorf("got %v", err)
	}
	stop()
	w.settled()
	w.check()
	w.audited(0)
	if err := stopOld(); err != nil {
		t.Fatal(err)
	}
	if err := c.DropBuild(t.Context(), "accounts_v1_b1"); err != nil {
		t.Error(err)
	}
	w.accounts, w.brackets, w.wishes = newer, brackets, wishes
	w.settled()
	w.check()
	w.audited(0)
}

func TestMetricsCanBeReadWhileABuildIsKept(t *testing.T) {
	w := newWorld(t)
	c, _ := w.run(w.models()...)
	w.log.append("a-k", 1)
	w.settled()
	if _, _, err := w.rebuild(c, "accounts", false); err != nil {
		t.Fatal(err)
	}
	partitions := func() (all map[string]float64) {
		t.Helper()
		families, err := w.reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		all = map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == "purser_consumer_partitions" {
					all[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
				}
			}
		}
		return all
	}
	w.eventually(func() bool {
		return maps.Equal(partitions(), map[string]float64{"accounts": 16, "accounts_v1_b1": 16, "entries": 16})
	})
}

// A row that should not be there is what a rebuild is for, and a key that the new build has not come to yet is no difference.
func TestARowThatOnlyTheLiveBuildHasDoesNotKeepReadersThere(t *testing.T) {
	w := newWorld(t)
	c, _ := w.run(w.models()...)
	w.log.append("a-k", 1)
	w.settled()
	if _, err := w.pool.Exec(t.Context(), `INSERT INTO accounts_v1_b1.accounts SELECT 'nobody', name, total, seen, updated, _revisions, 0 FROM accounts_v1_b1.accounts`); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.rebuild(c, "accounts", false); err != nil {
		t.Fatal(err)
	}
	w.check()
	w.audited(0)
}

func TestReadersAreNotSentToABuildThatLacksSomething(t *testing.T) {
	w := newWorld(t)
	c, stop := w.run(w.models()...)
	for i := range 100 {
		w.log.append(fmt.Sprintf("a-k%d", i), 1)
	}
	w.settled()
	if _, _, err := w.rebuild(c, "accounts", true); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	c = w.consumer(w.models()...)
	for name, sql := range map[string]struct{ lack, mend string }{
		"events of one partition, while the live one waits in another": {
			`UPDATE consumer.checkpoints SET event_position = event_position - CASE build WHEN 'accounts_v1_b1' THEN 90 ELSE 80 END
			 WHERE (build, partition) IN (('accounts_v1_b1', 3), ('accounts_v1_b2', 5))`,
			`UPDATE consumer.checkpoints SET event_position = 100 WHERE build LIKE 'accounts%'`,
		},
		"a report of one partition": {
			`DELETE FROM consumer.relations WHERE build = 'accounts_v1_b2' AND partition = 3 AND name = 'brackets'`,
			`INSERT INTO consumer.relations VALUES ('accounts_v1_b2', 3, 'brackets', 1)`,
		},
	} {
		if _, err := w.pool.Exec(t.Context(), sql.lack); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if _, err := c.Switch(ctx, "accounts", "accounts_v1_b2"); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_PROJECTION_LAG) {
			t.Errorf("%s: got %v", name, err)
		}
		cancel()
		if _, err := w.pool.Exec(t.Context(), sql.mend); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Switch(t.Context(), "accounts", "accounts_v1_b2"); err != nil {
		t.Error(err)
	}
}

// The first build can be dropped while it is filled. Were readers sent there then, nobody would ever keep it up to date again.
func TestReadersAreNotSentToABuildThatIsBeingDropped(t *testing.T) {
	w := newWorld(t)
	_, stop := w.run(w.entries.Model()) // which makes the tables
	w.log.append("a-k", 1)
	w.await("entries", "", w.log.head())
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	exec := func(q interface {
		Exec(context.Context, string, ...any) (pgconn.CommandTag, error)
	}, sql string) {
		t.Helper()
		if _, err := q.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(w.pool, "INSERT INTO consumer.paused VALUES ('accounts')")
	c, _ := w.run(w.models()...)
	w.eventually(func() bool { return len(w.status(c, "accounts").Builds) == 1 })
	tx, err := w.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	exec(tx, "LOCK TABLE accounts_v1_b1.accounts IN SHARE UPDATE EXCLUSIVE MODE") // ANALYZE waits, as long as an index may take
	exec(w.pool, "DELETE FROM consumer.paused")
	w.eventually(func() bool {
		return len(query[struct{ Pid int32 }](w, "SELECT pid FROM pg_stat_activity WHERE query LIKE 'ANALYZE%accounts%' AND wait_event_type = 'Lock'")) > 0
	})
	dropped := make(chan error, 1)
	go func() { dropped <- c.DropBuild(t.Context(), "accounts_v1_b1") }()
	w.eventually(func() bool { return w.status(c, "accounts").Builds[0].Dropping })
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-dropped; err != nil {
		t.Error(err)
	}
	w.settled() // in the one that is made in its place
	w.check()
}
