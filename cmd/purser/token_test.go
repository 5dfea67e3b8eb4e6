package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/purserhq/purser/internal/localpostgres/pgtest"
	"github.com/purserhq/purser/internal/secret"
	catalogv1 "github.com/purserhq/purser/proto/purser/catalog/v1"
	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
	typev1 "github.com/purserhq/purser/proto/purser/type/v1"
)

// deployment is services in processes of their own, on one event store and one database.
type deployment struct {
	dir, store, database string
}

func newDeployment(t *testing.T) *deployment {
	t.Helper()
	if testing.Short() {
		t.Skip("starts many processes")
	}
	d := &deployment{dir: t.TempDir(), database: pgtest.Database(t)}
	d.store = startStore(t, d.dir, loopback+":0").addr
	if _, err := secret.LoadOrCreate(filepath.Join(d.dir, "secret")); err != nil {
		t.Fatal(err)
	}
	return d
}

// replica is one process of a service.
type replica struct {
	clients
	grpc string
	http string
	stop func() // as Ctrl-C does; a second does nothing
}

// start starts a replica of a service, with further arguments, and stops it at the end of the test.
func (d *deployment) start(t *testing.T, service string, p ports, more ...string) *replica {
	t.Helper()
	p = p.offset(freeOffset(t))
	args := []string{service, "--grpc-port", strconv.Itoa(p.grpc), "--http-port", strconv.Itoa(p.http), "--eventstore-url", "esdb://" + d.store + "?tls=false"}
	if service != "write" {
		args = append(args, "--postgres-url", d.database)
	}
	if service != "projector" {
		args = append(args, "--secret-file", filepath.Join(d.dir, "secret"))
	}
	cmd := purser(context.Background(), append(args, more...)...)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addr, http := p.on(loopback)
	r := &replica{grpc: addr, http: http}
	var stopped atomic.Bool
	r.stop = func() {
		if stopped.Swap(true) {
			return
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the %s service did not stop cleanly: %v\n%s", service, err, &log)
		}
	}
	t.Cleanup(r.stop)
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	r.clients = clients{
		catalog: catalogv1.NewCatalogServiceClient(conn), orders: orderv1.NewOrderServiceClient(conn), query: queryv1.NewQueryServiceClient(conn),
	}
	return r
}

func (r *replica) ready(t *testing.T) {
	t.Helper()
	eventually(t, startTimeout, func() error {
		resp, err := http.Get("http://" + r.http + "/readyz")
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("/readyz says %s", resp.Status)
		}
		return nil
	})
}

// Read models can be shared out over projectors that run some each: each lists its own, and queries are answered once all of
// them are kept.
func TestProjectorsOfSomeModels(t *testing.T) {
	d := newDeployment(t)
	query, write := d.start(t, "query", queryPorts), d.start(t, "write", writePorts)
	first := d.start(t, "projector", projectorPorts, "--models=payments")
	first.ready(t)
	runs := func(p *replica, want ...string) {
		t.Helper()
		out, err := runCommand(t, "projection", "list", "--projector-addr", p.grpc)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, line := range strings.Split(strings.TrimSpace(out), "\n")[1:] {
			got = append(got, strings.Fields(line)[0])
		}
		if !slices.Equal(got, want) {
			t.Errorf("it runs %q, want %q", got, want)
		}
	}
	runs(first, "payments")
	if _, err := runCommand(t, "projection", "pause", "products", "--projector-addr", first.grpc); err == nil || err.Error() != `projection "products" is not run by this projector, which runs payments` {
		t.Errorf("an order to one that does not run the model: %v", err)
	}
	if _, err := runCommand(t, "health", query.http); err == nil {
		t.Error("the query service is ready, but not all read models are kept")
	}

	others := []string{"order_summaries", "order_details", "products", "stock_levels", "fulfillments", "order_timeline"}
	second := d.start(t, "projector", projectorPorts, "--models="+strings.Join(others, ","))
	for _, r := range []*replica{second, query, write} {
		r.ready(t)
	}
	runs(second, others...)
	placed, err := write.orders.PlaceOrder(t.Context(), orderOf(write.stocked(t, 0), 1, "pm_card_visa"))
	if err != nil {
		t.Fatal(err)
	}
	if err := shows(t.Context(), query, placed.GetOrderId(), placed, typev1.OrderState_ORDER_STATE_PLACED); err != nil {
		t.Error(err)
	}
}

// Whoever writes and at once reads with the token of the write sees it, every time, whichever replica answers and whichever
// keeps the read models. PURSER_TEST_SOAK has it tried ten times as often.
func TestAReadWithATokenSeesTheWrite(t *testing.T) {
	d := newDeployment(t)
	orders := 1000
	if os.Getenv("PURSER_TEST_SOAK") != "" {
		orders = 10_000
	}
	projectors := []*replica{d.start(t, "projector", projectorPorts), d.start(t, "projector", projectorPorts)}
	queries := []*replica{d.start(t, "query", queryPorts), d.start(t, "query", queryPorts)}
	write := d.start(t, "write", writePorts)
	for _, r := range append(queries, write) {
		r.ready(t)
	}
	product := write.stocked(t, 0)

	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(16)
	var last atomic.Value // the id of an order
	for n := range orders {
		g.Go(func() error {
			placed, err := write.orders.PlaceOrder(ctx, orderOf(product, 1, "pm_card_visa"))
			if err != nil {
				return err
			}
			last.Store(placed.GetOrderId())
			if err := shows(ctx, queries[n%2], placed.GetOrderId(), placed, typev1.OrderState_ORDER_STATE_PLACED); err != nil || n%4 > 0 {
				return err
			}
			cancelled, err := write.orders.CancelOrder(ctx, &orderv1.CancelOrderRequest{RequestId: uuid.NewString(), OrderId: placed.GetOrderId()})
			if err != nil {
				return err
			}
			return shows(ctx, queries[(n/4)%2], placed.GetOrderId(), cancelled, typev1.OrderState_ORDER_STATE_CANCELLING)
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}

	for _, p := range projectors {
		p.stop()
	}
	placed, err := write.orders.PlaceOrder(t.Context(), orderOf(product, 1, "pm_card_visa"))
	if err != nil {
		t.Fatal(err)
	}
	const patience = 3 * time.Second
	for _, q := range queries {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := q.get(ctx, placed.GetOrderId(), placed.GetConsistencyToken())
		wantError(t, err, codes.Unavailable, "PROJECTION_LAG")
		if ctx.Err() != nil {
			t.Error("the answer came after the deadline")
		}
		if o, err := q.get(t.Context(), last.Load().(string), ""); err != nil || o.GetOrderId() == "" {
			t.Errorf("without a token: %v, %v", o, err)
		}
	}

	d.start(t, "projector", projectorPorts) // and what was missed is caught up with
	eventually(t, settle, func() error {
		return shows(t.Context(), queries[0], placed.GetOrderId(), placed, typev1.OrderState_ORDER_STATE_PLACED)
	})
}

// shows fails unless a query with the token of a reply shows the order as the reply left it.
func shows(ctx context.Context, q *replica, id string, reply interface {
	GetEtag() string
	GetConsistencyToken() string
}, state typev1.OrderState) error {
	o, err := q.get(ctx, id, reply.GetConsistencyToken())
	if err != nil {
		return fmt.Errorf("order %s: %w", id, err)
	}
	if o.GetEtag() != reply.GetEtag() || o.GetState() != state {
		return fmt.Errorf("order %s is %s at %s, want %s at %s", id, o.GetState(), o.GetEtag(), state, reply.GetEtag())
	}
	return nil
}
