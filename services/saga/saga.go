// Package saga brings orders to their end: it reserves their stock, has their payment authorized and confirms them, or
// undoes all that and rejects or cancels them.
//
// What is to be done is decided in package fulfillment and derived from the log: a consumer folds the events of orders,
// payments and fulfilments into a state for each order, and the union of what the states still want done is the to-do
// list, in Postgres. The executor works the list off as calls to the other services. What a call causes comes back as
// an event and changes the list; an answer that no other stream records is recorded in the order's own fulfilment stream.
//
// So the log alone determines the saga. Nothing is known only here: an item that was lost sight of is still on the list
// and is done again under the same request id, without a second effect. A service that does not answer is asked again for
// ever, with back-off, and rejects no order. Any number of replicas may run: each does the items of the orders whose
// partitions are its own, and none before its list has caught up with the log.
package saga

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/daemon"
	"github.com/purserhq/purser/internal/domain/fulfillment"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/postgres"
	"github.com/purserhq/purser/internal/readmodel"
	"github.com/purserhq/purser/internal/rpc"
	"github.com/purserhq/purser/internal/secret"
	fulfillmentv1 "github.com/purserhq/purser/proto/purser/fulfillment/v1"
	inventoryv1 "github.com/purserhq/purser/proto/purser/inventory/v1"
	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
	paymentv1 "github.com/purserhq/purser/proto/purser/payment/v1"
)

// Config says where the service listens and where it finds the others, as host:port, and where its tables are.
type Config struct {
	GRPCAddr, HTTPAddr                          string
	WriteTarget, InventoryTarget, PaymentTarget string
	PostgresURL                                 string
	// StatementTimeout ends a query for an operator that takes longer; 0 leaves it to the server.
	StatementTimeout time.Duration
}

// Metrics are what the service measures and counts with others in its process.
type Metrics struct {
	RPC      *rpc.Metrics
	Consumer *consumer.Metrics
	Registry prometheus.Registerer
}

// New returns the service, which is ready once its to-do list has caught up with the log. It fails only for a bad URL
// or target; what is down is waited for.
func New(cfg Config, log *eventlog.Log, s *secret.Secret, logger *slog.Logger, m Metrics) (daemon.Service, error) {
	pool, err := postgres.Open(cfg.PostgresURL, "saga", 0)
	if err != nil {
		return daemon.Service{}, err
	}
	reads, err := postgres.Open(cfg.PostgresURL, "saga-reads", cfg.StatementTimeout) // which don't hold up the work
	if err != nil {
		pool.Close()
		return daemon.Service{}, err
	}
	var conns []*grpc.ClientConn
	closeAll := func() {
		for _, c := range conns {
			c.Close()
		}
		reads.Close()
		pool.Close()
	}
	for _, peer := range []struct{ target, service string }{
		{cfg.InventoryTarget, "inventory"}, {cfg.PaymentTarget, "payment"}, {cfg.WriteTarget, "write"},
	} {
		conn, err := rpc.Dial(peer.target, peer.service, logger, m.RPC)
		if err != nil {
			closeAll()
			return daemon.Service{}, fmt.Errorf("dial the %s service: %w", peer.service, err)
		}
		conns = append(conns, conn)
	}
	c := consumer.New(pool, log, "saga", eventschema.Categories(), Models(), logger, m.Consumer)
	e := &executor{
		list: list{pool: pool, reader: consumer.NewReader(pool), timeout: listTimeout},
		steps: steps{
			inventory: inventoryv1.NewInventoryServiceClient(conns[0]),
			payments:  paymentv1.NewPaymentServiceClient(conns[1]),
			orders:    orderv1.NewOrderServiceClient(conns[2]),
		},
		answers: aggregate.New[fulfillment.Answers](log, eventschema.Fulfillment, s, time.Now),
		level:   func() []int { return c.Level(states.Name) }, changed: c.Changed(), clock: time.Now, log: logger, metrics: newMetrics(m.Registry),
		lanes: newLanes(),
	}
	g := rpc.NewServer("saga", logger, m.RPC)
	fulfillmentv1.RegisterFulfillmentServiceServer(g, &server{models: readmodel.NewQueries(reads, s)})
	return daemon.Service{
		Name: "saga", GRPC: g, GRPCAddr: cfg.GRPCAddr, HTTPAddr: cfg.HTTPAddr,
		Ready: c.Ready,
		Run:   []func(context.Context) error{c.Run, e.run},
		Close: closeAll,
	}, nil
}

func newLanes() []*lane {
	return []*lane{newLane("inventory", inventorySteps), newLane("payment", paymentSteps), newLane("write", orderSteps)}
}
