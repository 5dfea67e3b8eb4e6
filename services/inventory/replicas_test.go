package inventory

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/domain/catalog"
	"github.com/purserhq/purser/internal/domain/stock"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/fault"
	"github.com/purserhq/purser/internal/secret"
	catalogevent "github.com/purserhq/purser/proto/purser/catalog/event/v1"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
	"github.com/purserhq/purser/services/eventstore/eventstoretest"
)

// newReplicas are two processes on one event store with a mug in it, of which there are many, each with a connection and a
// memory of its own. Both remember the mug as it was before anything was reserved.
func newReplicas(t *testing.T) (a, b *server, log *eventlog.Log) {
	t.Helper()
	url := eventstoretest.Start(t)
	s, err := secret.LoadOrCreate(filepath.Join(t.TempDir(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	var replicas []*server
	for range 2 {
		log, err = eventlog.Open(url, eventschema.New(), slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(log.Close)
		replicas = append(replicas, &server{
			stock: aggregate.NewLong[stock.State](log, eventschema.Stock, s, time.Now, aggregate.Long{
				Version: stock.Version, SnapshotEvery: 20, Window: requestWindow, Requests: maxRequests, KeyedRequests: maxReservations,
				Keyed: stock.OfReservation, Log: slog.New(slog.DiscardHandler),
			}),
			products: aggregate.New[catalog.State](log, eventschema.Product, s, time.Now),
			clock:    time.Now,
		})
	}
	if _, err := log.Append(t.Context(), "product-mug", eventlog.NoStream, []eventlog.NewEvent{{
		ID: uuid.New(), Message: &catalogevent.ProductCreated{ProductId: "mug", Name: "Mug"},
	}}); err != nil {
		t.Fatal(err)
	}
	for _, r := range replicas {
		if _, err := r.ReceiveStock(t.Context(), &inventoryv1.ReceiveStockRequest{RequestId: uuid.NewString(), ProductId: "mug", Quantity: 500}); err != nil {
			t.Fatal(err)
		}
	}
	// The first has seen only its own delivery, the second both; a no-op has the first see them as well.
	if _, err := replicas[0].ReleaseReservation(t.Context(), release("none")); err != nil {
		t.Fatal(err)
	}
	return replicas[0], replicas[1], log
}

// held is what an order holds, by the log.
func held(t *testing.T, s *server, order string) int64 {
	t.Helper()
	st, _, err := s.stock.Load(t.Context(), "mug")
	if err != nil {
		t.Fatal(err)
	}
	return st.Held[order]
}

func TestAReleaseOvertakesItsReservation(t *testing.T) {
	a, b, log := newReplicas(t)
	if _, err := a.ReleaseReservation(t.Context(), release("7")); err != nil {
		t.Fatal(err)
	}
	before := lastEvent(t, log)
	late := reservation("7", 3)
	for name, s := range map[string]*server{"that has never heard of it": b, "that released it": a} {
		if _, err := s.ReserveStock(t.Context(), late); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_RESERVATION_ENDED) {
			t.Errorf("reserved by the replica %s: %v", name, err)
		}
	}
	if n := held(t, b, "7"); n != 0 || lastEvent(t, log).ProtoReflect().Descriptor() != before.ProtoReflect().Descriptor() {
		t.Errorf("%d are held, the last event is %v", n, lastEvent(t, log))
	}
}

// Whichever of the two comes first, and whichever replica each reaches, nothing is held in the end.
func TestReservationsRaceTheirReleases(t *testing.T) {
	a, b, _ := newReplicas(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	const orders = 100
	for i := range orders {
		order := fmt.Sprint(i)
		reserving, releasing := a, b
		if i%3 == 0 {
			releasing = a
		}
		wg.Go(func() {
			reply, err := reserving.ReserveStock(ctx, reservation(order, 2))
			if err == nil && reply.GetOutcome() != inventoryv1.ReservationOutcome_RESERVATION_OUTCOME_RESERVED || err != nil && !fault.Is(err, typev1.ErrorReason_ERROR_REASON_RESERVATION_ENDED) {
				t.Errorf("order %s: %v, %v", order, reply, err)
			}
		})
		wg.Go(func() {
			if _, err := releasing.ReleaseReservation(ctx, release(order)); err != nil {
				t.Errorf("order %s: %v", order, err)
			}
		})
	}
	wg.Wait()
	st, _, err := b.stock.Load(ctx, "mug")
	if err != nil || st.Reserved != 0 || len(st.Held) != 0 || st.OnHand != 1000 || len(st.Marks) != orders+1 {
		t.Errorf("in the end: %+v, %v", st, err)
	}
}

// Whichever of the two comes first, and whichever replica each reaches, the goods have either left or are there for others.
func TestCommitsRaceReleases(t *testing.T) {
	a, b, _ := newReplicas(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const orders = 100
	for i := range orders {
		if _, err := a.ReserveStock(ctx, reservation(fmt.Sprint(i), 2)); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	var commits, releases atomic.Int64
	race := func(n *atomic.Int64, err error, lost typev1.ErrorReason) {
		if err == nil {
			n.Add(1)
		} else if !fault.Is(err, lost) {
			t.Error(err)
		}
	}
	for i := range orders {
		order := fmt.Sprint(i)
		committing, releasing := a, b
		if i%3 == 0 {
			releasing = a
		}
		wg.Go(func() {
			_, err := committing.CommitReservation(ctx, commit(order))
			race(&commits, err, typev1.ErrorReason_ERROR_REASON_RESERVATION_NOT_HELD)
		})
		wg.Go(func() {
			_, err := releasing.ReleaseReservation(ctx, release(order))
			race(&releases, err, typev1.ErrorReason_ERROR_REASON_RESERVATION_COMMITTED)
		})
	}
	wg.Wait()
	st, _, err := b.stock.Load(ctx, "mug")
	if err != nil || st.OnHand != 1000-2*commits.Load() || st.Reserved != 0 || len(st.Held) != 0 {
		t.Errorf("in the end: %d on hand, %d reserved, %v", st.OnHand, st.Reserved, err)
	}
	if commits.Load()+releases.Load() != orders {
		t.Errorf("%d commits and %d releases of %d reservations", commits.Load(), releases.Load(), orders)
	}
}

// What a replica remembers is old by the time it is asked: it must not take for done what was undone since, nor for undone
// what was done.
func TestANoOpIsNotAnsweredFromAnOldMemory(t *testing.T) {
	a, b, _ := newReplicas(t)
	reserve := func(s *server, order string) (*inventoryv1.ReserveStockResponse, error) {
		return s.ReserveStock(t.Context(), reservation(order, 3))
	}
	first, err := reserve(a, "7")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := reserve(b, "7"); err != nil || again.GetEtag() != first.GetEtag() {
		t.Errorf("held already, as b does not know: %v, %v, first %v", again, err, first)
	}
	released, err := a.ReleaseReservation(t.Context(), release("7"))
	if err != nil {
		t.Fatal(err)
	}
	// b remembers that it is held, so reserving it would be nothing to do.
	if again, err := reserve(b, "7"); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_RESERVATION_ENDED) {
		t.Errorf("reserved after the release: %v, %v", again, err)
	}
	if n := held(t, a, "7"); n != 0 {
		t.Errorf("%d are held", n)
	}
	if _, err := reserve(b, "8"); err != nil {
		t.Fatal(err)
	}
	// a does not know of 8, and of 7 it knows what is still so: nothing to do, at a revision that it has yet to see.
	again, err := a.ReleaseReservation(t.Context(), release("7"))
	if err != nil || again.GetEtag() == released.GetEtag() {
		t.Errorf("released again: %v, %v, first %v", again, err, released)
	}
	if _, err := a.ReleaseReservation(t.Context(), release("8")); err != nil || held(t, b, "8") != 0 {
		t.Errorf("8 is held, %v", err)
	}
	// b remembers that 8 is held; releasing it is nothing to do any more, and reserving it is refused.
	if _, err := b.ReleaseReservation(t.Context(), release("8")); err != nil {
		t.Error(err)
	}
	if _, err := reserve(b, "8"); !fault.Is(err, typev1.ErrorReason_ERROR_REASON_RESERVATION_ENDED) {
		t.Errorf("reserved after the release: %v", err)
	}
}

// An attempt that had to wait, until it was not valid any more and the mark of its release was forgotten, holds nothing.
func TestAnAttemptIsJudgedWhenItIsDecided(t *testing.T) {
	a, log := stocked(t, 10)
	var ahead atomic.Int64
	clock := func() time.Time { return noon.Add(time.Duration(ahead.Load())) }
	s, err := secret.LoadOrCreate(filepath.Join(t.TempDir(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	replica := func(l aggregate.Log) *server {
		return &server{stock: aggregate.New[stock.State](l, eventschema.Stock, s, clock), products: a.products, clock: clock}
	}
	slow, other := &slowLog{Log: log, reading: make(chan struct{}), goOn: make(chan struct{})}, replica(log)
	req := reservation("7", 2)
	req.ValidUntil = timestamppb.New(noon.Add(time.Minute))
	late := make(chan error, 1)
	go func() {
		_, err := replica(slow).ReserveStock(t.Context(), req)
		late <- err
	}()
	<-slow.reading
	for _, order := range []string{"7", "8"} { // the second release has the first one forgotten
		if _, err := other.ReleaseReservation(t.Context(), release(order)); err != nil {
			t.Fatal(err)
		}
		ahead.Add(int64(9 * time.Minute))
	}
	close(slow.goOn)
	if err := <-late; !fault.Is(err, typev1.ErrorReason_ERROR_REASON_ATTEMPT_EXPIRED) {
		t.Errorf("got %v, and it holds %d", err, held(t, other, "7"))
	}
}

// slowLog waits with its first read.
type slowLog struct {
	aggregate.Log
	reading, goOn chan struct{}
	once          sync.Once
}

func (l *slowLog) Read(ctx context.Context, stream string, from eventlog.Revision, max int) ([]eventlog.Recorded, error) {
	l.once.Do(func() { close(l.reading); <-l.goOn })
	return l.Log.Read(ctx, stream, from, max)
}
