package readmodel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/fault"
	orderevent "github.com/purserhq/purser/proto/purser/order/event/v1"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const never = time.Hour

// watching is a world in which orders are watched, by way of connections that can be cut.
type watching struct {
	*world
	*OrderWatches
	name string // of the connections
	cut  atomic.Bool
}

// newWatching begins to watch; by itself it looks at all orders every so often.
func newWatching(t *testing.T, every time.Duration) *watching {
	t.Helper()
	w := &watching{world: newWorld(t), name: "watching"}
	config := w.Queries.pool.Config().Copy()
	config.ConnConfig.RuntimeParams["application_name"] = w.name
	config.BeforeConnect = func(context.Context, *pgx.ConnConfig) error {
		if w.cut.Load() {
			return errors.New("cut")
		}
		return nil
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	w.OrderWatches = NewOrderWatches(NewQueries(pool, nil), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	w.every = every
	return w
}

// run runs until the test ends.
func (w *watching) run(run func(context.Context)) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	var running sync.WaitGroup
	running.Go(func() { run(ctx) })
	w.t.Cleanup(func() { cancel(); running.Wait() })
}

func (w *watching) listening(ctx context.Context) {
	if err := w.Run(ctx); err != nil {
		w.t.Errorf("Run: %v", err)
	}
}

// place places an order, and returns what has happened to it.
func (w *watching) place(id string) {
	w.t.Helper()
	token := w.append(history(id, placedOrder())...)
	if _, err := w.world.reader.Await(w.t.Context(), &OrderDetails, id, token); err != nil {
		w.t.Fatal(err)
	}
}

func (w *watching) watch(id string) *OrderWatch {
	w.t.Helper()
	watch, err := w.Open(id)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(watch.Close)
	return watch
}

// shows waits until a watch shows an order in a state; until then it shows it in another one.
func (w *watching) shows(watch *OrderWatch, state string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	for last := "nothing"; ; {
		o, err := watch.Next(ctx)
		if err != nil {
			w.t.Fatalf("%v; last it showed %s, want %s", err, last, state)
		}
		if last = o.State; last == state {
			return
		}
	}
}

// stays sees to it that a watch shows nothing but a state for a while. That may come again, where two notifications tell of what
// one look has seen.
func (w *watching) stays(watch *OrderWatch, state string) {
	w.t.Helper()
	for {
		o, err := nextWithin(watch, 300*time.Millisecond)
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return
		case err != nil || o.State != state:
			w.t.Errorf("a watch that should go on showing %s shows %s, %v", state, o.State, err)
			return
		}
	}
}

// happens appends events, waits until they are in the read model, and returns the position of the last.
func (w *watching) happens(id string, messages ...proto.Message) eventlog.Position {
	w.t.Helper()
	var token eventlog.Position
	for _, m := range messages {
		e := history(id, m)[0]
		e.OccurredAt = at(int(w.last(e.Stream)) + 2)
		token = w.append(e)
	}
	if _, err := w.world.reader.Await(w.t.Context(), &OrderDetails, "", token); err != nil {
		w.t.Fatal(err)
	}
	return token
}

// A change is seen because it is heard of: nothing else has the order looked at here.
func TestAWatchShowsChanges(t *testing.T) {
	w := newWatching(t, never)
	w.run(w.listening)
	w.place("7")
	w.place("8")
	one, other, another := w.watch("7"), w.watch("7"), w.watch("8")
	w.shows(one, placed) // as it is, since its watcher may have read it before
	w.happens("7", &orderevent.OrderConfirmed{})
	w.shows(one, confirmed)
	w.happens("7", &orderevent.OrderCancellationRequested{}, &orderevent.OrderCancelled{})
	w.shows(one, cancelled)
	w.shows(other, cancelled) // who did not look meanwhile has the newest state
	w.stays(other, cancelled)
	w.shows(another, placed)
	w.stays(another, placed)
	w.shows(w.watch("7"), cancelled) // also to one who comes when nothing more happens
}

func nextWithin(watch *OrderWatch, d time.Duration) (OrderDetail, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return watch.Next(ctx)
}

// However many orders change, they are read together; and each watch shows states in their order.
func TestWatchedOrdersAreReadTogether(t *testing.T) {
	w := newWatching(t, never)
	const orders, changes = 100, 20
	var watches []*OrderWatch
	var events []consumer.Event
	for i := range orders {
		id := fmt.Sprint("o-", i)
		events = append(events, history(id, placedOrder())...)
		for n := range changes {
			e := history(id, &orderevent.DeliveryAddressChanged{DeliveryAddress: &typev1.Address{City: new(fmt.Sprint(n))}})[0]
			e.OccurredAt = at(n + 1)
			events = append(events, e)
		}
		watches = append(watches, w.watch(id))
	}
	var statements atomic.Int64
	w.asked.set(func() { statements.Add(1) })
	began := time.Now()
	w.run(w.listening)
	w.append(events...)
	var watchers sync.WaitGroup
	for _, watch := range watches {
		watchers.Go(func() {
			for last := (OrderDetail{Revision: -1}); last.Revision < changes; {
				o, err := nextWithin(watch, 20*time.Second)
				if err != nil {
					t.Errorf("%s is at revision %d: %v", watch.id, last.Revision, err)
					return
				}
				if o.Revision < last.Revision {
					t.Errorf("%s at revision %d is shown after %d", watch.id, o.Revision, last.Revision)
				}
				last = o
			}
		})
	}
	watchers.Wait()
	// The LISTEN, and at most one look in each pause.
	if got, most := statements.Load(), int64(time.Since(began)/lookPause)+2; got > most {
		t.Errorf("%d statements for %d changes in %s, want at most %d", got, orders*changes, time.Since(began), most)
	}
}

// While all connections are cut a watch shows nothing and stays open, and afterwards it shows what happened meanwhile.
func TestAWatchSurvivesACut(t *testing.T) {
	w := newWatching(t, never)
	w.run(w.listening)
	w.place("7")
	watch := w.watch("7")
	w.shows(watch, placed)

	w.cut.Store(true)
	if got := w.terminate("%"); got == 0 {
		t.Fatal("there was no connection to cut")
	}
	w.happens("7", &orderevent.OrderConfirmed{})
	w.stays(watch, placed)
	w.cut.Store(false)
	w.shows(watch, confirmed)

	// Only the connection that listens, again and again.
	for _, m := range []proto.Message{&orderevent.OrderCancellationRequested{}, &orderevent.OrderCancelled{}} {
		if got := w.terminate("LISTEN %"); got != 1 {
			t.Errorf("%d connections listen", got)
		}
		w.happens("7", m)
		w.shows(watch, orderState("", m))
	}
}

// terminate cuts the connections of the watches whose last statement is like this.
func (w *watching) terminate(like string) (n int) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); n == 0 && time.Now().Before(deadline); {
		if err := w.world.pool.QueryRow(w.t.Context(), `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = $1 AND query LIKE $2`, w.name, like).Scan(&n); err != nil {
			w.t.Fatal(err)
		}
	}
	return n
}

// A change of which nothing is ever heard is seen all the same.
func TestAWatchNeedsNoNotification(t *testing.T) {
	w := newWatching(t, 50*time.Millisecond)
	w.run(w.look)
	w.place("7")
	watch := w.watch("7")
	w.shows(watch, placed)
	w.happens("7", &orderevent.OrderConfirmed{})
	w.shows(watch, confirmed)
	w.happens("7", &paymentevent.AuthorizationRequested{Amount: eur(1)})
	for {
		o, err := nextWithin(watch, 20*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if o.PaymentState == paymentRequested {
			break
		}
	}
}

// There is room for so many watches, and each that is closed makes room for another.
func TestWatchesAreLimited(t *testing.T) {
	w := &OrderWatches{limit: 2, some: make(chan struct{}, 1), watches: map[string]map[*OrderWatch]struct{}{}, changed: map[string]struct{}{}}
	first, err := w.Open("7")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Open("7"); err != nil {
		t.Fatal(err)
	}
	_, err = w.Open("8")
	if f := fault.Of(err); f == nil || f.Kind != fault.Exhausted || f.Reason != typev1.ErrorReason_ERROR_REASON_TOO_MANY_WATCHES {
		t.Errorf("the third: %v", err)
	}
	first.Close()
	if _, err := w.Open("8"); err != nil {
		t.Errorf("in the place of one that was closed: %v", err)
	}
	if got := w.count(); got != 2 {
		t.Errorf("%v are open, want 2", got)
	}
}

// A stop ends the watches that are open, and there are none afterwards.
func TestAStopEndsWatches(t *testing.T) {
	reg := prometheus.NewRegistry()
	w := NewOrderWatches(nil, slog.New(slog.DiscardHandler), reg)
	watch, err := w.Open("7")
	if err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "purser_query_open_watches" || families[0].GetMetric()[0].GetGauge().GetValue() != 1 {
		t.Errorf("metrics %v, %v, want one open watch", families, err)
	}
	time.AfterFunc(20*time.Millisecond, w.Stop)
	if _, err := nextWithin(watch, 20*time.Second); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_SERVER_STOPPING) {
		t.Errorf("the one that was open: %v", err)
	}
	w.Stop()
	watch.Close()
	if _, err := w.Open("7"); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_SERVER_STOPPING) {
		t.Errorf("one more: %v", err)
	}
}
