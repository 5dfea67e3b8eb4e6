package readmodel

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/purserhq/purser/internal/fault"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

const (
	// maxWatches bounds the memory that those who watch take, and the work that one look at all orders is.
	maxWatches = 10_000
	// lookPause is the least time between two looks at the orders that have changed, sweepPause between two at all.
	lookPause  = 25 * time.Millisecond
	sweepPause = time.Second
	// sweepEvery is how late a change is seen at most of which nothing was heard.
	sweepEvery = 5 * time.Second
	// lookTimeout bounds one statement, and the making of a connection, so that a Postgres that hangs is noticed.
	lookTimeout = 10 * time.Second
	// ordersPerLook bounds the rows of one statement.
	ordersPerLook = 1000
	// Postgres is tried again after pauses that grow from the first to the last.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// OrderWatches shows orders to those who wait for them to change. All that a process watches is read together: it listens
// for changes on one connection, and reads whatever has changed with one statement at a time.
//
// What is heard is only a hint to look: all orders that are watched are looked at every few seconds, and whenever the
// connection was lost. While Postgres is away nothing is seen, and everything afterwards.
type OrderWatches struct {
	q     *Queries
	log   *slog.Logger
	limit int
	every time.Duration // between two looks at all orders; sweepEvery, but in tests

	some chan struct{} // there are changed orders
	any  chan struct{} // any order may have changed

	mu      sync.Mutex
	watches map[string]map[*OrderWatch]struct{} // by order
	open    int
	changed map[string]struct{} // orders to look at
	stopped chan struct{}
}

// NewOrderWatches returns watches that see something while Run runs.
func NewOrderWatches(q *Queries, log *slog.Logger, reg prometheus.Registerer) *OrderWatches {
	w := &OrderWatches{
		q: q, log: log, limit: maxWatches, every: sweepEvery,
		some: make(chan struct{}, 1), any: make(chan struct{}, 1),
		watches: map[string]map[*OrderWatch]struct{}{}, changed: map[string]struct{}{}, stopped: make(chan struct{}),
	}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "purser_query_open_watches", Help: "Orders that clients watch."}, w.count))
	return w
}

// OrderWatch is one who waits for an order to change.
type OrderWatch struct {
	all *OrderWatches
	id  string
	// newest has room for one state, which a newer one replaces: who is slow misses some, and holds up nobody.
	newest chan OrderDetail
}

// Open watches an order. It fails with TOO_MANY_WATCHES where the process has as many as it can, and with
// SERVER_STOPPING after Stop.
func (w *OrderWatches) Open(id string) (*OrderWatch, error) {
	watch := &OrderWatch{all: w, id: id, newest: make(chan OrderDetail, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.hasStopped():
		return nil, stopping()
	case w.open >= w.limit:
		return nil, &fault.Fault{
			Kind: fault.Exhausted, Reason: typev1.ErrorReason_ERROR_REASON_TOO_MANY_WATCHES,
			Message: fmt.Sprintf("%d orders are being watched here, which is as many as can be", w.open),
		}
	}
	if w.watches[id] == nil {
		w.watches[id] = map[*OrderWatch]struct{}{}
	}
	w.watches[id][watch] = struct{}{}
	w.open++
	w.changed[id] = struct{}{} // it may have, since its watcher has read it
	ring(w.some)
	return watch, nil
}

// Close ends a watch, which must be closed once.
func (o *OrderWatch) Close() {
	w := o.all
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.watches[o.id], o)
	if len(w.watches[o.id]) == 0 {
		delete(w.watches, o.id)
	}
	w.open--
}

// Next waits for a state of the order that was read after the watch was opened, and after the one that Next returned
// before. It may be the same, when something has changed that the order does not show. It fails when ctx ends, and with
// SERVER_STOPPING after Stop.
func (o *OrderWatch) Next(ctx context.Context) (OrderDetail, error) {
	select {
	case <-ctx.Done():
		return OrderDetail{}, ctx.Err()
	case <-o.all.stopped:
		return OrderDetail{}, stopping()
	case d := <-o.newest:
		return d, nil
	}
}

// Stop ends all watches, also those that are not open yet.
func (w *OrderWatches) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.hasStopped() {
		close(w.stopped)
	}
}

func (w *OrderWatches) hasStopped() bool {
	select {
	case <-w.stopped:
		return true
	default:
		return false
	}
}

func stopping() error {
	return fault.Down(typev1.ErrorReason_ERROR_REASON_SERVER_STOPPING, "this server is stopping; watch the order at another one", nil)
}

func (w *OrderWatches) count() float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return float64(w.open)
}

// Run looks at what is watched until ctx ends.
func (w *OrderWatches) Run(ctx context.Context) error {
	var listening sync.WaitGroup
	defer listening.Wait()
	listening.Go(func() { w.listen(ctx) })
	w.look(ctx)
	return nil
}

// listen hears of changes, on one connection after another.
func (w *OrderWatches) listen(ctx context.Context) {
	pause := retries()
	for ctx.Err() == nil {
		err := w.hear(ctx, pause.Reset)
		if ctx.Err() != nil {
			return
		}
		w.log.Warn("changes of orders can't be heard", "err", err)
		rest(ctx, pause.NextBackOff())
	}
}

// hear listens as long as its connection lives. It tells when it has begun to.
func (w *OrderWatches) hear(ctx context.Context, begun func()) error {
	connectCtx, cancel := context.WithTimeout(ctx, lookTimeout)
	pooled, err := w.q.pool.Acquire(connectCtx)
	cancel()
	if err != nil {
		return err
	}
	conn := pooled.Hijack() // it is not for statements of others
	defer func() {
		closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closeCtx)
	}()
	return OrderDetails.Changes(ctx, conn, func(ids ...string) {
		begun()
		w.note(ids)
	})
}

// note has orders looked at, or all where none is named. Orders that nobody watches are forgotten at once.
func (w *OrderWatches) note(ids []string) {
	if len(ids) == 0 {
		ring(w.any)
		return
	}
	w.mu.Lock()
	for _, id := range ids {
		if len(w.watches[id]) > 0 {
			w.changed[id] = struct{}{}
		}
	}
	some := len(w.changed) > 0
	w.mu.Unlock()
	if some {
		ring(w.some)
	}
}

// look looks at orders that have changed as soon as it hears of them, and at all of them now and then.
func (w *OrderWatches) look(ctx context.Context) {
	sweep := time.NewTimer(w.every)
	defer sweep.Stop()
	var last time.Time // that all were looked at
	pause := retries()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.any: // in a rebuild again and again
			sweep.Reset(time.Until(last.Add(sweepPause)))
			continue
		case <-sweep.C:
			w.allChanged()
			last = time.Now()
			sweep.Reset(w.every)
		case <-w.some:
		}
		wait := lookPause
		if err := w.lookAtChanged(ctx); err == nil {
			pause.Reset()
		} else if ctx.Err() == nil {
			wait = pause.NextBackOff()
			w.log.Warn("orders that are watched can't be read", "err", err)
		}
		rest(ctx, wait)
	}
}

func (w *OrderWatches) allChanged() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.watches {
		w.changed[id] = struct{}{}
	}
}

// lookAtChanged reads the orders that have changed. Where that fails, they are still to be looked at.
func (w *OrderWatches) lookAtChanged(ctx context.Context) error {
	w.mu.Lock()
	ids := slices.Collect(maps.Keys(w.changed))
	clear(w.changed)
	w.mu.Unlock()
	for chunk := range slices.Chunk(ids, ordersPerLook) {
		if err := w.lookAt(ctx, chunk); err != nil {
			w.note(ids)
			return err
		}
	}
	return nil
}

// lookAt reads orders, and shows them to those who had opened their watches before: so what these see is never older than
// what they had read themselves.
func (w *OrderWatches) lookAt(ctx context.Context, ids []string) error {
	w.mu.Lock()
	shown := make(map[string][]*OrderWatch, len(ids))
	for _, id := range ids {
		if watches := slices.Collect(maps.Keys(w.watches[id])); len(watches) > 0 {
			shown[id] = watches
		}
	}
	w.mu.Unlock()
	if len(shown) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	at, err := w.q.at(ctx, &OrderDetails, "", 0)
	if err != nil {
		return err
	}
	orders, err := w.q.readOrders(ctx, at, "order_id = ANY ($1)", slices.Collect(maps.Keys(shown)))
	if err != nil {
		return err
	}
	for _, o := range orders {
		for _, watch := range shown[o.OrderID] {
			watch.show(o)
		}
	}
	return nil
}

// show replaces the state that the watcher has not taken yet. Nobody else puts any there, so there is room then.
func (o *OrderWatch) show(d OrderDetail) {
	select {
	case <-o.newest:
	default:
	}
	o.newest <- d
}

func retries() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.RandomizationFactor = firstRetry, lastRetry, 0.5
	return b
}

// rest waits, but not beyond the end of ctx.
func rest(ctx context.Context, pause time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
}

// ring wakes the one who waits, now or when it comes to wait.
func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}
