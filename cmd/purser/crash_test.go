package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/localpostgres"
	"github.com/purserhq/purser/internal/localpostgres/pgtest"
	"github.com/purserhq/purser/internal/postgres"
	"github.com/purserhq/purser/internal/readmodel"
	"github.com/purserhq/purser/internal/secret"
	catalogv1 "github.com/purserhq/purser/proto/purser/catalog/v1"
	fulfillmentevent "github.com/purserhq/purser/proto/purser/fulfillment/event/v1"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	paymentevent "github.com/purserhq/purser/proto/purser/payment/event/v1"
)

const (
	// takeOver is how long it may take until others run what one has left without a word: a lease, and some time for a busy
	// machine.
	takeOver = 20 * time.Second
	// catchUp bounds how long the read models may take at the end, from wherever the last crash left them.
	catchUp = time.Minute
)

// crashRounds is how many crashes there are: each kind once, and a hundred where PURSER_TEST_SOAK is set.
func crashRounds() int {
	if os.Getenv("PURSER_TEST_SOAK") != "" {
		return 100
	}
	return len(crashes)
}

// crashes are what befalls the replicas of the projector and their Postgres.
var crashes = []struct {
	name string
	do   func(*crashing)
}{
	{"a projector is killed", (*crashing).killProjector},
	{"two projectors are killed", func(c *crashing) { c.killProjector(); c.killProjector() }},
	{"a backend of Postgres is killed, which restarts all of it", (*crashing).killBackend},
	{"Postgres is killed", (*crashing).killPostgres},
	{"Postgres and a projector are killed", func(c *crashing) { c.killPostgres(); c.killProjector() }},
	{"a projector is stopped until others have its partitions, and goes on", (*crashing).stopProjector},
}

// Three projectors and their Postgres are killed and stopped again and again while orders are placed and changed. Postgres
// loses with each crash what it had not synced. In the end the read models and reports are what the log adds up to.
func TestKilledProjectorsLoseAndDoubleNothing(t *testing.T) {
	c := newCrashing(t)
	c.settled()
	load := c.load()
	kinds := slices.Clone(crashes)
	for round := range crashRounds() {
		if round%len(kinds) == 0 {
			c.rng.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
		}
		crash := kinds[round%len(kinds)]
		time.Sleep(time.Duration(200+c.rng.IntN(1000)) * time.Millisecond)
		crash.do(c)
		c.counts[crash.name]++
	}
	load.stop()
	started := time.Now()
	c.settled()
	t.Logf("%d orders, crashes %v; Postgres lost something by %d of them; caught up after %s",
		load.placed.Load(), c.counts, c.losses, time.Since(started).Round(time.Millisecond))

	args := []string{"audit", "--eventstore-url", c.storeURL, "--postgres-url", c.postgres.URL(), "--log-level", "error"}
	for _, m := range readmodel.Models() {
		args = append(args, "--model", m.Name())
	}
	out, err := purser(t.Context(), args...).CombinedOutput()
	if err != nil || strings.Contains(string(out), "parked") {
		t.Errorf("the audit: %v\n%s", err, out)
	}
	t.Logf("the audit:\n%s", out)
	if load.placed.Load() == 0 {
		t.Error("no order was placed")
	}
}

// crashing is an event store, a Postgres that can be killed, and three projectors that can.
type crashing struct {
	t          *testing.T
	rng        *rand.Rand
	dir        string
	storeURL   string
	log        *eventlog.Log
	postgres   *localpostgres.Server
	pool       *pgxpool.Pool
	projectors []*running

	counts map[string]int // of crashes, by name
	losses int            // crashes of Postgres by which it lost something that was committed
}

func newCrashing(t *testing.T) *crashing {
	t.Helper()
	if testing.Short() {
		t.Skip("starts and kills processes")
	}
	seed := rand.Uint64()
	if given := os.Getenv("PURSER_TEST_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("PURSER_TEST_SEED=%d", seed)
	c := &crashing{t: t, rng: rand.New(rand.NewPCG(seed, 0)), dir: pgtest.Dir(t), counts: map[string]int{}}
	c.storeURL = "esdb://" + startStore(t, c.dir, "127.0.0.1:0").addr + "?tls=false"
	var err error
	if c.log, err = eventlog.Open(c.storeURL, eventschema.New(), quiet(), nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.log.Close)
	c.startPostgres()
	t.Cleanup(func() { stopPostgres(t, c.postgres) })
	if c.pool, err = postgres.Open(c.postgres.URL(), "test", 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.pool.Close)
	// What is not synced stays away from the disk for long, so that a crash loses more.
	for _, sql := range []string{"ALTER SYSTEM SET wal_writer_delay = '10s'", "SELECT pg_reload_conf()"} {
		if _, err := c.pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		c.projectors = append(c.projectors, c.projector())
	}
	return c
}

// running is a purser of one service in a process of its own.
type running struct {
	cmd    *exec.Cmd
	stderr *lockedBuffer
}

// runPurser starts one, which is killed at the end of the test.
func runPurser(t *testing.T, args ...string) *running {
	t.Helper()
	r := &running{cmd: purser(context.Background(), args...), stderr: &lockedBuffer{}}
	r.cmd.Stderr = r.stderr
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.cmd.ProcessState == nil {
			r.kill(t)
		}
	})
	return r
}

func (r *running) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		t.Fatalf("%s: %v\n%s", s, err, r.stderr) // it has ended by itself
	}
}

func (r *running) kill(t *testing.T) {
	t.Helper()
	r.signal(t, syscall.SIGKILL)
	_ = r.cmd.Wait() // killed
}

func (c *crashing) projector() *running {
	c.t.Helper()
	return runPurser(c.t, "projector", "--grpc-port", "0", "--http-port", "0", "--eventstore-url", c.storeURL, "--postgres-url", c.postgres.URL())
}

func (c *crashing) killProjector() {
	i := c.rng.IntN(len(c.projectors))
	c.projectors[i].kill(c.t)
	time.Sleep(time.Duration(c.rng.IntN(500)) * time.Millisecond)
	c.projectors[i] = c.projector()
}

// stopProjector stops one for longer than its lease, wherever it is, and lets it go on once others have its partitions.
func (c *crashing) stopProjector() {
	c.leased() // it has some
	p := c.projectors[c.rng.IntN(len(c.projectors))]
	p.signal(c.t, syscall.SIGSTOP)
	defer p.signal(c.t, syscall.SIGCONT)
	time.Sleep(5 * time.Second)
	c.leased()
}

// leased waits until every partition is run by somebody who extends the lease.
func (c *crashing) leased() {
	c.t.Helper()
	eventually(c.t, takeOver, func() error {
		var free string
		if err := c.pool.QueryRow(c.t.Context(), `SELECT coalesce(string_agg(build || ' ' || partition, ', '), '')
			FROM consumer.leases WHERE expires_at IS NULL OR expires_at < clock_timestamp()`).Scan(&free); err != nil {
			return err
		}
		if free != "" {
			return fmt.Errorf("run by nobody: %s", free)
		}
		return nil
	})
}

func (c *crashing) startPostgres() {
	c.t.Helper()
	var err error
	if c.postgres, err = localpostgres.Start(c.t.Context(), filepath.Join(c.dir, "postgres"), quiet()); err != nil {
		c.t.Fatal(err)
	}
}

// killPostgres kills the whole server, and starts it again.
func (c *crashing) killPostgres() {
	c.unwritten()
	file, err := os.ReadFile(filepath.Join(c.dir, "postgres", "data", "postmaster.pid"))
	if err != nil {
		c.t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(file), "\n")
	c.sigkill(first)
	stopPostgres(c.t, c.postgres) // gives the directory up
	c.startPostgres()
}

// killBackend kills one process of the server, which then ends all others and recovers.
func (c *crashing) killBackend() {
	pids, err := retried(c, "SELECT pid::text FROM pg_stat_activity WHERE application_name = 'purser-projector'", pgx.RowTo[string])
	if err != nil {
		c.t.Fatal(err)
	}
	if len(pids) == 0 {
		return // between two crashes nobody has connected yet
	}
	c.unwritten()
	c.sigkill(pids[c.rng.IntN(len(pids))])
}

func (c *crashing) sigkill(pid string) {
	c.t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil || n < 2 {
		c.t.Fatalf("no pid: %q", pid)
	}
	_ = syscall.Kill(n, syscall.SIGKILL) // a backend may have ended meanwhile
}

// unwritten notes what is about to be lost: what was committed, and is nowhere but in the memory of Postgres.
func (c *crashing) unwritten() {
	c.t.Helper()
	bytes, err := retried(c, "SELECT (pg_current_wal_insert_lsn() - pg_current_wal_lsn())::bigint", pgx.RowTo[int64])
	if err != nil {
		c.t.Fatal(err)
	}
	if bytes[0] > 0 {
		c.losses++
	}
}

// retried asks Postgres until it answers.
func retried[T any](c *crashing, sql string, row pgx.RowToFunc[T]) (all []T, err error) {
	for deadline := time.Now().Add(takeOver); ; time.Sleep(20 * time.Millisecond) {
		var rows pgx.Rows
		if rows, err = c.pool.Query(c.t.Context(), sql); err == nil {
			if all, err = pgx.CollectRows(rows, row); err == nil {
				return all, nil
			}
		}
		if time.Now().After(deadline) {
			return nil, err
		}
	}
}

// settled waits until every read model has applied the whole log.
func (c *crashing) settled() {
	c.t.Helper()
	head, err := c.log.Head(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	eventually(c.t, catchUp, func() error {
		var there int
		if err := c.pool.QueryRow(c.t.Context(), `SELECT count(*) FROM consumer.checkpoints JOIN consumer.live USING (build) WHERE position >= $1`, head).Scan(&there); err != nil {
			return err
		}
		if want := 16 * len(readmodel.Models()); there != want {
			return fmt.Errorf("%d of %d partitions have come to %d", there, want, head)
		}
		return nil
	})
}

// orders is a load: orders that are placed, reserved, paid, confirmed and cancelled.
type orders struct {
	clients
	log    *eventlog.Log
	stop   func()
	placed atomic.Int64
}

func (c *crashing) load() *orders {
	c.t.Helper()
	key := filepath.Join(c.dir, "secret")
	if _, err := secret.LoadOrCreate(key); err != nil {
		c.t.Fatal(err)
	}
	offset := freeOffset(c.t)
	dial := func(service string, p ports) *grpc.ClientConn {
		p = p.offset(offset)
		runPurser(c.t, service, "--grpc-port", strconv.Itoa(p.grpc), "--http-port", strconv.Itoa(p.http), "--eventstore-url", c.storeURL, "--secret-file", key)
		addr, _ := p.on(loopback)
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
		if err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(func() { conn.Close() })
		return conn
	}
	write := dial("write", writePorts)
	o := &orders{log: c.log, clients: clients{
		catalog: catalogv1.NewCatalogServiceClient(write), orders: orderv1.NewOrderServiceClient(write),
		inventory: inventoryv1.NewInventoryServiceClient(dial("inventory", inventoryPorts)),
	}}
	products := []string{o.stocked(c.t, 1_000_000), o.stocked(c.t, 1_000_000), o.stocked(c.t, 1_000_000)}
	ctx, cancel := context.WithCancel(c.t.Context())
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for n := i; ctx.Err() == nil; n++ {
				if err := o.one(context.WithoutCancel(ctx), products[n%len(products)], n); err != nil {
					c.t.Error(err)
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	o.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	c.t.Cleanup(o.stop)
	return o
}

// one brings an order to one of several ends.
func (o *orders) one(ctx context.Context, product string, n int) error {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	placed, err := o.orders.PlaceOrder(ctx, orderOf(product, int64(1+n%3), "pm_card_visa"))
	if err != nil {
		return fmt.Errorf("place: %w", err)
	}
	o.placed.Add(1)
	id := placed.GetOrderId()
	if _, err := o.inventory.ReserveStock(ctx, &inventoryv1.ReserveStockRequest{
		RequestId: uuid.NewString(), ProductId: product, OrderId: id, Quantity: int64(1 + n%3),
	}); err != nil {
		return fmt.Errorf("reserve: %w", err)
	}
	// What the other services would record.
	for _, m := range []proto.Message{
		&fulfillmentevent.LineReserved{OrderId: id, ProductId: product, Quantity: int64(1 + n%3)},
		&paymentevent.AuthorizationRequested{OrderId: id, CustomerId: "c-1", Amount: placed.GetTotal()},
		&paymentevent.PaymentAuthorized{OrderId: id},
	} {
		if err := o.append(ctx, id, m); err != nil {
			return err
		}
	}
	if n%4 > 0 {
		if _, err := o.orders.ConfirmOrder(ctx, &orderv1.ConfirmOrderRequest{RequestId: uuid.NewString(), OrderId: id}); err != nil {
			return fmt.Errorf("confirm: %w", err)
		}
	}
	if n%2 > 0 {
		if _, err := o.orders.CancelOrder(ctx, &orderv1.CancelOrderRequest{RequestId: uuid.NewString(), OrderId: id, Reason: "no longer wanted"}); err != nil {
			return fmt.Errorf("cancel: %w", err)
		}
	}
	return nil
}

// append appends an event to that stream of an order to which it belongs.
func (o *orders) append(ctx context.Context, order string, m proto.Message) error {
	// The packages of event messages are purser.<area>.event.v1, and an order's areas are its categories.
	stream := eventlog.StreamName(string(m.ProtoReflect().Descriptor().ParentFile().Package().Parent().Parent().Name()), order)
	stored, err := o.log.Read(ctx, stream, 0, 0)
	if err == nil {
		_, err = o.log.Append(ctx, stream, eventlog.Revision(len(stored)-1), []eventlog.NewEvent{{
			ID: uuid.New(), Message: m, Meta: eventlog.Metadata{OccurredAt: time.Now()},
		}})
	}
	if err != nil {
		return fmt.Errorf("append to %s: %w", stream, err)
	}
	return nil
}
