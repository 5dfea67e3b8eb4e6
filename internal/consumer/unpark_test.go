package consumer_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/fault"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// poisonJournal has the journal park keys with negative numbers as well.
func (w *world) poisonJournal() {
	healthy := w.entries.Entries
	w.entries.Entries = func(e consumer.Event) []entry {
		if e.Message.(*wrapperspb.Int64Value).GetValue() < 0 {
			panic("negative")
		}
		return healthy(e)
	}
}

// cure has the models take every number, as a later version would. Nothing may run meanwhile.
func (w *world) cure() {
	w.accounts.Evolve = func(r *account, e consumer.Event) {
		n := e.Message.(*wrapperspb.Int64Value).GetValue()
		r.Total += n
		r.Seen = append(r.Seen, n)
		r.Updated = e.OccurredAt
	}
	_, _, _, healthy := newModels()
	w.entries.Entries = healthy.Entries
}

func (w *world) unpark(c *consumer.Consumer, model, key string) error {
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	return c.Unpark(ctx, model, key)
}

// account returns the row of a key.
func (w *world) account(key string) account {
	w.t.Helper()
	for _, r := range query[account](w, "SELECT "+consumer.Columns[account]()+" FROM "+w.table(w.accounts)) {
		if r.ID == key {
			return r
		}
	}
	return account{}
}

func TestAKeyIsUnparkedOnceItsEventsCanBeApplied(t *testing.T) {
	w := newWorld(t)
	w.poisonJournal()
	c, stop := w.run(w.models()...)
	w.log.append("a-bad", 3)
	w.log.append("a-good", 1)
	w.settled()
	poison := w.log.append("a-bad", -1)
	w.log.append("b-bad", 5)
	w.log.append("a-bad", 7)
	w.settled()
	w.audited(2)

	for _, model := range []string{"accounts", "entries"} {
		err := w.unpark(c, model, "bad")
		if !fault.Is(err, typev1.ErrorReason_ERROR_REASON_KEY_STILL_POISONED) || !strings.Contains(err.Error(), "a-bad@1: panic: negative") {
			t.Errorf("%s: %v", model, err)
		}
		keys, err := c.Parked(t.Context(), model, consumer.ParkedKey{}, 10)
		if err != nil || len(keys) != 1 || keys[0].Key != "bad" || keys[0].Position != poison || !strings.Contains(keys[0].Cause, "panic: negative") {
			t.Errorf("%s: %+v, %v", model, keys, err)
		}
	}
	if got := w.account("bad"); got.Total != 3 {
		t.Errorf("an attempt in vain has left %+v", got)
	}
	w.audited(2)
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	w.cure()
	c, _ = w.run(w.models()...)
	w.log.append("a-bad", 100)
	w.settled()
	for _, model := range []string{"accounts", "entries"} {
		if err := w.unpark(c, model, "bad"); err != nil {
			t.Errorf("%s: %v", model, err)
		}
		for key, want := range map[string]string{
			"bad":     fmt.Sprintf(`"bad" is not parked in projection %q`, model), // any more
			"a-bad":   fmt.Sprintf(`"a-bad" is not parked in projection %q; the key of stream a-bad is "bad"`, model),
			"c-bad":   fmt.Sprintf(`"c-bad" is not parked in projection %q`, model), // it reads no c
			"unknown": fmt.Sprintf(`"unknown" is not parked in projection %q`, model),
		} {
			if err := w.unpark(c, model, key); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_PARKED_KEY_NOT_FOUND) || fault.Of(err).Message != want {
				t.Errorf("%s of %s: %v, want %s", key, model, err, want)
			}
		}
	}
	if got := w.account("bad"); !slices.Equal(got.Seen, []int64{3, -1, 5, 7, 100}) || got.Total != 114 {
		t.Errorf("%+v", got)
	}
	w.audited(0)
	w.await("accounts", "bad", w.log.append("a-bad", 1))
	w.settled()
	if got := w.account("bad"); got.Total != 115 {
		t.Errorf("%+v", got)
	}
	w.audited(0)
}

// A key goes on while it is unparked, and every event is in its row once, whichever process was asked, and however often
// connections are cut.
func TestUnparkingUnderLoadLosesAndDoublesNothing(t *testing.T) {
	w := newWorld(t)
	_, stop := w.run(w.models()...)
	w.log.append("a-k", -1)
	w.settled()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.cure()
	w.run(w.models()...)
	asked, _ := w.run(w.models()...) // stands by, or the other one does
	ctx, cancel := context.WithCancel(t.Context())
	var appending sync.WaitGroup
	appending.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			w.log.append(fmt.Sprintf("%s-k", []string{"a", "b"}[i%2]), int64(i%7))
			time.Sleep(time.Millisecond)
		}
	})
	cut := func() {
		_, _ = w.pool.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	}
	for range 4 {
		time.Sleep(200 * time.Millisecond)
		var cutting sync.WaitGroup
		cutting.Go(func() { time.Sleep(rand.N(500 * time.Millisecond)); cut() })
		_ = w.unpark(asked, "accounts", "k")
		cutting.Wait()
	}
	w.eventually(func() bool {
		err := w.unpark(asked, "accounts", "k")
		return err == nil || fault.Is(err, typev1.ErrorReason_ERROR_REASON_PARKED_KEY_NOT_FOUND) // done before, and the answer was cut off
	})
	time.Sleep(100 * time.Millisecond)
	cancel()
	appending.Wait()
	w.pool.Reset() // of what was cut and has not been noticed
	w.settled()
	var want []int64
	for _, r := range w.log.Events() {
		want = append(want, w.log.number(r))
	}
	if got := w.account("k"); !slices.Equal(got.Seen, want) {
		t.Errorf("%v, want %v", got.Seen, want)
	}
	w.audited(0)
}

func TestAnOrderToUnparkStandsUntilSomebodyTakesItUp(t *testing.T) {
	w := newWorld(t)
	c, stop := w.run(w.models()...)
	w.log.append("a-k", -1)
	w.settled()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := c.Unpark(short, "accounts", "k"); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_PROJECTION_STOPPED) {
		t.Errorf("nobody runs, and the answer is %v", err)
	}
	if err := c.Unpark(t.Context(), "another", "k"); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_PROJECTION_NOT_FOUND) {
		t.Errorf("of another model: %v", err)
	}
	w.cure()
	w.run(w.models()...)
	w.eventually(func() bool { return w.account("k").Total == -1 })
	w.audited(0)
}

// A process that was only thought dead can't unpark: what it knows of the checkpoint may be old.
func TestAZombieCantUnpark(t *testing.T) {
	w := newWorld(t)
	_, stop := w.run(w.models()...)
	w.log.append("a-k", -1)
	w.settled()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.cure()
	c, _ := w.run(w.models()...)
	w.settled()
	taken, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.log.onIdentity(func() { once.Do(func() { close(taken) }); <-goOn })
	if _, err := w.pool.Exec(t.Context(), "UPDATE consumer.checkpoints SET owner = $1", uuid.New()); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() { answered <- w.unpark(c, "accounts", "k") }()
	select {
	case <-taken: // it has noticed
	case <-time.After(20 * time.Second):
		t.Fatal("it does not notice that it lost the partitions")
	}
	if got := w.account("k"); got.Total != 0 {
		t.Errorf("written by one who did not own it: %+v", got)
	}
	w.log.onIdentity(nil)
	close(goOn)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if got := w.account("k"); got.Total != -1 {
		t.Errorf("%+v", got)
	}
	w.audited(0)
}

// slowLog is a log whose streams of one key can't be read until they are let go. It sees to it that all are read page by page.
type slowLog struct {
	*numberLog
	key  string
	free chan struct{}
	read atomic.Int64 // events
}

func newSlowLog(log *numberLog, key string) *slowLog {
	return &slowLog{numberLog: log, key: key, free: make(chan struct{})}
}

func (l *slowLog) Read(ctx context.Context, stream string, from eventlog.Revision, most int) ([]eventlog.Recorded, error) {
	if most < 1 || most > 1000 {
		l.t.Errorf("%d events of %s are read at once", most, stream)
	}
	if _, key, _ := eventlog.SplitStream(stream); key == l.key {
		select {
		case <-l.free:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	page, err := l.numberLog.Read(ctx, stream, from, most)
	l.read.Add(int64(len(page)))
	return page, err
}

// appendMany appends so many numbers to a stream that has none.
func (l *numberLog) appendMany(stream string, n int, number int64) eventlog.Position {
	l.t.Helper()
	events := make([]eventlog.NewEvent, n)
	for i := range events {
		events[i] = eventlog.NewEvent{ID: uuid.New(), Message: wrapperspb.Int64(number), Meta: eventlog.Metadata{OccurredAt: time.Unix(1, 0)}}
	}
	a, err := l.Append(context.Background(), stream, eventlog.NoStream, events)
	if err != nil {
		l.t.Error(err)
	}
	return a.Position
}

// parkedLong parks the key hot, which has a history of some pages in two streams, and cures the models.
func (w *world) parkedLong() {
	w.t.Helper()
	_, stop := w.run(w.models()...)
	w.log.append("a-hot", -1)
	w.log.appendMany("b-hot", 2500, 1)
	for n := range int64(10) {
		w.log.append("a-hot", n)
	}
	w.settled()
	if err := stop(); err != nil {
		w.t.Fatal(err)
	}
	w.cure()
}

// A key with a long history is read beside the others, which go on, and what comes meanwhile is not missing.
func TestAKeyWithALongHistoryIsUnparkedBesideTheOthers(t *testing.T) {
	w := newWorld(t)
	w.parkedLong()
	slow := newSlowLog(w.log, "hot")
	c, _ := w.runOn(w.pool, slow, w.models()...)
	w.settled()
	answered := make(chan error, 1)
	go func() { answered <- w.unpark(c, "accounts", "hot") }()
	w.eventually(func() bool {
		var wanted bool
		err := w.pool.QueryRow(t.Context(), "SELECT wanted IS NOT NULL FROM consumer.parked WHERE build = 'accounts_v1_b1'").Scan(&wanted)
		return err == nil && wanted
	})
	for i := range 50 {
		w.log.append("a-hot", 3)
		w.log.append("b-hot", 4)
		w.await("accounts", "", w.log.append(fmt.Sprintf("a-k%d", i%20), 1))
	}
	if got := w.account("hot"); got.Total != 0 {
		t.Errorf("it is not read yet, and is %+v", got)
	}
	close(slow.free)
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	w.log.append("b-hot", 5)
	w.settled()
	var want []int64
	for _, r := range w.log.Events() {
		if _, key, _ := eventlog.SplitStream(r.Stream); key == "hot" {
			want = append(want, w.log.number(r))
		}
	}
	if got := w.account("hot"); !slices.Equal(got.Seen, want) {
		t.Errorf("%d events in another order than the log has its %d", len(got.Seen), len(want))
	}
	w.audited(0)
}

func TestAnOrderToUnparkThatTakesTooLongIsWithdrawn(t *testing.T) {
	w := newWorld(t)
	w.parkedLong()
	slow := newSlowLog(w.log, "hot")
	c := w.consumerOn(w.pool, slow, w.models()...)
	c.SetLimits(200*time.Millisecond, 1000, 1000)
	w.start(c)
	if err := w.unpark(c, "accounts", "hot"); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_KEY_STILL_POISONED) || !strings.Contains(err.Error(), "the order is withdrawn") {
		t.Errorf("got %v", err)
	}
	w.log.append("a-k", 1)
	w.settled()
	w.audited(1)
	close(slow.free)
	if err := w.unpark(c, "accounts", "hot"); err != nil {
		t.Errorf("another order: %v", err)
	}
	w.audited(0)
}

func TestParkedKeysAreListedPageByPage(t *testing.T) {
	w := newWorld(t)
	w.poisonJournal()
	c, _ := w.run(w.models()...)
	for i := range 5 {
		w.log.append(fmt.Sprintf("a-%d", i), -1)
	}
	w.settled()
	var got []string
	var after consumer.ParkedKey
	for {
		page, err := c.Parked(t.Context(), "", after, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range page {
			got = append(got, k.Model+" "+k.Key)
			after = k
		}
		if len(page) < 3 {
			break
		}
	}
	want := []string{"accounts 0", "accounts 1", "accounts 2", "accounts 3", "accounts 4", "entries 0", "entries 1", "entries 2", "entries 3", "entries 4"}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestAMetricShowsForHowLongKeysAreParked(t *testing.T) {
	w := newWorld(t)
	w.run(w.models()...)
	w.log.append("a-k", -1)
	w.settled()
	w.eventually(func() bool { return w.metric("purser_consumer_parked_keys", "accounts") == 1 })
	first := w.metric("purser_consumer_parked_oldest_seconds", "accounts")
	if first <= 0 || first > 20 {
		t.Errorf("parked for %f seconds", first)
	}
	w.eventually(func() bool { return w.metric("purser_consumer_parked_oldest_seconds", "accounts") > first })
}

func TestTheDelayIsThatOfEventsWhoseTimeIsKnown(t *testing.T) {
	w := newWorld(t)
	w.run(w.models()...)
	w.log.append("a-k", time.Now().Unix()) // which is its time as well
	bad := eventlog.Recorded{ID: uuid.New(), Type: "Number", Metadata: []byte(`{"schemaVersion":1}`), Data: []byte("no number")}
	if _, err := w.log.AppendRecorded(t.Context(), "a-bad", eventlog.NoStream, []eventlog.Recorded{bad}); err != nil {
		t.Fatal(err)
	}
	w.eventually(func() bool { return w.metric("purser_consumer_events_total", "accounts") == 2 })
	if sum := w.metric("purser_consumer_delay_seconds", "accounts"); sum <= 0 || sum > 60 {
		t.Errorf("the delays add up to %f seconds", sum)
	}
}

// Also in one that readers are sent to later: only there it would stay parked, and be what keeps readers away.
func TestAKeyIsUnparkedInEveryBuild(t *testing.T) {
	w := newWorld(t)
	c, stop := w.run(w.models()...)
	w.log.append("a-bad", -1)
	w.settled()
	if _, _, err := w.rebuild(c, "accounts", true); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	w.cure()
	c, _ = w.run(w.models()...)
	if err := w.unpark(c, "accounts", "bad"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.rebuild(c, "accounts", false); err != nil {
		t.Error(err)
	}
	w.settled()
	w.audited(0)
}
