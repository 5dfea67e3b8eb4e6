// Package write serves the commands of the catalogue and of orders: it appends to product-* and order-*.
//
// It keeps nothing of its own: any number of replicas may run.
package write

import (
	"context"
	"log/slog"
	"time"

	"github.com/purserhq/purser/internal/aggregate"
	"github.com/purserhq/purser/internal/daemon"
	"github.com/purserhq/purser/internal/domain/catalog"
	"github.com/purserhq/purser/internal/domain/order"
	"github.com/purserhq/purser/internal/eventlog"
	"github.com/purserhq/purser/internal/eventschema"
	"github.com/purserhq/purser/internal/rpc"
	"github.com/purserhq/purser/internal/secret"
	catalogv1 "github.com/purserhq/purser/proto/purser/catalog/v1"
	orderv1 "github.com/purserhq/purser/proto/purser/order/v1"
)

// Config says where the service listens, as host:port.
type Config struct {
	GRPCAddr, HTTPAddr string
}

// New returns the service. It is ready while the event log answers.
func New(cfg Config, log *eventlog.Log, s *secret.Secret, logger *slog.Logger, m *rpc.Metrics) daemon.Service {
	products := aggregate.New[catalog.State](log, eventschema.Product, s, time.Now)
	orders := aggregate.New[order.State](log, eventschema.Order, s, time.Now)
	g := rpc.NewServer("write", logger, m)
	prices := newPrices(products)
	catalogv1.RegisterCatalogServiceServer(g, &catalogServer{products: products, prices: prices})
	orderv1.RegisterOrderServiceServer(g, &orderServer{orders: orders, prices: prices, secret: s})
	return daemon.Service{
		Name: "write", GRPC: g, GRPCAddr: cfg.GRPCAddr, HTTPAddr: cfg.HTTPAddr,
		Ready: log.Ping,
		Run:   []func(context.Context) error{func(ctx context.Context) error { return prices.run(ctx, log) }},
	}
}
