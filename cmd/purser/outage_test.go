package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/purserhq/purser/internal/localpostgres"
	"github.com/purserhq/purser/internal/localpostgres/pgtest"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
	"github.com/purserhq/purser/services/eventstore"
)

const (
	// callers place orders one after another during an outage, each call with a deadline. A call may return a little
	// later than that on a busy machine, and work must be going again soon after the outage.
	callers      = 4
	callDeadline = 2 * time.Second
	callLate     = 2 * time.Second
	resumeWithin = 15 * time.Second
	betweenCalls = 50 * time.Millisecond
)

// outage is how long the stores are away: a minute where PURSER_TEST_SOAK is set.
func outage() time.Duration {
	if os.Getenv("PURSER_TEST_SOAK") != "" {
		return time.Minute
	}
	return 3 * time.Second
}

// The event store and Postgres are stopped and started again under a running Purser, under load: every caller gets an
// answer in time, work goes on by itself, and every order that was accepted reaches its end.
func TestOutagesOfTheStoresPauseTheWork(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole Purser")
	}
	dir := pgtest.Dir(t)
	store := startStore(t, dir, "127.0.0.1:0")
	postgres, err := localpostgres.Start(t.Context(), filepath.Join(dir, "postgres"), quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopPostgres(t, postgres) })
	i := newInstance(t, "--eventstore-url", "esdb://"+store.addr+"?tls=false", "--postgres-url", postgres.URL())

	product := i.stocked(t, 1_000_000)
	l := startLoad(t, i.clients, product)
	l.resumes(t, "at the beginning")

	store.stop(t)
	<-time.After(outage())
	startStore(t, dir, store.addr)
	l.resumes(t, "after the event store was away")

	stopPostgres(t, postgres)
	<-time.After(outage())
	if postgres, err = localpostgres.Start(t.Context(), filepath.Join(dir, "postgres"), quiet()); err != nil {
		t.Fatal(err)
	}
	l.resumes(t, "after Postgres was away")

	placed := l.stop()
	for _, id := range placed {
		i.reaches(t, id, typev1.OrderState_ORDER_STATE_CONFIRMED)
	}
	eventually(t, settle, func() error {
		if reserved := i.level(t, product).GetReserved(); reserved != int64(len(placed)) {
			return fmt.Errorf("%d reserved for %d orders", reserved, len(placed))
		}
		return nil
	})
}

// load is callers who place orders and read them back.
type load struct {
	clients
	product string
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	read    atomic.Int64 // orders placed and read back

	mu     sync.Mutex
	placed []string
}

func startLoad(t *testing.T, c clients, product string) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{clients: c, product: product, cancel: cancel}
	for range callers {
		l.wg.Go(func() {
			for ctx.Err() == nil {
				l.placeAndRead(ctx, t)
				<-time.After(betweenCalls)
			}
		})
	}
	t.Cleanup(func() { l.stop() })
	return l
}

// placeAndRead places an order, again and again until it is accepted, and reads it back once. It gives up only some time
// after the load is to end: an order whose answer was lost is not left behind.
func (l *load) placeAndRead(ctx context.Context, t *testing.T) {
	req := orderOf(l.product, 1, "pm_card_visa")
	patience, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(resumeWithin, cancel) })()
	for patience.Err() == nil {
		var id, token string
		err := timely(t, "PlaceOrder", func(ctx context.Context) error {
			reply, err := l.orders.PlaceOrder(ctx, req)
			id, token = reply.GetOrderId(), reply.GetConsistencyToken()
			return err
		})
		if err == nil {
			l.mu.Lock()
			l.placed = append(l.placed, id)
			l.mu.Unlock()
			if timely(t, "GetOrder", func(ctx context.Context) error { _, err := l.get(ctx, id, token); return err }) == nil {
				l.read.Add(1)
			}
			return
		}
		<-time.After(betweenCalls)
	}
}

// timely makes a call with a deadline, and fails the test where it outlasts that or fails for another reason than an outage.
func timely(t *testing.T, what string, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), callDeadline)
	defer cancel()
	started := time.Now()
	err := call(ctx)
	if took := time.Since(started); took > callDeadline+callLate {
		t.Errorf("%s took %s: %v", what, took, err)
	}
	if c := status.Code(err); c != codes.OK && c != codes.Unavailable && c != codes.DeadlineExceeded {
		t.Errorf("%s: %v", what, err)
	}
	return err
}

// resumes waits until orders are placed and read back.
func (l *load) resumes(t *testing.T, when string) {
	t.Helper()
	started, before := time.Now(), l.read.Load()
	eventually(t, resumeWithin, func() error {
		if n := l.read.Load() - before; n <= callers { // more than the calls that were under way
			return fmt.Errorf("%s: %d orders were placed and read back", when, n)
		}
		return nil
	})
	t.Logf("%s: orders are placed and read back after %s", when, time.Since(started).Round(10*time.Millisecond))
}

// stop ends the load and returns the orders that were accepted.
func (l *load) stop() []string {
	l.cancel()
	l.wg.Wait()
	return l.placed
}

type runningStore struct {
	addr string
	stop func(t *testing.T)
}

func startStore(t *testing.T, dir, addr string) runningStore {
	t.Helper()
	s, err := eventstore.Open(eventstore.Config{Dir: filepath.Join(dir, "eventstore"), Addr: addr}, quiet(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	stopped := false
	r := runningStore{addr: s.Addr(), stop: func(t *testing.T) {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}}
	t.Cleanup(func() { r.stop(t) })
	return r
}

func stopPostgres(t *testing.T, p *localpostgres.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), stopTimeout)
	defer cancel()
	if err := p.Stop(ctx); err != nil {
		t.Error(err)
	}
}
