// Package query answers reads from the read models.
//
// It changes nothing and keeps nothing, but which orders are being watched by whom: any number of replicas may run. A read that comes with a consistency token waits,
// as long as its deadline allows, until the read models it answers from have applied everything up to that token.
//
// An order as it was is folded from the event log, which nothing else here needs: while the event store is away, only that
// is UNAVAILABLE.
package query

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/purserhq/purser/internal/consumer"
	"github.com/purserhq/purser/internal/daemon"
	"github.com/purserhq/purser/internal/postgres"
	"github.com/purserhq/purser/internal/readmodel"
	"github.com/purserhq/purser/internal/rpc"
	"github.com/purserhq/purser/internal/secret"
	queryv1 "github.com/purserhq/purser/proto/purser/query/v1"
)

// Config says where the service listens, as host:port, and how it uses Postgres.
type Config struct {
	GRPCAddr, HTTPAddr string
	PostgresURL        string
	// StatementTimeout ends a query that takes longer; 0 leaves it to the server.
	StatementTimeout time.Duration
}

// Metrics are what the service measures and counts with others in its process.
type Metrics struct {
	RPC      *rpc.Metrics
	Registry prometheus.Registerer
}

// New returns the service, which is ready while Postgres answers and has live builds of all that this one reads. It fails only
// for a bad URL; a Postgres that is down is waited for.
func New(cfg Config, log consumer.History, s *secret.Secret, logger *slog.Logger, m Metrics) (daemon.Service, error) {
	pool, err := postgres.Open(cfg.PostgresURL, "query", cfg.StatementTimeout)
	if err != nil {
		return daemon.Service{}, err
	}
	models := readmodel.NewQueries(pool, s)
	watches := readmodel.NewOrderWatches(models, logger, m.Registry)
	g := rpc.NewServer("query", logger, m.RPC)
	queryv1.RegisterQueryServiceServer(g, &server{models: models, past: readmodel.NewPastOrders(log), watches: watches})
	return daemon.Service{
		Name: "query", GRPC: g, GRPCAddr: cfg.GRPCAddr, HTTPAddr: cfg.HTTPAddr,
		Ready: func(ctx context.Context) error { return ready(ctx, models) },
		Run:   []func(context.Context) error{watches.Run},
		Drain: watches.Stop,
		Close: pool.Close,
	}, nil
}

func ready(ctx context.Context, models *readmodel.Queries) error {
	missing, err := models.Missing(ctx)
	if err != nil {
		return fmt.Errorf("ask for the read models: %w", postgres.Explain(err))
	}
	if len(missing) > 0 {
		return fmt.Errorf("no build yet of %s", strings.Join(missing, ", "))
	}
	return nil
}

type server struct {
	queryv1.UnimplementedQueryServiceServer
	models  *readmodel.Queries
	past    *readmodel.PastOrders
	watches *readmodel.OrderWatches
}
