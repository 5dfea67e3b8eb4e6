package saga

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/domain/fulfillment"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventlog/memorylog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/localpostgres/pgtest"
	"github.com/purserhq/purser/internal/origin"
	"github.com/purserhq/purser/internal/rpc"
	"github.com/purserhq/purser/internal/secret"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	paymentv1 "github.com/purserhq/purser/proto/purser/payment/v1"
)

// world is what surrounds the executor: a to-do list in Postgres, services behind gRPC whose answers are scripted, and a
// log. It outlives the process of the executor.
type world struct {
	t      *testing.T
	list   list
	log    *memorylog.Log
	secret *secret.Secret
	steps  steps
	peers  *peers
	clock  *clock
	ready  atomic.Bool
}

func newWorld(t *testing.T) *world {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	s, err := secret.LoadOrCreate(filepath.Join(t.TempDir(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, log: memorylog.New(eventschema.New()), secret: s, peers: newPeers(), clock: &clock{},
		list: list{pool: pool, reader: consumer.NewReader(pool), timeout: listTimeout},
	}
	w.consume()() // makes the tables
	w.ready.Store(true)
	conn := serve(t, w.peers)
	w.steps = steps{
		inventory: inventoryv1.NewInventoryServiceClient(conn),
		payments:  paymentv1.NewPaymentServiceClient(conn),
		orders:    orderv1.NewOrderServiceClient(conn),
	}
	return w
}

// consume keeps the list up to date, as the service does, until stop is called or the test ends.
func (w *world) consume() (stop func()) {
	w.t.Helper()
	c := consumer.New(w.list.pool, w.log, "saga", eventschema.Categories(), []consumer.Model{states.Model(&todo)},
		slog.New(slog.DiscardHandler), consumer.NewMetrics(prometheus.NewRegistry()))
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("the consumer: %v", err)
		}
	})
	w.t.Cleanup(stop)
	w.until("the list has caught up", func() bool { return c.Ready(ctx) == nil })
	return stop
}

// add puts tasks on the list, also such as no log would.
func (w *world) add(tasks ...task) {
	w.t.Helper()
	for _, t := range tasks {
		row := reflect.ValueOf(t.todoRow)
		args := []any{t.OrderID, 0}
		marks := []string{"$1", "$2"}
		for i := range row.NumField() {
			args = append(args, row.Field(i).Interface())
			marks = append(marks, fmt.Sprintf("$%d", i+3))
		}
		sql := fmt.Sprintf("INSERT INTO %s (key, _partition, %s) VALUES (%s)", w.table(), consumer.Columns[todoRow](), strings.Join(marks, ", "))
		if _, err := w.list.pool.Exec(w.t.Context(), sql, args...); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) table() string {
	w.t.Helper()
	at, err := w.list.reader.Find(w.t.Context(), &todo)
	if err != nil {
		w.t.Fatal(err)
	}
	return at.Table
}

// everyPartition is what there is where one replica runs alone.
func everyPartition() []int {
	var all []int
	for p := range 16 {
		all = append(all, p)
	}
	return all
}

// recorded are the events of an order's fulfilment.
func (w *world) recorded(order string) []eventlog.Event {
	w.t.Helper()
	var events []eventlog.Event
	for _, r := range w.log.Events() {
		if r.Stream != eventlog.StreamName(eventschema.Fulfillment, order) {
			continue
		}
		e, err := w.log.Decode(r)
		if err != nil {
			w.t.Fatal(err)
		}
		events = append(events, e)
	}
	return events
}

// listed reads an item back, whether or not it is due.
func (w *world) listed(k itemKey) (task, bool) {
	w.t.Helper()
	tasks, err := w.list.due(w.t.Context(), []string{k.step}, everyPartition(), w.clock.now().Add(100*time.Hour), 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, t := range tasks {
		if t.key() == k {
			return t, true
		}
	}
	return task{}, false
}

// start runs an executor until stop is called or the test ends.
func (w *world) start() (stop func()) {
	w.t.Helper()
	e := &executor{
		list: w.list, steps: w.steps, clock: w.clock.now, lanes: newLanes(),
		answers: aggregate.New[fulfillment.Answers](w.log, "fulfillment", w.secret, w.clock.now),
		level: func() []int {
			if !w.ready.Load() {
				return nil
			}
			return everyPartition()
		},
		changed: make(chan struct{}),
		log:     slog.New(slog.NewTextHandler(w.t.Output(), nil)),
		metrics: newMetrics(prometheus.NewRegistry()),
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- e.run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("the executor: %v", err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

// serve starts all three services on one port and dials it.
func serve(t *testing.T, p *peers) *grpc.ClientConn {
	t.Helper()
	m := rpc.NewMetrics(prometheus.NewRegistry())
	logger := slog.New(slog.DiscardHandler)
	s := rpc.NewServer("peers", logger, m)
	inventoryv1.RegisterInventoryServiceServer(s, inventoryPeer{peers: p})
	paymentv1.RegisterPaymentServiceServer(s, paymentPeer{peers: p})
	orderv1.RegisterOrderServiceServer(s, orderPeer{peers: p})
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(lis) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil {
			t.Errorf("the services: %v", err)
		}
	})
	conn, err := rpc.Dial(lis.Addr().String(), "peers", logger, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// until waits for something to become true.
func (w *world) until(what string, is func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// clock is the time of the executor, which a test can move on.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time           { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(by time.Duration) { c.ahead.Add(int64(by)) }

// peers are the services: script answers a request, which is noted with its origin.
type peers struct {
	mu     sync.Mutex
	script func(ctx context.Context, req aggregate.Command) (proto.Message, error)
	calls  []call
}

type call struct {
	req    aggregate.Command
	origin origin.Origin
}

func newPeers() *peers {
	return &peers{script: fine}
}

func (p *peers) answer(script func(ctx context.Context, req aggregate.Command) (proto.Message, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.script = script
}

// to are the requests of a type so far.
func to[R aggregate.Command](p *peers) []R {
	p.mu.Lock()
	defer p.mu.Unlock()
	var reqs []R
	for _, c := range p.calls {
		if r, ok := c.req.(R); ok {
			reqs = append(reqs, r)
		}
	}
	return reqs
}

func (p *peers) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.calls)
}

func take[R any](ctx context.Context, p *peers, req aggregate.Command) (*R, error) {
	p.mu.Lock()
	p.calls = append(p.calls, call{req, origin.From(ctx)})
	script := p.script
	p.mu.Unlock()
	reply, err := script(ctx, req)
	if r, ok := any(reply).(*R); ok {
		return r, err
	}
	return new(R), err
}

type inventoryPeer struct {
	inventoryv1.UnimplementedInventoryServiceServer
	peers *peers
}

func (s inventoryPeer) ReserveStock(ctx context.Context, r *inventoryv1.ReserveStockRequest) (*inventoryv1.ReserveStockResponse, error) {
	return take[inventoryv1.ReserveStockResponse](ctx, s.peers, r)
}

func (s inventoryPeer) ReleaseReservation(ctx context.Context, r *inventoryv1.ReleaseReservationRequest) (*inventoryv1.ReleaseReservationResponse, error) {
	return take[inventoryv1.ReleaseReservationResponse](ctx, s.peers, r)
}

type paymentPeer struct {
	paymentv1.UnimplementedPaymentServiceServer
	peers *peers
}

func (s paymentPeer) AuthorizePayment(ctx context.Context, r *paymentv1.AuthorizePaymentRequest) (*paymentv1.AuthorizePaymentResponse, error) {
	return take[paymentv1.AuthorizePaymentResponse](ctx, s.peers, r)
}

func (s paymentPeer) VoidPayment(ctx context.Context, r *paymentv1.VoidPaymentRequest) (*paymentv1.VoidPaymentResponse, error) {
	return take[paymentv1.VoidPaymentResponse](ctx, s.peers, r)
}

func (s paymentPeer) ReconcilePayment(ctx context.Context, r *paymentv1.ReconcilePaymentRequest) (*paymentv1.ReconcilePaymentResponse, error) {
	return take[paymentv1.ReconcilePaymentResponse](ctx, s.peers, r)
}

type orderPeer struct {
	orderv1.UnimplementedOrderServiceServer
	peers *peers
}

func (s orderPeer) ConfirmOrder(ctx context.Context, r *orderv1.ConfirmOrderRequest) (*orderv1.ConfirmOrderResponse, error) {
	return take[orderv1.ConfirmOrderResponse](ctx, s.peers, r)
}

func (s orderPeer) RejectOrder(ctx context.Context, r *orderv1.RejectOrderRequest) (*orderv1.RejectOrderResponse, error) {
	return take[orderv1.RejectOrderResponse](ctx, s.peers, r)
}

func (s orderPeer) MarkCancelled(ctx context.Context, r *orderv1.MarkCancelledRequest) (*orderv1.MarkCancelledResponse, error) {
	return take[orderv1.MarkCancelledResponse](ctx, s.peers, r)
}
